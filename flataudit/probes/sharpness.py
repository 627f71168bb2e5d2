"""How much the loss can rise, and rises on average, near the parameters."""

from collections.abc import Sequence
from copy import copy
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.ascent import worst_rises
from flataudit.curvature.deadline import Deadline
from flataudit.curvature.noise import average_rises
from flataudit.curvature.scales import Scale, scale_of
from flataudit.curvature.surface import Surface
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role

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
    description="The same with every weight scaled by the norm of its filter (Kwon et al. 2021).",
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
    """How far the loss L rises around the parameters θ: at most, within a radius, and on average, under noise.

    *Worst case*: max L(θ + d) − L(θ) over ‖T⁻¹d‖₂ ≤ ρ, by fixed-point ascent from the gradient and from a random
    direction; always a lower bound, and the detail ``converged`` says whether the ascent had stopped rising. *Average*:
    E[L(θ + σTε)] − L(θ) with ε ~ N(0, I), estimated, with Student's interval over the draws; near a minimum it is
    σ² Σᵢ Tᵢ² Hᵢᵢ / 2. T is 1, |θ| or the norm of a filter; what each is invariant to is in
    `flataudit.curvature.scales`. Finite radii see the kinks that pointwise curvature does not.

    Each is measured at one or several radii: the metric is the value at the first, the details have the others as
    ``rise@0.1`` (or why they are missing, as ``missing@0.1``), and the arrays ``<metric>/radii`` and ``<metric>/rises``
    have all that were measured (average: ``<metric>/sigmas``).
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
        """Five numbers, of which the first three are lower bounds; what the budget has no room for is said to be so.

        Raises:
            ModelError: the loss is not finite at the parameters themselves.
        """
        purse = _Purse(model, budget, len(data))
        if purse.share(1).passes < _FEWEST:
            return [_over_budget(metric) for metric in self.metrics]
        surface = Surface.of(model, data, self.parameters)
        # Each may take an even share of the time that the ones before it left.
        return [
            self._worst(surface, L2, "unit", self.rho, seed, purse.share(5)),
            self._worst(surface, ADAPTIVE, "element", self.rho_adaptive, seed, purse.share(4)),
            self._worst(surface, FILTER, "filter", self.rho_filter, seed, purse.share(3)),
            self._average(surface, AVERAGE, "element", self.sigma, seed, purse.share(2)),
            self._average(surface, ISOTROPIC, "unit", self.sigma_isotropic, seed, purse.share(1)),
        ]

    def _worst(
        self, surface: Surface, metric: Metric, kind: Scale, radii: Sequence[float], seed: int, budget: Budget
    ) -> Reading:
        scale = scale_of(surface, kind)
        if not bool((scale > 0).any()):
            return _point(metric)
        found = worst_rises(
            surface,
            seed,
            scale=scale,
            radii=radii,
            max_steps=self.steps,
            relative_error=self.relative_error,
            budget=budget,
        )
        if not found:
            return _over_budget(metric)
        first = found[0]
        if first.rise is None:
            return _overflow(metric, f"at radius {first.radius:g}")
        details = _others(radii, [one.rise for one in found]) | {
            "rho": first.radius,
            "gradients": sum(one.gradients for one in found),
            "converged": str(first.converged),
        }
        measured = metric.measured(first.rise, bound="lower", n=len(surface.data), details=details)
        return Reading(measured, _arrays(metric, "radii", radii, [one.rise for one in found]))

    def _average(
        self, surface: Surface, metric: Metric, kind: Scale, sigmas: Sequence[float], seed: int, budget: Budget
    ) -> Reading:
        scale = scale_of(surface, kind)
        if not bool((scale > 0).any()):
            return _point(metric)
        found = average_rises(surface, seed, scale=scale, sigmas=sigmas, draws=self.draws, budget=budget)
        if not found:
            return _over_budget(metric)
        first = found[0]
        if first.estimate is None:
            return _overflow(metric, f"under noise of {first.sigma:g}")
        measured = metric.measured(
            first.estimate,
            standard_error=first.standard_error,
            interval=first.interval,
            n=len(surface.data),
            details=_others(sigmas, [one.estimate for one in found]) | {"sigma": first.sigma, "draws": first.draws},
        )
        return Reading(measured, _arrays(metric, "sigmas", sigmas, [one.estimate for one in found]))


_FEWEST = 2
"""Passes that the first number takes: the gradient at the parameters, and one step."""


class _Purse:
    """What is left of a budget after what went through the model since."""

    def __init__(self, model: Differentiable, budget: Budget, n: int) -> None:
        self._model, self._budget, self._n = model, budget, n
        self._before, self._deadline = copy(model.meter), Deadline().sooner(budget.seconds)

    def share(self, parts: int) -> Budget:
        """All the passes that are left, and one of so many equal parts of the time."""
        spent = self._model.meter.cost(self._before, self._n).passes
        return self._budget.model_copy(
            update={"passes": self._budget.passes - spent, "seconds": self._deadline.left / parts}
        )


def _over_budget(metric: Metric) -> Reading:
    reason = "the budget has no room for one step, or for two draws"
    return Reading(metric.missing(Outcome.OVER_BUDGET, reason, "raise budget.passes or budget.seconds"))


def _overflow(metric: Metric, where: str) -> Reading:
    advice = "take a smaller radius, or dtype float64"
    return Reading(metric.missing(Outcome.FAILED, f"the loss overflows {where}", advice))


def _point(metric: Metric) -> Reading:
    reason = "all parameters are 0: in units of their size they cannot move"
    return Reading(metric.missing(Outcome.NOT_APPLICABLE, reason))


def _others(radii: Sequence[float], rises: Sequence[float | None]) -> dict[str, float | str | None]:
    """Details of all radii but the first: their rises, or why there is none."""
    found: dict[str, float | str | None] = {}
    for index, radius in enumerate(radii[1:], start=1):
        if index >= len(rises):
            found[f"missing@{radius:g}"] = "the budget ended"
        elif rises[index] is None:
            found[f"missing@{radius:g}"] = "the loss overflows"
        else:
            found[f"rise@{radius:g}"] = rises[index]
    return found


def _arrays(metric: Metric, name: str, radii: Sequence[float], rises: Sequence[float | None]) -> dict[str, Array]:
    known = [(radius, rise) for radius, rise in zip(radii, rises, strict=False) if rise is not None]
    return {
        f"{metric.name}/{name}": Array.of([radius for radius, _ in known]),
        f"{metric.name}/rises": Array.of([rise for _, rise in known]),
    }
