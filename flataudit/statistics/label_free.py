"""Accuracy on inputs that nobody labelled, each estimate resting on an assumption that the inputs cannot check.

They agree with the truth where the shift leaves the model's confidence as honest as it was, and fail where it does
not: no estimate can be right for every shift (Garg et al. 2022, section 4). So a number here has a sampling error, and
beside it an error that nobody knows; a few dozen labels have none such.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flataudit.evidence import Measurement, Metric
from flataudit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "Estimated",
    "average_thresholded_confidence",
    "confidence_difference",
    "doubt_of_labels",
    "guess",
    "mano",
    "negative_entropies",
    "nuclear_norm",
]


@dataclass(frozen=True)
class Estimated:
    """A number from unlabelled inputs."""

    estimate: float
    sampling_error: float | None
    """Standard error from the examples alone, as if the assumption held; None where it cannot be told."""


def guess(
    metric: Metric,
    found: Estimated,
    *,
    assumption: str,
    n: int,
    validation_accuracy: float,
    extra: "Mapping[str, float | str] | None" = None,
) -> Measurement:
    """The measurement of an accuracy without labels: its error is unknown, and it says what it rests on.

    The sampling error is kept among the details, not as the standard error: no interval is given that a policy could
    take for one of the accuracy.
    """
    half = doubt_of_labels(found.estimate)
    return metric.measured(
        found.estimate,
        n=n,
        details={
            "assumption": assumption,
            "sampling error": found.sampling_error,
            "validation accuracy": validation_accuracy,
            "50 labels would give ±": half,
            **(extra or {}),
        },
        advice=f"label 50 of these inputs: they give the accuracy within ± {half:.2f}, without this assumption",
    )


def negative_entropies(log_probabilities: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Σ p ln p of each answer, ``(n, K)`` to ``(n,)``: 0 where it is certain, −ln K where it knows nothing.

    >>> negative_entropies(np.log([[0.5, 0.5]])).round(4).tolist()
    [-0.6931]
    """
    finite = np.maximum(log_probabilities, -745.0)
    return np.asarray((np.exp(log_probabilities) * finite).sum(axis=1))


def average_thresholded_confidence(
    scores: "NDArray[np.float64]",
    right: "NDArray[np.float64]",
    target: "NDArray[np.float64]",
    generator: np.random.Generator,
    *,
    replicates: int = 200,
) -> Estimated:
    """Share of the target above the threshold that leaves the validation errors below it (ATC, Garg et al. 2022).

    Assumes that one threshold of confidence parts as many right answers from wrong ones after the shift as before.
    Exact where the target is the validation set itself: of scores equal to the threshold the share counts that makes it
    so. The error is a bootstrap of both sets.

    Args:
        scores: ``(n,)`` confidence on validation, higher is surer; negative entropy was best in the paper.
        right: ``(n,)`` of 0 and 1 on validation.
        target: ``(m,)`` the same scores on the target.
        generator: of the bootstrap.
        replicates: resamples.

    >>> s, r = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 1.0, 1.0, 1.0])
    >>> average_thresholded_confidence(s, r, np.array([0.1, 0.3, 0.7, 0.1]), np.random.default_rng(0)).estimate
    0.5
    """
    n, m = len(scores), len(target)
    drawn = np.empty(replicates)
    for index in range(replicates):
        ours, theirs = generator.integers(n, size=n), generator.integers(m, size=m)
        drawn[index] = _above(scores[ours], float(right[ours].sum()), target[theirs])
    return Estimated(_above(scores, float(right.sum()), target), _varied(float(drawn.std(ddof=1))))


def confidence_difference(
    confidences: "NDArray[np.float64]", right: "NDArray[np.float64]", target: "NDArray[np.float64]"
) -> Estimated:
    """Validation accuracy minus the fall of the average confidence (DoC, Guillory et al. 2021), within [0, 1].

    Assumes that the model is as over- or underconfident after the shift as before. Arguments as in
    `average_thresholded_confidence`, with confidences as probabilities; the error is that of means.

    >>> confidence_difference(np.array([0.9, 0.7]), np.array([1.0, 1.0]), np.array([0.6, 0.4])).estimate
    0.7
    """
    estimate = float(np.mean(right) - np.mean(confidences) + np.mean(target))
    variance = float(np.var(right - confidences)) / len(right) + float(np.var(target)) / len(target)
    return Estimated(min(1.0, max(0.0, estimate)), _varied(math.sqrt(variance)))


def nuclear_norm(probabilities: "NDArray[np.float64]") -> Estimated:
    """‖P‖_* / √(n min(n, K)) of ``(n, K)`` answers: 1 where they are certain and spread evenly (Deng et al. 2023).

    Falls where the answers lose confidence and where they lose variety: for n ≥ K, certain answers that collapse into
    one class give 1/√K, uniform ones 1/K. The error is the delta method's for tr (PᵀP/n)^½.

    >>> nuclear_norm(np.eye(4)[[0, 0, 0, 0, 0]]).estimate, nuclear_norm(np.tile(np.eye(4), (3, 1))).estimate
    (0.5, 1.0)
    """
    n, classes = probabilities.shape
    roots, vectors = np.linalg.eigh(probabilities.T @ probabilities / n)
    singular = np.sqrt(np.maximum(roots, 0.0))
    scale = math.sqrt(min(n, classes))
    kept = singular > 1e-7 * singular.max()
    influence = 0.5 * (np.square(probabilities @ vectors[:, kept]) / singular[kept]).sum(axis=1)
    error = float(influence.std()) / math.sqrt(n) / scale
    return Estimated(float(singular.sum()) / scale, _varied(error))


def mano(probabilities: "NDArray[np.float64]", *, order: float = 4.0) -> float:
    """(mean over answers and classes of p⁴)^¼ (MaNo, Xie et al. 2024): confidence without dispersion.

    Its maximum, K^−¼, is reached by any certain answers, so that a collapse into one class looks as good as it gets:
    shown beside `nuclear_norm`, and not to be relied on.

    >>> round(mano(np.eye(4)[[0, 0, 0, 0, 0]]), 3), round(mano(np.eye(4)), 3)
    (0.707, 0.707)
    """
    return float(np.mean(probabilities**order) ** (1 / order))


def doubt_of_labels(accuracy: float, labels: int = 50) -> float:
    """Half width of Wilson's 95 % interval that so many labels of the target would give at this accuracy.

    >>> round(doubt_of_labels(0.8), 3)
    0.109
    """
    low, high = wilson_interval(accuracy, labels)
    return (high - low) / 2


def _above(scores: "NDArray[np.float64]", right: float, target: "NDArray[np.float64]") -> float:
    """Share of the target above the (n − right)-th smallest score, with the share of equals that validation has."""
    n = len(scores)
    if right <= 0:
        return 0.0
    wrong = min(max(math.ceil(n - right - 1e-9), 0), n - 1)
    threshold = np.partition(scores, wrong)[wrong]
    equal = float(np.mean(scores == threshold))
    counted = (right / n - float(np.mean(scores > threshold))) / equal
    return float(np.mean(target > threshold) + counted * np.mean(target == threshold))


def _varied(error: float) -> float | None:
    """None where nothing varied: that is not exactness."""
    return error if error > 1e-12 else None
