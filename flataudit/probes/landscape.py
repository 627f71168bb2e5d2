"""The loss along random directions on the scale of the network's own filters."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import OutOfTime, out_of_time
from flataudit.curvature.directions import filter_normalised
from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator
from flataudit.evidence import Array, Metric, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.means import mean

__all__ = ["Landscape"]


_FEWEST = 2
"""Directions without which there is no error."""


class Landscape(Record):
    """Mean rise of the loss at a distance along random filter-normalised directions (Li et al. 2018).

    A distance of 1 moves every filter by its own norm. Arrays: ``landscape/steps`` ``(steps,)`` and
    ``landscape/curves`` ``(directions, steps)``, the loss along each direction.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="landscape_rise",
            unit="loss",
            better="lower",
            description="Mean rise of the loss at the given distance, both ways along random directions.",
        ),
    )

    directions: PositiveInt = Field(2, ge=2)
    """Random directions; each is walked both ways. Fewer, two at least, where time ends."""
    distance: PositiveFloat = 0.5
    """Distance at which the rise is taken; the curves reach as far."""
    steps: PositiveInt = Field(5, ge=2)
    """Points on each side of the parameters."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The mean rise, with its error over directions, and the curves."""
        objective = Objective(model, data)
        source = generator(seed, "landscape")
        offsets = np.linspace(-self.distance, self.distance, 2 * self.steps + 1)
        curves: list[list[float]] = []
        try:
            with objective.within(budget.seconds):
                base = objective.loss(objective.origin)
                for _ in range(self.directions):
                    step = filter_normalised(model.parameters, source)
                    curves.append([objective.loss(objective.origin + float(t) * step) if t else base for t in offsets])
        except OutOfTime:
            if len(curves) < _FEWEST:
                return out_of_time(self.metrics, budget, "raise budget.seconds, or lower directions or steps")
        losses = np.array(curves)
        found = mean(losses[:, [0, -1]].mean(axis=1) - base)
        measured = self.metrics[0].measured(
            **vars(found) | {"n": len(data)}, details={"distance": self.distance, "directions": len(curves)}
        )
        return [Reading(measured, {"landscape/steps": Array.pack(offsets), "landscape/curves": Array.pack(losses)})]
