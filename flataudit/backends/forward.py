"""A torch module as a pure function of parameters, buffers and inputs: nothing of it is ever written to."""

import warnings
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flataudit.backends.arguments import Arguments
from flataudit.backends.rewriting import Rewriting, Watching
from flataudit.backends.scores import pick
from flataudit.backends.torchscript import Scripted

__all__ = ["Forward"]


class Forward:
    """Calls a module through `torch.func.functional_call`, in a form that can be differentiated twice.

    Args:
        module: in evaluation mode, on its device; a script is the caller's own copy.
        arguments: what it is called with.
        output: where in what it returns the scores are.
        fixed_batch: the only number of examples that it takes (a program exported without a dynamic batch); inputs
            are then cut into such batches, the last filled up with copies of its first example.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        arguments: Arguments | None = None,
        output: str | None = None,
        fixed_batch: int | None = None,
    ) -> None:
        self.arguments, self.output = arguments or Arguments(), output
        self._module, self._fixed = module, fixed_batch
        self._scripted = Scripted(module) if isinstance(module, torch.jit.ScriptModule) else None
        self._rewrites: bool | None = None if self._scripted is None else False
        self._buffers = dict(module.named_buffers())
        self.parameters: dict[str, Tensor] = {
            name: tensor.detach() for name, tensor in module.named_parameters() if tensor.is_floating_point()
        }
        """Every floating-point parameter once, detached."""
        state = [*self.parameters.values(), *self._buffers.values(), torch.zeros(())]
        self.device = state[0].device
        self.dtype = next(tensor.dtype for tensor in state if tensor.is_floating_point())

    def __call__(self, state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The scores with these parameters (and buffers, where some are named), as the module returns them.

        Raises:
            ModelError: there is no tensor where the scores should be.
        """
        whole = {**{name: buffer.clone() for name, buffer in self._buffers.items()}, **state}
        if self._fixed is None:
            return self._scores(whole, inputs)
        return self._in_fixed_batches(whole, inputs, self._fixed)

    def cast(self, dtype: torch.dtype) -> "Forward | None":
        """A copy in another dtype; None where the module cannot be copied or cast."""
        with warnings.catch_warnings(), torch.no_grad():  # a script's copy would else be a part of a graph
            warnings.simplefilter("ignore", FutureWarning)  # torch warns of a class of its own in exported programs
            try:
                module = deepcopy(self._module).to(dtype)
                return Forward(module, arguments=self.arguments, output=self.output, fixed_batch=self._fixed)
            except Exception:  # noqa: BLE001  # a module's own deepcopy or cast may raise anything
                return None

    def follows_its_parameters(self, inputs: Tensor) -> bool:
        """Whether this is a function of all parameters: always, but for a script that hides some from its caller."""
        args, keywords = self.arguments(inputs, self.dtype)
        return self._scripted is None or self._scripted.follows(args, keywords)

    def _scores(self, state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        args, keywords = self.arguments(inputs, self.dtype)
        with sdpa_kernel(SDPBackend.MATH):  # the fast kernels have no second derivative
            if self._rewrites is None:
                with Watching() as watching:
                    returned = self._called(state, args, keywords)
                self._rewrites = bool(watching.found)
                if not self._rewrites:
                    return pick(returned, self.output)
            if not self._rewrites:
                return pick(self._called(state, args, keywords), self.output)
            with Rewriting():
                return pick(self._called(state, args, keywords), self.output)

    def _called(self, state: Mapping[str, Tensor], args: tuple[object, ...], keywords: dict[str, object]) -> object:
        if self._scripted is not None:
            return self._scripted(state, args, keywords)
        return torch.func.functional_call(self._module, dict(state), args, keywords)

    def _in_fixed_batches(self, state: Mapping[str, Tensor], inputs: Tensor, size: int) -> Tensor:
        found = []
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            missing = size - len(part)
            full = torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part
            found.append(self._scores(state, full)[: len(part)])
        return torch.cat(found)
