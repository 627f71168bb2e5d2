"""Corruptions of time series at five severities, in units of each channel's standard deviation and of the duration.

After the augmentations of Um et al. (2017), as faults: noise, a clock that runs unevenly, gaps, lost samples, drift,
a lower rate, a dead channel. Every function takes series ``(n, channels, time)`` in float64 and gives as many.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.graded import Graded
from flataudit.corruptions.sampling import along, coin, interpolation
from flataudit.corruptions.scale import blocks, steady

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SERIES_CORRUPTIONS", "SERIES_DEFAULTS", "Channels"]

_WAVES = 3
"""The clock gains and loses at most so many half periods; with the largest amount time still runs forward."""


@dataclass(frozen=True, eq=False)
class Channels:
    """Mean and standard deviation of each channel over the whole data set, ``(channels, 1)``."""

    mean: "NDArray[np.float64]"
    deviation: "NDArray[np.float64]"

    @classmethod
    def of(cls, series: "NDArray[np.generic]") -> "Channels":
        """Those of these series."""
        count = series.size / series.shape[1]
        parts = [series[part] for part in blocks(series)]
        mean = np.asarray(sum(part.astype(np.float64).sum(axis=(0, 2)) for part in parts))[:, None] / count
        squares = np.asarray(sum(np.square(part.astype(np.float64) - mean).sum(axis=(0, 2)) for part in parts))
        still, first = steady(series, (0, 2))[:, None], series[0, :, :1]
        return cls(np.where(still, first, mean), np.where(still, 0.0, np.sqrt(squares[:, None] / count)))


def jitter(scale: Channels, series: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Gaussian noise on each value; its standard deviation as a share of the channel's."""
    return series + amount * scale.deviation * draws.normals(series[0].size).reshape(series.shape)


def drift(scale: Channels, series: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each channel drifts up or down, from nothing to as many of its standard deviations at the end."""
    n, channels, time = series.shape
    ramp = np.arange(time) / max(1, time - 1)
    signs = coin(draws.uniforms(channels)).reshape(n, channels, 1)
    return np.asarray(series + amount * scale.deviation * ramp * signs)


def warp(scale: Channels, series: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """The clock gains or loses up to this share of the duration, in one to three swings; both ends stay."""
    time = series.shape[2]
    drawn = draws.uniforms(2)
    swings = 1 + np.floor(drawn[:, :1] * _WAVES)
    steps = np.arange(time)
    wave = np.sin(np.pi * swings * steps / max(1, time - 1))
    return along(series, (steps + amount * time * coin(drawn[:, 1:]) * wave)[:, None], 2)


def gaps(scale: Channels, series: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """An interval of this share of the duration, in all channels, holds the last value before it."""
    time = series.shape[2]
    length = int(np.rint(amount * time))
    start = np.floor(draws.uniforms(1) * (time - length + 1))
    steps = np.arange(time)
    inside = (steps >= start) & (steps < start + length)
    return along(series, np.where(inside, start - 1, steps)[:, None], 2)


def dropout(scale: Channels, series: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each point of time is lost with this probability, in all channels, and holds the last value before it."""
    steps = np.arange(series.shape[2])
    kept = np.where(draws.uniforms(len(steps)) < amount, 0, steps)
    return along(series, np.maximum.accumulate(kept, axis=1)[:, None].astype(np.float64), 2)


def resample(scale: Channels, series: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Only points one step plus this share of the duration apart, joined by lines; nothing is random."""
    time = series.shape[2]
    every = 1 + amount * time
    taken = interpolation(np.arange(0, time - 1 + every, every), time)
    spread = interpolation(np.arange(time) / every, len(taken))
    return np.asarray(np.matmul(series, (spread @ taken).T))


def channel_loss(scale: Channels, series: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each channel of each example is dead with this probability and gives the channel's mean."""
    lost = draws.uniforms(series.shape[1]) < amount
    return np.where(lost[:, :, None], scale.mean, series)


SERIES_CORRUPTIONS: Mapping[str, Graded[Channels]] = {
    "jitter": Graded(jitter, (0.1, 0.2, 0.3, 0.45, 0.6)),
    "drift": Graded(drift, (0.2, 0.4, 0.6, 0.9, 1.2)),
    "warp": Graded(warp, (0.005, 0.01, 0.016, 0.025, 0.038), utmost=0.1),
    "gaps": Graded(gaps, (0.03, 0.06, 0.1, 0.17, 0.28)),
    "dropout": Graded(dropout, (0.1, 0.2, 0.35, 0.5, 0.7)),
    "resample": Graded(resample, (0.02, 0.04, 0.06, 0.09, 0.13)),
    "channel_loss": Graded(channel_loss, (0.02, 0.05, 0.1, 0.2, 0.35)),
}
"""Every corruption of series; the amounts are what the functions' docstrings say."""
SERIES_DEFAULTS = tuple(SERIES_CORRUPTIONS)
"""All of them: none is slow."""
