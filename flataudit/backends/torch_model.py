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

from flataudit.contracts import LossSpec, Meter, OutputKind, Task
from flataudit.curvature.losses import make_loss
from flataudit.errors import ConfigurationError, ModelError

__all__ = ["TorchModel", "evaluation_mode", "plain_module"]

_LOG_FLOOR = 1e-30
_BATCH_BYTES = 64 * 2**20


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


def plain_module(model: object) -> nn.Module | None:
    """The module that can be differentiated twice: a compiled one's original; None for TorchScript or no module."""
    module = getattr(model, "_orig_mod", model)
    return module if isinstance(module, nn.Module) and not isinstance(module, torch.jit.ScriptModule) else None


class TorchModel:
    """A module with the capabilities `Predictor`, `Perturbable` and `Differentiable`.

    Args:
        module: in evaluation mode, on its device.
        task: what its outputs mean.
        outputs: ``logits``, ``probabilities`` or ``values``; None: logits, or values for a regression.
        loss: what it was trained with; None: cross-entropy or squared error.
        batch_size: most examples a pass; None: from 32 to 4096, by ``example_bytes``.
        example_bytes: memory that one example takes inside the model, in bytes.

    Raises:
        ConfigurationError: the task is not yet audited, or its models do not return such outputs.
    """

    parameters: Mapping[str, Tensor]
    """Every floating-point parameter once, detached, also those that training froze: candidates that froze different
    ones still compare, and a model frozen for serving has its curvature."""

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        *,
        outputs: OutputKind | None = None,
        loss: LossSpec | None = None,
        batch_size: int | None = None,
        example_bytes: int = 1024,
    ) -> None:
        if task == "multilabel":
            remedy = "audit one label at a time as binary: multilabel is not yet audited"
            raise ConfigurationError("a task among multiclass, binary, regression", got=task, remedy=remedy)
        if outputs is not None and (outputs == "values") != (task == "regression"):
            known = "values" if task == "regression" else "logits or probabilities"
            raise ConfigurationError(f"outputs of a {task} model: {known}", got=outputs, remedy="change it or the task")
        self.task: Task = task
        self.declared = outputs
        self.outputs: OutputKind = outputs or ("values" if task == "regression" else "logits")
        self.loss_function = make_loss(loss, task)
        self.meter = Meter()
        self.parameters = {
            name: tensor.detach() for name, tensor in module.named_parameters() if tensor.is_floating_point()
        }
        self.batch_size = batch_size or max(32, min(4096, _BATCH_BYTES // max(1, example_bytes)))
        self._module = module
        self._buffers = dict(module.named_buffers())
        state = [*self.parameters.values(), *self._buffers.values(), torch.zeros(())]
        self._device = state[0].device
        self._dtype = next(tensor.dtype for tensor in state if tensor.is_floating_point())
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
        """``loss_function.mean`` over the examples."""
        found = self.raw_outputs(parameters, inputs)
        return self.loss_function.mean(found, targets)

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)`` or values ``(n,)``, in batches."""
        return self._predicted(self.parameters, inputs)

    def weights(self) -> dict[str, NDArray[generic]]:
        """Copies of the parameters; float32 where NumPy has no such dtype (bfloat16)."""
        brief = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in self.parameters.items()}
        return {name: tensor.cpu().numpy().copy() for name, tensor in brief.items()}

    def predict_at(self, weights: Mapping[str, NDArray[generic]], inputs: NDArray[generic]) -> NDArray[np.float64]:
        """`predict` at other parameters; those that are not named stay."""
        moved = {
            name: torch.tensor(value, device=self._device, dtype=self.parameters[name].dtype)
            for name, value in weights.items()
        }
        return self._predicted({**self.parameters, **moved}, inputs)

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
        if not found.is_floating_point():
            raise ModelError("scores or values", got=str(found.dtype), remedy="return them before argmax or rounding")
        shape = tuple(found.shape)
        if shape in ((n,), (n, 1)):
            return found.reshape(n) if self.task == "regression" else self._two_columns(found.reshape(n))
        if self.task == "regression":
            raise ModelError(f"values ({n},) or ({n}, 1)", got=f"shape {shape}", remedy="declare another task")
        if len(shape) != 2 or shape[0] != n:
            raise ModelError(f"outputs ({n}, classes)", got=f"shape {shape}", remedy="declare another task")
        if self.task == "binary" and shape[1] != 2:
            got, remedy = f"{shape[1]} columns", "declare `task: multiclass`"
            raise ModelError("one or two columns of a binary classifier", got=got, remedy=remedy)
        return found if self.outputs == "logits" else self._log(found)

    def _two_columns(self, found: Tensor) -> Tensor:
        """One column of a binary classifier as two of log-odds or log-probabilities."""
        if self.task != "binary":
            remedy = "declare `task: binary` (or `task: regression`)"
            raise ModelError("a column for every class", got="one column", remedy=remedy)
        if self.outputs == "logits":
            return torch.stack([torch.zeros_like(found), found], dim=1)
        return self._log(torch.stack([1 - found, found], dim=1))

    @staticmethod
    def _log(probabilities: Tensor) -> Tensor:
        """Finite logarithms, so that a probability of 0 costs much and not everything."""
        return probabilities.clamp_min(max(_LOG_FLOOR, torch.finfo(probabilities.dtype).tiny)).log()
