"""Corruptions of images that mix neighbouring pixels: lenses out of focus, movement, zoom."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.ranges import Range
from flataudit.corruptions.sampling import read

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["blur", "defocus", "motion", "zoom"]

_DIRECTIONS = 16
_MOST_ZOOMS = 17
"""So that a large image costs no more than so many; neighbouring zooms then differ by a few pixels at the border."""


def blur(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Gaussian blur; its standard deviation as a share of the width; nothing is random."""
    sigma = amount * images.shape[3]
    if sigma == 0:
        return images.copy()
    rows, columns = (_gaussian(size, sigma) for size in images.shape[2:])
    return np.asarray(np.matmul(np.matmul(rows, images), columns.T))


@lru_cache(maxsize=8)
def _gaussian(size: int, sigma: float) -> "NDArray[np.float64]":
    """What becomes of each single pixel, ``(size, size)``: a filter as wide as the image costs less as a matrix."""
    return np.asarray(gaussian_filter1d(np.eye(size), sigma, axis=0, mode="nearest"))


def defocus(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """The mean over a disc around each pixel; its radius as a share of the width; nothing is random.

    The disc is a stack of horizontal runs, one for each row that it crosses, whose ends are anti-aliased; a run costs
    a difference of two cumulative sums, whatever its length.
    """
    radius = amount * images.shape[3] + 0.5
    reach = math.ceil(radius) - 1
    halves = [math.sqrt(radius**2 - row**2) for row in range(reach + 1)]
    height, width = images.shape[2:]
    edge = math.ceil(radius)
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (edge, edge)), mode="edge")
    sums = np.concatenate([np.zeros((*padded.shape[:3], 1)), np.cumsum(padded, axis=3)], axis=3)
    total, spare = np.zeros_like(images), np.empty_like(images)
    for row, half in enumerate(halves):
        pair = sums[:, :, reach + row : reach + row + height]
        if row > 0:
            pair = pair + sums[:, :, reach - row : reach - row + height]
        # The integral from half before to half after the centre of each pixel.
        for place, sign in ((edge + 0.5 + half, 1.0), (edge + 0.5 - half, -1.0)):
            whole = math.floor(place)
            _add(total, pair[..., whole : whole + width], sign * (1 - place + whole), spare)
            _add(total, pair[..., whole + 1 : whole + 1 + width], sign * (place - whole), spare)
    total /= 2 * (halves[0] + 2 * sum(halves[1:]))
    return total


def _add(
    total: "NDArray[np.float64]", images: "NDArray[np.float64]", weight: float, spare: "NDArray[np.float64]"
) -> None:
    """``total += weight * images`` without new memory, which would leave the processor's cache."""
    np.multiply(images, weight, out=spare)
    total += spare


def motion(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """The mean along a line, each image in one of 16 directions; its length as a share of the width."""
    length = amount * images.shape[3]
    chosen = np.floor(draws.uniforms(1)[:, 0] * _DIRECTIONS).astype(np.int64)
    changed = np.empty_like(images)
    for direction in np.unique(chosen):
        members = chosen == direction
        changed[members] = _filtered(images[members], _line(length, math.pi * direction / _DIRECTIONS))
    return changed


@lru_cache(maxsize=2 * _DIRECTIONS)
def _line(length: float, angle: float) -> Mapping[tuple[int, int], float]:
    """Weights of the steps (down, right) along a centred line, each point shared among its four pixels."""
    points = 2 * math.ceil(length) + 1
    weights: dict[tuple[int, int], float] = {}
    for place in np.linspace(-length / 2, length / 2, points):
        down, right = float(place) * math.sin(angle), float(place) * math.cos(angle)
        row, column = math.floor(down), math.floor(right)
        for i, by_row in enumerate((row + 1 - down, down - row)):
            for j, by_column in enumerate((column + 1 - right, right - column)):
                if by_row * by_column > 0:
                    key = (row + i, column + j)
                    weights[key] = weights.get(key, 0.0) + by_row * by_column / points
    return weights


def _filtered(images: "NDArray[np.float64]", weights: Mapping[tuple[int, int], float]) -> "NDArray[np.float64]":
    height, width = images.shape[2:]
    edge = max(max(abs(down), abs(right)) for down, right in weights)
    padded = np.pad(images, ((0, 0), (0, 0), (edge, edge), (edge, edge)), mode="edge")
    total, spare = np.zeros_like(images), np.empty_like(images)
    for (down, right), weight in weights.items():
        row, column = edge + down, edge + right
        _add(total, padded[:, :, row : row + height, column : column + width], weight, spare)
    return total


def zoom(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """The mean of zooms into the centre, from none up to this share; nothing is random."""
    height, width = images.shape[2:]
    steps = min(_MOST_ZOOMS, 1 + math.ceil(amount * max(height, width) / 2))
    total = np.zeros_like(images)
    for factor in 1 + amount * np.arange(steps) / max(1, steps - 1):
        zoomed = images
        for axis, size in ((2, height), (3, width)):
            zoomed = read(zoomed, (size - 1) / 2 + (np.arange(size) - (size - 1) / 2) / factor, axis)
        total += zoomed
    return np.asarray(total / steps)
