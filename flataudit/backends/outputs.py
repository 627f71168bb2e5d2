"""What a classifier returns, found on the data where nobody declares it: candidates of one audit may differ in it.

A declared kind always stands. Found is only what no other kind does on every row: scores that are not negative and add
up to 1 are probabilities, and so are exponentials of scores that add up to 1. One column, and labels that may hold
together, have no sum that tells; `flataudit.backends.verification` refuses those that may be either.
"""

from typing import TYPE_CHECKING, Protocol

import numpy as np

from flataudit.contracts import AuditData, Predictor
from flataudit.specs import OutputKind, Task
from flataudit.statistics.steadiness import rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answers", "rows_of", "settle"]

_EXACT = 1e-6
"""How far sums of probabilities in single precision are from 1, at most."""


class Answers(Predictor, Protocol):
    """A predictor that shows what its outputs were made of."""

    outputs: OutputKind
    """What it is taken to return."""
    declared: OutputKind | None
    """What the user says that it returns, or what the data show; None: neither."""

    def raw(self, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """What the model itself returns, ``(n, …)``."""
        ...


def rows_of(raw: "NDArray[np.float64]", task: Task) -> "NDArray[np.float64]":
    """Scores ``(rows, classes)``, a row an example; of sequences ``(n, tokens, classes)`` a row a token.

    >>> rows_of(np.zeros((2, 5, 3)), "multiclass").shape, rows_of(np.zeros(2), "binary").shape
    ((10, 3), (2, 1))
    """
    sequences = task == "multiclass" and raw.ndim == 3
    return raw.reshape(-1, raw.shape[-1]) if sequences else raw.reshape(len(raw), -1)


def settle(model: Answers, sample: AuditData, *, tolerance: float = _EXACT) -> tuple[str, ...]:
    """Take undeclared outputs for what they are on every row of the sample.

    Args:
        model: of whichever task; regressions, labels that may hold together, one column and declared kinds stay as
            they are.
        sample: a few examples.
        tolerance: of the sums, for models that may round what they return.

    Returns:
        A sentence for the evidence where the outputs are taken for something else than logits; nothing of a model that
        does not answer, which `flataudit.backends.verification.verify` refuses.
    """
    if model.declared is not None or model.task not in ("multiclass", "binary"):
        return ()
    try:
        rows = rows_of(model.raw(sample.inputs), model.task)
    except Exception:  # noqa: BLE001  # a model may raise anything; `verify` tells what, and the remedy
        return ()
    within = rounding(model.dtype, tolerance)
    found = _found(rows, within)
    if found is None:
        return ()
    model.outputs = model.declared = found
    what = "probabilities" if found == "probabilities" else "logarithms of probabilities"
    which = "it adds" if len(rows) == 1 else f"all {len(rows)} rows add"
    return (f"its outputs are taken for {what}, since nothing is declared and {which} up to 1 within {within:.0e}",)


def _found(rows: "NDArray[np.float64]", within: float) -> OutputKind | None:
    if rows.shape[1] < 2 or not np.isfinite(rows).all():
        return None
    if rows.min() >= 0 and np.abs(rows.sum(axis=1) - 1).max() <= within:
        return "probabilities"
    if rows.max() <= within and np.abs(np.exp(rows).sum(axis=1) - 1).max() <= within:
        return "log_probabilities"
    return None
