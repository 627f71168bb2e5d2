"""What the trace of the Hessian is, and how precisely this candidate's is known."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Budget, Differentiable, Reading, Role
from flataudit.curvature.hutchinson import estimate_trace
from flataudit.curvature.objective import Objective
from flataudit.evidence import Metric, Outcome, Record

__all__ = ["HessianTrace"]


class HessianTrace(Record):
    """Tr(H) of the mean loss (Hutchinson 1989). Unit: loss per squared parameter. Lower is flatter.

    Estimated, with Student's interval. Not invariant to rescaling layers or logits: it explains, and ranks only
    candidates of one architecture.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="hessian_trace",
            unit="loss/parameter²",
            better="lower",
            description="Trace of the Hessian of the mean loss, the sum of all curvatures.",
        ),
    )

    relative_error: PositiveFloat = 0.05
    """Stop when the standard error falls below this share of the estimate."""
    max_matvecs: PositiveInt = 64
    """Most Hessian-vector products over all the data."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """One number with its error; says whether precision or the budget ended it."""
        allowed = budget.model_copy(update={"passes": min(budget.passes, 2.0 * self.max_matvecs)})
        found = estimate_trace(Objective(model, data), seed, relative_error=self.relative_error, budget=allowed)
        if found is None:
            reason = f"{budget.passes:.3g} passes have no room for two products"
            return [Reading(self.metrics[0].missing(Outcome.OVER_BUDGET, reason, "raise budget.passes"))]
        measured = self.metrics[0].measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=len(data),
            details={
                "vectors_per_batch": found.vectors,
                "degrees_of_freedom": found.degrees_of_freedom,
                "stopped": found.stopped,
            },
        )
        return [Reading(measured)]
