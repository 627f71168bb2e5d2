"""A mean over examples with its error: what most metrics of a candidate are."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit

from flataudit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mean", "bounded_mean", "mean"]


@dataclass(frozen=True)
class Mean:
    """An estimated mean; its fields are those of a `Measurement`, so that ``metric.measured(**vars(mean))`` fits."""

    estimate: float
    standard_error: float | None
    """None where the values do not vary and nothing bounds them: unknown, not exact."""
    interval: tuple[float, float] | None
    n: int


def bounded_mean(values: "NDArray[np.float64]", *, confidence: float = 0.95) -> Mean:
    """Mean of values in [0, 1], ``(n,)``, with a Wilson interval at the effective number of examples.

    That number is p(1 − p) n / variance ≥ n: exactly n for values of 0 and 1, where this is the Wilson interval.
    Without variance it is n, and the standard error is the interval's half width over z, never 0.

    >>> round(bounded_mean(np.array([1.0] * 90 + [0.0] * 10)).standard_error, 4)
    0.03
    >>> bounded_mean(np.ones(50)).interval[0] > 0.9
    True
    """
    n, share, variance = len(values), float(np.mean(values)), float(np.var(values))
    share = min(1.0, max(0.0, share))
    effective = share * (1 - share) * n / variance if variance > 1e-24 else n
    low, high = wilson_interval(share, max(effective, n), confidence=confidence)
    low, high = min(low, share), max(high, share)
    exact = math.sqrt(variance / n) if variance > 1e-24 else (high - low) / (2 * float(ndtri((1 + confidence) / 2)))
    return Mean(share, exact, (low, high), n)


def mean(values: "NDArray[np.float64]", *, confidence: float = 0.95) -> Mean:
    """Mean of unbounded values, ``(n,)``, with Student's interval (approximate for skewed values).

    >>> result = mean(np.array([1.0, 2.0, 3.0]))
    >>> result.estimate, round(result.standard_error, 4), [round(end, 3) for end in result.interval]
    (2.0, 0.5774, [-0.484, 4.484])
    >>> mean(np.array([2.0, 2.0])).standard_error is None
    True
    """
    n, centre = len(values), float(np.mean(values))
    if n < 2 or float(np.ptp(values)) == 0:
        return Mean(centre, None, None, n)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    return Mean(centre, error, (centre - half, centre + half), n)
