"""The largest and the smallest eigenvalue as a Lanczos run tells them: one side certain, the other with a probability.

A residual ‖Av − θv‖ says that *an* eigenvalue lies within it of θ, not that θ is the extreme one. What is certain is
one-sided: a Ritz value never exceeds λ_max and never undercuts λ_min. The other side follows from the random start
(van Dorsselaer, Hochstenbach & van der Vorst 2000): the basis vector q_{k+1} = p_k(A) q_1 has length one, so that its
part along the top eigenvector, γ p_k(λ_max), is at most one, where γ is that of the start. A uniform direction in n
dimensions has |γ| < δ(n) with a probability that is known; if it does not, λ_max is at most where p_k reaches 1/δ.
A start along d + u with u such a direction and d any fixed vector, such as the gradient, keeps that: a symmetric
unimodal variable is nowhere more often within δ of a point than of its centre (Anderson 1955), so that |γ| is below
δ(n) / ‖d + u‖ no more often, whatever d is.
That one event covers every k, so that a run may look at its own bound after each step and stop when it is close
enough. It replaces the bound of Kuczyński & Woźniakowski (1992), which holds for the worst of all spectra, at one k
that must not depend on the run: after 8 steps on a network it allows 30 % where this allows 1 %.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import betaincinv

from flataudit.curvature.deadline import Deadline, OutOfTime
from flataudit.curvature.lanczos import SharedRun, Tridiagonal

__all__ = ["End", "Extreme", "Extremes", "Proof", "extreme_eigenvalues", "extremes", "reach"]

End = Literal["largest", "smallest"]
Proof = Literal["interval", "residual"]
FAILURE = 0.025
"""Chance that an end of the spectrum lies beyond its reach; both together 5 %."""
_HALVINGS = 20


@dataclass(frozen=True)
class Extreme:
    """One end of the spectrum."""

    value: float
    """Ritz value: at most λ_max, or at least λ_min."""
    reach: float
    """The eigenvalue is between the value and this with 97.5 % over random starts."""
    residual: float
    """‖Av − θv‖ of its Ritz vector, from the recurrence; rounding at least."""
    converged: bool
    """The reach, or the residual where that was to decide, is as close as it was asked to be."""

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends' intervals hold both eigenvalues with 95 %."""
        return min(self.value, self.reach), max(self.value, self.reach)


@dataclass(frozen=True)
class Extremes:
    """Both ends of the spectrum, and what they took."""

    largest: Extreme
    smallest: Extreme
    steps: int
    exhausted: bool
    """The Krylov space is whole: the values are exact up to rounding."""
    rounding: float
    """What an eigenvalue is uncertain by in any case."""


