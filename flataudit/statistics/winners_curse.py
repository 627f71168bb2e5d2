"""The reported winner looks better than it is: how much so, and an estimate and interval that allow for the choice.

The best of k equal candidates exceeds its own mean by e_k standard deviations of what tells them apart. The closed
form below is for planning and for text. The estimate of an actual winner conditions on its having won, by the hybrid
of Andrews, Kitagawa and McCloskey (2024, "Inference on Winners"): near ties cost much, a clear winner costs nothing.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr, ndtri

from flataudit.errors import ConfigurationError
from flataudit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Winner", "corrected_winner", "correlation_of_candidates", "expected_maximum", "expected_optimism"]

_PROJECTION_SHARE = 0.1
"""Share of α spent on the bound for all candidates at once; the paper's choice."""
_UNBOUNDED = 8.0
"""Standard deviations that a single candidate is searched over."""
_LEAST_VARIANCE = 1e-12
_SAME = 1e-9
"""A candidate that moves with the winner up to this part is a copy: it neither wins nor loses alone."""


@dataclass(frozen=True)
class Winner:
    """The best of k observed means, as observed and corrected for having been chosen."""

    index: int
    """Column of the winner; the first of equals."""
    observed: float
    estimate: float
    """Half of the time too high, half of the time too low, given that this candidate won: median-unbiased."""
    interval: tuple[float, float]
    """Holds the winner's mean with the stated confidence, the choice allowed for."""
    observed_interval: tuple[float, float]
    """What would be reported without the correction; it covers too little."""


def expected_maximum(k: int) -> float:
    """e_k, the expected largest of k independent standard normal values: ∫ k x φ(x) Φ(x)ᵏ⁻¹ dx, by quadrature.

    Raises:
        ConfigurationError: k is below 1.

    >>> [round(expected_maximum(k), 2) for k in (1, 2, 5, 10, 20, 50)]
    [0.0, 0.56, 1.16, 1.54, 1.87, 2.25]
    """
    if k < 1:
        raise ConfigurationError("one candidate or more", got=str(k), remedy="count the candidates")
    value, _ = quad(lambda x: k * x * math.exp(-(x**2) / 2 + (k - 1) * float(log_ndtr(x))), -9, 9, limit=200)
    return float(value / math.sqrt(2 * math.pi))


def correlation_of_candidates(accuracy: float, discordance: float) -> float:
    """ρ = 1 − q/(2p(1 − p)), of the correctness of two candidates of accuracy p that differ on a share q.

    >>> round(correlation_of_candidates(0.9, 0.06), 4)
    0.6667
    """
    return 1 - discordance / (2 * accuracy * (1 - accuracy))


def expected_optimism(accuracy: float, n: int, k: int, *, correlation: float = 0.0) -> float:
    """E[max] − p = √(p(1 − p)/n) √(1 − ρ) e_k: by how much the best of k equal candidates flatters itself.

    The most that it can be on average: candidates that differ in accuracy give less.

    Args:
        accuracy: p, of all k.
        n: examples.
        k: candidates.
        correlation: ρ of the correctness of two candidates.

    >>> round(expected_optimism(0.9, 2000, 10, correlation=correlation_of_candidates(0.9, 0.06)), 4)
    0.006
    """
    return math.sqrt(accuracy * (1 - accuracy) / n) * math.sqrt(max(1 - correlation, 0.0)) * expected_maximum(k)


