"""A torch module as the probes see it: a function of its parameters that is never written to.

Everything runs through `flataudit.backends.forward` on detached parameters and cloned buffers, so that weights,
buffers, gradients and flags stay as they are, whatever a probe does.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import cast

import numpy as np
import torch
from numpy import generic
from numpy.typing import NDArray
from torch import Tensor, nn

from flataudit.backends.answers import default_outputs
from flataudit.backends.forward import Forward
from flataudit.contracts import LossSpec, Meter, OutputKind, Task
from flataudit.curvature.losses import make_loss
from flataudit.errors import ModelError

__all__ = ["TorchModel", "evaluation_mode", "plain_module"]

_LOG_FLOOR = 1e-30
_BATCH_BYTES = 64 * 2**20


_LOGARITHMS: Mapping[Task, Callable[[Tensor], Tensor]] = {
    "multiclass": lambda logits: logits.log_softmax(dim=-1),
    "binary": lambda logits: logits.log_softmax(dim=-1),
    "multilabel": nn.functional.logsigmoid,
    "regression": lambda values: values,
}


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
        outputs: ``logits``, ``probabilities``, ``log_probabilities`` or ``values``; None: logits or values.
        loss: what it was trained with; None: cross-entropy or squared error.
        batch_size: most examples a pass; None: from 32 to 4096, by ``example_bytes``.
        example_bytes: memory that one example takes inside the model, in bytes.
        fixed_batch: the only batch size that the module takes; None: any.

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
        fixed_batch: int | None = None,
    ) -> None:
        self.task: Task = task
        self.declared = outputs
        self.outputs = default_outputs(outputs, task)
        self.loss_function = make_loss(loss, task)
        self.meter = Meter()
        self.batch_size = batch_size or max(32, min(4096, _BATCH_BYTES // max(1, example_bytes)))
        self._served = Forward(module, fixed_batch=fixed_batch)
        low = self._served.dtype in (torch.bfloat16, torch.float16)
        # Second derivatives need more digits than half precision has; predictions stay those that are served.
        self._forward = (self._served.cast(torch.float32) or self._served) if low else self._served
        self.parameters = self._forward.parameters
        self.device, self.dtype = str(self._served.device), str(self._served.dtype).removeprefix("torch.")

    def tensors(self, inputs: NDArray[generic], targets: NDArray[generic] | None) -> tuple[Tensor, Tensor | None]:
        """A batch on the model's device; numbers in its dtype, whole numbers wider than a byte as tokens (int64)."""
        array = np.ascontiguousarray(inputs)
        tokens = array.dtype.kind in "iu" and array.dtype.itemsize > 1
        device, dtype = self._forward.device, self._forward.dtype
        x = torch.tensor(array, device=device, dtype=torch.int64 if tokens else dtype)
        if targets is None:
            return x, None
        kind = torch.int64 if np.asarray(targets).dtype.kind in "iu" else dtype
        return x, torch.tensor(np.asarray(targets), device=device, dtype=kind)

    def raw_outputs(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Logits or log-probabilities, log-odds, or values at these parameters; buffers may be named among them.

        ``(n, classes)`` or ``(n, tokens, classes)``, ``(n, labels)``, or ``(n,)``; counts a forward pass.
        """
        self.meter.forward += len(inputs)
        return self._shaped(self._forward(parameters, inputs), len(inputs))

    def raw(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """What the module itself returns as it is served, ``(n, …)``; counts a forward pass."""
        x, _ = self.tensors(inputs, None)
        self.meter.forward += len(x)
        with torch.no_grad():
            found = self._served(self._served.parameters, x.to(self._served.dtype) if x.is_floating_point() else x)
        return cast("NDArray[np.float64]", self._one_tensor(found).double().cpu().numpy())

    def precise(self) -> "TorchModel | None":
        """The same model in float64, to check numbers against; None where it cannot be had."""
        exact = self._served.cast(torch.float64)
        if exact is None:
            return None
        twin = copy(self)
        twin._forward = twin._served = exact
        twin.parameters, twin.dtype, twin.meter = exact.parameters, "float64", Meter()
        return twin

    def loss(self, parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """``loss_function.mean`` over the examples."""
        return self.loss_function.mean(self.raw_outputs(parameters, inputs), targets)

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)`` or values ``(n,)``, in batches."""
        return self._predicted(self._served.parameters, inputs)

    def weights(self) -> dict[str, NDArray[generic]]:
        """Copies of the parameters; float32 where NumPy has no such dtype (bfloat16)."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.parameters.items()}

    def predict_at(self, weights: Mapping[str, NDArray[generic]], inputs: NDArray[generic]) -> NDArray[np.float64]:
        """`predict` at other parameters; those that are not named stay."""
        own = self._served.parameters
        moved = {
            name: torch.tensor(value, device=own[name].device, dtype=own[name].dtype) for name, value in weights.items()
        }
        return self._predicted({**own, **moved}, inputs)

    def _predicted(self, parameters: Mapping[str, Tensor], inputs: NDArray[generic]) -> NDArray[np.float64]:
        parts = []
        with torch.no_grad():
            for start in range(0, len(inputs), self.batch_size):
                x, _ = self.tensors(inputs[start : start + self.batch_size], None)
                self.meter.forward += len(x)
                x = x.to(self._served.dtype) if x.is_floating_point() else x
                found = self._shaped(self._served(parameters, x), len(x)).double()
                parts.append(_LOGARITHMS[self.task](found))
        return cast("NDArray[np.float64]", torch.cat(parts).cpu().numpy())

    @staticmethod
    def _one_tensor(found: object) -> Tensor:
        if not isinstance(found, Tensor):
            got = f"a {type(found).__name__}"
            raise ModelError("one tensor of outputs", got=got, remedy="declare `output:`, where the scores are")
        return found

    def _shaped(self, returned: object, n: int) -> Tensor:
        found = self._one_tensor(returned)
        if not found.is_floating_point():
            raise ModelError("scores or values", got=str(found.dtype), remedy="return them before argmax or rounding")
        shape = tuple(found.shape)
        if shape in ((n,), (n, 1)) and self.task != "multilabel":
            return found.reshape(n) if self.task == "regression" else self._two_columns(found.reshape(n))
        if self.task == "regression":
            raise ModelError(f"values ({n},) or ({n}, 1)", got=f"shape {shape}", remedy="declare another task")
        sequence = self.task == "multiclass" and len(shape) == 3 and shape[2] > 1
        if not (len(shape) == 2 or sequence) or shape[0] != n:
            raise ModelError(f"outputs ({n}, classes)", got=f"shape {shape}", remedy="declare another task")
        if self.task == "multilabel" and self.outputs != "logits":
            found = found if self.outputs == "probabilities" else found.exp()
            return torch.logit(found, max(_LOG_FLOOR, torch.finfo(found.dtype).eps / 2))
        if self.task == "binary" and shape[1] != 2:
            got, remedy = f"{shape[1]} columns", "declare `task: multiclass`"
            raise ModelError("one or two columns of a binary classifier", got=got, remedy=remedy)
        return self._log(found) if self.outputs == "probabilities" else found

    def _two_columns(self, found: Tensor) -> Tensor:
        """One column of a binary classifier as two of log-odds or log-probabilities."""
        if self.task != "binary":
            remedy = "declare `task: binary` (or `task: regression`)"
            raise ModelError("a column for every class", got="one column", remedy=remedy)
        if self.outputs == "logits":
            return torch.stack([torch.zeros_like(found), found], dim=1)
        if self.outputs == "log_probabilities":
            tiny = torch.finfo(found.dtype).tiny
            return torch.stack([(-torch.expm1(found.clamp_max(0))).clamp_min(tiny).log(), found], dim=1)
        return self._log(torch.stack([1 - found, found], dim=1))

    @staticmethod
    def _log(probabilities: Tensor) -> Tensor:
        """Finite logarithms, so that a probability of 0 costs much and not everything."""
        return probabilities.clamp_min(max(_LOG_FLOOR, torch.finfo(probabilities.dtype).tiny)).log()
