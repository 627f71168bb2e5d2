"""Examples that come in groups (patients, writers, documents): resample groups, since their members err together.

With an intra-group correlation of r and m members a group, the variance of a mean is 1 + (m − 1)r times what
independent examples would give; every interval that resamples single examples is too narrow by the root of that.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from flataudit.errors import ConfigurationError
from flataudit.statistics.paired import ROUNDING, Difference, bca_interval, bootstrap_means, bootstrap_p_value
from flataudit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FEW_GROUPS",
    "ClusteredMean",
    "cluster_means",
    "cluster_standard_error",
    "clustered_difference",
    "clustered_mean",
]

FEW_GROUPS = 40
"""Below this many groups a bootstrap of groups covers too little (Cameron, Gelbach and Miller 2008); said as few."""


@dataclass(frozen=True)
class ClusteredMean:
    """A mean over grouped examples with its error."""

    estimate: float
    """Mean over examples, not over groups: large groups count more."""
    standard_error: float | None
    """Cluster-robust; None where it is unknown."""
    interval: tuple[float, float] | None
    n: int
    groups: int
    design_effect: float | None
    """Variance of the mean over the variance that independent examples would give; 1 where groups do not matter."""
    method: str
    warning: str | None
    """Says that the groups are few, and how many are wanted."""


def clustered_mean(
    values: "NDArray[np.float64]",
    groups: "NDArray[np.generic]",
    *,
    confidence: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> ClusteredMean:
    """Mean of ``(n,)`` values in ``(n,)`` groups, with a BCa bootstrap interval of whole groups.

    With fewer than 40 groups the interval is Student's with G − 1 degrees of freedom and the cluster-robust error
    instead, and `warning` says so. Approximate in either case.

    Args:
        values: per example; a constant in [0, 1] gets Wilson's interval at one example a group.
        groups: of each example, anything that sorts.
        confidence: two-sided coverage.
        replicates: bootstrap resamples.
        seed: of the resampling.

    Raises:
        ConfigurationError: the lengths differ, there is none, or a value is not a number.

    >>> found = clustered_mean(np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0]), np.array([1, 1, 2, 2, 3, 3]))
    >>> round(found.estimate, 4), round(found.standard_error, 4), found.groups, round(found.design_effect, 2)
    (0.6667, 0.3333, 3, 2.5)
    """
    sums, sizes = _totals(values, groups)
    n, count, estimate = len(values), len(sizes), float(np.mean(values))
    method, interval, _ = _interval(sums, sizes, confidence, replicates, seed)
    error = _robust_error(sums, sizes)
    if error is None and 0 <= estimate <= 1:
        low, high = wilson_interval(estimate, count, confidence=confidence)
        error, interval = (high - low) / (2 * float(ndtri((1 + confidence) / 2))), (low, high)
        method = "Wilson 1927, one example a group"
    spread = float(np.var(values, ddof=1)) / n if n > 1 else 0.0
    effect = error**2 / spread if error is not None and spread > ROUNDING else None
    return ClusteredMean(estimate, error, interval, n, count, effect, method, _few(count))


def clustered_difference(
    first: "NDArray[np.float64]",
    second: "NDArray[np.float64]",
    groups: "NDArray[np.generic]",
    *,
    confidence: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Difference:
    """Second minus first on the same grouped examples, ``(n,)`` each, as `clustered_mean` of the differences.

    The error of the difference is the bootstrap's, or the cluster-robust one with fewer than 40 groups; n counts
    examples. Exchanging the two candidates changes signs and nothing else. Raises as `clustered_mean` does.

    >>> g = np.repeat(np.arange(4), 5)
    >>> found = clustered_difference(np.zeros(20), np.tile([1.0, 0.0, 0.0, 0.0, 0.0], 4) + g / 10, g)
    >>> round(found.difference, 4), found.method
    (0.35, 'cluster-robust t of 4 groups')
    """
    changes = second - first
    sums, sizes = _totals(changes, groups)
    difference, n, count = float(np.mean(changes)), len(changes), len(sizes)
    method, interval, resampled = _interval(sums, sizes, confidence, replicates, seed)
    error = _robust_error(sums, sizes)
    if error is None:
        reason = f"the mean difference does not vary between {count} groups: its error is unknown"
        return Difference(difference, None, None, None, n, method, reason)
    if resampled is None:
        p_value = 2 * float(stdtr(count - 1, -abs(difference) / error))
    else:
        error, p_value = float(np.std(resampled, ddof=1)), bootstrap_p_value(resampled)
    return Difference(difference, error, interval, p_value, n, method)


def cluster_standard_error(values: "NDArray[np.float64]", groups: "NDArray[np.generic]") -> float | None:
    """Cluster-robust error of a mean: √(G/(G − 1) Σ_g (Σ_{i∈g} (x_i − x̄))²) / n (Liang and Zeger 1986).

    With groups of one this is s/√n. None with one group, or where the groups do not vary: unknown.

    >>> round(cluster_standard_error(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 2])), 4)
    0.5774
    """
    return _robust_error(*_totals(values, groups))


def cluster_means(
    values: "NDArray[np.float64]", groups: "NDArray[np.generic]", replicates: int, generator: np.random.Generator
) -> "NDArray[np.float64]":
    """Means of several columns on shared resampled groups: ``(n, k)`` and ``(n,)`` to ``(R, k)``.

    As many groups as there are, drawn with replacement, each with all of its examples; the mean is over the drawn
    examples, whose number varies where groups differ in size.
    """
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    sums = [np.asarray(np.bincount(index, weights=column), dtype=np.float64) for column in values.T]
    totals = np.stack([*sums, sizes], axis=1)
    drawn = bootstrap_means(totals, replicates, generator)
    return np.asarray(drawn[:, :-1] / drawn[:, -1:])


def _totals(
    values: "NDArray[np.float64]", groups: "NDArray[np.generic]"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Sum of the values and number of examples of each group, ``(G,)`` each."""
    if values.ndim != 1 or values.shape != np.shape(groups) or not len(values):
        raise ConfigurationError(
            "one value and one group for each example",
            got=f"shapes {values.shape} and {np.shape(groups)}",
            remedy="pass both as arrays of shape (n,)",
        )
    if not np.isfinite(values).all():
        raise ConfigurationError("finite values", got="NaN or infinity", remedy="leave out the metric")
    _, index = np.unique(groups, return_inverse=True)
    sums = np.asarray(np.bincount(index, weights=values), dtype=np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _robust_error(sums: "NDArray[np.float64]", sizes: "NDArray[np.float64]") -> float | None:
    n, count = float(sizes.sum()), len(sizes)
    residuals = sums - sizes * (sums.sum() / n)
    if count < 2 or float(np.abs(residuals).max()) <= ROUNDING * max(1.0, float(np.abs(sums).max())):
        return None
    return math.sqrt(count / (count - 1) * float(residuals @ residuals)) / n


def _interval(
    sums: "NDArray[np.float64]", sizes: "NDArray[np.float64]", confidence: float, replicates: int, seed: int
) -> "tuple[str, tuple[float, float] | None, NDArray[np.float64] | None]":
    """Method, ends and replicates: BCa over groups, Student's with few of them, none where the error is unknown."""
    count, estimate, error = len(sizes), float(sums.sum() / sizes.sum()), _robust_error(sums, sizes)
    if count < FEW_GROUPS or error is None:
        half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error if error is not None else None
        ends = None if half is None else (estimate - half, estimate + half)
        return f"cluster-robust t of {count} groups", ends, None
    drawn = bootstrap_means(np.stack([sums, sizes], axis=1), replicates, np.random.default_rng(seed))
    influence = (sums - sizes * estimate) / sizes.sum()
    resampled = drawn[:, 0] / drawn[:, 1]
    ends = bca_interval(resampled, estimate, influence, confidence=confidence, units=count)
    return f"BCa bootstrap of {count} groups", ends, resampled


def _few(count: int) -> str | None:
    if count >= FEW_GROUPS:
        return None
    return f"{count} groups are few: the interval is approximate; collect {FEW_GROUPS} groups or more"
