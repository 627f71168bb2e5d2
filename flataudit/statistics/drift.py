"""How far single features moved between two sets of inputs, as effect sizes with intervals; never a p-value.

With enough examples every difference is significant, so what matters is its size. Each function measures all features
at once; `Moved.worst` is the largest, whose interval holds all of them together, since the largest of many noisy
numbers is too large.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Moved", "kolmogorov_smirnov", "population_stability", "wasserstein"]


@dataclass(frozen=True, eq=False)
class Moved:
    """One measure of drift, for every feature."""

    estimates: "NDArray[np.float64]"
    """``(d,)``."""
    low: "NDArray[np.float64]"
    """``(d,)`` lower ends; all d intervals hold together with the confidence asked for."""
    high: "NDArray[np.float64]"
    """``(d,)`` upper ends."""
    by_chance: float
    """About what a feature shows on average that did not move at all, at these sizes."""

    @property
    def worst(self) -> int:
        """The feature with the largest estimate; the first of equals."""
        return int(np.argmax(self.estimates))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the largest true value over the features: from the highest lower end to the highest upper one."""
        return float(self.low.max()), float(self.high.max())


def kolmogorov_smirnov(
    reference: "NDArray[np.float64]", other: "NDArray[np.float64]", *, confidence: float = 0.95
) -> Moved:
    """Supremum of |F − G| of each feature; 0 to 1, exact on these examples. 2Φ(δ/2) − 1 for normals δ apart.

    The intervals hold at any size and for any distribution (Dvoretzky, Kiefer and Wolfowitz 1956, with the constant of
    Massart 1990, Bonferroni over features and the two sets), and are wide for that.

    Args:
        reference: ``(n, d)``.
        other: ``(m, d)``.
        confidence: at least this for all features together.

    >>> found = kolmogorov_smirnov(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]))
    >>> found.estimates.tolist(), found.interval
    ([0.5], (0.0, 1.0))
    """
    n, m = len(reference), len(other)
    estimates = np.array([_largest_step(x, y) for x, y in zip(reference.T, other.T, strict=True)])
    doubt = math.log(4 * reference.shape[1] / (1 - confidence)) / 2
    half = math.sqrt(doubt / n) + math.sqrt(doubt / m)
    low, high = np.maximum(estimates - half, 0.0), np.minimum(estimates + half, 1.0)
    return Moved(estimates, low, high, min(1.0, math.sqrt(math.pi / 2) * math.log(2) * math.sqrt(1 / n + 1 / m)))


def wasserstein(reference: "NDArray[np.float64]", other: "NDArray[np.float64]", *, confidence: float = 0.95) -> Moved:
    """W₁ = ∫ |F − G| of each feature, in standard deviations of the reference (of both together where that is 0).

    Exact on these examples; δ for normals δ deviations apart. The interval is normal, from the influence
    ∫_x sign(F − G) of each example (del Barrio et al. 1999); where a feature did not move, W₁ is biased upwards by
    about `Moved.by_chance` and its interval is rough. Arguments as in `kolmogorov_smirnov`.

    >>> wasserstein(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])).estimates.tolist()
    [3.0]
    """
    found = np.array([_earth_moved(x, y) for x, y in zip(reference.T, other.T, strict=True)])
    both = np.concatenate([reference, other])
    # A constant such as 0.1 has a deviation of rounding.
    spread, pooled = (np.where(np.ptp(rows, axis=0) > 0, rows.std(axis=0), 0.0) for rows in (reference, both))
    unit = np.where(spread > 0, spread, np.where(pooled > 0, pooled, 1.0))
    half = _joint_quantile(confidence, len(found)) * found[:, 1] / unit
    estimates = found[:, 0] / unit
    by_chance = _MEAN_AREA * math.sqrt(1 / len(reference) + 1 / len(other))
    return Moved(estimates, np.maximum(estimates - half, 0.0), estimates + half, by_chance)


def population_stability(
    reference: "NDArray[np.float64]", other: "NDArray[np.float64]", *, bins: int = 10, confidence: float = 0.95
) -> Moved:
    """Population stability index Σ (p − q) ln(p/q) of each feature over the reference's quantile bins.

    Jeffreys' divergence of the binned distributions: δ² for normals δ deviations apart as the bins become fine, less
    with few. Half an example is added to each bin, so that an empty one stays finite. Biased upwards by about
    (bins − 1)(1/n + 1/m), which is `Moved.by_chance`. Interval by the delta method. Other arguments as in
    `kolmogorov_smirnov`.

    >>> same = np.arange(100.0)[:, None]
    >>> population_stability(same, same).estimates.tolist()
    [0.0]
    """
    found = np.array([_stability(x, y, bins) for x, y in zip(reference.T, other.T, strict=True)])
    half = _joint_quantile(confidence, len(found)) * found[:, 1]
    by_chance = (bins - 1) * (1 / len(reference) + 1 / len(other))
    return Moved(found[:, 0], np.maximum(found[:, 0] - half, 0.0), found[:, 0] + half, by_chance)


_MEAN_AREA = 1.288
"""E ∫ |B(Φ(x))| dx = √(2/π) ∫ √(Φ(1 − Φ)) dx, B a Brownian bridge: W₁ of two samples of one unit normal, by √(1/n)."""


def _joint_quantile(confidence: float, features: int) -> float:
    return float(ndtri(1 - (1 - confidence) / (2 * features)))


def _steps(x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """All values in order, and F − G at each."""
    grid = np.unique(np.concatenate([x, y]))
    gap = np.searchsorted(np.sort(x), grid, side="right") / len(x)
    gap -= np.searchsorted(np.sort(y), grid, side="right") / len(y)
    return grid, gap


def _largest_step(x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> float:
    return float(np.abs(_steps(x, y)[1]).max())


def _earth_moved(x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> tuple[float, float]:
    """W₁ and its standard error, in the feature's own unit."""
    grid, gap = _steps(x, y)
    widths = np.diff(grid)
    signed = np.sign(gap[:-1]) * widths
    beyond = np.concatenate([np.cumsum(signed[::-1])[::-1], [0.0]])
    variance = sum(float(beyond[np.searchsorted(grid, values)].var()) / len(values) for values in (x, y))
    return float(np.abs(gap[:-1]) @ widths), math.sqrt(variance)


def _stability(x: "NDArray[np.float64]", y: "NDArray[np.float64]", bins: int) -> tuple[float, float]:
    """PSI and its standard error; repeated values share a bin."""
    edges = np.unique(np.quantile(x, np.arange(1, bins) / bins, method="inverted_cdf"))

    def shares(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1) + 0.5
        return np.asarray(counts / counts.sum())

    p, q = shares(x), shares(y)
    ratio = np.log(q / p)
    by_p, by_q = 1 - ratio - q / p, 1 + ratio - p / q
    variance = sum((w @ g**2 - (w @ g) ** 2) / n for w, g, n in ((p, by_p, len(x)), (q, by_q, len(y))))
    return float((q - p) @ ratio), math.sqrt(max(float(variance), 0.0))
