"""How much the loss can rise, and rises on average, near the parameters."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Budget, Differentiable, Reading, Role
from flataudit.curvature.ascent import Ball, worst_rise
from flataudit.curvature.noise import average_rise
from flataudit.curvature.objective import Objective
from flataudit.evidence import Metric, Record

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
AVERAGE = Metric(
    name="sharpness_average",
    unit="loss",
    better="lower",
    description="Mean rise of the loss under relative Gaussian noise θᵢ(1 + σε) on the parameters.",
)


class Sharpness(Record):
    """Worst-case sharpness by fixed-point ascent, a lower bound; average sharpness with its error over draws."""

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (L2, ADAPTIVE, AVERAGE)

    rho: PositiveFloat = 0.05
    """Radius of the L2 ball, in the parameters' own unit."""
    rho_adaptive: PositiveFloat = 0.5
    """Radius of the adaptive ball, relative to the parameters."""
    sigma: PositiveFloat = 0.1
    """Standard deviation of the relative noise of the average."""
    draws: PositiveInt = Field(5, ge=2)
    """Draws of the noise, each both ways."""
    steps: PositiveInt = 8
    """Most fixed-point steps of each of the two starts."""
    relative_error: PositiveFloat = 0.02
    """An ascent ends when a step adds less than this share."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Three numbers; the first two are lower bounds."""
        objective = Objective(model, data)
        origin = objective.origin
        return [
            self._worst(objective, L2, Ball(torch.ones_like(origin), self.rho), seed, budget),
            self._worst(objective, ADAPTIVE, Ball(origin.abs(), self.rho_adaptive), seed, budget),
            self._average(objective, seed),
        ]

    def _worst(self, objective: Objective, metric: Metric, ball: Ball, seed: int, budget: Budget) -> Reading:
        share = budget.model_copy(update={"passes": budget.passes / 3, "seconds": budget.seconds / 3})
        found = worst_rise(
            objective, seed, ball=ball, max_steps=self.steps, relative_error=self.relative_error, budget=share
        )
        details = {"rho": ball.rho, "gradients": found.gradients, "converged": str(found.converged)}
        return Reading(metric.measured(found.rise, bound="lower", n=len(objective.data), details=details))

    def _average(self, objective: Objective, seed: int) -> Reading:
        found = average_rise(objective, seed, sigma=self.sigma, draws=self.draws)
        measured = AVERAGE.measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=len(objective.data),
            details={"sigma": self.sigma, "draws": self.draws},
        )
        return Reading(measured)
