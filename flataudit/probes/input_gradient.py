"""How strongly the loss reacts to its inputs."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from flataudit.contracts import AuditData, Budget, Differentiable, Reading, Role
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.statistics.means import mean

__all__ = ["InputGradient"]


class InputGradient(Record):
    """Mean over examples of ‖∇ₓ loss‖₂ (Drucker & LeCun 1992). Exact for each example; Student's interval."""

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="input_gradient_norm",
            unit="loss/input unit",
            better="lower",
            description="Mean norm of the gradient of an example's loss in its inputs.",
        ),
    )

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """One norm an example; models with whole-number inputs have no such gradient."""
        metric = self.metrics[0]
        norms = []
        for inputs, targets in data.batches(model.batch_size):
            x, y = model.tensors(inputs, targets)
            if not x.is_floating_point():
                reason = "the inputs are whole numbers (tokens), which have no gradient"
                return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason))]
            x = x.detach().requires_grad_()
            assert y is not None
            (gradient,) = torch.autograd.grad(model.loss(model.parameters, x, y) * len(inputs), x)
            model.meter.backward += len(inputs)
            norms.append(gradient.flatten(1).norm(dim=1).double().cpu().numpy())
        values = np.concatenate(norms)
        measured = metric.measured(**vars(mean(values)), samples=metric.name)
        return [Reading(measured, {metric.name: Array.pack(values)})]
