"""The largest and the smallest eigenvalue of a symmetric operator by Lanczos with full reorthogonalisation.

A residual ‖Av − θv‖ says that *an* eigenvalue lies within it of θ, not that θ is the extreme one. What is certain is
one-sided: a Ritz value never exceeds λ_max and never undercuts λ_min. The other side is a matter of the random start,
and there Kuczyński and Woźniakowski (1992) bound how far the Ritz value can be, with a probability.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Extreme", "Extremes", "extreme_eigenvalues", "undershoot"]

EXTRA_STEPS = 2
"""Steps after convergence, in which an eigenvalue that was still hidden may show itself."""


@dataclass(frozen=True)
class Extreme:
    """One end of the spectrum."""

    value: float
    """Ritz value: at most λ_max, or at least λ_min."""
    residual: float
    """‖Av − θv‖ of its Ritz vector, from the recurrence."""
    interval: tuple[float, float] | None
    """Holds the eigenvalue with 95 % over random starts, both ends of the spectrum together; None: too few steps."""
    converged: bool


@dataclass(frozen=True)
class Extremes:
    """Both ends of the spectrum, and what they took."""

    largest: Extreme
    smallest: Extreme
    steps: int
    exhausted: bool
    """The Krylov space is whole: the values are exact up to rounding."""


def undershoot(steps: int, dimension: int, *, failure: float = 0.025) -> float:
    """Share of the spectrum's width by which λ_max may exceed the largest Ritz value.

    With a start uniform on the sphere, P(λ_max − θ > ε (λ_max − λ_min)) ≤ 1.648 √n exp(−√ε (2k − 1))
    after k steps in n dimensions (Kuczyński & Woźniakowski 1992, theorem 4.2); solved for ε.

    >>> round(undershoot(30, 10_000), 3)
    0.022
    """
    return (math.log(1.648 * math.sqrt(dimension) / failure) / (2 * steps - 1)) ** 2


def extreme_eigenvalues(
    matvec: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    *,
    max_steps: int,
    relative_error: float,
    seconds: float = math.inf,
) -> Extremes:
    """λ_max and λ_min of a symmetric operator on vectors ``(n,)``; one product a step.

    Args:
        matvec: the operator.
        start: standard normal numbers; a start with a direction to it voids the intervals.
        max_steps: no more products than these.
        relative_error: an end has converged when its residual is below this share of the largest |θ|.
        seconds: no new step after these.
    """
    began = time.monotonic()
    basis = [start / start.norm()]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    limit = min(max_steps, start.numel())
    settled: int | None = None
    while True:
        residual = matvec(basis[-1])
        diagonal.append(float(torch.dot(residual, basis[-1])))
        residual = _orthogonal(residual, basis)
        beta = float(residual.norm())
        found = _extremes(diagonal, off_diagonal, beta, start, relative_error)
        steps = len(diagonal)
        both = found.largest.converged and found.smallest.converged
        settled = (settled or steps) if both else None
        late = time.monotonic() - began > seconds
        if found.exhausted or steps >= limit or late or (settled and steps >= settled + EXTRA_STEPS):
            return found
        off_diagonal.append(beta)
        basis.append(residual / beta)


def _orthogonal(vector: torch.Tensor, basis: list[torch.Tensor]) -> torch.Tensor:
    """The part of a vector that is orthogonal to the basis; twice is enough (Parlett 1980)."""
    for _ in range(2):
        for other in basis:
            vector = vector - torch.dot(vector, other) * other
    return vector


def _extremes(
    diagonal: list[float], off_diagonal: list[float], beta: float, start: torch.Tensor, relative_error: float
) -> Extremes:
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for row, value in enumerate(off_diagonal):
        tridiagonal[row, row + 1] = tridiagonal[row + 1, row] = value
    ritz, vectors = torch.linalg.eigh(tridiagonal)
    scale = float(ritz.abs().max())
    rounding = torch.finfo(start.dtype).eps * math.sqrt(start.numel()) * scale
    exhausted = beta <= rounding or len(diagonal) >= start.numel()
    slack = _slack(float(ritz[-1] - ritz[0]), len(diagonal), start.numel(), exhausted)

    def end(index: int, interval: tuple[float, float] | None) -> Extreme:
        residual = 0.0 if exhausted else beta * abs(float(vectors[-1, index]))
        return Extreme(float(ritz[index]), residual, interval, exhausted or residual <= relative_error * scale)

    low, high = float(ritz[0]), float(ritz[-1])
    above = None if slack is None else (high, high + slack)
    below = None if slack is None else (low - slack, low)
    return Extremes(end(-1, above), end(0, below), len(diagonal), exhausted)


def _slack(width: float, steps: int, dimension: int, exhausted: bool) -> float | None:
    """How far the spectrum may reach beyond the Ritz values on either side."""
    if exhausted:
        return 0.0
    share = undershoot(steps, dimension)
    # Both ends may be short by the share of the true width, which is then at most width / (1 − 2 share).
    return share * width / (1 - 2 * share) if share < 0.5 else None
