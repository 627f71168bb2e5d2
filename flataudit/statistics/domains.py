"""How well one can tell from which of two sets an example comes: a classifier's AUC, and the kernel distance MMD².

Both see all features together. The classifier is a ridge logistic regression, always the same one whatever else is
installed, so that numbers compare between machines; it sees what a linear rule can see, and MMD² sees the rest.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, ndtri

from flataudit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Distance", "area_under_curve", "domain_auc", "kernel_distance", "ridge_logistic"]

_RIDGE = 1.0
"""Half the penalty of a squared standardised weight, in nats: weak for all but a handful of examples."""
_NEWTON_STEPS = 30


@dataclass(frozen=True)
class Distance:
    """A distance between two sets of inputs with its error."""

    estimate: float
    standard_error: float
    interval: tuple[float, float]
    n: int
    """Examples of both sets that were used."""


def domain_auc(
    reference: "NDArray[np.float64]",
    other: "NDArray[np.float64]",
    generator: np.random.Generator,
    *,
    folds: int = 5,
    confidence: float = 0.95,
) -> Distance:
    """AUC of telling the sets apart by a cross-fitted linear classifier; ½: cannot, 1: always.

    Φ(δ/√2) for normals δ apart, in the limit; below it by what the classifier has not learned. Each example is judged
    by a classifier that was not fitted to it; the AUC is the mean over folds. The standard error is DeLong's (1988)
    given the classifiers and leaves out their own variation: right from .6 on, a third too small for equal sets. The
    interval is Wilson's at the number of examples which that error amounts to, or at the smaller set where nothing
    varies.

    Args:
        reference: ``(n, d)``, with n ≥ `folds`.
        other: ``(m, d)``, with m ≥ `folds`.
        generator: assigns the folds.
        folds: how many.
        confidence: two-sided, approximate.
    """
    n, m = len(reference), len(other)
    rows, labels = np.concatenate([reference, other]), np.repeat([0.0, 1.0], [n, m])
    fold = np.concatenate([generator.permutation(np.arange(size) % folds) for size in (n, m)])
    areas, variances = [], []
    for held in range(folds):
        weights = ridge_logistic(rows[fold != held], labels[fold != held])
        scores, sides = rows[fold == held] @ weights, labels[fold == held]
        area, variance = area_under_curve(scores[sides == 0], scores[sides == 1])
        areas.append(area)
        variances.append(variance)
    estimate, error = float(np.mean(areas)), math.sqrt(sum(variances)) / folds
    effective = estimate * (1 - estimate) / error**2 if error > 0 else min(n, m)
    low, high = wilson_interval(estimate, max(effective, 1.0), confidence=confidence)
    if error == 0:
        error = (high - low) / (2 * float(ndtri((1 + confidence) / 2)))
    return Distance(estimate, error, (min(low, estimate), max(high, estimate)), n + m)


def ridge_logistic(rows: "NDArray[np.float64]", labels: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Weights ``(d,)`` of a logistic regression with an intercept, which is left out; Newton's method, halving steps.

    Penalised by half the squared norm of the weights of standardised columns, so that separable sets have an answer.

    Args:
        rows: ``(n, d)``; constant columns get weight 0.
        labels: ``(n,)`` of 0 and 1.
    """
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    unit = np.where(spread > 0, spread, np.inf)
    design = np.column_stack([(rows - centre) / unit, np.ones(len(rows))])
    penalty = np.append(np.full(rows.shape[1], _RIDGE), 1e-8)
    weights = np.zeros(len(penalty))

    def loss(at: "NDArray[np.float64]") -> float:
        logits = design @ at
        return float(np.logaddexp(0.0, logits).sum() - labels @ logits + 0.5 * penalty @ at**2)

    current = loss(weights)
    for _ in range(_NEWTON_STEPS):
        chance = expit(design @ weights)
        gradient = design.T @ (chance - labels) + penalty * weights
        hessian = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        share = 1.0
        while share > 1e-4 and loss(weights - share * step) > current:
            share /= 2
        found = loss(weights - share * step)
        if found >= current - 1e-9 * len(rows):
            break
        weights, current = weights - share * step, found
    return np.asarray(weights[:-1] / unit)


def area_under_curve(negatives: "NDArray[np.float64]", positives: "NDArray[np.float64]") -> tuple[float, float]:
    """P(positive > negative) + ½ P(equal), and the variance of that estimate (DeLong et al. 1988).

    >>> area_under_curve(np.array([0.0, 1.0]), np.array([1.0, 2.0]))[0]
    0.875
    """

    def beaten(by: "NDArray[np.float64]", others: "NDArray[np.float64]") -> "NDArray[np.float64]":
        ordered = np.sort(others)
        sides = np.searchsorted(ordered, by, side="left") + np.searchsorted(ordered, by, side="right")
        return np.asarray(sides / (2 * len(others)))

    above, below = beaten(positives, negatives), 1 - beaten(negatives, positives)
    spread = [float(v.var(ddof=1)) / len(v) if len(v) > 1 else 0.25 for v in (above, below)]
    return float(above.mean()), sum(spread)


def kernel_distance(
    reference: "NDArray[np.float64]", other: "NDArray[np.float64]", *, confidence: float = 0.95
) -> tuple[Distance, float]:
    """Squared maximum mean discrepancy (Gretton et al. 2012), unbiased, and the width of its Gaussian kernel.

    MMD² = E k(x, x′) + E k(y, y′) − 2 E k(x, y) with k = exp(−‖x − y‖²/2w²), w the median distance of all pairs. 0 in
    expectation for equal distributions, hence sometimes negative. For normals with unit covariance in d dimensions
    whose means are δ apart, 2 (w²/(w² + 2))^{d/2} (1 − exp(−δ²/(2w² + 4))). The error is that of a U-statistic, both
    orders (Hoeffding 1948), and holds where the sets are equal too.

    Args:
        reference: ``(n, d)``, n ≥ 2; memory grows with n².
        other: ``(n, d)``, as many.
        confidence: two-sided, by the normal distribution.
    """
    n = len(reference)
    rows = np.concatenate([reference, other])
    squares = np.square(rows).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0)
    width = math.sqrt(float(np.median(distances[np.triu_indices(2 * n, 1)]))) or 1.0
    kernel = np.exp(-distances / (2 * width**2))
    pairs = kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[:n, n:].T
    np.fill_diagonal(pairs, 0.0)
    ordered = n * (n - 1)
    estimate = float(pairs.sum()) / ordered
    second = max(float(np.square(pairs).sum()) / ordered - estimate**2, 0.0)
    first = max(float((pairs.sum(axis=1) / (n - 1)).var(ddof=1)) - second / (n - 1), 0.0)
    error = math.sqrt((4 * (n - 2) * first + 2 * second) / ordered)
    half = float(ndtri((1 + confidence) / 2)) * error
    return Distance(estimate, error, (estimate - half, estimate + half), 2 * n), width
