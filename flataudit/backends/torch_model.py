"""A torch module as the probes see it: a function of its parameters that is never written to.

Everything runs through `flataudit.backends.forward` on detached parameters and cloned buffers, so that weights,
buffers, gradients and flags stay as they are, whatever a probe does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Literal, cast

import numpy as np
import torch
from numpy import generic
from numpy.typing import NDArray
from torch import Tensor, nn

from flataudit.backends.answers import default_outputs
from flataudit.backends.arguments import Arguments
from flataudit.backends.forward import Forward
from flataudit.backends.scores import LOGARITHMS, in_form
from flataudit.contracts import Meter
from flataudit.curvature.losses import make_loss
from flataudit.errors import NoInputGradientError
from flataudit.specs import LossSpec, OutputKind, Task

__all__ = ["TorchModel", "evaluation_mode", "plain_module"]

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
    """The module that can be differentiated twice: a compiled one's original; None for what is no module."""
    module = getattr(model, "_orig_mod", model)
    return module if isinstance(module, nn.Module) else None


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
        arguments: what the module is called with; None: the batch as it is.
        output: where in what it returns the scores are; None: it returns them alone.

    Raises:
        ConfigurationError: the task is not yet audited, or its models do not return such outputs.
    """

    rounded: tuple[int, ...] | Literal["all"]
    """Which values of an example the module takes as whole numbers."""
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
        arguments: Arguments | None = None,
        output: str | None = None,
    ) -> None:
        self.task: Task = task
        self.declared = outputs
        self.outputs = default_outputs(outputs, task)
        self.loss_function = make_loss(loss, task)
        self.meter = Meter()
        self.batch_size = batch_size or max(32, min(4096, _BATCH_BYTES // max(1, example_bytes)))
        self.rounded = arguments.rounded if arguments else ()
        self._served = Forward(module, arguments=arguments, output=output, fixed_batch=fixed_batch)
        low = self._served.dtype in (torch.bfloat16, torch.float16)
        # Second derivatives need more digits than half precision has; predictions stay those that are served.
        self._forward = (self._served.cast(torch.float32) or self._served) if low else self._served
        self.parameters = self._forward.parameters
        self.device, self.dtype = str(self._served.device), str(self._served.dtype).removeprefix("torch.")

    def tensors(self, inputs: NDArray[generic], targets: NDArray[generic] | None) -> tuple[Tensor, Tensor | None]:
        """A batch on the model's device; numbers in its dtype, whole numbers wider than a byte as tokens (int64).

        Where the model takes several inputs the batch is still one tensor, and differentiable in their real numbers.

        Raises:
            ModelError: whole numbers among fractions that the dtype cannot hold.
        """
        array = np.ascontiguousarray(inputs)
        tokens = array.dtype.kind in "iu" and array.dtype.itemsize > 1
        device, dtype = self._forward.device, self._forward.dtype
        self._forward.arguments.check(array, dtype)
        x = torch.tensor(array, device=device, dtype=torch.int64 if tokens else dtype)
        if targets is None:
            return x, None
        kind = torch.int64 if np.asarray(targets).dtype.kind in "iu" else dtype
        return x, torch.tensor(np.asarray(targets), device=device, dtype=kind)

    def raw_outputs(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Logits or log-probabilities, log-odds, or values at these parameters; buffers may be named among them.

        ``(n, classes)`` or ``(n, tokens, classes)``, ``(n, labels)``, or ``(n,)``; counts a forward pass.
        """
        if self.rounded == "all" and inputs.requires_grad:
            got, remedy = "inputs that are rounded on the way", "measure it by its answers"
            raise NoInputGradientError("inputs that reach the model as they are", got=got, remedy=remedy)
        self.meter.forward += len(inputs)
        return in_form(self._forward(parameters, inputs), len(inputs), self.task, self.outputs)

    def raw(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """What the module itself returns as it is served, ``(n, …)``; counts a forward pass."""
        x, _ = self.tensors(inputs, None)
        self.meter.forward += len(x)
        with torch.no_grad():
            found = self._served(self._served.parameters, x)
        return cast("NDArray[np.float64]", found.double().cpu().numpy())

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

    def follows_its_parameters(self, inputs: NDArray[generic]) -> bool:
        """Whether the model answers differently where its parameters are said to be others: not so for some scripts."""
        found, _ = self.tensors(inputs, None)
        return self._served.follows_its_parameters(found)

    def _predicted(self, parameters: Mapping[str, Tensor], inputs: NDArray[generic]) -> NDArray[np.float64]:
        parts = []
        with torch.no_grad():
            for start in range(0, len(inputs), self.batch_size):
                x, _ = self.tensors(inputs[start : start + self.batch_size], None)
                self.meter.forward += len(x)
                found = in_form(self._served(parameters, x), len(x), self.task, self.outputs).double()
                parts.append(LOGARITHMS[self.task](found))
        return cast("NDArray[np.float64]", torch.cat(parts).cpu().numpy())
