"""The error of a number that is a smooth function of means: write it as a mean of one value an answer, and take that's.

If T̂ is differentiable in the distribution of the answers, T̂ − T ≈ mean of the influences (Hampel 1974). The values here
are influences moved so that their mean *is* the estimate, so that they pair between candidates example by example, and
so that examples with several answers, or groups of examples, cost no more than a sum.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from flataudit.statistics.clusters import cluster_standard_error
from flataudit.statistics.means import Mean, mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["per_example", "value_mean"]


def value_mean(
    values: "NDArray[np.float64]",
    units: "NDArray[np.int64] | None" = None,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    more: float = 0.0,
    confidence: float = 0.95,
) -> Mean:
    """Mean of ``(N,)`` values with Student's interval, cut to what the number can be.

    Args:
        values: one an answer.
        units: ``(N,)`` the example of each answer; examples then count as independent, answers of one do not, and the
            error is cluster-robust (Liang & Zeger 1986); None: one answer an example.
        low: least that the number can be.
        high: most that it can be.
        more: variance of the number beyond that of the mean, where the expansion's second order matters; where the
            values do not vary it is all there is.
        confidence: two-sided coverage, approximate.

    Returns:
        n counts examples. Without variation error and interval are None: unknown.

    >>> value_mean(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]), low=0.0, high=1.0)
    Mean(estimate=0.5, standard_error=0.5, interval=(0.0, 1.0), n=2)
    """
    n, centre = (len(values) if units is None else len(np.unique(units))), float(np.mean(values))
    error = mean(values).standard_error if units is None else cluster_standard_error(values, units)
    if n < 2 or (error is None and not more):
        return Mean(centre, None, None, n)
    error = math.hypot(error or 0.0, math.sqrt(more))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    ends = (min(max(low, centre - half), high), max(min(high, centre + half), low))
    return Mean(centre, error, ends, n)


def per_example(
    values: "NDArray[np.float64]", units: "NDArray[np.int64] | None", examples: int
) -> "NDArray[np.float64]":
    """``(N,)`` values of answers as ``(examples,)`` values with the same mean; those without an answer give 0.

    >>> per_example(np.array([1.0, 2.0, 6.0]), np.array([0, 0, 2]), 3).tolist()
    [3.0, 0.0, 6.0]
    """
    if units is None:
        return values
    return np.asarray(np.bincount(units, weights=values, minlength=examples) * (examples / len(values)))
