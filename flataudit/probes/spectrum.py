"""The ends of the Hessian's spectrum, and whether the parameters are at a minimum at all."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import OutOfTime, out_of_time
from flataudit.curvature.extremes import End, Extreme, Extremes, Proof, extreme_eigenvalues
from flataudit.curvature.lanczos import SHORT_STEPS, SharedRun, Tridiagonal, basis_bytes, steps_within
from flataudit.curvature.stationarity import stationarity
from flataudit.curvature.surface import Surface
from flataudit.evidence import Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["Spectrum"]

LAMBDA_MAX = Metric(
    name="lambda_max",
    unit="loss/parameter²",
    better="lower",
    description="Largest eigenvalue of the Hessian of the mean loss: the curvature of the sharpest direction.",
)
LAMBDA_MIN = Metric(
    name="lambda_min",
    unit="loss/parameter²",
    better="neither",
    description="Smallest eigenvalue; clearly below zero, the parameters are at no minimum.",
)
SPECTRAL_NORM = Metric(
    name="spectral_norm",
    unit="loss/parameter²",
    better="lower",
    description="Largest eigenvalue in magnitude: the Lipschitz constant of the gradient at the parameters.",
)
CONDITION_NUMBER = Metric(
    name="condition_number",
    better="lower",
    description="Largest eigenvalue over the smallest above a floor; a lower bound, never more than 1 / floor.",
)
GRADIENT_NORM = Metric(
    name="gradient_norm",
    unit="loss/parameter",
    better="neither",
    description="Norm of the gradient of the mean loss; far from zero, curvature describes a slope, not a minimum.",
)

Details = Mapping[str, float | str | None]


class Spectrum(Record):
    """λ_max, λ_min, their magnitude and their ratio by Lanczos (1950) with full reorthogonalisation; ‖∇L‖ beside them.

    A Ritz value never exceeds λ_max and never undercuts λ_min, so that estimates are bounds; the intervals reach to
    where the eigenvalues are with 95 %, both together, over random starts (van Dorsselaer et al. 2000), however many
    steps the run took. It stops when they are as narrow as asked. What has not converged is said to have not.
    By ``interval`` its run is that of `spectral_density`: whoever comes second continues it.
    """

    version: ClassVar[str] = "4"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (LAMBDA_MAX, LAMBDA_MIN, SPECTRAL_NORM, CONDITION_NUMBER, GRADIENT_NORM)

    relative_error: PositiveFloat = 0.01
    """λ_max is known when its interval is no wider than this share of it."""
    smallest_error: PositiveFloat = 0.1
    """λ_min is known when its interval is no wider than this share of the largest eigenvalue in magnitude."""
    ends: tuple[End, ...] = Field(("largest", "smallest"), min_length=1)
    """The ends that the run goes on for; the other is measured if it happens to converge."""
    proof: Proof = "interval"
    """What ends the run: the interval's width, or (``residual``) an error that is only expected, as other libraries do.

    A run that ends by its residual starts halfway along the gradient, which most often takes three products. The
    interval is printed in any case, as wide as the steps make it."""
    max_steps: PositiveInt = 40
    """Most Hessian-vector products over all the data."""
    floor: float = Field(1e-3, gt=0, lt=1)
    """Eigenvalues below this share of λ_max do not count in the condition number."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that count: names, or ``last:2`` for the last two layers."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All from one run and one gradient; a value that has not converged is an outcome with the best so far."""
        surface = Surface.of(model, data, self.parameters)
        try:
            with surface.within(budget.seconds):
                return self._measured(surface, seed, budget)
        except OutOfTime:
            if not surface.knows("gradient"):
                return out_of_time(self.metrics, budget)
            return [*out_of_time(self.metrics[:-1], budget), Reading(_gradient(surface, {}))]

    def _measured(self, surface: Surface, seed: int, budget: Budget) -> Sequence[Reading]:
        short = basis_bytes(surface.origin, self.max_steps) > min(budget.memory_bytes / 2, surface.spare_bytes)
        run = SharedRun.of(surface, seed, along_gradient=self.proof == "residual", short=short)
        affordable = run.ready + int((budget.passes - 1) / 2)
        # What a short run holds is what this many steps of another would.
        room = steps_within(budget.memory_bytes / 2, surface.origin) >= SHORT_STEPS
        limit = min(self.max_steps, affordable) if room else 0
        if limit < min(2, self.max_steps):
            what = "passes" if room else "memory_bytes"
            found = [_over_budget(metric, what) for metric in self.metrics[:-1]]
            return [Reading(m) for m in (*found, _gradient(surface, {}))]
        run.slope()  # while there is time for it: every number is read beside it
        ends = extreme_eigenvalues(
            run,
            relative_error=self.relative_error,
            smallest_error=self.smallest_error,
            max_steps=limit,
            ends=self.ends,
            proof=self.proof,
            seconds=budget.seconds,
        )
        scale = max(abs(ends.largest.value), abs(ends.smallest.value))
        slope = stationarity(surface, ends.largest.value).details(ends.smallest.value, scale)
        basis = "two vectors" if run.run.short else "whole"
        told = {"steps": float(ends.steps), "exhausted": str(ends.exhausted), "basis": basis, **slope}
        found = [
            _end(LAMBDA_MAX, ends.largest, ends, told, bound="lower"),
            _end(LAMBDA_MIN, ends.smallest, ends, told, bound="upper"),
            _end(SPECTRAL_NORM, _norm(ends, self.relative_error, self.proof), ends, told, bound="lower"),
            self._condition(run.to(ends.steps), ends, told),
            _gradient(surface, slope),
        ]
        return [Reading(m.model_copy(update={"n": len(surface.data)})) for m in found]

    def _condition(self, known: Tridiagonal, ends: Extremes, told: Details) -> Measurement:
        """λ_max / λ of the smallest converged Ritz value λ ≥ floor λ_max; there may be eigenvalues between the two."""
        top = ends.largest
        if top.value <= ends.rounding:
            missing = CONDITION_NUMBER.missing(Outcome.NOT_APPLICABLE, "no eigenvalue is known to be positive")
            return missing.model_copy(update={"details": told})
        if not top.converged:
            return _unconverged(CONDITION_NUMBER, top, told, what="λ_max")
        value, residual = min(
            (value, residual)
            for value, residual in zip(known.ritz[0].tolist(), known.residuals.tolist(), strict=True)
            if value == top.value or (value >= self.floor * top.value and residual <= self.relative_error * value)
        )
        ratio = top.value / value
        most = top.reach / value if ends.exhausted else 1 / self.floor
        return CONDITION_NUMBER.measured(
            ratio,
            standard_error=0.0 if ends.exhausted else None,
            interval=(min(ratio, max(1.0, top.value / (value + residual))), max(most, ratio)),
            bound="estimate" if ends.exhausted else "lower",
            details={
                **told,
                "floor": self.floor * top.value,
                "smallest_above_floor": value,
                "residual": residual,
            },
        )


def _norm(ends: Extremes, relative_error: float, proof: Proof) -> Extreme:
    """The end of the larger magnitude, with the reach of the farther one."""
    larger = max(ends.largest, ends.smallest, key=lambda end: abs(end.value))
    value, limit = abs(larger.value), max(ends.largest.reach, -ends.smallest.reach)
    both = proof == "residual" and ends.largest.converged and ends.smallest.converged
    close = ends.exhausted or both or limit - value <= max(relative_error * value, ends.rounding)
    return Extreme(value, max(value, limit), larger.residual, close)


def _end(metric: Metric, end: Extreme, ends: Extremes, told: Details, *, bound: str) -> Measurement:
    if not end.converged:
        return _unconverged(metric, end, told, what=metric.name)
    return metric.measured(
        end.value,
        standard_error=0.0 if ends.exhausted else None,
        interval=(end.value - ends.rounding, end.value + ends.rounding) if ends.exhausted else end.interval,
        bound="estimate" if ends.exhausted else bound,
        details={**told, "residual": end.residual},
    )


def _unconverged(metric: Metric, end: Extreme, told: Details, *, what: str) -> Measurement:
    low, high = end.interval
    reason = f"{what} is known to lie between {low:.4g} and {high:.4g} after {told['steps']} products"
    missing = metric.missing(Outcome.NOT_CONVERGED, reason, "raise max_steps or the budget, or ask for less precision")
    details = {**told, "best": end.value, "reach": end.reach, "residual": end.residual}
    return missing.model_copy(update={"details": details})


def _over_budget(metric: Metric, what: str) -> Measurement:
    return metric.missing(Outcome.OVER_BUDGET, f"budget.{what} has no room for two products", f"raise budget.{what}")


def _gradient(surface: Surface, told: Details) -> Measurement:
    return GRADIENT_NORM.measured(float(surface.slope_here()[1].norm()), standard_error=0.0, details=told)
