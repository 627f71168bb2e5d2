"""Values between the pixels: linear interpolation, always with the border repeated.

Everything here treats each example by itself with the same operations whatever its neighbours are (elementwise, or
one matrix product an example), so that batches of another size give the same bits.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["along", "bilinear", "coin", "interpolation", "read", "shifted", "smooth_field"]


def along(values: "NDArray[np.float64]", places: "NDArray[np.float64]", axis: int) -> "NDArray[np.float64]":
    """Values at fractional ``places`` along one axis; the places have the values' dimensions, or 1.

    >>> along(np.array([[0.0, 10.0, 20.0]]), np.array([[0.5, 1.0, 7.0]]), 1).tolist()
    [[5.0, 10.0, 20.0]]
    """
    size = values.shape[axis]
    inside = np.clip(places, 0, size - 1)
    before = np.minimum(inside.astype(np.int64), max(size - 2, 0))
    after = np.minimum(before + 1, size - 1)
    share = inside - before
    first, second = (np.take_along_axis(values, at, axis) for at in (before, after))
    return np.asarray((1 - share) * first + share * second)


def read(values: "NDArray[np.float64]", places: "NDArray[np.float64]", axis: int) -> "NDArray[np.float64]":
    """`along` at the same ``places``, a vector, for all examples.

    >>> read(np.array([[0.0, 10.0, 20.0]]), np.array([0.5, 1.0, 7.0]), 1).tolist()
    [[5.0, 10.0, 20.0]]
    """
    size = values.shape[axis]
    inside = np.clip(places, 0, size - 1)
    before = np.minimum(inside.astype(np.int64), max(size - 2, 0))
    share = (inside - before).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    first = np.take(values, before, axis)
    second = np.take(values, np.minimum(before + 1, size - 1), axis)
    second -= first
    second *= share
    first += second
    return first


def shifted(images: "NDArray[np.float64]", by: "NDArray[np.float64]", axis: int) -> "NDArray[np.float64]":
    """Each example moved along one axis by its own number of steps, ``by`` of shape ``(n,)``."""
    shape = [1] * images.ndim
    shape[axis] = images.shape[axis]
    steps = np.arange(images.shape[axis]).reshape(shape)
    return along(images, steps - by.reshape(-1, *[1] * (images.ndim - 1)), axis)


def bilinear(
    images: "NDArray[np.float64]", rows: "NDArray[np.float64]", columns: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Images ``(n, channels, height, width)`` read at ``rows`` and ``columns``, each ``(n, height, width)``."""
    n, channels, height, width = images.shape
    top, left = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    first_row = np.minimum(top.astype(np.int64), max(height - 2, 0))
    first_column = np.minimum(left.astype(np.int64), max(width - 2, 0))
    down, right = (top - first_row)[:, None], (left - first_column)[:, None]
    start = (first_row * width + first_column).reshape(n, 1, -1)
    step_down, step_right = width * (height > 1), int(width > 1)
    flat = images.reshape(n, channels, -1)

    def corner(step: int) -> "NDArray[np.float64]":
        return np.take_along_axis(flat, start + step, 2).reshape(images.shape)

    above = (1 - right) * corner(0) + right * corner(step_right)
    below = (1 - right) * corner(step_down) + right * corner(step_down + step_right)
    return np.asarray((1 - down) * above + down * below)


def interpolation(places: "NDArray[np.float64]", size: int) -> "NDArray[np.float64]":
    """The matrix ``(len(places), size)`` that reads a vector at fractional places.

    >>> interpolation(np.array([0.25, 2.0]), 3).tolist()
    [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    """
    return np.asarray(along(np.eye(size), np.asarray(places, dtype=np.float64)[:, None], 0))


def smooth_field(coarse: "NDArray[np.float64]", height: int, width: int) -> "NDArray[np.float64]":
    """A smooth random surface ``(n, height, width)`` from standard normals ``(n, k, k)``.

    A sum of Gaussian bumps as wide as they are apart; the weights of each pixel have norm 1, so each value is
    exactly standard normal.
    """
    rows, columns = (_bumps(coarse.shape[1], size) for size in (height, width))
    return np.asarray(np.matmul(np.matmul(rows, coarse), columns.T))


def _bumps(count: int, size: int) -> "NDArray[np.float64]":
    centres, places = (np.arange(count) + 0.5) / count, (np.arange(size) + 0.5) / size
    weights = np.exp(-0.5 * ((places[:, None] - centres) * count) ** 2)
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)))


def coin(drawn: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """−1 or 1, each from a uniform number."""
    return np.where(drawn < 0.5, -1.0, 1.0)
