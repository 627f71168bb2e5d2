"""Whether a model in another process answers as a function of its inputs: tried from outside, before any probe runs.

A backend tries the same where it loads a model. Beside code of the candidate's own that trial proves nothing, since
the code can tell what it likes of it; here each trial is a question like any other, and the comparison is ours.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy import generic

from flataudit.contracts import Predictor
from flataudit.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["refuse_unsteady"]

_TOLERANCE = 1e-3
"""Of a probability, or as a share of the largest value."""
_EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
_CALLS = 24
_REMEDY = "log a model in evaluation mode whose answers depend on its inputs alone"


def refuse_unsteady(model: Predictor, inputs: "NDArray[generic]") -> None:
    """Refuse a model whose answers depend on chance, on the other examples, on their order or on the calls before.

    Labels need no trial: a process that is given none cannot answer by them.

    Args:
        model: a classifier or a regression.
        inputs: a few, ``(n, …)``; from two on all is tried, of one only chance and the calls before.

    Raises:
        ModelError: with what they depend on.
    """
    first = _answers(model, inputs)
    _compare(model, first, _answers(model, inputs), "the same answer twice", "another draw")
    if len(inputs) > 1:
        alone = np.empty_like(first)
        for rows in (slice(0, None, 2), slice(1, None, 2)):
            alone[rows] = _answers(model, inputs[rows])
        expected = "answers that do not depend on the other examples"
        _compare(model, first, alone, expected, "another batch")
        order = np.random.default_rng(0).permutation(len(inputs))
        order = order[::-1] if (order == np.arange(len(inputs))).all() else order
        shuffled = np.empty_like(first)
        shuffled[order] = _answers(model, inputs[order])
        _compare(model, first, shuffled, "answers that do not depend on the order of examples", "another order")
    for place in range(_CALLS):
        at = place % len(inputs)
        model.predict(inputs[at : at + 1])
    expected = "answers that do not depend on the calls before"
    _compare(model, first, _answers(model, inputs), expected, f"{_CALLS} other calls")


def _answers(model: Predictor, inputs: "NDArray[generic]") -> "NDArray[np.float64]":
    """Probabilities, or values."""
    found = np.asarray(model.predict(inputs), dtype=np.float64)
    return found if model.task == "regression" else np.exp(found)


def _compare(
    model: Predictor, first: "NDArray[np.float64]", other: "NDArray[np.float64]", expected: str, after: str
) -> None:
    tolerance = max(_TOLERANCE, 4 * _EPSILON.get(model.dtype, 0.0))
    apart = float(np.abs(first - other).max())
    if apart > tolerance * max(1.0, float(np.abs(first).max())):
        raise ModelError(expected, got=f"some that moved by {apart:.3g} with {after}", remedy=_REMEDY)
