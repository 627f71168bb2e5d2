"""Curvature of models that give no derivatives, from their losses at moved parameters (zeroth-order estimates).

For a sign vector v, [L(θ + hv) + L(θ − hv) − 2 L(θ)] / h² estimates Tr(H) of the loss smoothed over steps of size h
(Hutchinson 1989 with second differences). Two errors stand against each other: what h smooths over grows with h, and
the rounding of float32 outputs counts 1/h². So h is swept over a grid with the same vectors at every step, rounding is
measured at a step so short that it is all there is, and the step with the least of both counts. Losses are added up in
float64. Every run of examples has vectors of its own, whose errors average out; the vectors that choose the step are
thrown away.

Where a network has kinks, a finite step sees them and pointwise derivatives do not: the smoothed trace of a ReLU
network is another number than its `hessian_trace`, and has another name. It also depends on the step: kinks have no
plateau, and an estimate that moves by more than half of itself at shorter steps is not called converged.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from scipy.special import stdtrit

from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.moved_loss import MovedLoss
from flataudit.errors import ModelError
from flataudit.specs import Budget

__all__ = ["Rise", "SmoothedTrace", "average_rise", "smoothed_trace", "worst_rise"]

GRID = tuple(2.0**-power for power in range(2, 11))
"""Steps in units of the parameters' root mean square, each half of the one before."""
PILOT = 4
"""Vectors that choose the step."""
NOISE = 8
"""Vectors at a step that is all rounding."""
FEWEST = 8
"""Vectors that measure, where the budget allows."""
_RELIABLE = 0.05
"""Share of an estimate that rounding may be where it still says something."""
_WORST_DIRECTIONS = 8


@dataclass(frozen=True)
class SmoothedTrace:
    """An estimate with the errors that it is made of, all in its own unit."""

    estimate: float
    standard_error: float
    """Of the vectors, the step and rounding together."""
    interval: tuple[float, float]
    """At 95 %: Student's for the vectors, twice the other errors added in squares."""
    vectors: int
    step: float
    """The h that was chosen."""
    vector_error: float
    """Standard error over independent vectors."""
    plateau_error: float
    """What the estimate still moves at shorter steps that rounding spares, or extrapolated to h = 0."""
    rounding_error: float
    """What the rounding of L(θ) adds."""
    steps: tuple[float, ...]
    """Every h of the sweep …"""
    curve: tuple[float, ...]
    """… and what the pilot's vectors give there."""

    @property
    def converged(self) -> bool:
        """Whether some step is neither all rounding nor all smoothing."""
        return math.hypot(self.plateau_error, self.rounding_error) <= 0.5 * abs(self.estimate)


