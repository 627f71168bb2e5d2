"""Certificates by randomised smoothing (Cohen, Rosenfeld and Kolter 2019).

The smoothed classifier g(x) answers the class c that f(x + σ s ε), ε ~ N(0, I), gives most often. If its probability
p is above 1/2, then g answers c on every input within ‖(x' − x)/s‖₂ < σ Φ⁻¹(p). With a lower confidence limit of p in
its place this holds with that confidence. The class is chosen on draws of its own, so that the limit is an honest one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv, ndtri

from flataudit.contracts import Predictor
from flataudit.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Certificates", "certify", "clopper_pearson_lower", "largest_radius"]


@dataclass(frozen=True, eq=False)
class Certificates:
    """What the smoothed classifier answers, and how far around each input."""

    classes: "NDArray[np.int64]"
    """``(n,)``; −1 where it abstains."""
    radii: "NDArray[np.float64]"
    """``(n,)`` in units of s; 0 where it abstains."""


def clopper_pearson_lower(successes: "NDArray[np.int64]", n: int, *, alpha: float) -> "NDArray[np.float64]":
    """The largest p below which so many successes have a chance of at most α (Clopper and Pearson 1934); exact.

    >>> clopper_pearson_lower(np.array([0, 5, 10]), 10, alpha=0.05).round(4).tolist()
    [0.0, 0.2224, 0.7411]
    """
    k = np.asarray(successes, dtype=np.float64)
    return np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, alpha), 0.0)


def largest_radius(draws: int, *, alpha: float, sigma: float) -> float:
    """σ Φ⁻¹(α^(1/draws)): the certificate of unanimous draws; 0 where even they prove nothing.

    >>> round(largest_radius(100, alpha=0.001, sigma=1.0), 3), largest_radius(2, alpha=0.001, sigma=1.0)
    (1.5, 0.0)
    """
    return max(0.0, sigma * float(ndtri(alpha ** (1 / draws))))


def certify(
    model: Predictor,
    inputs: "NDArray[np.generic]",
    places: "NDArray[np.int64]",
    *,
    level: "NDArray[np.float64]",
    sigma: float,
    seed: int,
    choosing: int,
    draws: int,
    alpha: float,
    may_go_on: Callable[[], bool],
) -> Certificates | None:
    """A class and a radius for each input; ``choosing + draws`` forward passes. None where it may not go on.

    Args:
        model: a classifier.
        inputs: ``(n, …)`` in floating point.
        places: ``(n,)`` numbers of the inputs in their data set, on which their noise depends.
        level: σ s, standard deviation of the noise, broadcast to an input. Nothing is clipped.
        sigma: σ, the unit of the radii in units of s.
        seed: of the noise.
        choosing: draws from which the class is chosen.
        draws: draws that its probability is estimated from.
        alpha: chance that one certificate is wrong.
        may_go_on: asked before each draw.
    """
    votes = _votes(model, inputs, places, level, seed, "choosing", choosing, may_go_on)
    counts = None if votes is None else _votes(model, inputs, places, level, seed, "counting", draws, may_go_on)
    if votes is None or counts is None:
        return None
    chosen = votes.argmax(axis=1)
    limit = clopper_pearson_lower(counts[np.arange(len(inputs)), chosen], draws, alpha=alpha)
    sure = limit > 0.5
    return Certificates(np.where(sure, chosen, -1), np.where(sure, sigma * ndtri(np.where(sure, limit, 0.5)), 0.0))


def _votes(
    model: Predictor,
    inputs: "NDArray[np.generic]",
    places: "NDArray[np.int64]",
    level: "NDArray[np.float64]",
    seed: int,
    purpose: str,
    draws: int,
    may_go_on: Callable[[], bool],
) -> "NDArray[np.int64] | None":
    """How often each class is the answer, ``(n, classes)``; an answer that is no number is none."""
    votes: NDArray[np.int64] | None = None
    for draw in range(draws):
        if not may_go_on():
            return None
        noise = Draws(seed, f"smoothing/{purpose}/{draw}", places).normals(inputs[0].size).reshape(inputs.shape)
        answers = model.predict((inputs.astype(np.float64) + level * noise).astype(inputs.dtype)).astype(np.float64)
        rows = np.flatnonzero(~np.isnan(answers).any(axis=1))
        votes = np.zeros(answers.shape, dtype=np.int64) if votes is None else votes
        votes[rows, answers[rows].argmax(axis=1)] += 1
    return votes
