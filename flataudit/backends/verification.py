"""Whether a loaded model answers as declared: tried on a few inputs before any probe runs.

A model that fails here would still give numbers, and wrong ones: sigmoid outputs taken for logits, dropout left on,
batch normalisation that looks at the neighbours, a counter that changes its mind after some calls.

What changes later than these few calls is found after the last probe, by `flataudit.examination`.
"""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.backends.outputs import Answers, rows_of
from flataudit.contracts import AuditData
from flataudit.errors import ModelError
from flataudit.statistics.exchanged_classes import refuse_exchanged_classes, refuse_other_numbers
from flataudit.statistics.steadiness import CALLS, refuse_unsteady, rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answers", "verify"]

_TOLERANCE = 1e-3


def verify(model: Answers, sample: AuditData, *, calls: int = CALLS) -> None:
    """Refuse a model whose answers are not finite, not as declared, or depend on more than the inputs.

    What they must not depend on: chance, the other examples of a batch, their order, and the calls before.

    Args:
        model: in evaluation mode.
        sample: a few examples; of one only chance and the calls before are tried.
        calls: of one example, between two answers to the same inputs; a stranger's model is given more of them than
            one that the caller made.

    Raises:
        ModelError: with what was wrong and the remedy.
    """
    first = _answers(model, sample.inputs)
    if model.task != "regression":
        _check_kind(model, sample.inputs)

    def comparable(answers: "NDArray[np.float64]") -> "NDArray[np.float64]":
        # The logarithm of 1 - p magnifies the rounding of p.
        return np.exp(answers) if model.outputs != "logits" and model.task != "regression" else answers

    refuse_unsteady(
        lambda inputs: comparable(_answers(model, inputs)),
        sample.inputs,
        tolerance=rounding(model.dtype, _TOLERANCE),
        calls=calls,
        first=comparable(first),
    )
    if model.task in ("multiclass", "binary"):
        refuse_other_numbers(first, sample.targets)
        refuse_exchanged_classes(first, sample.targets)


def _answers(model: Answers, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
    try:
        found = np.asarray(model.predict(inputs), dtype=np.float64)
    except ModelError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        scripted = lines[0].startswith("The following operation failed in the TorchScript interpreter")
        got = f"{type(error).__name__}: {lines[-1 if scripted else 0][:300]}"
        remedy = (
            f"check that it takes inputs of shape (n, {', '.join(map(str, inputs.shape[1:]))}) for any n, computing in "
            f"{model.dtype}: log it with two or more examples as input example, so that the batch size stays free; "
            "a recurrent program keeps the dtype that it was exported in"
        )
        if inputs.dtype.kind in "iu" and isinstance(error, IndexError):
            remedy = f"the ids go up to {inputs.max()}: check that the vocabulary (`tokenizer:`) is this model's own"
        raise ModelError("an answer to the validation inputs", got=got, remedy=remedy) from error
    if not np.isfinite(found).all():
        share = f"{np.mean(~np.isfinite(found)):.0%} NaN or infinite"
        raise ModelError("finite outputs", got=share, remedy="check the model and the scale of its inputs")
    return found


_EACH = "declare it for this candidate alone (`outputs: {v8: probabilities}`), or leave `outputs` out where rows tell"


def _check_kind(model: Answers, sample: "NDArray[np.generic]") -> None:
    """Declared probabilities must be some; what looks like probabilities on every row must be taken for such.

    One column within 0 and 1 may be either, so that declaring it as logits is believed; rows of several columns that
    all add up to 1 are no logits.
    """
    rows = rows_of(model.raw(sample), model.task)
    lowest, highest, one_column = float(rows.min()), float(rows.max()), rows.shape[1] == 1
    summed = not one_column and model.task != "multilabel"
    within, off = rounding(model.dtype, _TOLERANCE), float(np.abs(rows.sum(axis=1) - 1).max())
    alike = lowest >= -_TOLERANCE and highest <= 1 + within and not (summed and off > within)
    got = f"outputs from {lowest:.3g} to {highest:.3g}"
    if model.declared == "log_probabilities" and not _are_log_probabilities(rows, within, summed=summed):
        raise ModelError("logarithms of probabilities that add up to 1", got=got, remedy=f"correct `outputs`: {_EACH}")
    if model.declared == "probabilities" and not alike:
        raise ModelError("probabilities that add up to 1", got=got, remedy=f"declare `outputs: logits`; {_EACH}")
    if not alike or model.declared == "probabilities":
        return
    if model.declared is None and not summed:
        remedy = f"declare `outputs: probabilities`, or `outputs: logits` if they are; {_EACH}"
        raise ModelError("logits, or a declared kind of outputs", got=f"{got} on every row", remedy=remedy)
    if summed:
        told = f"rows that add up to 1 within {off:.1g}" if model.declared is None else "probabilities on every row"
        raise ModelError("logits", got=told, remedy=f"declare `outputs: probabilities`; {_EACH}")


def _are_log_probabilities(rows: "NDArray[np.float64]", within: float, *, summed: bool) -> bool:
    if rows.max() > within:
        return False
    return not summed or bool((np.abs(np.exp(rows).sum(axis=1) - 1) <= within).all())
