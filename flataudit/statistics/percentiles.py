"""A percentile of some values with the interval that order statistics give it, whatever their distribution."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from flataudit.statistics.means import Mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["percentile"]


def percentile(values: "NDArray[np.float64]", share: float, *, confidence: float = 0.95) -> Mean:
    """The value below which this share of independent values ``(n,)`` lies, interpolated between two of them.

    The interval lies between the order statistics X₍ₗ₎ and X₍ᵤ₎ with P(l ≤ B < u) ≥ `confidence`, B ~ Bin(n, share)
    (distribution-free, conservative for values that repeat). None where n is so small that no two values hold it: below
    72 for a 95th percentile at 95 %. The standard error is unknown.

    >>> percentile(np.arange(101.0), 0.5)
    Mean(estimate=50.0, standard_error=None, interval=(40.0, 60.0), n=101)
    >>> percentile(np.arange(10.0), 0.95).interval is None
    True
    """
    ordered, n, tail = np.sort(values), len(values), (1 - confidence) / 2
    estimate = float(np.quantile(ordered, share))
    low, high = int(binom.ppf(tail, n, share)) - 1, int(binom.ppf(1 - tail, n, share))
    interval = (float(ordered[low]), float(ordered[high])) if low >= 0 and high < n else None
    return Mean(estimate, None, interval, n)
