"""Curvature of models that can be moved and not differentiated: from their losses at moved parameters."""

from collections.abc import Sequence
from copy import copy
from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Meter, Perturbable, Reading
from flataudit.curvature.deadline import Deadline, OutOfTime, out_of_time
from flataudit.curvature.moved_loss import MovedLoss
from flataudit.curvature.zeroth_order import SmoothedTrace, average_rise, smoothed_trace, worst_rise
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["SmoothedCurvature"]

TRACE = Metric(
    name="smoothed_trace",
    unit="loss/parameter²",
    better="lower",
    description="Trace of the Hessian by second differences of the loss at a finite step, kinks included.",
)
AVERAGE = Metric(
    name="smoothed_sharpness",
    unit="loss",
    better="lower",
    description="Mean rise of the loss under relative Gaussian noise θᵢ(1 + σε), from losses alone.",
)
WORST = Metric(
    name="smoothed_sharpness_worst",
    unit="loss",
    better="lower",
    description="Highest rise of the loss found at random and along an estimated gradient within a relative radius.",
)


class SmoothedCurvature(Record):
    """Curvature from losses at moved parameters, for models without derivatives; differentiable ones run it too.

    *Trace*: [L(θ + hv) + L(θ − hv) − 2 L(θ)] / h² over random sign vectors (Hutchinson 1989); h is swept and the
    step with the least rounding and smoothing counts. Its standard error holds the vectors, what the estimate still
    moves between steps, and rounding; it is estimated, never exact. For smooth networks it is Tr(H), as
    `hessian_trace` has it; a ReLU network's kinks count here and not there, so the two never share a name.
    *Average*: E[L(θ + σ|θ|ε)] − L(θ), the quantity of `sharpness_average`. *Worst case*: the highest of some points of
    ‖d/|θ|‖₂ ≤ ρ, a lower bound, and a weak one in many dimensions: the truth is that of `sharpness_adaptive`.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Perturbable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (TRACE, AVERAGE, WORST)

    relative_error: PositiveFloat = 0.05
    """The vectors end when their standard error is planned to be this share of the estimate."""
    max_vectors: PositiveInt = Field(64, ge=2)
    """Most vectors that measure; each takes two forward passes."""
    step: PositiveFloat | None = None
    """h in units of the parameters' root mean square; None: the best of a sweep. Fix it for networks with kinks, whose
    smoothed trace depends on it."""
    sigma: PositiveFloat = 0.1
    """Standard deviation of the noise, relative to each parameter."""
    draws: PositiveInt = Field(8, ge=2)
    """Draws of the noise, each both ways."""
    rho: PositiveFloat = 0.5
    """Radius of the worst case, in units of each parameter."""

    def measure(self, model: Perturbable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Three numbers; what the budget has no room for is said to be so.

        Raises:
            ModelError: the loss is not finite at the parameters themselves.
        """
        if not any(value.size for value in model.weights().values()):
            reason = "the model has no floating-point parameters"
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason)) for metric in self.metrics]
        if 2 * budget.passes < 2 * self.draws + 20:
            return [_over_budget(metric) for metric in self.metrics]
        before, readings = copy(model.meter), list[Reading]()
        try:
            loss = MovedLoss(model, data, deadline=Deadline().sooner(budget.seconds))
            readings.append(self._average(loss, seed))
            readings.append(self._worst(loss, seed))
        except OutOfTime:
            return out_of_time([TRACE], budget) + readings + out_of_time((AVERAGE, WORST)[len(readings) :], budget)
        left = budget.model_copy(update={"passes": max(1e-9, budget.passes - _spent(model.meter, before, len(data)))})
        found = smoothed_trace(
            loss,
            seed,
            relative_error=self.relative_error,
            max_vectors=self.max_vectors,
            step=self.step,
            budget=left,
        )
        return [
            _over_budget(TRACE) if found is None else _traced(found, len(data), fixed=self.step is not None),
            *readings,
        ]

    def _average(self, loss: MovedLoss, seed: int) -> Reading:
        found = average_rise(loss, seed, sigma=self.sigma, draws=self.draws)
        if found is None:
            reason, advice = f"the loss overflows under noise of {self.sigma:g}", "take a smaller sigma"
            return Reading(AVERAGE.missing(Outcome.FAILED, reason, advice))
        measured = AVERAGE.measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=len(loss.data),
            details={"sigma": self.sigma, "draws": found.draws},
        )
        return Reading(measured)

    def _worst(self, loss: MovedLoss, seed: int) -> Reading:
        found = worst_rise(loss, seed, rho=self.rho)
        details = {"rho": self.rho, "points": found.draws, "method": "random directions and an estimated gradient"}
        return Reading(WORST.measured(found.estimate, bound="lower", n=len(loss.data), details=details))


def _spent(now: Meter, before: Meter, n: int) -> float:
    return now.cost(before, n).passes


def _traced(found: SmoothedTrace, n: int, *, fixed: bool) -> Reading:
    if not found.converged and not fixed:
        other = max(found.plateau_error, found.rounding_error)
        reason = (
            f"the estimate has no plateau (kinks, or rounding): {found.estimate:.3g} at a step of {found.step:.2g} "
            f"is uncertain by {other:.2g}"
        )
        advice = "fix the probe's step, and compare at that step alone; or read smoothed_sharpness"
        return Reading(TRACE.missing(Outcome.NOT_CONVERGED, reason, advice))
    measured = TRACE.measured(
        found.estimate,
        standard_error=found.standard_error,
        interval=found.interval,
        n=n,
        details={
            "method": "smoothed: second differences of the loss",
            "h": found.step,
            "vectors": found.vectors,
            "vector_error": found.vector_error,
            "plateau_error": found.plateau_error,
            "rounding_error": found.rounding_error,
        },
    )
    arrays = {"smoothed_trace/steps": Array.of(found.steps), "smoothed_trace/curve": Array.of(found.curve)}
    return Reading(measured, arrays)


def _over_budget(metric: Metric) -> Reading:
    reason = "the budget has no room for the sweep of steps"
    return Reading(metric.missing(Outcome.OVER_BUDGET, reason, "raise budget.passes or budget.seconds"))