def reach(found: Tridiagonal, dimension: int, *, failure: float = FAILURE) -> float:
    """λ_max is at most this, with probability 1 − ``failure`` over directions uniform on the sphere of ``dimension``.

    Where p_k, of leading coefficient 1 / (β_1 … β_k) and with the Ritz values as roots, reaches ‖d + u‖ / δ, δ² being
    the ``failure`` quantile of a Beta(1/2, (n − 1)/2) variable.

    >>> import torch
    >>> reach(Tridiagonal(torch.tensor([1.0]), torch.tensor([1e-3]), False, 0.0), 1000) < 2.1
    True
    """
    top = float(found.ritz[0][-1])
    low, high = 0.0, max(found.rounding, math.ulp(abs(top)))
    while not _within(found, dimension, high, failure):
        low, high = high, 2 * high
    for _ in range(_HALVINGS if low else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if _within(found, dimension, middle, failure) else (middle, high)
    return top + high


def extremes(
    found: Tridiagonal, dimension: int, *, relative_error: float, smallest_error: float, proof: Proof = "interval"
) -> Extremes:
    """What so many steps say; the errors are those of `extreme_eigenvalues`."""
    mirrored = _mirrored(found)
    residuals = found.residuals.tolist()
    above, below = _tolerances(found, relative_error, smallest_error)
    return Extremes(
        Extreme(
            float(found.ritz[0][-1]), reach(found, dimension), residuals[-1], _settled(found, dimension, above, proof)
        ),
        Extreme(
            float(found.ritz[0][0]),
            -reach(mirrored, dimension),
            residuals[0],
            _settled(mirrored, dimension, below, proof),
        ),
        len(found),
        found.exhausted,
        found.rounding,
    )


def extreme_eigenvalues(
    run: SharedRun,
    *,
    relative_error: float,
    smallest_error: float,
    max_steps: int,
    ends: Collection[End] = ("largest", "smallest"),
    proof: Proof = "interval",
    seconds: float = math.inf,
) -> Extremes:
    """λ_max and λ_min of the run's operator; one product a step, at least one.

    Args:
        run: from a start that is uniform on the sphere, or the sum of such a one and a fixed vector, with its stretch
            (`flataudit.curvature.lanczos`): any other voids the reach.
        relative_error: λ_max has converged when it reaches no farther than this share of itself.
        smallest_error: λ_min has converged when it reaches no farther than this share of the largest |θ|
            (``relative_error`` of it, where λ_min is the larger of the two in magnitude).
        max_steps: no more steps than these.
        ends: the run stops when these have converged.
        proof: ``residual`` asks for less: that the Ritz value is expected to be as near, by its residual and the gap
            to the next (Kato 1949; Temple 1928), as other libraries do. The reach stays what it is.
        seconds: no new step after these; one that is cut short does not count.

    Raises:
        OutOfTime: the first step was.
    """
    deadline, steps, dimension = Deadline().sooner(seconds), 1, run.run.dimension
    found = run.to(1)
    while True:
        above, below = _tolerances(found, relative_error, smallest_error)
        met = ("largest" not in ends or _settled(found, dimension, above, proof)) and (
            "smallest" not in ends or _settled(_mirrored(found), dimension, below, proof)
        )
        if met or found.exhausted or steps >= max_steps or deadline.over:
            break
        try:
            found = run.to(steps + 1)
        except OutOfTime:
            break
        steps += 1
    return extremes(found, dimension, relative_error=relative_error, smallest_error=smallest_error, proof=proof)


def _tolerances(found: Tridiagonal, relative_error: float, smallest_error: float) -> tuple[float, float]:
    """How far λ_max and λ_min may reach beyond their Ritz values."""
    low, high = float(found.ritz[0][0]), float(found.ritz[0][-1])
    below = relative_error * abs(low) if abs(low) >= abs(high) else smallest_error * abs(high)
    return max(relative_error * abs(high), found.rounding), max(below, found.rounding)


def _settled(found: Tridiagonal, dimension: int, slack: float, proof: Proof) -> bool:
    return _expected(found, slack) if proof == "residual" else _within(found, dimension, slack)


def _expected(found: Tridiagonal, slack: float) -> bool:
    """Whether residual² / gap, the error of the largest Ritz value if no eigenvalue hides, is within the slack."""
    if found.exhausted:
        return slack >= found.rounding
    values, residual = found.ritz[0], float(found.residuals[-1])
    return len(values) > 2 and residual**2 <= slack * float(values[-1] - values[-2])


def _within(found: Tridiagonal, dimension: int, slack: float, failure: float = FAILURE) -> bool:
    """Whether λ_max reaches no farther beyond its Ritz value."""
    if found.exhausted:
        return slack >= found.rounding
    target = math.log(found.stretch) - 0.5 * math.log(float(betaincinv(0.5, (dimension - 1) / 2, failure)))
    return _log_polynomial(float(found.ritz[0][-1]) + slack, found) >= target


def _mirrored(found: Tridiagonal) -> Tridiagonal:
    """Of −A."""
    return replace(found, diagonal=-found.diagonal)


def _log_polynomial(x: float, found: Tridiagonal) -> float:
    """Log p_k(x) right of all Ritz values, as the sum of the pivots of x − T over the β; −∞ at a root, by rounding."""
    total, pivot, before = 0.0, math.inf, 0.0
    for centre, beside in zip(found.diagonal.tolist(), found.off_diagonal.tolist(), strict=True):
        pivot = x - centre - (before**2 / pivot if before else 0.0)
        if pivot <= 0:
            return -math.inf
        total += math.log(pivot) - math.log(beside)
        before = beside
    return total
