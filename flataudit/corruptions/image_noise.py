"""Corruptions of images value by value: the sensor's and the line's noise, and something in front of the lens."""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.poisson import counts
from flataudit.corruptions.ranges import Range

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["impulse", "noise", "occlusion", "shot"]


def noise(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Gaussian noise on each value; its standard deviation as a share of the range."""
    level = amount * span.width
    return images + level * draws.normals(images[0].size).reshape(images.shape)


def shot(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Poisson noise of few photons; the standard deviation at full brightness as a share of the range.

    A value of share u of the range becomes a² k with k ~ Poisson(u / a²): its mean stays, its variance is a² u.
    """
    if amount == 0 or span.width == 0:
        return images.copy()
    photons = span.shares(images) / amount**2
    drawn = draws.uniforms(images[0].size).reshape(images.shape)
    return np.asarray(span.low + span.width * amount**2 * counts(photons, drawn))


def impulse(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Salt and pepper: this share of the values become the smallest or the largest of the range."""
    drawn = draws.uniforms(images[0].size).reshape(images.shape)
    return np.where(drawn < amount / 2, span.low, np.where(drawn < amount, span.high, images))


def occlusion(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """A square of the range's middle, anywhere inside; its side as a share of the width; edges are anti-aliased."""
    height, width = images.shape[2:]
    side = min(amount * width, height)
    places = draws.uniforms(2)
    rows, columns = (_covered(places[:, k] * (size - side), side, size) for k, size in enumerate((height, width)))
    mask = (rows[:, :, None] * columns[:, None, :])[:, None]
    return images + mask * ((span.low + span.high) / 2 - images)


def _covered(start: "NDArray[np.float64]", side: float, size: int) -> "NDArray[np.float64]":
    """Share of each of ``size`` pixels that lies between start and start + side, ``(n, size)``."""
    pixels = np.arange(size)
    first, last = start[:, None], start[:, None] + side
    return np.asarray(np.clip(np.minimum(pixels + 1, last) - np.maximum(pixels, first), 0, 1))