def smoothed_trace(
    loss: MovedLoss,
    seed: int,
    *,
    relative_error: float = 0.05,
    max_vectors: int = 64,
    step: float | None = None,
    budget: Budget | None = None,
) -> SmoothedTrace | None:
    """Tr(H) by second differences; None where the budget has no room for the sweep and two vectors.

    Args:
        loss: of a model at other parameters.
        seed: of the vectors.
        relative_error: the vectors end when their standard error is planned to be this share of the estimate.
        max_vectors: the most that measure.
        step: h in units of the parameters' root mean square, whose trace is then meant; None: the best of the sweep.
        budget: two forward passes count as one.

    Raises:
        ModelError: the loss is not finite at any step.
    """
    allowed = budget or Budget()
    deadline = loss.deadline.sooner(allowed.seconds)
    sweep = 2 * (len(GRID) * PILOT + NOISE)
    affordable = int((2 * allowed.passes - sweep) // 2)
    if affordable < 2:
        return None
    try:
        chosen = _chosen(loss, seed, step)
    except OutOfTime:
        return None
    typical = float(np.std(chosen.pilot, ddof=1)) / max(abs(float(np.mean(chosen.pilot))), math.ulp(0.0))
    wanted = min(max_vectors, max(FEWEST, math.ceil(min(1e9, (typical / relative_error) ** 2))))
    found: list[float] = []
    with suppress(OutOfTime):
        for vector in deadline.each(range(min(wanted, affordable))):
            second = _second(loss, seed, "smoothed trace", vector, (chosen.step,), chosen.base)[0]
            found.append(second / chosen.step**2)
    return _put_together(found, chosen) if len(found) >= 2 else None


@dataclass(frozen=True)
class _Chosen:
    """The step, and what the sweep knows of it."""

    step: float
    base: float
    pilot: NDArray[np.float64]
    bias: float
    rounding: float
    steps: tuple[float, ...]
    curve: tuple[float, ...]


def _chosen(loss: MovedLoss, seed: int, step: float | None) -> _Chosen:
    """Sweep the grid, measure rounding, and take the step with the least error of both kinds."""
    size, here = loss.size, sum(loss.here)
    short = size * max(float(np.finfo(v.dtype.name).eps) for v in loss.weights.values()) ** 0.7
    shares = GRID if step is None else tuple(step * 2.0**-power for power in range(-2, len(GRID) - 2))
    steps = tuple(size * share for share in shares)
    noise = [_second(loss, seed, "smoothed noise", vector, (short,), here)[0] for vector in range(NOISE)]
    swept = np.array([_second(loss, seed, "smoothed sweep", vector, steps, here) for vector in range(PILOT)])
    # Middle values of L(θ ± tiny) know L(θ) better than its one rounded evaluation does.
    base = here + float(np.mean(noise)) / 2
    spread, squares = max(float(np.std(noise, ddof=1)), math.ulp(here)), np.square(steps)
    of_base = spread / math.sqrt(NOISE) / squares
    with np.errstate(invalid="ignore"):
        seconds = (swept - 2 * (base - here)) / squares
        curve = seconds.mean(axis=0)
        bias, rounding = _drift(curve), np.hypot(of_base, spread / math.sqrt(FEWEST) / squares)
    total = np.hypot(bias, rounding)
    if not np.isfinite(total).any():
        remedy = "the network is too sensitive, or not finite near its parameters"
        raise ModelError("finite losses near the parameters", got="none at any step", remedy=remedy)
    best = int(np.argmin(total)) if step is None else 2
    shorter = [k for k in range(best + 1, len(steps)) if rounding[k] <= _RELIABLE * abs(curve[k])]
    apart = max((abs(float(curve[k] - curve[best])) for k in shorter), default=0.0)
    return _Chosen(
        steps[best],
        base,
        seconds[:, best],
        max(apart, float(bias[best])) if step is None else 0.0,
        float(of_base[best]),
        steps,
        tuple(float(value) for value in curve),
    )


def _drift(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each value of the curve may still be from its limit at h → 0, if it moves with h².

    Between h and h/2 it moves by 3/4 of what is left, between 2h and h by three times that; the larger counts, so that
    one pair that happens to agree chooses nothing.
    """
    with np.errstate(invalid="ignore"):
        moves = np.abs(np.diff(curve))
    below = np.append(moves, moves[-1] / 4) * (4 / 3)
    above = np.insert(moves, 0, moves[0]) / 3
    return np.where(np.isfinite(curve), np.fmax(below, above), np.inf)


def _second(loss: MovedLoss, seed: int, purpose: str, vector: int, steps: Sequence[float], base: float) -> list[float]:
    """L(θ + hv) + L(θ − hv) − 2 base at each step, with one vector for each run."""
    found = np.zeros(len(steps))
    for run, direction in enumerate(loss.draws(seed, purpose, vector, signs=True)):
        for place, step in enumerate(steps):
            found[place] += sum(loss.of_run(loss.moved(direction, sign * step), run) for sign in (1, -1))
    return [float(value) - 2 * base for value in found]


def _put_together(found: Sequence[float], chosen: _Chosen) -> SmoothedTrace:
    count, estimate = len(found), float(np.mean(found))
    if not math.isfinite(estimate):
        remedy = "the network is too sensitive near its parameters"
        raise ModelError("finite losses near the parameters", got="an infinite one", remedy=remedy)
    between = float(np.std(found, ddof=1)) / math.sqrt(count)
    other = math.hypot(chosen.bias, chosen.rounding)
    half = math.hypot(float(stdtrit(count - 1, 0.975)) * between, 2 * other)
    return SmoothedTrace(
        estimate,
        math.hypot(between, other),
        (estimate - half, estimate + half),
        count,
        chosen.step,
        between,
        chosen.bias,
        chosen.rounding,
        chosen.steps,
        chosen.curve,
    )


@dataclass(frozen=True)
class Rise:
    """How much the loss rises near the parameters."""

    estimate: float
    standard_error: float | None
    """None: a bound, or unknown."""
    interval: tuple[float, float] | None
    draws: int


def average_rise(loss: MovedLoss, seed: int, *, sigma: float, draws: int) -> Rise | None:
    """E[L(θ + σ|θ|ε)] − L(θ) with ε ~ N(0, I), both ways; None where the loss overflows.

    Args:
        loss: of the model.
        seed: of the noise.
        sigma: σ.
        draws: at least 2, each with noise of its own for every run; fewer where the loss's deadline comes.

    Raises:
        OutOfTime: it came before two draws.
    """
    found: list[float] = []
    try:
        for draw in range(draws):
            found.append(_noisy(loss, seed, draw, sigma) - sum(loss.here))
    except OutOfTime:
        if len(found) < 2:
            raise
    if not np.isfinite(found).all():
        return None
    count, estimate = len(found), float(np.mean(found))
    error = float(np.std(found, ddof=1)) / math.sqrt(count)
    half = float(stdtrit(count - 1, 0.975)) * error
    return Rise(estimate, error, (estimate - half, estimate + half), count)


def _noisy(loss: MovedLoss, seed: int, draw: int, sigma: float) -> float:
    """Mean of the losses both ways from the parameters, with noise of its own on each run."""
    total = 0.0
    for run, noise in enumerate(loss.draws(seed, "smoothed noise on weights", draw, signs=False)):
        scaled = _in_units_of_size(loss, noise)
        total += sum(loss.of_run(loss.moved(scaled, sign * sigma), run) for sign in (1, -1)) / 2
    return total


def worst_rise(loss: MovedLoss, seed: int, *, rho: float, directions: int = _WORST_DIRECTIONS) -> Rise:
    """A lower bound of max L(θ + d) − L(θ) over ‖d/|θ|‖₂ ≤ ρ: the highest of all points that were tried.

    Random directions both ways, and the gradient that their differences estimate (Spall 1992), at ρ and ρ/2. Where the
    loss's deadline comes, of the points that were tried by then.

    Args:
        loss: of the model.
        seed: of the directions.
        rho: radius, in units of each parameter's size.
        directions: random ones.

    Raises:
        OutOfTime: it came before the first point.
    """
    here, rises = sum(loss.here), list[float]()
    slope = {name: np.zeros(value.shape) for name, value in loss.weights.items()}
    try:
        for vector in range(directions):
            drawn = next(loss.draws(seed, "smoothed worst case", vector, signs=False))
            length = math.sqrt(sum(float(np.square(part.astype(np.float64)).sum()) for part in drawn.values()))
            scaled = _in_units_of_size(loss, drawn)
            ahead, behind = (loss.at(scaled, sign * rho / length) for sign in (1, -1))
            rises += [ahead - here, behind - here]
            if math.isfinite(ahead - behind):
                for name, part in drawn.items():
                    slope[name] += (ahead - behind) / length * part.astype(np.float64)
        norm = math.sqrt(sum(float(np.square(part).sum()) for part in slope.values()))
        if norm > 0:
            along = _in_units_of_size(loss, slope)
            for share in (1.0, 0.5):
                rises.append(loss.at(along, share * rho / norm) - here)
    except OutOfTime:
        if not rises:
            raise
    return Rise(max([0.0, *(one for one in rises if math.isfinite(one))]), None, None, len(rises))


def _in_units_of_size(loss: MovedLoss, direction: Mapping[str, NDArray[generic]]) -> dict[str, NDArray[generic]]:
    return {
        name: np.abs(value.astype(np.float64)) * direction[name].astype(np.float64)
        for name, value in loss.weights.items()
    }
