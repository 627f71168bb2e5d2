"""The average rise of the loss under Gaussian noise on the weights, in proportion to their size."""

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit

from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, normals

__all__ = ["AverageRise", "average_rise"]


@dataclass(frozen=True)
class AverageRise:
    """A mean rise with the error of its draws; the data are taken as they are."""

    estimate: float
    standard_error: float | None
    """None of a single draw, and where the draws do not differ: unknown."""
    interval: tuple[float, float] | None
    draws: int


def average_rise(objective: Objective, seed: int, *, sigma: float, draws: int, confidence: float = 0.95) -> AverageRise:
    """E[L(θ + σ|θ|ε)] − L(θ) with ε ~ N(0, I); 2 ``draws`` + 1 forward passes.

    Near a minimum it is σ² Σᵢ θᵢ² Hᵢᵢ / 2, and for any loss it is unchanged when ReLU units are rescaled. Each draw is
    the mean of ε and −ε, which removes the odd orders and with them most of the variance away from a minimum.
    """
    source = generator(seed, "weight noise")
    origin = objective.origin
    loss = objective.loss(origin)
    rises = []
    for _ in range(draws):
        step = sigma * origin.abs() * normals(origin, source)
        rises.append((objective.loss(origin + step) + objective.loss(origin - step)) / 2 - loss)
    values = torch.tensor(rises, dtype=torch.float64)
    estimate = float(values.mean())
    error = float(values.std(correction=1)) / math.sqrt(draws) if draws > 1 else 0.0
    if error == 0:
        return AverageRise(estimate, None, None, draws)
    half = float(stdtrit(draws - 1, (1 + confidence) / 2)) * error
    return AverageRise(estimate, error, (estimate - half, estimate + half), draws)
