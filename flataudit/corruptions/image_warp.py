"""Corruptions of images by geometry: where things are, and in which shape. The border repeats."""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.ranges import Range
from flataudit.corruptions.sampling import along, bilinear, coin, shifted, smooth_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["elastic", "rotate", "scale", "shear", "translate"]

_BUMPS = 5
"""Independent displacements along each side of an image."""


def translate(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """A shift by this share of the width in any direction, with bilinear interpolation."""
    length = amount * images.shape[3]
    angle = 2 * np.pi * draws.uniforms(1)[:, 0]
    return shifted(shifted(images, length * np.sin(angle), 2), length * np.cos(angle), 3)


def rotate(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """A rotation about the centre by this many degrees, to the left or to the right."""
    angle = np.deg2rad(amount) * coin(draws.uniforms(1))[:, :, None]
    rows, columns = _from_centre(images.shape)
    height, width = images.shape[2:]
    up = np.cos(angle) * rows - np.sin(angle) * columns + (height - 1) / 2
    across = np.sin(angle) * rows + np.cos(angle) * columns + (width - 1) / 2
    return bilinear(images, up, across)


def shear(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each row moved sideways by this share of its distance to the middle row, to the left or to the right."""
    rows, _ = _from_centre(images.shape)
    by = amount * coin(draws.uniforms(1))[:, :, None] * rows
    return along(images, (np.arange(images.shape[3]) - by)[:, None], 3)


def scale(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Larger or smaller about the centre by this factor."""
    factor = np.where(draws.uniforms(1) < 0.5, amount, 1 / amount)[:, :, None, None]
    rows, columns = _from_centre(images.shape)
    height, width = images.shape[2:]
    images = along(images, (height - 1) / 2 + rows[None, None] / factor, 2)
    return along(images, (width - 1) / 2 + columns[None, None] / factor, 3)


def elastic(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Pixels displaced along a smooth random field; its standard deviation as a share of the width."""
    n, _, height, width = images.shape
    fields = draws.normals(2 * _BUMPS**2).reshape(n, 2, _BUMPS, _BUMPS)
    down, right = (amount * width * smooth_field(fields[:, k], height, width) for k in (0, 1))
    return bilinear(images, np.arange(height)[:, None] + down, np.arange(width) + right)


def _from_centre(shape: tuple[int, ...]) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Distance of each row, ``(height, 1)``, and column, ``(1, width)``, from the centre."""
    rows, columns = (np.arange(size, dtype=np.float64) - (size - 1) / 2 for size in shape[2:])
    return rows[:, None], columns[None, :]
