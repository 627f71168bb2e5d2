"""Intervals and tests for accuracies: score methods, which stay honest where the sample variance is zero.

A model that is right on all of 50 examples is not known to be perfect: Wald intervals say so, score intervals do not.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["mcnemar_p_value", "mcnemar_power", "tango_interval", "tango_intervals", "wilson_interval"]


def wilson_interval(share: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of one proportion (Wilson 1927).

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).

    Args:
        share: the observed proportion p.
        n: examples behind it; not whole for an effective number.
        confidence: two-sided coverage, approximate.

    >>> [round(end, 4) for end in wilson_interval(0.9, 100)]
    [0.8256, 0.9448]
    >>> [round(end, 4) for end in wilson_interval(1.0, 50)]
    [0.9287, 1.0]
    """
    z = float(ndtri((1 + confidence) / 2))
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def tango_interval(gained: int, lost: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the paired difference (gained − lost)/n of two accuracies (Tango 1998).

    The ends are the δ at which |gained − lost − nδ| = z √(n(2q̃(δ) + δ(1 − δ))), with q̃(δ) the probability of a loss
    that is most likely when the difference is δ; found by bisection to within 1e-15.

    Args:
        gained: examples on which only the second model is right.
        lost: examples on which only the first model is right.
        n: all shared examples.
        confidence: two-sided coverage, approximate.

    >>> [round(end, 4) for end in tango_interval(1, 7, 21)]
    [-0.5172, -0.026]
    """
    low, high = tango_intervals(gained, lost, n, confidence=confidence)
    return float(low), float(high)


def tango_intervals(
    gained: "ArrayLike", lost: "ArrayLike", n: int, *, confidence: float = 0.95
) -> "NDArray[np.float64]":
    """`tango_interval` of many tables at once: counts of any shape ``(…)`` to the ends ``(2, …)``.

    >>> tango_intervals([1, 7], [7, 1], 21).round(4).tolist()
    [[-0.5172, 0.026], [-0.026, 0.5172]]
    """
    z = float(ndtri((1 + confidence) / 2))
    b, c = np.broadcast_arrays(np.asarray(gained, dtype=np.float64), np.asarray(lost, dtype=np.float64))
    inside = np.stack([(b - c) / n] * 2)
    outside = np.stack([np.full(b.shape, -1.0), np.full(b.shape, 1.0)])
    for _ in range(60):
        middle = (outside + inside) / 2
        rejected = np.abs(b - c - n * middle) > z * _null_deviation(middle, b, c, n)
        outside, inside = np.where(rejected, middle, outside), np.where(rejected, inside, middle)
    return np.asarray((outside + inside) / 2)


def _null_deviation(
    delta: "NDArray[np.float64]", gained: "NDArray[np.float64]", lost: "NDArray[np.float64]", n: int
) -> "NDArray[np.float64]":
    """Standard deviation of gained − lost at a true difference of δ, by the restricted maximum likelihood."""
    linear = (2 * n - gained + lost) * delta - gained - lost
    root = np.sqrt(np.maximum(linear**2 + 8 * n * lost * delta * (1 - delta), 0.0))
    loss = (root - linear) / (4 * n)
    return np.asarray(np.sqrt(n * np.maximum(2 * loss + delta * (1 - delta), 0.0)))


def mcnemar_p_value(gained: "ArrayLike", lost: "ArrayLike") -> "NDArray[np.float64]":
    """Exact two-sided p-value of equal accuracies (McNemar 1947): a fair coin over the discordant examples.

    >>> mcnemar_p_value([10, 30, 5, 0], [25, 50, 15, 6]).round(5).tolist()
    [0.01667, 0.03299, 0.04139, 0.03125]
    """
    fewer, discordant = np.minimum(gained, lost), np.add(gained, lost)
    return np.minimum(1.0, 2 * np.asarray(binom.cdf(fewer, discordant, 0.5), dtype=np.float64))


def mcnemar_power(
    difference: float, discordance: float, n: int, *, confidence: float = 0.95, challengers: int = 1
) -> float:
    """Chance that n examples reject equal accuracies in the right direction by the exact test; itself exact.

    Σ over the discordant counts D ~ Bin(n, q) of P(p-value ≤ α/k, more gained than lost | gained ~ Bin(D, θ)),
    θ = (1 + Δ/q)/2. Below the closed form of `flataudit.planning.power_of_difference` by several points where few
    examples are discordant, since an exact test spends less than α (3.5 at q = .02 in the example).

    Args:
        difference: true Δ, more than 0.
        discordance: q, the share of examples on which correctness differs.
        n: examples.
        confidence: 1 − α.
        challengers: k, by which α is divided.

    >>> [round(mcnemar_power(0.01, q, n), 3) for q, n in ((0.02, 1568), (0.06, 4707))]
    [0.765, 0.786]
    """
    discordant = np.arange(n + 1)
    chance = binom.pmf(discordant, n, discordance)
    likely = discordant[chance > 1e-12]
    alpha = (1 - confidence) / challengers / 2
    fewest = binom.isf(alpha, likely, 0.5) + 1
    return float(chance[likely] @ binom.sf(fewest - 1, likely, (1 + difference / discordance) / 2))
