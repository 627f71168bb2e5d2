"""How strongly the outputs react to the inputs."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import NonNegativeInt, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import Deadline, OutOfTime, out_of_time
from flataudit.curvature.inputs import jacobian_norms, passes_of_jacobian, why_no_input_gradients
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.means import mean

__all__ = ["GeometricComplexity"]

COMPLEXITY = Metric(
    name="geometric_complexity",
    unit="output²/input²",
    better="lower",
    description="Mean over examples of ‖∂f/∂x‖²_F, the outputs' derivatives in the inputs (Dherin et al. 2022).",
)


class GeometricComplexity(Record):
    """(1/n) Σᵢ ‖∂f(xᵢ)/∂x‖²_F of the raw outputs f: logits, or values (Dherin et al. 2022). Lower is simpler.

    Exact for each example with few outputs, an unbiased estimate with many; Student's interval over the examples,
    which holds the error of such estimates too, since every example has random signs of its own. Unchanged by
    whatever leaves the function unchanged (rescaled layers), but not by a temperature of the logits: the detail
    ``at_unit_rms`` is the number after dividing the outputs by their root mean square over examples and outputs.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (COMPLEXITY,)

    exact_columns: NonNegativeInt = 50
    """Outputs (times tokens) up to which every one gets a backward pass of its own."""
    probes: PositiveInt = 8
    """Random sign vectors of each example beyond that, a backward pass each."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """One squared norm an example; models with whole-number inputs have no such derivative."""
        reason = why_no_input_gradients(model, data)
        if reason is not None:
            return [Reading(COMPLEXITY.missing(Outcome.NOT_APPLICABLE, reason))]
        needed = passes_of_jacobian(model, data, exact_columns=self.exact_columns, probes=self.probes)
        if needed > budget.passes:
            reason = f"it takes {needed:.3g} passes and {budget.passes:.3g} are left"
            advice = "raise budget.passes, or lower exact_columns and probes"
            return [Reading(COMPLEXITY.missing(Outcome.OVER_BUDGET, reason, advice))]
        deadline, advice = Deadline().sooner(budget.seconds), "raise budget.seconds, or lower exact_columns and probes"
        try:
            found = jacobian_norms(
                model, data, seed, exact_columns=self.exact_columns, probes=self.probes, deadline=deadline
            )
        except OutOfTime:
            return out_of_time(self.metrics, budget, advice)
        details = {
            "method": "exact" if found.exact else "random signs",
            "columns": float(found.columns),
            "probes": None if found.exact else float(self.probes),
            "outputs_rms": found.mean_square**0.5,
            "at_unit_rms": float(found.squares.mean()) / found.mean_square if found.mean_square > 0 else None,
        }
        measured = COMPLEXITY.measured(**vars(mean(found.squares)), samples=COMPLEXITY.name, details=details)
        return [Reading(measured, {COMPLEXITY.name: Array.pack(found.squares)})]
