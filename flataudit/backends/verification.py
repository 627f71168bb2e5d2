"""Whether a loaded model answers as declared: tried on a few inputs before any probe runs.

A model that fails here would still give numbers, and wrong ones: sigmoid outputs taken for logits, dropout left on,
batch normalisation that looks at the neighbours.
"""

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from flataudit.backends.torch_model import TorchModel
from flataudit.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["verify"]

_TOLERANCE = 1e-3
_TRAINING = "it was exported in training mode: call model.eval() before exporting or logging it"


def verify(model: TorchModel, sample: "NDArray[np.generic]") -> None:
    """Refuse a model that does not answer finitely, as declared, twice the same, whatever its neighbours are.

    Args:
        model: in evaluation mode.
        sample: ``(n, …)`` inputs; neighbours are tried from n = 2 on, by answering to every other one alone.

    Raises:
        ModelError: with what was wrong and the remedy.
    """
    first = _answers(model, sample)
    if model.task != "regression":
        _check_kind(model, sample)
    apart = _apart(model, first, _answers(model, sample))
    if apart > 0:
        got = f"two that differ by {apart:.3g} (live dropout, or another random draw)"
        raise ModelError("the same answer twice", got=got, remedy=_TRAINING)
    if len(sample) == 1:
        return
    alone = np.empty_like(first)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        alone[rows] = _answers(model, sample[rows])
    apart = _apart(model, first, alone)
    if apart > 0:
        got = f"answers that move by {apart:.3g} with the batch (batch normalisation in training mode)"
        raise ModelError("answers that do not depend on the other examples", got=got, remedy=_TRAINING)


def _apart(model: TorchModel, one: "NDArray[np.float64]", other: "NDArray[np.float64]") -> float:
    """The largest difference of two answers to the same inputs; 0 where rounding may explain it."""
    if model.outputs == "probabilities":
        one, other = np.exp(one), np.exp(other)  # the logarithm of 1 - p magnifies the rounding of p
    tolerance = max(_TOLERANCE, 4 * torch.finfo(getattr(torch, model.dtype)).eps)
    apart = float(np.abs(one - other).max())
    return apart if apart > tolerance * max(1.0, float(np.abs(one).max())) else 0.0


def _answers(model: TorchModel, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
    try:
        found = model.predict(inputs)
    except ModelError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        remedy = (
            f"check that it takes inputs of shape (n, {', '.join(map(str, inputs.shape[1:]))}) for any n, computing in "
            f"{model.dtype}: log it with two or more examples as input example, so that the batch size stays free; "
            "a recurrent program keeps the dtype that it was exported in"
        )
        raise ModelError("an answer to the validation inputs", got=got, remedy=remedy) from error
    if not np.isfinite(found).all():
        share = f"{np.mean(~np.isfinite(found)):.0%} NaN or infinite"
        raise ModelError("finite outputs", got=share, remedy="check the model and the scale of its inputs")
    return found


def _check_kind(model: TorchModel, sample: "NDArray[np.generic]") -> None:
    """Declared probabilities must be some; what looks like probabilities on every row must be declared.

    One column within 0 and 1 may be either, so that declaring it as logits is believed; rows of several columns that
    all add up to 1 are no logits.
    """
    with torch.no_grad():
        inputs, _ = model.tensors(sample, None)
        raw = cast("torch.Tensor", model.returned(inputs)).double().reshape(len(sample), -1)
    lowest, highest, one_column = raw.min().item(), raw.max().item(), raw.shape[1] == 1
    sums = one_column or bool(((raw.sum(dim=1) - 1).abs() <= _TOLERANCE).all())
    alike = lowest >= -_TOLERANCE and highest <= 1 + _TOLERANCE and sums
    got = f"outputs from {lowest:.3g} to {highest:.3g}"
    if model.declared == "probabilities" and not alike:
        raise ModelError("probabilities that add up to 1", got=got, remedy="declare `outputs: logits`")
    if model.declared is None and alike and one_column:
        remedy = "declare `outputs: probabilities`, or `outputs: logits` if they are"
        raise ModelError("logits, or a declared kind of outputs", got=f"{got} on every row", remedy=remedy)
    if model.declared != "probabilities" and alike and not one_column:
        raise ModelError("logits", got="probabilities on every row", remedy="declare `outputs: probabilities`")
