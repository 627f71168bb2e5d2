"""Tr(H) of the mean loss from random products (Hutchinson 1989), with fresh vectors for every mini-batch.

For a sign vector v, E[vᵀHv] = Tr(H). Drawing new vectors for each batch keeps the sum over batches unbiased, and the
errors of the batches average out instead of adding up: with B batches of like curvature the variance of one pass
falls by up to B against one vector for the whole data set. The price is none.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from scipy.special import stdtrit

from flataudit.contracts import Budget
from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, signs

__all__ = ["TraceEstimate", "estimate_trace", "shared_vector_trace", "stratified"]

VECTORS_PER_GRAPH = 4
"""Vectors that one graph of a batch serves: most of the saving, at little memory."""
PILOT_VECTORS = 4
"""Vectors a batch that plan."""
FEWEST_VECTORS = 6
"""Vectors a batch that measure, where the budget allows."""


@dataclass(frozen=True)
class TraceEstimate:
    """An estimated trace with the error of its random vectors; the data are taken as they are."""

    estimate: float
    standard_error: float | None
    """None where every vector gave exactly zero: unknown."""
    interval: tuple[float, float] | None
    """Student's, at the asked confidence."""
    degrees_of_freedom: float
    vectors: int
    """A batch."""
    stopped: Literal["precision", "budget"] = "budget"


def estimate_trace(
    objective: Objective, seed: int, *, relative_error: float, budget: Budget, confidence: float = 0.95
) -> TraceEstimate | None:
    """Tr(H) at the objective's own parameters; None where the budget has no room for two vectors a batch.

    A pilot of four vectors a batch says how many are needed for a standard error of ``relative_error`` × |estimate|,
    and is then thrown away. An estimate that ends when its own error looks small, or that reuses the vectors which
    chose its length, has intervals that cover the truth too seldom (91 % instead of 95 % on a tanh network). What
    was reached is in the result; a product counts two passes.
    """
    source, began = generator(seed, "hutchinson"), time.monotonic()
    rounding = torch.finfo(objective.origin.dtype).eps
    affordable = int(budget.passes / 2)
    if affordable < FEWEST_VECTORS + PILOT_VECTORS:
        return _estimate(objective, affordable, source, confidence, rounding) if affordable >= 2 else None
    pilot = _estimate(objective, PILOT_VECTORS, source, confidence, rounding)
    seconds = max(time.monotonic() - began, 1e-6)
    in_time = int(PILOT_VECTORS * (budget.seconds / seconds - 1))
    allowed = max(2, min(affordable - PILOT_VECTORS, in_time))
    target = relative_error * abs(pilot.estimate)
    wanted = PILOT_VECTORS * ((pilot.standard_error or 0.0) / target) ** 2 if target > 0 else FEWEST_VECTORS
    count = min(max(FEWEST_VECTORS, math.ceil(min(wanted, allowed))), allowed)
    found = _estimate(objective, count, source, confidence, rounding)
    return replace(found, stopped="precision" if wanted <= count else "budget")


def _estimate(
    objective: Objective, count: int, source: torch.Generator, confidence: float, rounding: float
) -> TraceEstimate:
    """``count`` fresh vectors for every stratum, a few to a graph."""
    values = []
    for stratum in objective.strata():
        chunks = [min(VECTORS_PER_GRAPH, count - done) for done in range(0, count, VECTORS_PER_GRAPH)]
        drawn = (signs(size, objective.origin, source) for size in chunks)
        values.append([form for some in drawn for form in stratum.forms(objective.origin, some)])
    return stratified([1.0] * len(values), values, confidence=confidence, rounding=rounding)


def stratified(
    weights: Sequence[float], values: Sequence[Sequence[float]], *, confidence: float = 0.95, rounding: float = 0.0
) -> TraceEstimate:
    """Σ_b w_b x̄_b over batches of m ≥ 2 values each, with its error.

    SE² = Σ_b w_b² s_b² / m; degrees of freedom by Welch and Satterthwaite, (Σ c_b)² / Σ c_b² / (m − 1) with
    c_b = w_b² s_b² / m. An error below the ``rounding`` of the largest value is raised to it.

    >>> found = stratified([0.5, 0.5], [[1.0, 3.0], [2.0, 6.0]])
    >>> found.estimate, round(found.standard_error, 4), round(found.degrees_of_freedom, 3)
    (3.0, 1.118, 1.471)
    """
    table = torch.tensor(values, dtype=torch.float64)
    shares = torch.tensor(weights, dtype=torch.float64)
    count = table.shape[1]
    estimate = float(shares @ table.mean(dim=1))
    parts = shares**2 * table.var(dim=1, correction=1) / count
    floor = rounding * float(shares @ table.abs().mean(dim=1))
    error = max(math.sqrt(float(parts.sum())), floor)
    if error == 0:
        return TraceEstimate(estimate, None, None, len(weights) * (count - 1.0), count)
    total, squares = float(parts.sum()) ** 2, float((parts**2).sum())
    freedom = total * (count - 1) / squares if squares > 0 else len(weights) * (count - 1.0)
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return TraceEstimate(estimate, error, (estimate - half, estimate + half), freedom, count)


def shared_vector_trace(objective: Objective, seed: int, *, vectors: int) -> TraceEstimate:
    """The same trace with each vector shared by the whole data set: the naive twin, kept as an oracle."""
    source = generator(seed, "hutchinson")
    values = []
    for direction in signs(vectors, objective.origin, source):
        values.append(_dot(direction, objective.product(objective.origin, direction)))
    return stratified([1.0], [values])


def _dot(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.dot(first.double(), second.double()))
