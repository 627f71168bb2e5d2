"""What Gaussian noise on the parameters does on average: how far the loss rises, and how many answers stay right.

Every stratum of examples has noise of its own. The mean over examples is linear, so that its expectation stays; the
errors of the strata average out instead of adding up, which is worth as many draws as there are strata, and makes the
sum nearly normal where a single rise is as skewed as χ². For the loss each draw goes both ways (θ + s and θ − s), which
removes the odd orders and with them most of the variance away from a minimum.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.hutchinson import TraceEstimate, stratified
from flataudit.curvature.objective import Stratum
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface
from flataudit.specs import Budget

__all__ = ["AverageRise", "NoisyAnswers", "Score", "average_rises"]

Score = Callable[["NDArray[np.generic]", "NDArray[np.generic]"], NDArray[np.float64]]
"""How right each answer is, ``(n,)`` in [0, 1], from the answers and targets of all examples."""

FEWEST_DRAWS = 2
"""Without a second draw there is no error."""
RUNS = 8
"""Runs of examples with noise of their own when answers are counted; more would cost more noise than they save."""


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
    left = budget.passes
    found: list[AverageRise] = []
    with surface.within(budget.seconds), suppress(OutOfTime):
        loss = surface.loss_here()
        for sigma in sigmas:
            count = min(draws, int(left))
            if count < FEWEST_DRAWS:
                break
            one = _average(surface, generator(seed, "weight noise"), sigma * scale, count)
            left -= len(one[0])
            found.append(_rise(sigma, loss, one, torch.finfo(scale.dtype).eps))
    return found


def _average(surface: Surface, source: torch.Generator, scale: Tensor, count: int) -> list[list[float]]:
    """Mean losses of each stratum, one a draw, as shares of L; fewer draws where time ends, two at least."""
    strata = surface.strata()
    drawn: list[list[float]] = []
    try:
        for _ in range(count):
            drawn.append([_both_ways(stratum, scale * normals(scale, source)) for stratum in strata])
    except OutOfTime:
        if len(drawn) < FEWEST_DRAWS:
            raise
    return [list(values) for values in zip(*drawn, strict=True)]


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


class NoisyAnswers:
    """How right a model's answers are with noise on the chosen parameters of a surface.

    The noise is drawn by NumPy, on copies of the weights, and each of `RUNS` runs of examples has its own: a draw is
    one forward pass and counts as so many.

    Args:
        surface: of the parameters that get the noise.
        seed: of the noise.
        score: what the mean is over.

    Raises:
        ModelError: the model itself does not answer with numbers.
        OutOfTime: the surface's deadline came first.
    """

    def __init__(self, surface: Surface, seed: int, score: Score) -> None:
        assert surface.data.targets is not None
        self.surface, self.model, self.data = surface, surface.model, surface.data
        self._targets, self._seed, self._score = surface.data.targets, seed, score
        weights = self.model.weights()
        self._weights = {name: weights[name] for name in surface.names}
        batches = surface.deadline.each(self.data.batches(self.model.batch_size))
        answers = np.concatenate([self.model.predict(inputs) for inputs, _ in batches])
        self.classes = int(answers.shape[-1])
        """Columns of the answers."""
        self.clean = float(score(answers, self._targets).mean())
        """Mean correctness without noise."""
        self.square = float(surface.origin.double().square().sum())
        """‖θ‖² of the chosen parameters."""
        count = min(RUNS, len(self.data))
        self._edges = [round(i * len(self.data) / count) for i in range(count + 1)]
        self.shares = [(stop - start) / len(self.data) for start, stop in pairwise(self._edges)]
        """Of the runs, of all examples."""

    def right(self, sigma: float, draws: int, purpose: str, *, relative: bool = False) -> TraceEstimate:
        """Mean score at θ + σTε, with its error over the draws.

        Args:
            sigma: σ.
            draws: at least 2.
            purpose: the noise is the same for the same purpose, whatever σ, and independent for another.
            relative: T = |θ|; else T = 1.

        Raises:
            OutOfTime: the surface's deadline came before all draws.
        """
        rows = []
        for draw in range(draws):
            stream = (zlib.crc32(f"weight noise: {purpose}".encode()), draw)
            runs = range(len(self.shares))
            right = self._scored(np.concatenate([self._answers(sigma, run, stream, relative) for run in runs]))
            rows.append([float(right[start:stop].mean()) for start, stop in pairwise(self._edges)])
        return stratified(self.shares, [list(values) for values in zip(*rows, strict=True)])

    def _answers(self, sigma: float, run: int, stream: tuple[int, int], relative: bool) -> NDArray[np.float64]:
        """Of one run of examples, to a network with noise of its own."""
        source = np.random.default_rng([self._seed, *stream, run])
        moved = {}
        for name, value in self._weights.items():
            whole = np.asarray(value, dtype=np.float64)
            size = np.abs(whole) if relative else 1.0
            moved[name] = (whole + sigma * size * source.standard_normal(whole.shape)).astype(value.dtype)
        start, stop, size = self._edges[run], self._edges[run + 1], self.model.batch_size
        parts = [
            self.model.predict_at(moved, self.data.inputs[first : min(first + size, stop)])
            for first in self.surface.deadline.each(range(start, stop, size))
        ]
        return np.concatenate(parts)

    def _scored(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Correctness of each example; 0 where the answer is not a number."""
        broken = ~np.isfinite(answers) if self.model.task == "regression" else np.isnan(answers)
        wrong = broken.reshape(len(answers), -1).any(axis=1)
        right = self._score(np.where(broken, 0.0, answers), self._targets)
        return np.where(wrong, 0.0, right)
