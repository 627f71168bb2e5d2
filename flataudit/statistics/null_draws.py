"""What a calibrated model's answers would have missed by, drawn many times: the null of every calibration error."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["null_residuals"]

_CELLS = 2**21
"""Draws held at once; bounds the memory to some 16 MB."""


def null_residuals(
    confidences: "NDArray[np.float64]",
    correct: "NDArray[np.float64]",
    replicates: int,
    generator: np.random.Generator,
    *,
    units: "NDArray[np.int64] | None" = None,
) -> "Iterator[NDArray[np.float64]]":
    """Correctness minus confidence of calibrated models with these confidences, ``(replicates, N)`` in parts.

    One answer an example: each is right with its own confidence (consistency resampling, Bröcker & Smith 2007).
    Several: how answers of one example hang together is not known, so the observed residuals of each example keep or
    change their sign together (wild cluster bootstrap, Cameron, Gelbach & Miller 2008); a little too wide for a model
    that is far from calibrated.

    Args:
        confidences: ``(N,)`` probability of what was answered.
        correct: ``(N,)`` 1 where the answer is right, else 0.
        replicates: models to be drawn.
        generator: of the draws.
        units: ``(N,)`` the example of each answer, counted from 0; None: one answer an example.
    """
    n = len(confidences)
    rows = max(1, _CELLS // n)
    examples = 0 if units is None else int(units.max()) + 1
    for start in range(0, replicates, rows):
        size = min(rows, replicates - start)
        if units is None:
            yield (generator.random((size, n)) < confidences) - confidences
        else:
            signs = 2.0 * generator.integers(0, 2, (size, examples)) - 1.0
            yield signs[:, units] * (correct - confidences)
