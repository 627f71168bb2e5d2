"""Two candidates on the same examples: intervals and p-values of the mean difference.

Everything here is antisymmetric: exchanging the two candidates changes signs and nothing else, since the judge looks
at a pair from either side. Examples are resampled, never cells of examples × corruptions.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from flataudit.statistics.means import mean
from flataudit.statistics.proportions import mcnemar_p_value, tango_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ROUNDING",
    "Difference",
    "bca_interval",
    "bootstrap_means",
    "bootstrap_p_value",
    "bootstrapped",
    "no_variance",
    "paired_accuracy",
    "paired_t",
    "unpaired",
]

_CELLS = 2**20
"""Resampled indices held at once; bounds the memory to some 25 MB."""
_BOOTSTRAP = "paired BCa bootstrap of examples"
_RESOLVED = 10
"""Replicates that must lie beyond 0 for their share to be a p-value."""
ROUNDING = 1e-12
"""Differences that vary by no more do not vary."""


@dataclass(frozen=True)
class Difference:
    """Second minus first; the fields are those of a `Comparison`."""

    difference: float
    standard_error: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    n: int | None
    method: str
    reason: str | None = None


def paired_accuracy(
    first: "NDArray[np.float64]", second: "NDArray[np.float64]", *, confidence: float = 0.95
) -> Difference:
    """Difference of two accuracies from 0/1 correctness, ``(n,)`` each: Tango interval, exact McNemar p-value.

    The standard error is √((q − Δ²)/n), with q the share of discordant examples; where that is 0, the interval's half
    width over z: no observed discordance is not certainty.

    >>> result = paired_accuracy(np.array([0.0] * 10 + [1.0] * 90), np.array([1.0] * 100))
    >>> result.difference, round(result.standard_error, 2), round(result.p_value, 5)
    (0.1, 0.03, 0.00195)
    """
    n = len(first)
    gained, lost = int(np.sum(second > first)), int(np.sum(first > second))
    difference = (gained - lost) / n
    low, high = tango_interval(gained, lost, n, confidence=confidence)
    variance = (gained + lost) / n - difference**2
    error = math.sqrt(variance / n) if variance > ROUNDING else (high - low) / (2 * _z(confidence))
    return Difference(difference, error, (low, high), float(mcnemar_p_value(gained, lost)), n, "Tango 1998")


def paired_t(first: "NDArray[np.float64]", second: "NDArray[np.float64]", *, confidence: float = 0.95) -> Difference:
    """Mean difference of values ``(n,)`` with Student's paired interval and test.

    >>> round(paired_t(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])).p_value, 4)
    0.0742
    """
    differences = second - first
    found = mean(differences, confidence=confidence)
    if found.standard_error is None or found.interval is None:
        reason = f"all {found.n} differences are equal: their error is unknown"
        return Difference(found.estimate, None, None, None, found.n, "paired t", reason)
    p_value = 2 * float(stdtr(found.n - 1, -abs(found.estimate) / found.standard_error))
    return Difference(found.estimate, found.standard_error, found.interval, p_value, found.n, "paired t")


def bootstrapped(
    difference: float,
    influence: "NDArray[np.float64]",
    replicates: "NDArray[np.float64]",
    *,
    n: int,
    confidence: float = 0.95,
) -> Difference:
    """A difference with the BCa interval and the p-value of its bootstrap replicates.

    Args:
        difference: on the sample itself.
        influence: of each example on it, as for `bca_interval`; not all zero (`no_variance` is for that).
        replicates: ``(R,)`` differences on shared resampled examples (`bootstrap_means`).
        n: examples to be reported.
        confidence: two-sided coverage, approximate.
    """
    interval = bca_interval(replicates, difference, influence, confidence=confidence, units=n)
    error = float(np.std(replicates, ddof=1))
    return Difference(difference, error, interval, _p_value(replicates, difference, error, n), n, _BOOTSTRAP)


def no_variance(difference: float, n: int, *, confidence: float = 0.95) -> Difference:
    """All n differences of values in [0, 1] are equal: ± z²/(n + z²), Tango's interval without discordance.

    Equal on n examples is not equal for certain, so that the standard error is never 0.

    >>> np.allclose(no_variance(0.0, 100).interval, tango_interval(0, 0, 100), atol=1e-12)
    True
    """
    z = _z(confidence)
    half = z**2 / (n + z**2)
    interval = (max(-1.0, difference - half), min(1.0, difference + half))
    p_value = 2 * float(ndtr(-abs(difference) * z / half))
    return Difference(difference, half / z, interval, p_value, n, "bound for equal differences")


def unpaired(first: tuple[float, float], second: tuple[float, float], *, confidence: float = 0.95) -> Difference:
    """Normal interval of the difference of two ``(estimate, standard error)``, as if independent.

    Too wide where the two share examples and go up and down together, never too narrow then.
    """
    difference, error = second[0] - first[0], math.hypot(first[1], second[1])
    half = _z(confidence) * error
    p_value = 2 * float(ndtr(-abs(difference) / error)) if error > 0 else float(difference == 0)
    return Difference(difference, error, (difference - half, difference + half), p_value, None, "unpaired normal")


def from_intervals(
    first: tuple[float, float, float], second: tuple[float, float, float], *, confidence: float = 0.95
) -> Difference:
    """Second minus first of two independent ``(estimate, low, high)`` (method of variance estimates recovery).

    (d − √((e₂ − l₂)² + (u₁ − e₁)²), d + √((u₂ − e₂)² + (e₁ − l₁)²)), which keeps each interval's skewness (Zou & Donner
    2008); the standard error is the half width over z.

    >>> found = from_intervals((1.0, 0.5, 1.5), (3.0, 2.0, 4.0))
    >>> [round(end, 4) for end in found.interval]
    [0.882, 3.118]
    """
    gap = second[0] - first[0]
    low = gap - math.hypot(second[0] - second[1], first[2] - first[0])
    high = gap + math.hypot(second[2] - second[0], first[0] - first[1])
    error = (high - low) / (2 * _z(confidence))
    p_value = 2 * float(ndtr(-abs(gap) / error)) if error > 0 else float(gap == 0)
    return Difference(gap, error or None, (low, high), p_value, None, "recovered from two intervals")


def bootstrap_means(
    values: "NDArray[np.float64]", replicates: int, generator: np.random.Generator
) -> "NDArray[np.float64]":
    """Means of several columns on shared resampled examples (Efron 1979): ``(n, k)`` to ``(R, k)``.

    All columns see the same examples in the same replicate, so differences of columns are paired.

    >>> means = bootstrap_means(np.array([[0.0, 1.0], [1.0, 0.0]]), 5, np.random.default_rng(0))
    >>> means.sum(axis=1).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    n = len(values)
    rows = max(1, _CELLS // n)
    parts = []
    for start in range(0, replicates, rows):
        size = min(rows, replicates - start)
        drawn = generator.integers(0, n, size=(size, n))
        drawn += n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        parts.append(counts.astype(np.float64) @ values / n)
    return np.concatenate(parts)


def bca_interval(
    replicates: "NDArray[np.float64]",
    estimate: float,
    influence: "NDArray[np.float64]",
    *,
    confidence: float = 0.95,
    units: int | None = None,
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987).

    Args:
        replicates: ``(R,)`` bootstrap estimates.
        estimate: on the sample itself.
        influence: what each example contributes to the estimate's error; for a mean (x − x̄)/n. Its skewness gives
            the acceleration Σl³ / 6(Σl²)^1.5.
        confidence: two-sided coverage, approximate.
        units: independent examples or groups n that were resampled. With it the normal quantiles become
            √(n/(n − 1)) t(n − 1) (Hesterberg 2015), since a bootstrap of few units is too narrow by that.
    """
    tolerance = ROUNDING * max(1.0, abs(estimate))
    below, above = np.sum(replicates < estimate - tolerance), np.sum(replicates > estimate + tolerance)
    total = len(replicates)
    share = float(below + (total - above)) / (2 * total)
    bias = float(ndtri(min(max(share, 0.5 / total), 1 - 0.5 / total)))
    spread = float(np.sum(influence**2))
    acceleration = float(np.sum(influence**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    quantile = _z(confidence)
    if units is not None and units > 1:
        quantile = math.sqrt(units / (units - 1)) * float(stdtrit(units - 1, (1 + confidence) / 2))
    ends = bias + np.array([-1.0, 1.0]) * quantile
    levels = ndtr(bias + ends / np.maximum(1 - acceleration * ends, 1e-3))
    low, high = np.quantile(replicates, levels)
    return float(low), float(high)


def _p_value(replicates: "NDArray[np.float64]", difference: float, error: float, n: int) -> float:
    """The bootstrap's, as far as its replicates tell; beyond, Student's tail at the bootstrap's standard error.

    A level that many decisions and challengers share is smaller than 2 / (R + 1), which no R that is affordable passes.
    """
    found = bootstrap_p_value(replicates)
    if found > 2 * (_RESOLVED + 1) / (len(replicates) + 1) or error <= 0:
        return found
    return min(found, 2 * float(stdtr(n - 1, -abs(difference) / error)))


def bootstrap_p_value(replicates: "NDArray[np.float64]") -> float:
    """Two-sided p-value of no difference, 2(r + 1)/(R + 1) with r the replicates on the rarer side of 0.

    Never 0: more replicates are needed for a smaller one (Davison and Hinkley 1997, section 4.2).
    """
    rarer = min(int(np.sum(replicates <= ROUNDING)), int(np.sum(replicates >= -ROUNDING)))
    return min(1.0, 2 * (rarer + 1) / (len(replicates) + 1))


def _z(confidence: float) -> float:
    return float(ndtri((1 + confidence) / 2))
