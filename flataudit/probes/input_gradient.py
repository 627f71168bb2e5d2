"""How strongly the loss reacts to its inputs."""

from collections.abc import Sequence
from typing import ClassVar

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import Deadline, OutOfTime, out_of_time
from flataudit.curvature.inputs import loss_gradient_norms, why_no_input_gradients
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.means import mean

__all__ = ["InputGradient"]


class InputGradient(Record):
    """Mean over examples of ‖∇ₓ loss‖₂ (Drucker & LeCun 1992). Exact for each example; Student's interval.

    An example's loss is its share of the mean loss times the number of examples: with label weights or ignored
    targets n w ℓ / Σ w, and of a sequence the sum over its tokens. Of inputs with named fields only the numbers count;
    through a pipeline's encoders, which have no derivative, nothing is measured.
    """

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
        """One norm an example; models of whole numbers, and most pipelines, have no such gradient."""
        metric = self.metrics[0]
        reason = why_no_input_gradients(model, data)
        if reason is not None:
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason))]
        try:
            values = loss_gradient_norms(model, data, deadline=Deadline().sooner(budget.seconds))
        except OutOfTime:
            return out_of_time(self.metrics, budget)
        measured = metric.measured(**vars(mean(values)), samples=metric.name)
        return [Reading(measured, {metric.name: Array.pack(values)})]
