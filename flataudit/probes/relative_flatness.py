"""How curved the loss is in proportion to the weights: what rescaling layers cannot change."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import Deadline, OutOfTime, out_of_time
from flataudit.curvature.hutchinson import TraceEstimate
from flataudit.curvature.relative_flatness import chosen_layer, relative_flatness
from flataudit.curvature.reparametrisation import Reparametrised, logit_scale
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import weighted_trace
from flataudit.evidence import Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["RelativeFlatness"]

WEIGHTED = Metric(
    name="weighted_trace",
    unit="loss",
    better="lower",
    description="Σ θᵢ² Hᵢᵢ: the trace of the Hessian in units of the parameters themselves.",
)
RELATIVE = Metric(
    name="relative_flatness",
    unit="loss",
    better="lower",
    description="Relative flatness of the last layer (Petzka et al. 2021): Σ ⟨w_s, w_s'⟩ Tr(H_ss').",
)
NORMALISED = Metric(
    name="weighted_trace_normalised",
    unit="loss",
    better="lower",
    description="The weighted trace with the logits brought to a root mean square of 1: blind to temperature too.",
)


class RelativeFlatness(Record):
    """Σ θᵢ² Hᵢᵢ (Tsuzuku et al. 2020) and the relative flatness of one layer (Petzka et al. 2021). Lower is flatter.

    Both stand still when a ReLU layer is multiplied and the next one divided, which moves the plain trace anywhere
    (Dinh et al. 2017). A logit temperature still moves them; `weighted_trace_normalised` stands still under that as
    well. Exact for piecewise-affine networks and for layers that the outputs are affine in; elsewhere random vectors
    estimate them, with Student's interval.
    """

    version: ClassVar[str] = "3"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (WEIGHTED, RELATIVE, NORMALISED)

    relative_error: PositiveFloat = 0.02
    """Stop when the standard error falls below this share of the estimate."""
    max_matvecs: PositiveInt = 32
    """Most Hessian-vector products over all the data, for each metric."""
    layer: str | None = None
    """Layer of `relative_flatness`; None: the last one with a weight matrix."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that count."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Three numbers with their errors."""
        third = budget.model_copy(update={"passes": min(budget.passes / 3, 2.0 * self.max_matvecs)})
        surface = Surface.of(model, data, self.parameters)
        with surface.within(budget.seconds) as deadline:
            # Each may take an even share of the time that the ones before it left.
            share = third.model_copy(update={"seconds": budget.seconds / 3})
            first = self._weighted(surface, seed, share)
            share = third.model_copy(update={"seconds": deadline.left / 2})
            second = self._relative(surface, seed, share)
            share = third.model_copy(update={"seconds": deadline.left})
            return [first, second, self._normalised(model, data, seed, share)]

    def _weighted(self, surface: Surface, seed: int, budget: Budget) -> Reading:
        try:
            with surface.within(budget.seconds):
                slope = float(surface.slope_here()[1].norm())
                found = weighted_trace(surface, seed, relative_error=self.relative_error, budget=budget)
        except OutOfTime:
            return out_of_time([WEIGHTED], budget)[0]
        if found is None:
            return _over_budget(WEIGHTED, budget)
        return _reading(WEIGHTED, found.trace, len(surface.data), method=found.method, gradient_norm=slope)

    def _relative(self, surface: Surface, seed: int, budget: Budget) -> Reading:
        layer = chosen_layer(surface, self.layer)
        try:
            with surface.within(budget.seconds):
                slope = float(surface.slope_here()[1].norm())
                found = relative_flatness(surface, seed, layer=layer, relative_error=self.relative_error, budget=budget)
        except OutOfTime:
            return out_of_time([RELATIVE], budget)[0]
        if found is None:
            return _over_budget(RELATIVE, budget)
        return _reading(RELATIVE, found, len(surface.data), layer=layer, gradient_norm=slope)

    def _normalised(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Reading:
        if model.task == "regression":
            return Reading(NORMALISED.missing(Outcome.NOT_APPLICABLE, "a regression has no logits"))
        deadline = Deadline().sooner(budget.seconds)
        try:
            scale = logit_scale(model, data, deadline=deadline)
        except OutOfTime:
            return out_of_time([NORMALISED], budget)[0]
        if scale == 0:
            return Reading(NORMALISED.missing(Outcome.NOT_APPLICABLE, "all logits of an example are equal"))
        other = Reparametrised(model, factor=1 / scale)
        surface = Surface.of(other, data, self.parameters)
        try:
            with surface.within(deadline.left):
                slope = float(surface.slope_here()[1].norm())
                found = weighted_trace(surface, seed, relative_error=self.relative_error, budget=budget)
        except OutOfTime:
            return out_of_time([NORMALISED], budget)[0]
        finally:
            other.charge()
        if found is None:
            return _over_budget(NORMALISED, budget)
        return _reading(NORMALISED, found.trace, len(data), logit_scale=scale, gradient_norm=slope)


def _over_budget(metric: Metric, budget: Budget) -> Reading:
    reason = f"its share of the budget ({budget.passes:.3g} passes, {budget.seconds:.3g} s) has no room for it"
    return Reading(metric.missing(Outcome.OVER_BUDGET, reason, "raise budget.passes or budget.seconds"))


def _reading(metric: Metric, found: TraceEstimate, n: int, **details: float | str) -> Reading:
    return Reading(
        metric.measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=n,
            details={"stopped": found.stopped, **details},
        )
    )
