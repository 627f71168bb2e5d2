"""A torch module as a pure function of parameters, buffers and inputs: nothing of it is ever written to."""

import warnings
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flataudit.backends.rewriting import Rewriting, Watching
from flataudit.errors import ModelError

__all__ = ["Forward"]


class Forward:
    """Calls a module through `torch.func.functional_call`, in a form that can be differentiated twice.

    Args:
        module: in evaluation mode, on its device.
        fixed_batch: the only number of examples that it takes (a program exported without a dynamic batch); inputs
            are then cut into such batches, the last filled up with copies of its first example.
    """

    def __init__(self, module: nn.Module, *, fixed_batch: int | None = None) -> None:
        self._module, self._fixed = module, fixed_batch
        self._rewrites: bool | None = None
        self._buffers = dict(module.named_buffers())
        self.parameters: dict[str, Tensor] = {
            name: tensor.detach() for name, tensor in module.named_parameters() if tensor.is_floating_point()
        }
        """Every floating-point parameter once, detached."""
        state = [*self.parameters.values(), *self._buffers.values(), torch.zeros(())]
        self.device = state[0].device
        self.dtype = next(tensor.dtype for tensor in state if tensor.is_floating_point())

    def __call__(self, state: Mapping[str, Tensor], inputs: Tensor) -> object:
        """What the module returns with these parameters (and buffers, where some are named).

        Raises:
            ModelError: a program of a fixed batch that returns more than one tensor.
        """
        whole = {**{name: buffer.clone() for name, buffer in self._buffers.items()}, **state}
        if self._fixed is None:
            return self._called(whole, inputs)
        return self._in_fixed_batches(whole, inputs, self._fixed)

    def cast(self, dtype: torch.dtype) -> "Forward | None":
        """A copy in another dtype; None where the module cannot be copied or cast."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch warns of a class of its own in exported programs
            try:
                return Forward(deepcopy(self._module).to(dtype), fixed_batch=self._fixed)
            except Exception:  # noqa: BLE001  # a module's own deepcopy or cast may raise anything
                return None

    def _called(self, state: Mapping[str, Tensor], inputs: Tensor) -> object:
        with sdpa_kernel(SDPBackend.MATH):  # the fast kernels have no second derivative
            if self._rewrites is None:
                with Watching() as watching:
                    found = torch.func.functional_call(self._module, dict(state), (inputs,))
                self._rewrites = bool(watching.found)
                if not self._rewrites:
                    return found
            if not self._rewrites:
                return torch.func.functional_call(self._module, dict(state), (inputs,))
            with Rewriting():
                return torch.func.functional_call(self._module, dict(state), (inputs,))

    def _in_fixed_batches(self, state: Mapping[str, Tensor], inputs: Tensor, size: int) -> Tensor:
        found = []
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            missing = size - len(part)
            full = torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part
            answer = self._called(state, full)
            if not isinstance(answer, Tensor):
                remedy = "export it with a dynamic batch dimension"
                raise ModelError("one tensor of outputs", got=f"a {type(answer).__name__}", remedy=remedy)
            found.append(answer[: len(part)])
        return torch.cat(found)
