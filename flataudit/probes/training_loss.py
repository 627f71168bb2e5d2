"""How low the loss is where curvature is measured: flatness of two candidates compares only at similar levels."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import OutOfTime, out_of_time
from flataudit.curvature.structure import Pass
from flataudit.curvature.surface import Surface
from flataudit.evidence import Metric, Record
from flataudit.specs import Budget, Role

__all__ = ["TrainingLoss"]

LOSS = Metric(
    name="training_loss",
    unit="nats or squared target unit",
    better="neither",
    description="Mean loss on the examples that curvature is measured on, as trained. Exact on these examples.",
)


class TrainingLoss(Record):
    """L(θ), the loss as declared, on the training examples (validation where there are none); one pass.

    Its details say whether the network normalises by statistics that training gathered (batch norm), which inflates
    eigenvalues, and how many parameters it has. The comparer reads both before it compares any flatness.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)

    examples: PositiveInt = 2
    """Examples that go through the network to see how it normalises."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The one metric."""
        surface = Surface.of(model, data)
        try:
            with surface.within(budget.seconds):
                seen = Pass(surface, next(surface.batches(0, min(self.examples, len(data))))).recorder
                loss = surface.loss_here()
        except OutOfTime:
            return out_of_time(self.metrics, budget)
        details = {
            "normalisation": "gathered statistics" if seen.statistics else "none gathered",
            "parameters": float(sum(parameter.numel() for parameter in model.parameters.values())),
        }
        return [Reading(LOSS.measured(loss, standard_error=0.0, n=len(data), details=details))]
