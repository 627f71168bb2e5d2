"""Any function of arrays as a `Predictor`: what it returns becomes log-probabilities or values, in batches."""

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax

from flataudit.contracts import Meter
from flataudit.errors import ConfigurationError, ModelError
from flataudit.specs import OutputKind, Task

__all__ = ["Answering", "default_outputs", "log_answers"]

_LOG_FLOOR = 1e-30
_BATCH_BYTES = 64 * 2**20


class Answering:
    """A `Predictor` of a function that takes inputs ``(n, …)`` and returns scores or values, first axis ``n``.

    Args:
        answer: must not depend on how the examples are batched.
        task: what its outputs mean.
        outputs: what it returns; None: logits, or values for a regression.
        batch_size: most examples a call; None: by ``example_bytes``.
        example_bytes: memory that one example takes inside the model, in bytes.
        dtype: that the model computes in, by NumPy's name.
        device: where it computes.

    Raises:
        ConfigurationError: models of the task do not return such outputs.
    """

    no_curvature_because: str | None = None
    """Why there is no more than answers, where a backend knows."""

    def __init__(
        self,
        answer: Callable[[NDArray[generic]], NDArray[generic]],
        task: Task,
        *,
        outputs: OutputKind | None = None,
        batch_size: int | None = None,
        example_bytes: int = 1024,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.outputs = default_outputs(outputs, task)
        self.declared, self.task, self.dtype, self.device = outputs, task, dtype, device
        self.meter = Meter()
        self.batch_size = batch_size or max(32, min(4096, _BATCH_BYTES // max(1, example_bytes)))
        self._answer = answer

    def raw(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """What the model returns ``(n, …)``, in batches; counts a forward pass.

        Raises:
            ModelError: something else than numbers, one row an example.
        """
        parts = []
        for start in range(0, len(inputs), self.batch_size):
            part = inputs[start : start + self.batch_size]
            self.meter.forward += len(part)
            found = np.asarray(self._answer(part))
            if found.dtype.kind not in "fiub" or found.ndim == 0 or len(found) != len(part):
                got = f"dtype {found.dtype}, shape {found.shape}"
                raise ModelError(f"numbers of shape ({len(part)}, …)", got=got, remedy="declare where the scores are")
            parts.append(found.astype(np.float64))
        return np.concatenate(parts)

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)`` or values ``(n,)``."""
        return log_answers(self.raw(inputs), self.task, self.outputs)


_OF_CLASSES: tuple[OutputKind, ...] = ("logits", "probabilities", "log_probabilities")
_OF_VALUES: tuple[OutputKind, ...] = ("values", "quantiles", "normal", "normal_variance")


def default_outputs(outputs: OutputKind | None, task: Task) -> OutputKind:
    """What a model of a task returns, where it is not declared.

    Raises:
        ConfigurationError: models of the task do not return what is declared.
    """
    if outputs is not None and (outputs in _OF_VALUES) != (task == "regression"):
        known = ", ".join(_OF_VALUES if task == "regression" else _OF_CLASSES)
        raise ConfigurationError(f"outputs of a {task} model: {known}", got=outputs, remedy="change it or the task")
    return outputs or ("values" if task == "regression" else "logits")


def log_answers(found: NDArray[np.float64], task: Task, outputs: OutputKind) -> NDArray[np.float64]:
    """Log-probabilities ``(n, classes)`` or values ``(n,)`` from what a model returns, ``(n,)`` or ``(n, …)``.

    A probability of 0 counts as 1e-30, so that it costs much and not everything.

    Raises:
        ModelError: a shape that models of the task do not return.

    >>> log_answers(np.array([[0.25, 0.75]]), "multiclass", "probabilities").round(3).tolist()
    [[-1.386, -0.288]]
    >>> log_answers(np.array([0.0]), "binary", "logits").round(3).tolist()
    [[-0.693, -0.693]]
    """
    n, shape = len(found), found.shape
    single = shape in ((n,), (n, 1)) and task != "multilabel"
    if task == "regression":
        if not single:
            remedy = (
                "declare another task, or `outputs: quantiles`, `normal` or `normal_variance` if the columns state one"
            )
            raise ModelError(f"values ({n},) or ({n}, 1)", got=f"shape {shape}", remedy=remedy)
        return found.reshape(n)
    if single:
        found = _two_columns(found.reshape(n), task, outputs)
    elif not (len(shape) == 2 or (task == "multiclass" and len(shape) == 3 and shape[2] > 1)):
        raise ModelError(f"outputs ({n}, classes)", got=f"shape {shape}", remedy="declare another task")
    if task == "binary" and found.shape[1] != 2:
        remedy = "declare `task: multiclass`"
        raise ModelError("one or two columns of a binary classifier", got=f"{shape[1]} columns", remedy=remedy)
    if outputs == "probabilities":
        return cast("NDArray[np.float64]", np.log(np.maximum(found, _LOG_FLOOR)))
    if outputs == "log_probabilities":
        return np.maximum(found, np.log(_LOG_FLOOR))
    return log_expit(found) if task == "multilabel" else log_softmax(found, axis=-1)


def _two_columns(found: NDArray[np.float64], task: Task, outputs: OutputKind) -> NDArray[np.float64]:
    """One column of a binary classifier, of the positive class, as two."""
    if task != "binary":
        raise ModelError("a column for every class", got="one column", remedy="declare `task: binary` or regression")
    if outputs == "logits":
        return np.stack([np.zeros_like(found), found], axis=1)
    if outputs == "probabilities":
        return np.stack([1 - found, found], axis=1)
    return np.stack([np.log(np.maximum(-np.expm1(np.minimum(found, 0.0)), _LOG_FLOOR)), found], axis=1)