def corrected_winner(values: "NDArray[np.float64]", *, confidence: float = 0.95) -> Winner:
    """The candidate with the largest mean, with the hybrid conditional estimate and interval.

    Given that column w won, and given what is independent of its mean y, y is a normal value cut off below where
    another column would have won. The interval holds the means μ under which y lies between the outer quantiles of
    that cut normal. The hybrid also cuts at |y − μ| ≤ c σ, with c the Šidák bound for k candidates at a tenth of α,
    which keeps the interval within that bound. Approximate: normal, with the estimated correlations; for 0/1 values
    σ² = μ(1 − μ)/n as in a score interval, and with one candidate this is Wilson's.

    Args:
        values: ``(n, k)`` per example and candidate, higher is better (correctness, score).
        confidence: two-sided coverage.

    Raises:
        ConfigurationError: not two axes, under two examples, a value that is not a number, or a winner that has one
            value throughout, other than 0 or 1.

    >>> alone = corrected_winner(np.array([[1.0], [2.0], [3.0], [4.0]]))
    >>> round(alone.estimate, 9) == alone.observed
    True
    """
    _refuse(values)
    n, k = values.shape
    y = values.mean(axis=0)
    w, z = int(np.argmax(y)), float(ndtri((1 + confidence) / 2))
    binary = bool(((values == 0) | (values == 1)).all())
    lowest, highest = _cuts(values, w, half_step=0.5 / n if binary else 0.0)
    alpha = 1 - confidence
    beta = _PROJECTION_SHARE * alpha if k > 1 else 0.0
    inner = (alpha - beta) / (1 - beta)
    bound = float(ndtri((1 + (1 - beta) ** (1 / k)) / 2)) if beta else _UNBOUNDED
    deviation = math.sqrt(float(np.var(values[:, w], ddof=1)) / n)

    def probability(mu: float) -> float:
        sigma = math.sqrt(max(mu * (1 - mu), _LEAST_VARIANCE) / n) if binary else deviation
        return _cut_normal(float(y[w]), mu, sigma, lowest, highest, bound)

    def around(width: float) -> tuple[float, float]:
        if binary:
            return wilson_interval(float(y[w]), n, confidence=float(2 * ndtr(width) - 1))
        return float(y[w]) - width * deviation, float(y[w]) + width * deviation

    reach = around(bound) if beta or not binary else (0.0, 1.0)
    low, middle, high = (_solve(probability, level, reach) for level in (1 - inner / 2, 0.5, inner / 2))
    return Winner(w, float(y[w]), middle, (low, high), around(z))


def _refuse(values: "NDArray[np.float64]") -> None:
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 1 or not np.isfinite(values).all():
        raise ConfigurationError(
            "finite values of shape (n, k) with n ≥ 2 examples",
            got=f"shape {values.shape}" if np.isfinite(values).all() else "NaN or infinity",
            remedy="stack the candidates' per-example values as columns",
        )
    winner = values[:, int(np.argmax(values.mean(axis=0)))]
    if float(np.ptp(winner)) == 0 and not ((values == 0) | (values == 1)).all():
        raise ConfigurationError(
            "a winner whose values vary", got=f"{winner[0]:g} on every example", remedy="its error is unknown"
        )


def _cuts(values: "NDArray[np.float64]", w: int, *, half_step: float) -> tuple[float, float]:
    """Between which means of w it wins, the part of the others that is independent of it being given.

    Means of 0/1 values move in steps of 1/n, and half a step is given to ties, as in any continuity correction. Copies
    of the winner cut nothing.
    """
    means = values.mean(axis=0)
    centred = values - means
    variance = float(centred[:, w] @ centred[:, w])
    shared = centred[:, w] @ centred / variance if variance > 0 else np.zeros(len(means))
    slope, lead = 1 - shared, means[w] - means + half_step
    copies = (values == values[:, w : w + 1]).all(axis=0) | (np.abs(slope) <= _SAME)
    others = [int(j) for j in np.flatnonzero(~copies)]
    thresholds = {j: float(means[w] - lead[j] / slope[j]) for j in others}
    lowest = max((thresholds[j] for j in others if slope[j] > 0), default=-math.inf)
    highest = min((thresholds[j] for j in others if slope[j] < 0), default=math.inf)
    return lowest, highest


def _cut_normal(y: float, mu: float, sigma: float, lowest: float, highest: float, bound: float) -> float:
    """P(Y ≤ y) of a normal value of mean μ, cut to [lowest, highest] and to μ ± bound σ."""
    a, b = max((lowest - mu) / sigma, -bound), min((highest - mu) / sigma, bound)
    t = (y - mu) / sigma
    if t <= a or t >= b:
        return float(t >= b)
    if a > 0:  # an upper tail keeps its digits when mirrored
        return float((ndtr(-a) - ndtr(-t)) / (ndtr(-a) - ndtr(-b)))
    return float((ndtr(t) - ndtr(a)) / (ndtr(b) - ndtr(a)))


def _solve(probability: "Callable[[float], float]", level: float, reach: tuple[float, float]) -> float:
    """The μ at which a falling probability passes the level, by bisection."""
    low, high = reach
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) > level else (low, middle)
    return (low + high) / 2
