"""How large the numbers of a data set are, and in which blocks to go through it without a copy of the whole."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["blocks", "moments"]

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


def moments(inputs: "NDArray[np.generic]", *, by_feature: bool) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Mean and standard deviation (divisor n) of all values together, ``()``, or of each feature.

    >>> mean, deviation = moments(np.array([[0.0, 5.0], [2.0, 5.0]]), by_feature=True)
    >>> mean.tolist(), deviation.tolist()
    ([1.0, 5.0], [1.0, 0.0])
    >>> float(moments(np.array([[0.0, 5.0], [2.0, 5.0]]), by_feature=False)[1].round(4))
    2.1213
    """
    axis = 0 if by_feature else None
    count = len(inputs) if by_feature else inputs.size
    parts = [inputs[part] for part in blocks(inputs)]
    mean = np.asarray(sum(part.astype(np.float64).sum(axis=axis) for part in parts)) / count
    squares = np.asarray(sum(np.square(part.astype(np.float64) - mean).sum(axis=axis) for part in parts))
    return mean, np.sqrt(squares / count)
