"""Corruptions of images at five severities, in units of the data's own range and width.

After Hendrycks and Dietterich (2019), reduced to those that have a meaning from 8 × 8 pixels up. Lengths are shares
of the width and not pixels: a shift by one pixel is nothing at 224 × 224 and ruin at 8 × 8. Every function takes
images ``(n, channels, height, width)`` in float64 and gives as many, within the range.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from flataudit.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IMAGE_CORRUPTIONS", "Range"]


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of the whole data set."""

    low: float
    high: float

    @classmethod
    def of(cls, images: "NDArray[np.generic]") -> "Range":
        """The range of these images."""
        return cls(float(np.min(images)), float(np.max(images)))

    @property
    def width(self) -> float:
        """Largest minus smallest."""
        return self.high - self.low


def noise(span: Range, images: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """Gaussian noise with a standard deviation of 4 to 26 % of the range, on each value."""
    level = (0.04, 0.08, 0.12, 0.18, 0.26)[severity - 1] * span.width
    return images + level * draws.normals(images[0].size).reshape(images.shape)


def impulse(span: Range, images: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """Salt and pepper: 2 to 18 % of the values become the smallest or the largest of the range."""
    share = (0.02, 0.04, 0.08, 0.12, 0.18)[severity - 1]
    drawn = draws.uniforms(images[0].size).reshape(images.shape)
    return np.where(drawn < share / 2, span.low, np.where(drawn < share, span.high, images))


def blur(span: Range, images: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """Gaussian blur with a standard deviation of 2 to 10 % of the width; the border repeats. Nothing is random."""
    sigma = (0.02, 0.04, 0.06, 0.08, 0.1)[severity - 1] * images.shape[3]
    for axis in (2, 3):
        images = np.asarray(gaussian_filter1d(images, sigma, axis=axis, mode="nearest"))
    return images


def brightness(span: Range, images: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """The whole image brighter or darker by 5 to 30 % of the range."""
    level = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1] * span.width
    return images + level * np.where(draws.uniforms(1) < 0.5, -1.0, 1.0)[:, :, None, None]


def contrast(span: Range, images: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """Differences to the image's own mean shrink to 80 to 20 %. Nothing is random."""
    mean = np.asarray(images.mean(axis=(1, 2, 3), keepdims=True))
    return np.asarray(mean + (0.8, 0.65, 0.5, 0.35, 0.2)[severity - 1] * (images - mean))


def translate(span: Range, images: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """A shift by 1.7 to 10 % of the width in any direction, with bilinear interpolation; the border repeats."""
    length = (0.017, 0.033, 0.05, 0.075, 0.1)[severity - 1] * images.shape[3]
    angle = 2 * np.pi * draws.uniforms(1)[:, 0]
    return _shifted(_shifted(images, length * np.sin(angle), 2), length * np.cos(angle), 3)


def _shifted(images: "NDArray[np.float64]", by: "NDArray[np.float64]", axis: int) -> "NDArray[np.float64]":
    """Each image moved along one axis by its own number of pixels."""
    size = images.shape[axis]
    shape = [len(images) if k == 0 else size if k == axis else 1 for k in range(4)]
    places = np.clip(np.arange(size) - by[:, None], 0, size - 1)
    before = np.minimum(places.astype(np.int64), max(size - 2, 0))
    after = np.minimum(before + 1, size - 1)
    share = (places - before).reshape(shape)
    first, second = (np.take_along_axis(images, at.reshape(shape), axis) for at in (before, after))
    return np.asarray((1 - share) * first + share * second)


def occlusion(span: Range, images: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """A square of the range's middle, of 10 to 40 % of the width, anywhere inside; its edges are anti-aliased."""
    height, width = images.shape[2:]
    side = min((0.1, 0.17, 0.25, 0.32, 0.4)[severity - 1] * width, height)
    places = draws.uniforms(2)
    rows, columns = (_covered(places[:, k] * (size - side), side, size) for k, size in enumerate((height, width)))
    mask = (rows[:, :, None] * columns[:, None, :])[:, None]
    return images + mask * ((span.low + span.high) / 2 - images)


def _covered(start: "NDArray[np.float64]", side: float, size: int) -> "NDArray[np.float64]":
    """Share of each of ``size`` pixels that lies between start and start + side, ``(n, size)``."""
    pixels = np.arange(size)
    first, last = start[:, None], start[:, None] + side
    return np.asarray(np.clip(np.minimum(pixels + 1, last) - np.maximum(pixels, first), 0, 1))


IMAGE_CORRUPTIONS: Mapping[str, Callable[[Range, "NDArray[np.float64]", Draws, int], "NDArray[np.float64]"]] = {
    "noise": noise,
    "impulse": impulse,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "translate": translate,
    "occlusion": occlusion,
}
