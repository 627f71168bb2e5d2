"""By how much a mean on one set of examples differs from the mean on another, independent one."""

import math

from scipy.special import ndtri

from flataudit.statistics.means import Mean

__all__ = ["gap"]


def gap(first: Mean, second: Mean, *, confidence: float = 0.95) -> Mean:
    """First minus second, for two means over different examples, from their own intervals.

    d − √((p₁ − l₁)² + (u₂ − p₂)²) to d + √((u₁ − p₁)² + (p₂ − l₂)²), the square-and-add limits of Zou and Donner
    (2008); with Wilson's intervals method 10 of Newcombe (1998). Approximate; never of width 0.

    Args:
        first: with an interval at `confidence`, in [0, 1].
        second: likewise.
        confidence: of both intervals and of the result.

    Returns:
        The difference; `n` is that of the smaller set, the error the interval's half width over z.

    >>> from flataudit.statistics.proportions import wilson_interval
    >>> means = [Mean(k / n, None, wilson_interval(k / n, n), n) for k, n in ((56, 70), (48, 80))]
    >>> [round(end, 4) for end in gap(*means).interval]
    [0.0524, 0.3339]
    """
    assert first.interval is not None and second.interval is not None
    (low, high), (other_low, other_high) = first.interval, second.interval
    difference = first.estimate - second.estimate
    below = math.hypot(first.estimate - low, other_high - second.estimate)
    above = math.hypot(high - first.estimate, second.estimate - other_low)
    error = (below + above) / (2 * float(ndtri((1 + confidence) / 2)))
    return Mean(difference, error, (difference - below, difference + above), min(first.n, second.n))
