"""flataudit's engine without its door: no checks of model, data or second derivatives, which no peer makes either.

Each call begins from nothing: a new surface, with its structure scan, gradients and graphs.
"""

import torch
from ours import UNLIMITED
from subjects import Subject

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import AuditData
from flataudit.curvature.extremes import Proof, extreme_eigenvalues
from flataudit.curvature.lanczos import SharedRun
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import hessian_trace
from flataudit.data.examples import checked

__all__ = ["Engine"]


class _Unchecked(Surface):
    def before_products(self) -> None:
        """No self-check."""


class Engine:
    """One network's loss, ready to be measured from nothing any number of times."""

    def __init__(self, net: Subject) -> None:
        self.data: AuditData = checked("train", "train", net.inputs.numpy(), net.targets.numpy(), source="engine")
        self.model = TorchModel(net.model, "multiclass", example_bytes=64 * int(self.data.inputs[:1].nbytes))

    def trace(self, seed: int) -> float:
        """Tr(H) at 1 % standard error."""
        with torch.enable_grad():
            found = hessian_trace(self._surface(), seed, relative_error=0.01, budget=UNLIMITED)
        assert found is not None
        return found.trace.estimate

    def largest(self, seed: int, proof: Proof) -> float:
        """λ_max to 1 %."""
        with torch.enable_grad():
            run = SharedRun.of(self._surface(), seed, along_gradient=proof == "residual")
            found = extreme_eigenvalues(
                run, relative_error=0.01, smallest_error=1.0, max_steps=100, ends=("largest",), proof=proof
            )
        return found.largest.value

    def _surface(self) -> Surface:
        self.model.meter.shared.clear()
        return _Unchecked(self.model, self.data)
