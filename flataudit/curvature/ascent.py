"""The worst rise of the loss within a radius, by a fixed-point ascent: a lower bound of the true maximum.

max L(θ + d) − L(θ) over ‖T⁻¹d‖₂ ≤ ρ, with T = 1 (Foret et al. 2021) or T = |θ| element by element (Kwon et al. 2021,
invariant to rescaling of ReLU units). A maximum on the boundary satisfies d = ρ T²g / ‖Tg‖ at g = ∇L(θ + d); iterating
that map rises monotonically where the loss is convex and reaches nearly the best in a few passes elsewhere, where one
step of it, as in training, may stop at a quarter. The adaptive rise has local maxima, hence two starts.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from flataudit.contracts import Budget
from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, normals

__all__ = ["Ball", "WorstRise", "worst_rise"]


@dataclass(frozen=True)
class Ball:
    """All d with ‖T⁻¹d‖₂ ≤ ρ."""

    scale: torch.Tensor
    """T ``(parameters,)``, not negative; parameters of scale 0 stay."""
    rho: float

    def best_step(self, slope: torch.Tensor) -> torch.Tensor:
        """ρ T²g / ‖Tg‖: where a loss of constant gradient g is highest; nothing where Tg vanishes."""
        length = float((self.scale * slope).norm())
        return torch.zeros_like(slope) if length == 0 else self.scale**2 * slope * (self.rho / length)

    def random_step(self, seed: int) -> torch.Tensor:
        """A point of the boundary in a uniform direction of T⁻¹d."""
        drawn = normals(self.scale, generator(seed, "ascent")) * (self.scale > 0)
        length = float(drawn.norm())
        return torch.zeros_like(drawn) if length == 0 else self.scale * drawn * (self.rho / length)


@dataclass(frozen=True)
class WorstRise:
    """The highest rise that was found."""

    rise: float
    """At least 0: d = 0 is within the radius."""
    gradients: int
    """Evaluated, over all starts."""
    converged: bool
    """Both ascents had stopped rising before their last step."""


def worst_rise(
    objective: Objective, seed: int, *, ball: Ball, max_steps: int, relative_error: float, budget: Budget
) -> WorstRise:
    """The best iterate of two ascents, one from the gradient and one from a random direction.

    Args:
        objective: the loss; the ascent is around its own parameters.
        seed: of the random start.
        ball: where d may lie.
        max_steps: of each ascent; a step is one gradient.
        relative_error: an ascent ends when a step raises its best by less than this share of it.
        budget: no step after its passes or seconds are spent.

    Raises:
        ModelError: the loss is not finite somewhere within the radius.
    """
    afford = _affordable(budget)
    loss, slope = objective.gradient(objective.origin)
    best, gradients, converged = 0.0, 1, True
    for step in (ball.best_step(slope), ball.random_step(seed)):
        highest, settled = -math.inf, False
        for _ in range(max_steps):
            if settled or not afford():
                break
            there, slope = objective.gradient(objective.origin + step)
            gradients += 1
            rise, step = there - loss, ball.best_step(slope)
            settled = math.isfinite(highest) and rise <= highest + relative_error * abs(highest)
            highest = max(highest, rise)
        best, converged = max(best, highest), converged and settled
    return WorstRise(best, gradients, converged)


def _affordable(budget: Budget) -> Callable[[], bool]:
    """Counts a pass with each call; False once passes or seconds are spent. One pass is spent already."""
    began, spent = time.monotonic(), 1

    def afford() -> bool:
        nonlocal spent
        spent += 1
        return spent <= budget.passes and time.monotonic() - began < budget.seconds

    return afford
