"""A torch module as the probes see it: a function of its parameters that is never written to.

Everything runs through `torch.func.functional_call` on detached parameters and cloned buffers, so that weights,
buffers, gradients and flags stay as they are, whatever a probe does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy import generic
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flataudit.contracts import Meter, OutputKind, Task
from flataudit.errors import ConfigurationError, ModelError

__all__ = ["TorchModel", "evaluation_mode", "verify"]

_LOG_FLOOR = 1e-30
_BATCH_BYTES = 64 * 2**20
_SUM_TOLERANCE = 1e-3
_NEIGHBOUR_TOLERANCE = 1e-3


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for every submodule, and afterwards each one's own mode again; exported programs have none."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class TorchModel:
    """A module with the capabilities `Predictor`, `Perturbable` and `Differentiable`.

    Args:
        module: in evaluation mode, on its device.
        task: what its outputs mean.
        outputs: ``logits``, ``probabilities`` or ``values``; None: logits, or values for a regression.
        batch_size: most examples a pass; None: by the size of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        *,
        outputs: OutputKind | None = None,
        batch_size: int | None = None,
        example_bytes: int = 1024,
    ) -> None:
        if task == "multilabel":
            raise ConfigurationError("a task among multiclass, binary, regression", got=task, remedy="not yet audited")
        self.task: Task = task
        self.outputs: OutputKind = outputs or ("values" if task == "regression" else "logits")
        self.meter = Meter()
        self.parameters: Mapping[str, Tensor] = {
            name: tensor.detach() for name, tensor in module.named_parameters() if tensor.is_floating_point()
        }
        self.batch_size = batch_size or max(32, min(4096, _BATCH_BYTES // max(1, example_bytes)))
        self._module = module
        self._buffers = dict(module.named_buffers())
        anything = next(iter([*self.parameters.values(), *self._buffers.values()]), torch.zeros(()))
        self._device = anything.device
        floating = [t.dtype for t in self.parameters.values()] or [torch.float32]
        self._dtype = floating[0]
        self.device, self.dtype = str(self._device), str(self._dtype).removeprefix("torch.")

    def tensors(self, inputs: NDArray[generic], targets: NDArray[generic] | None) -> tuple[Tensor, Tensor | None]:
        """A batch on the model's device; numbers in its dtype, whole numbers wider than a byte as tokens (int64)."""
        array = np.ascontiguousarray(inputs)
        tokens = array.dtype.kind in "iu" and array.dtype.itemsize > 1
        x = torch.tensor(array, device=self._device, dtype=torch.int64 if tokens else self._dtype)
        if targets is None:
            return x, None
        kind = torch.int64 if np.asarray(targets).dtype.kind in "iu" else self._dtype
        return x, torch.tensor(np.asarray(targets), device=self._device, dtype=kind)

    def raw_outputs(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Logits or log-probabilities ``(n, classes)``, or values ``(n,)``, at these parameters."""
        return self._shaped(self.returned(parameters, inputs), len(inputs))

    def returned(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> object:
        """What the module itself returns; counts a forward pass."""
        self.meter.forward += len(inputs)
        state = {**parameters, **{name: buffer.clone() for name, buffer in self._buffers.items()}}
        with sdpa_kernel(SDPBackend.MATH):  # the fast kernels have no second derivative
            return torch.func.functional_call(self._module, state, (inputs,))

    def loss(self, parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy or squared error over the examples."""
        found = self.raw_outputs(parameters, inputs)
        if self.task == "regression":
            return nn.functional.mse_loss(found, targets.to(found.dtype))
        return nn.functional.cross_entropy(found, targets.long())

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)`` or values ``(n,)``, in batches."""
        return self._predicted(self.parameters, inputs)

    def weights(self) -> dict[str, NDArray[generic]]:
        """Copies of the parameters."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.parameters.items()}

    def predict_at(self, weights: Mapping[str, NDArray[generic]], inputs: NDArray[generic]) -> NDArray[np.float64]:
        """`predict` at other parameters."""
        moved = {name: torch.tensor(value, device=self._device) for name, value in weights.items()}
        return self._predicted(moved, inputs)

    def _predicted(self, parameters: Mapping[str, Tensor], inputs: NDArray[generic]) -> NDArray[np.float64]:
        parts = []
        with torch.no_grad():
            for start in range(0, len(inputs), self.batch_size):
                x, _ = self.tensors(inputs[start : start + self.batch_size], None)
                found = self.raw_outputs(parameters, x).double()
                parts.append(found if self.task == "regression" else found.log_softmax(dim=1))
        return cast("NDArray[np.float64]", torch.cat(parts).cpu().numpy())

    def _shaped(self, found: object, n: int) -> Tensor:
        if not isinstance(found, Tensor):
            got = f"a {type(found).__name__}"
            raise ModelError("one tensor of outputs", got=got, remedy="models with several outputs are not yet audited")
        if self.task == "regression":
            if found.shape not in ((n,), (n, 1)):
                raise ModelError("values (n,) or (n, 1)", got=str(tuple(found.shape)), remedy="declare another task")
            return found.reshape(n)
        if found.ndim == 1 or found.shape[1] == 1:
            return self._two_columns(found.reshape(n))
        if found.ndim != 2:
            raise ModelError("outputs (n, classes)", got=str(tuple(found.shape)), remedy="declare another task")
        return found if self.outputs == "logits" else found.clamp_min(_LOG_FLOOR).log()

    def _two_columns(self, found: Tensor) -> Tensor:
        """One column of a binary classifier as two of log-odds or log-probabilities."""
        if self.task != "binary":
            raise ModelError("a column for every class", got="one column", remedy="declare `task: binary`")
        if self.outputs == "logits":
            return torch.stack([torch.zeros_like(found), found], dim=1)
        return torch.stack([1 - found, found], dim=1).clamp_min(_LOG_FLOOR).log()


def verify(model: TorchModel, sample: NDArray[generic]) -> None:
    """Refuse a model that does not answer as declared, twice the same, whatever its neighbours in the batch are.

    Raises:
        ModelError: with what was wrong and the remedy.
    """
    first = _answers(model, sample)
    if model.task != "regression":
        _check_kind(model, sample)
    remedy = "it was exported in training mode: call model.eval() before exporting or logging it"
    if not np.allclose(first, _answers(model, sample), rtol=1e-4, atol=1e-5):
        raise ModelError("the same answer twice", got="two that differ (live dropout)", remedy=remedy)
    half = (len(sample) + 1) // 2
    if half == len(sample):
        return
    halves = np.concatenate([_answers(model, sample[:half]), _answers(model, sample[half:])])
    apart = float(np.abs(halves - first).max())
    if apart > _NEIGHBOUR_TOLERANCE * max(1.0, float(np.abs(first).max())):
        got = f"answers that move by {apart:.3g} with the batch (batch normalisation in training mode)"
        raise ModelError("answers that do not depend on the other examples", got=got, remedy=remedy)


def _answers(model: TorchModel, inputs: NDArray[generic]) -> NDArray[np.float64]:
    try:
        found = model.predict(inputs)
    except ModelError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        remedy = (
            f"check that it takes inputs of shape (n, {', '.join(map(str, inputs.shape[1:]))}) for any n: "
            "log it with an input example of two or more examples, so that the batch size stays free"
        )
        raise ModelError("an answer to the validation inputs", got=got, remedy=remedy) from error
    if not np.isfinite(found).all():
        share = f"{np.mean(~np.isfinite(found)):.0%} NaN or infinite"
        raise ModelError("finite outputs", got=share, remedy="check the model and the scale of its inputs")
    return found


def _check_kind(model: TorchModel, sample: NDArray[generic]) -> None:
    """Declared probabilities must be some; undeclared or declared logits must not look like them on every row."""
    declared = model.outputs
    with torch.no_grad():
        raw = cast("Tensor", model.returned(model.parameters, model.tensors(sample, None)[0])).double()
    one = raw.ndim == 1 or raw.shape[1] == 1
    inside = bool((raw >= -_SUM_TOLERANCE).all() and (raw <= 1 + _SUM_TOLERANCE).all())
    sums = one or bool(((raw.sum(dim=1) - 1).abs() <= _SUM_TOLERANCE).all())
    if declared == "probabilities" and not (inside and sums):
        got = f"outputs from {float(raw.min()):.3g} to {float(raw.max()):.3g}"
        raise ModelError("probabilities that add up to 1", got=got, remedy="declare `outputs: logits`")
    if declared == "logits" and inside and sums and not one:
        raise ModelError("logits", got="probabilities on every row", remedy="declare `outputs: probabilities`")
