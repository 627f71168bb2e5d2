"""Corruptions of images that mix neighbouring pixels: lenses out of focus, movement, zoom."""

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.ranges import Range
from flataudit.corruptions.sampling import interpolation

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
    for axis in (2, 3):
        images = np.asarray(gaussian_filter1d(images, sigma, axis=axis, mode="nearest"))
    return images


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
    total = np.zeros_like(images)
    for row in range(-reach, reach + 1):
        total += _run(sums[:, :, reach + row : reach + row + height], halves[abs(row)], edge, width)
    return np.asarray(total / (2 * (halves[0] + 2 * sum(halves[1:]))))


def _run(sums: "NDArray[np.float64]", half: float, edge: int, width: int) -> "NDArray[np.float64]":
    """Integral from half before to half after the centre of each of ``width`` pixels, from cumulative sums."""

    def at(place: float) -> "NDArray[np.float64]":
        whole = math.floor(place)
        share = place - whole
        return (1 - share) * sums[..., whole : whole + width] + share * sums[..., whole + 1 : whole + 1 + width]

    return at(edge + 0.5 + half) - at(edge + 0.5 - half)


def motion(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """The mean along a line, each image in one of 16 directions; its length as a share of the width."""
    length = amount * images.shape[3]
    chosen = np.floor(draws.uniforms(1)[:, 0] * _DIRECTIONS).astype(np.int64)
    changed = np.empty_like(images)
    for direction in np.unique(chosen):
        members = chosen == direction
        changed[members] = _filtered(images[members], _line(length, math.pi * direction / _DIRECTIONS))
    return changed


def _line(length: float, angle: float) -> dict[tuple[int, int], float]:
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


def _filtered(images: "NDArray[np.float64]", weights: dict[tuple[int, int], float]) -> "NDArray[np.float64]":
    height, width = images.shape[2:]
    edge = max(max(abs(down), abs(right)) for down, right in weights)
    padded = np.pad(images, ((0, 0), (0, 0), (edge, edge), (edge, edge)), mode="edge")
    total = np.zeros_like(images)
    for (down, right), weight in weights.items():
        row, column = edge + down, edge + right
        total += weight * padded[:, :, row : row + height, column : column + width]
    return total


def zoom(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """The mean of zooms into the centre, from none up to this share; nothing is random."""
    height, width = images.shape[2:]
    steps = min(_MOST_ZOOMS, 1 + math.ceil(amount * max(height, width) / 2))
    total = np.zeros_like(images)
    for factor in 1 + amount * np.arange(steps) / max(1, steps - 1):
        rows, columns = (
            interpolation((size - 1) / 2 + (np.arange(size) - (size - 1) / 2) / factor, size)
            for size in (height, width)
        )
        total += np.matmul(np.matmul(rows, images), columns.T)
    return np.asarray(total / steps)
