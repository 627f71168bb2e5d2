"""Accuracy without labels from how candidates agree: agreement on the line (Baek et al. 2022).

For independently trained networks, accuracy before and after a shift often lies on one line in probit scale, and then
agreement between pairs lies on the same line, which needs no labels. Whether agreement lies on a line can be seen; that
accuracy then lies on it too is taken for granted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from scipy.special import ndtr, ndtri

from flataudit.evidence import Examined, Measurement, Metric, Outcome
from flataudit.statistics.agreement import (
    FEWEST_VOTERS,
    agreeing,
    comparable,
    unlabelled_sets,
    voters,
)
from flataudit.statistics.label_free import Estimated, guess
from flataudit.statistics.lines import Line
from flataudit.statistics.paired import bootstrap_means
from flataudit.statistics.samples import is_binary, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NEEDED_R2", "with_agreement_line"]

NEEDED_R2 = 0.95
"""Below this the authors found agreement to be no guide to accuracy."""
_METRIC = Metric(
    name="estimated_accuracy_line",
    unit="accuracy",
    better="higher",
    description="Accuracy by agreement on the line (Baek et al. 2022), if accuracy shifts as pairwise agreement does.",
)
_ASSUMPTION = "accuracy lies on the line of the candidates' pairwise agreement, in probit scale"
_MOST_FAMILIES = 20


@dataclass(frozen=True, eq=False)
class _Sets:
    """What one line is drawn from."""

    before: "NDArray[np.float64]"
    """``(n, pairs + candidates)`` on validation: agreement of each pair of families, then correctness."""
    after: "NDArray[np.float64]"
    """``(m, pairs)`` on the unlabelled set: agreement of each pair."""
    labels: tuple[str, ...]
    """Of the candidates, in the columns' order."""


def with_agreement_line(examined: Sequence[Examined], *, replicates: int = 200, seed: int = 0) -> tuple[Examined, ...]:
    """Each candidate with ``estimated_accuracy_line/<set>``, for every unlabelled set of a classifier.

    Φ(a Φ⁻¹(validation accuracy) + b), with the line a, b through Φ⁻¹ of the agreement on validation and on the set, a
    point for each pair of independent candidates (one of each family; the simple form, ALine-S). Not given for fewer
    than three independent candidates, or where the points' R² is below 0.95. Three points prove little: the number of
    pairs stands in the details. The error is unknown; its share from sampling is a bootstrap of the examples.

    Args:
        examined: all candidates, with ``predictions/<set>``, ``validation_predictions`` and ``validation_accuracy``.
        replicates: bootstrap resamples.
        seed: of the resampling.
    """
    evidences = {one.evidence.candidate.label: one.evidence for one in examined}
    for name in unlabelled_sets(examined):
        metric = _METRIC.of(name)
        after, refused = comparable(examined, f"predictions/{name}", name)
        before, refused_before = comparable(examined, "validation_predictions", "validation")
        right = _correctness(examined, before)
        shared = {label: after[label] for label in after if label in right}
        families = voters(shared, evidences)
        whole = _reason(shared, families)
        found: Mapping[str, Measurement] = {}
        if whole is None:
            sets = _sets(shared, before, right, [family[0] for family in families[:_MOST_FAMILIES]])
            generator = np.random.default_rng([seed, crc32(name.encode())])
            found = _estimated(metric, sets, replicates, generator)
        absent = {**refused_before, **refused}
        examined = [
            Examined(one.evidence.with_measurements([_of(one, metric, found, absent, whole)]), one.arrays)
            for one in examined
        ]
    return tuple(examined)


def _of(
    one: Examined,
    metric: Metric,
    found: Mapping[str, Measurement],
    absent: Mapping[str, str],
    whole: str | None,
) -> Measurement:
    label = one.evidence.candidate.label
    if label in found:
        return found[label]
    reason = absent.get(label) or whole or "there is no validation accuracy of it"
    return metric.missing(Outcome.NOT_APPLICABLE, reason)


