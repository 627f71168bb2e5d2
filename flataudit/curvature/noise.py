"""The average rise of the loss under Gaussian noise on the parameters, with fresh noise for every stratum of examples.

The mean over examples is linear, so that each stratum may have its own noise and the sum keeps its expectation; the
errors of the strata average out instead of adding up, which is worth as many draws as there are strata, and makes the
sum nearly normal where a single rise is as skewed as χ². Each draw goes both ways (θ + s and θ − s), which removes the
odd orders and with them most of the variance away from a minimum.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flataudit.contracts import Budget
from flataudit.curvature.hutchinson import stratified
from flataudit.curvature.objective import Stratum
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface

__all__ = ["AverageRise", "average_rises"]

FEWEST_DRAWS = 2
"""Without a second draw there is no error."""


@dataclass(frozen=True)
class AverageRise:
    """A mean rise at one size of the noise, with the error of its draws; the data are taken as they are."""

    sigma: float
    estimate: float | None
    """None: the loss overflows under this noise."""
    standard_error: float | None
    """None where the draws do not differ: unknown."""
    interval: tuple[float, float] | None
    """Student's, with the degrees of freedom of Welch and Satterthwaite."""
    draws: int


def average_rises(
    surface: Surface, seed: int, *, scale: Tensor, sigmas: Sequence[float], draws: int, budget: Budget
) -> list[AverageRise]:
    """E[L(θ + σTε)] − L(θ) with ε ~ N(0, I) for each σ; fewer draws, or fewer σ, where the budget ends.

    On a quadratic it is σ² Σᵢ Tᵢ² Hᵢᵢ / 2. Every σ sees the same ε, so that the rises differ by σ alone and not by the
    draw. A draw is two forward passes, or one pass; no σ is started without room for two.

    Args:
        surface: the loss, around its own parameters.
        seed: of the noise.
        scale: T ``(parameters,)``, as in `flataudit.curvature.scales`.
        sigmas: standard deviations of the noise, in units of T.
        draws: at most so many, each both ways, at least 2.
        budget: no draw after its passes or seconds are spent.

    Raises:
        ModelError: the loss is not finite at the parameters themselves.
    """
    loss = surface.loss_here()
    deadline, left = time.monotonic() + budget.seconds, budget.passes
    found: list[AverageRise] = []
    for sigma in sigmas:
        count = min(draws, int(left))
        if count < FEWEST_DRAWS or time.monotonic() > deadline:
            break
        one = _average(surface, generator(seed, "weight noise"), sigma * scale, count, deadline)
        if one is None:
            break
        left -= len(one[0])
        found.append(_rise(sigma, loss, one, torch.finfo(scale.dtype).eps))
    return found


def _average(
    surface: Surface, source: torch.Generator, scale: Tensor, count: int, deadline: float
) -> list[list[float]] | None:
    """Mean losses of each stratum, one a draw, as shares of L; None where the time has no room for two draws."""
    strata = surface.strata()
    drawn: list[list[float]] = []
    for _ in range(count):
        if time.monotonic() > deadline:
            break
        drawn.append([_both_ways(stratum, scale * normals(scale, source)) for stratum in strata])
    return [list(values) for values in zip(*drawn, strict=True)] if len(drawn) >= FEWEST_DRAWS else None


def _both_ways(stratum: Stratum, step: Tensor) -> float:
    """The stratum's share of (L(θ + s) + L(θ − s)) / 2."""
    origin, total = stratum.objective.origin, 0.0
    with torch.no_grad():
        for batch in stratum.batches():
            ahead, back = batch.loss(origin + step), batch.loss(origin - step)
            total += batch.weight * (ahead.item() + back.item()) / 2
    return total


def _rise(sigma: float, loss: float, values: Sequence[Sequence[float]], rounding: float) -> AverageRise:
    """Σ_b x̄_b − L over strata b; the error is that of the draws within the strata."""
    draws = len(values[0])
    if not all(math.isfinite(value) for row in values for value in row):
        return AverageRise(sigma, None, None, None, draws)
    mean = stratified([1.0] * len(values), values, rounding=rounding)
    estimate = mean.estimate - loss
    if mean.standard_error is None or mean.interval is None:
        return AverageRise(sigma, estimate, None, None, draws)
    low, high = mean.interval
    return AverageRise(sigma, estimate, mean.standard_error, (low - loss, high - loss), draws)
