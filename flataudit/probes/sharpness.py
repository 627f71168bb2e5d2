"""How much the loss can rise, and rises on average, near the parameters."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Budget, Differentiable, Reading, Role
from flataudit.curvature.ascent import WorstRise, worst_rises
from flataudit.curvature.noise import AverageRise, average_rises
from flataudit.curvature.scales import Scale, scale_of
from flataudit.curvature.surface import Surface
from flataudit.evidence import Array, Metric, Outcome, Record

__all__ = ["Sharpness"]

L2 = Metric(
    name="sharpness_l2",
    unit="loss",
    better="lower",
    description="Highest rise of the loss within ‖d‖₂ ≤ ρ of the parameters (Foret et al. 2021).",
)
ADAPTIVE = Metric(
    name="sharpness_adaptive",
    unit="loss",
    better="lower",
    description="The same with every coordinate scaled by |θᵢ| (Kwon et al. 2021): invariant to rescaling.",
)
FILTER = Metric(
    name="sharpness_filter",
    unit="loss",
    better="lower",
    description="The same with every coordinate scaled by the norm of its filter (Kwon et al. 2021).",
)
AVERAGE = Metric(
    name="sharpness_average",
    unit="loss",
    better="lower",
    description="Mean rise of the loss under relative Gaussian noise θᵢ(1 + σε) on the parameters.",
)
ISOTROPIC = Metric(
    name="sharpness_average_isotropic",
    unit="loss",
    better="lower",
    description="Mean rise of the loss under Gaussian noise θᵢ + σε of one size for all parameters.",
)


def _several(value: object) -> object:
    return (value,) if isinstance(value, int | float) else value


Radii = Annotated[tuple[PositiveFloat, ...], BeforeValidator(_several)]
"""One number, or several of which the first is the metric's."""


class Sharpness(Record):
    """Worst-case sharpness by fixed-point ascent, a lower bound; average sharpness with its error over draws.

    Each is measured at one or several radii; the metric is the value at the first, ``<metric>/radii`` and
    ``<metric>/rises`` have them all (average: ``/sigmas``). What each scaling is invariant to is in
    `flataudit.curvature.scales`. Finite radii see the kinks that pointwise curvature does not.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (L2, ADAPTIVE, FILTER, AVERAGE, ISOTROPIC)

    rho: Radii = Field((0.05,), min_length=1)
    """Radii of the L2 ball, in the parameters' own unit."""
    rho_adaptive: Radii = Field((0.5,), min_length=1)
    """Radii of the ball in units of each parameter."""
    rho_filter: Radii = Field((0.1,), min_length=1)
    """Radii of the ball in units of each filter's norm."""
    sigma: Radii = Field((0.1,), min_length=1)
    """Standard deviations of the noise, relative to each parameter."""
    sigma_isotropic: Radii = Field((0.01,), min_length=1)
    """Standard deviations of the noise, in the parameters' own unit."""
    draws: PositiveInt = Field(4, ge=2)
    """Draws of the noise for each run of 256 examples, each both ways."""
    steps: PositiveInt = 12
    """Most fixed-point steps of each of the two starts."""
    relative_error: PositiveFloat = 0.02
    """An ascent ends when what is left of it is less than this share."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that move."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Five numbers; the first three are lower bounds."""
        surface = Surface.of(model, data, self.parameters)
        share = budget.model_copy(update={"passes": budget.passes / 5, "seconds": budget.seconds / 5})
        return [
            self._worst(surface, L2, "unit", self.rho, seed, share),
            self._worst(surface, ADAPTIVE, "element", self.rho_adaptive, seed, share),
            self._worst(surface, FILTER, "filter", self.rho_filter, seed, share),
            self._average(surface, AVERAGE, "element", self.sigma, seed, share),
            self._average(surface, ISOTROPIC, "unit", self.sigma_isotropic, seed, share),
        ]

    def _worst(
        self, surface: Surface, metric: Metric, kind: Scale, radii: Sequence[float], seed: int, budget: Budget
    ) -> Reading:
        found = worst_rises(
            surface,
            seed,
            scale=scale_of(surface, kind),
            radii=radii,
            max_steps=self.steps,
            relative_error=self.relative_error,
            budget=budget,
        )
        if not found:
            return Reading(metric.missing(Outcome.OVER_BUDGET, "the budget has no room for a step", _MORE))
        first = found[0]
        if first.rise is None:
            reason = f"the loss overflows within {first.radius:g}"
            return Reading(metric.missing(Outcome.FAILED, reason, "take a smaller radius, or dtype float64"))
        details = {f"rise@{one.radius:g}": one.rise for one in found[1:]} | {
            "rho": first.radius,
            "gradients": sum(one.gradients for one in found),
            "converged": str(first.converged),
        }
        measured = metric.measured(first.rise, bound="lower", n=len(surface.data), details=details)
        return Reading(measured, _worst_arrays(metric, found))

    def _average(
        self, surface: Surface, metric: Metric, kind: Scale, sigmas: Sequence[float], seed: int, budget: Budget
    ) -> Reading:
        scale = scale_of(surface, kind)
        found = average_rises(surface, seed, scale=scale, sigmas=sigmas, draws=self.draws, budget=budget)
        if not found:
            return Reading(metric.missing(Outcome.OVER_BUDGET, "the budget has no room for two draws", _MORE))
        first = found[0]
        if first.estimate is None:
            reason = f"the loss overflows under noise of {first.sigma:g}"
            return Reading(metric.missing(Outcome.FAILED, reason, "take a smaller sigma, or dtype float64"))
        details = {f"rise@{one.sigma:g}": one.estimate for one in found[1:]}
        measured = metric.measured(
            first.estimate,
            standard_error=first.standard_error,
            interval=first.interval,
            n=len(surface.data),
            details=details | {"sigma": first.sigma, "draws": first.draws},
        )
        return Reading(measured, _average_arrays(metric, found))


_MORE = "raise budget.passes or budget.seconds"


def _worst_arrays(metric: Metric, found: Sequence[WorstRise]) -> dict[str, Array]:
    known = [(one.radius, one.rise) for one in found if one.rise is not None]
    return {
        f"{metric.name}/radii": Array.of([radius for radius, _ in known]),
        f"{metric.name}/rises": Array.of([rise for _, rise in known]),
    }


def _average_arrays(metric: Metric, found: Sequence[AverageRise]) -> dict[str, Array]:
    known = [(one.sigma, one.estimate) for one in found if one.estimate is not None]
    return {
        f"{metric.name}/sigmas": Array.of([sigma for sigma, _ in known]),
        f"{metric.name}/rises": Array.of([rise for _, rise in known]),
    }