def _correctness(
    examined: Sequence[Examined], before: Mapping[str, "NDArray[np.generic]"]
) -> dict[str, "NDArray[np.float64]"]:
    """0 or 1 for each validation example, of the candidates whose predictions on them are known."""
    kept = {one.evidence.candidate.label: values(one, "validation_accuracy") for one in examined}
    return {
        label: right
        for label, right in kept.items()
        if right is not None and label in before and len(right) == len(before[label]) and is_binary(right)
    }


def _reason(shared: Mapping[str, "NDArray[np.generic]"], families: Sequence[Sequence[str]]) -> str | None:
    """Why there is no line."""
    if any(kept.dtype.kind == "f" for kept in shared.values()):
        return "a regression has no accuracy"
    if len(families) < FEWEST_VOTERS:
        return f"{len(families)} independent candidates with known validation accuracy; a line needs {FEWEST_VOTERS}"
    return None


def _sets(
    after: Mapping[str, "NDArray[np.generic]"],
    before: Mapping[str, "NDArray[np.generic]"],
    right: Mapping[str, "NDArray[np.float64]"],
    voting: Sequence[str],
) -> _Sets:
    labels, pairs = tuple(after), list(combinations(voting, 2))
    columns = [agreeing(before[a], before[b]) for a, b in pairs] + [right[label] for label in labels]
    return _Sets(np.stack(columns, axis=1), np.stack([agreeing(after[a], after[b]) for a, b in pairs], axis=1), labels)


def _estimated(metric: Metric, sets: _Sets, replicates: int, generator: np.random.Generator) -> dict[str, Measurement]:
    n, m, pairs = len(sets.before), len(sets.after), sets.after.shape[1]
    before, after = _probit(sets.before.mean(axis=0), n), _probit(sets.after.mean(axis=0), m)
    line = Line.through(before[:pairs], after)
    if line is None or line.r_squared < NEEDED_R2 or line.slope <= 0:
        told = (
            "do not vary" if line is None else f"lie on no rising line (R² {line.r_squared:.2f} of {NEEDED_R2} needed)"
        )
        reason = f"the {pairs} pairwise agreements before and after the shift {told}"
        return {label: metric.missing(Outcome.NOT_APPLICABLE, reason) for label in sets.labels}
    drawn = _resampled(sets, replicates, generator)
    accuracies = sets.before.mean(axis=0)[pairs:]
    extra = {"r squared": line.r_squared, "pairs": float(pairs), "slope": line.slope}
    return {
        label: guess(
            metric,
            Estimated(float(ndtr(line.at(float(before[pairs + k])))), float(np.std(drawn[:, k], ddof=1)) or None),
            assumption=_ASSUMPTION,
            n=m,
            validation_accuracy=float(accuracies[k]),
            extra=extra,
        )
        for k, label in enumerate(sets.labels)
    }


def _resampled(sets: _Sets, replicates: int, generator: np.random.Generator) -> "NDArray[np.float64]":
    """``(R, candidates)`` estimates with other examples of both sets."""
    pairs = sets.after.shape[1]
    before = _probit(bootstrap_means(sets.before, replicates, generator), len(sets.before))
    after = _probit(bootstrap_means(sets.after, replicates, generator), len(sets.after))
    across = before[:, :pairs] - before[:, :pairs].mean(axis=1, keepdims=True)
    spread = np.maximum(np.square(across).sum(axis=1), 1e-12)
    slopes = (across * after).sum(axis=1) / spread
    intercepts = after.mean(axis=1) - slopes * before[:, :pairs].mean(axis=1)
    return np.asarray(ndtr(slopes[:, None] * before[:, pairs:] + intercepts[:, None]))


def _probit(shares: "NDArray[np.float64]", n: int) -> "NDArray[np.float64]":
    """Φ⁻¹, half an example away from 0 and 1."""
    return np.asarray(ndtri(np.clip(shares, 0.5 / n, 1 - 0.5 / n)))
