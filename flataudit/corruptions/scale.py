"""How large the numbers of a data set are, and in which blocks to go through it without a copy of the whole."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["blocks", "moments", "steady"]

_BLOCK_VALUES = 2**21
"""Numbers in a block: 16 MB in float64."""


def blocks(inputs: "NDArray[np.generic]", most: int | None = None) -> Iterator[slice]:
    """Consecutive examples, a bounded number of values (of texts: characters of the longest) at a time.

    Args:
        inputs: examples ``(n, …)``.
        most: values in a block; None: 16 MB of them in float64.

    >>> [(part.start, part.stop) for part in blocks(np.zeros((5, 2**20)))]
    [(0, 2), (2, 4), (4, 5)]
    """
    n = len(inputs)
    values = inputs.dtype.itemsize // 4 if inputs.dtype.kind == "U" else 1
    size = max(1, (most or _BLOCK_VALUES) // max(1, values * inputs.size // n))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def steady(inputs: "NDArray[np.generic]", axis: tuple[int, ...]) -> "NDArray[np.bool_]":
    """Where all known values along these axes are the same: a sum's rounding would leave a deviation that is not 0.

    >>> steady(np.array([[0.1, 1.0], [np.nan, 2.0], [0.1, 3.0]]), (0,)).tolist()
    [True, False]
    """
    ends = [
        (np.fmin.reduce(inputs[part], axis=axis), np.fmax.reduce(inputs[part], axis=axis)) for part in blocks(inputs)
    ]
    return np.asarray(np.fmin.reduce([low for low, _ in ends]) == np.fmax.reduce([high for _, high in ends]))


def moments(inputs: "NDArray[np.generic]", *, by_feature: bool) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Mean and standard deviation (divisor n) of all known values together, ``()``, or of each feature.

    Missing values (NaN) count nowhere. The deviation is exactly 0 where all known values are equal, or none is known.

    >>> mean, deviation = moments(np.array([[0.0, 0.1], [np.nan, 0.1], [2.0, 0.1]]), by_feature=True)
    >>> mean.tolist(), deviation.tolist()
    ([1.0, 0.1], [1.0, 0.0])
    >>> float(moments(np.array([[0.0, 5.0], [2.0, 5.0]]), by_feature=False)[1].round(4))
    2.1213
    """
    axis = 0 if by_feature else None
    parts = [inputs[part] for part in blocks(inputs)]
    absent = sum(np.isnan(part).sum(axis=axis) for part in parts) if inputs.dtype.kind == "f" else 0
    count = np.maximum(np.asarray((len(inputs) if by_feature else inputs.size) - absent), 1)
    total = np.nansum if np.any(absent) else np.sum
    mean = np.asarray(sum(total(part.astype(np.float64), axis=axis) for part in parts)) / count
    squares = np.asarray(sum(total(np.square(part.astype(np.float64) - mean), axis=axis) for part in parts))
    still = steady(inputs, (0,) if by_feature else tuple(range(inputs.ndim)))
    # A mean of equal values is one of them, to the last bit; of none it is not known.
    first = np.fmin.reduce(inputs, axis=axis)
    return np.where(still | np.isnan(first), first, mean), np.where(still, 0.0, np.sqrt(squares / count))
