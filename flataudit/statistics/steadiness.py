"""Whether a model answers as a function of its inputs: the same questions in other ways, and the answers compared.

A backend tries it where it loads a model. Beside code of the candidate's own that trial proves nothing, since the code
can tell what it likes of it; the parent then tries the same from outside, each trial a question like any other.

That answers do not depend on labels needs no trial: a model is given inputs and nothing else. Whether they depend on
the time of day is not tried: a pause long enough to tell would be the longest part of an audit.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from flataudit.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CALLS", "refuse_unsteady", "rounding"]

CALLS = 24
"""Between two answers to the same inputs, of one example each."""
_LEAST = 1e-3
_EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
"""Of the dtypes whose rounding exceeds that."""
_STATELESS = "log a model whose answers depend on its inputs alone"
_TRAINING = "it was exported in training mode: call model.eval() before exporting or logging it"


def rounding(dtype: str, least: float = _LEAST) -> float:
    """A tolerance of at least this much, and of some units in the last place of a half precision.

    >>> rounding("float32", 1e-6), rounding("bfloat16", 1e-3)
    (1e-06, 0.03125)
    """
    return max(least, 4 * _EPSILON.get(dtype, 0.0))


def refuse_unsteady(
    answer: "Callable[[NDArray[np.generic]], NDArray[np.float64]]",
    inputs: "NDArray[np.generic]",
    *,
    tolerance: float,
    calls: int = CALLS,
    first: "NDArray[np.float64] | None" = None,
) -> None:
    """Refuse answers that depend on chance, on the other examples of a batch, on their order or on the calls before.

    Args:
        answer: what a model says of inputs, ``(n, …)`` numbers that may be compared.
        inputs: a few, ``(n, …)``; from two on all is tried, of one only chance and the calls before.
        tolerance: differences that rounding may explain, of 1 or as a share of the largest answer.
        calls: of one example, between two answers to the same inputs.
        first: its answer to these inputs from before; None: it is asked now.

    Raises:
        ModelError: with what they depend on.

    >>> refuse_unsteady(lambda x: x - x.mean(), np.arange(4.0), tolerance=1e-3)
    Traceback (most recent call last):
      ...
    flataudit.errors.ModelError: expected answers that do not depend on the other examples, got answers that move by \
0.5 with the batch (batch normalisation in training mode); it was exported in training mode: call model.eval() before \
exporting or logging it
    """
    if first is None:
        first = answer(inputs)

    def compare(other: "NDArray[np.float64]", expected: str, got: str, remedy: str = _STATELESS) -> None:
        apart = float(np.abs(first - other).max())
        if not apart <= tolerance * max(1.0, float(np.abs(first).max())):
            raise ModelError(expected, got=got.format(f"{apart:.3g}"), remedy=remedy)

    told = "two that differ by {} (live dropout, or another random draw)"
    compare(answer(inputs), "the same answer twice", told, _TRAINING)
    if len(inputs) > 1:
        told = "answers that move by {} with the batch (batch normalisation in training mode)"
        compare(_in_halves(answer, inputs, first), "answers that do not depend on the other examples", told, _TRAINING)
        told = "answers that move by {} with the order of a batch"
        compare(_shuffled(answer, inputs, first), "answers that do not depend on the order of examples", told)
    for place in range(calls):
        at = place % len(inputs)
        answer(inputs[at : at + 1])
    told = f"answers that moved by {{}} after {calls} other calls (it keeps a state)"
    compare(answer(inputs), "answers that do not depend on the calls before", told)


def _in_halves(
    answer: "Callable[[NDArray[np.generic]], NDArray[np.float64]]",
    inputs: "NDArray[np.generic]",
    first: "NDArray[np.float64]",
) -> "NDArray[np.float64]":
    """Every other example with its like alone."""
    found = np.empty_like(first)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        found[rows] = answer(inputs[rows])
    return found


def _shuffled(
    answer: "Callable[[NDArray[np.generic]], NDArray[np.float64]]",
    inputs: "NDArray[np.generic]",
    first: "NDArray[np.float64]",
) -> "NDArray[np.float64]":
    """The same examples in another order, each answer where its example was."""
    order = np.random.default_rng(0).permutation(len(inputs))
    order = order[::-1] if (order == np.arange(len(inputs))).all() else order
    found = np.empty_like(first)
    found[order] = answer(inputs[order])
    return found
