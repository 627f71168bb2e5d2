"""Is a value's stated distribution right? Proper scores, central intervals, and how often a quantile was not passed.

A `NormalForecast` or a `QuantileForecast` of n values answers the same three questions; which a model gives is its own
choice, and the CRPS of quantiles is an approximation by as many levels as there are.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Forecast", "NormalForecast", "QuantileForecast", "null_quantile_errors"]

_SAME = 1e-6
"""Levels that differ by less are the same."""


@dataclass(frozen=True, eq=False)
class NormalForecast:
    """A normal distribution a value."""

    mean: "NDArray[np.float64]"
    """``(n,)``"""
    deviation: "NDArray[np.float64]"
    """``(n,)`` standard deviations, 0 or more."""
    levels: tuple[float, ...] = tuple(k / 20 for k in range(1, 20))
    """At which the distribution is looked at."""

    def central(self, level: float) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """Ends of the central interval that should hold this share of the values, ``(n,)`` each."""
        half = float(ndtri((1 + level) / 2)) * self.deviation
        return self.mean - half, self.mean + half

    def below(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """``(n, levels)`` 1 where the value is at most the quantile of the level."""
        quantiles = self.mean[:, None] + self.deviation[:, None] * ndtri(np.array(self.levels))
        return np.asarray(values[:, None] <= quantiles, dtype=np.float64)

    def crps(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """∫ (F(t) − 1{t ≥ y})² dt of each value ``(n,)``, in its unit; exact (Gneiting & Raftery 2007, eq. 21).

        σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π), z = (y − μ)/σ; |y − μ| for σ = 0.

        >>> forecast = NormalForecast(np.zeros(2), np.array([1.0, 0.0]))
        >>> forecast.crps(np.array([0.0, 2.0])).round(4).tolist()
        [0.2337, 2.0]
        """
        apart = values - self.mean
        z = np.clip(apart / np.maximum(self.deviation, np.finfo(np.float64).tiny), -40.0, 40.0)
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        return np.asarray(apart * (2 * ndtr(z) - 1) + self.deviation * (2 * density - 1 / np.sqrt(np.pi)))


@dataclass(frozen=True, eq=False)
class QuantileForecast:
    """Some quantiles a value."""

    quantiles: "NDArray[np.float64]"
    """``(n, levels)``"""
    levels: tuple[float, ...]
    """Rising, between 0 and 1."""

    def central(self, level: float) -> "tuple[NDArray[np.float64], NDArray[np.float64]] | None":
        """As a normal forecast's; None where the two quantiles of the interval are not stated."""
        low, high = (self._place(0.5 + side * level / 2) for side in (-1, 1))
        return None if low is None or high is None else (self.quantiles[:, low], self.quantiles[:, high])

    def _place(self, level: float) -> int | None:
        return next((k for k, own in enumerate(self.levels) if abs(own - level) < _SAME), None)

    def below(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """``(n, levels)`` 1 where the value is at most the quantile."""
        return np.asarray(values[:, None] <= self.quantiles, dtype=np.float64)

    def crps(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """2 Σ_j w_j ρ_j(y − q_j) of each value ``(n,)``, ρ_j the pinball loss: the CRPS by its levels.

        CRPS = 2 ∫ ρ_α(y − q_α) dα (Gneiting & Ranjan 2011); w_j is the width of the levels nearest to level j, so that
        the weights add up to 1. With few levels the tails are guessed from the outermost quantiles.

        >>> forecast = QuantileForecast(np.array([[-1.0, 1.0]]), (0.25, 0.75))
        >>> forecast.crps(np.array([0.0])).tolist()
        [0.5]
        """
        levels = np.array(self.levels)
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
        apart = values[:, None] - self.quantiles
        pinball = np.maximum(levels * apart, (levels - 1) * apart)
        return np.asarray(2 * pinball @ np.diff(edges))

    @property
    def crossing(self) -> float:
        """Share of the values whose quantiles do not rise with their level."""
        return float(np.mean((np.diff(self.quantiles, axis=1) < 0).any(axis=1)))


Forecast = NormalForecast | QuantileForecast


def null_quantile_errors(
    levels: tuple[float, ...], n: int, replicates: int, generator: np.random.Generator
) -> "NDArray[np.float64]":
    """``(R,)`` mean |share at most the quantile − level| of n values that follow their stated distribution.

    >>> found = null_quantile_errors((0.5,), 100, 20_000, np.random.default_rng(0))
    >>> round(float(found.mean()), 3)  # √(2 · ¼ / 100π)
    0.04
    """
    chances = np.diff(np.concatenate([[0.0], levels, [1.0]]))
    shares = np.cumsum(generator.multinomial(n, chances, size=replicates), axis=1)[:, :-1] / n
    return np.asarray(np.abs(shares - np.array(levels)).mean(axis=1))
