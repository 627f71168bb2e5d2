"""Corruptions of images by light: exposure, contrast, haze, colour."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.ranges import Range
from flataudit.corruptions.sampling import coin, smooth_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["brightness", "contrast", "fog", "gamma", "saturate"]

_COARSE, _FINE = 3, 8
"""Patches of fog across an image, of two sizes."""


def brightness(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """The whole image brighter or darker by this share of the range."""
    return images + amount * span.width * coin(draws.uniforms(1))[:, :, None, None]


def contrast(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Differences to the image's own mean shrink to this share; nothing is random."""
    mean = np.asarray(images.mean(axis=(1, 2, 3), keepdims=True))
    return np.asarray(mean + amount * (images - mean))


def fog(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """A haze of uneven brightness in the upper half of the range, of this opacity."""
    n, _, height, width = images.shape
    drawn = draws.normals(_COARSE**2 + _FINE**2)
    coarse = smooth_field(drawn[:, : _COARSE**2].reshape(n, _COARSE, _COARSE), height, width)
    fine = smooth_field(drawn[:, _COARSE**2 :].reshape(n, _FINE, _FINE), height, width)
    thickness = ndtr((coarse + 0.5 * fine) / np.sqrt(1.25))[:, None]
    haze = span.low + span.width * (0.5 + 0.5 * thickness)
    return np.asarray(images + amount * (haze - images))


def saturate(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Colours stronger or weaker: differences to each pixel's grey times 1 + or 1 − this amount."""
    grey = np.asarray(images.mean(axis=1, keepdims=True))
    factor = 1 + amount * coin(draws.uniforms(1))[:, :, None, None]
    return np.asarray(grey + factor * (images - grey))


def gamma(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each value as a share of the range to the power of this amount, or of its inverse."""
    if span.width == 0:
        return images.copy()
    exponent = np.where(draws.uniforms(1) < 0.5, amount, 1 / amount)[:, :, None, None]
    return np.asarray(span.low + span.width * span.shares(images) ** exponent)
