"""How flat the loss is for each group of examples (clients of a federated setting, say), and how far they differ."""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.special import stdtrit
from torch import Tensor

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import Deadline, OutOfTime
from flataudit.curvature.hutchinson import stratified
from flataudit.curvature.objective import Batch, Objective
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.scales import scale_of
from flataudit.evidence import Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.group_means import by_group, others

__all__ = ["GroupSharpness"]

GROUP = Metric(
    name="group_sharpness",
    unit="loss",
    better="lower",
    description="Mean rise of one group's loss under relative Gaussian noise θᵢ(1 + σε) on the parameters.",
)
SPREAD = Metric(
    name="group_sharpness_spread",
    unit="loss",
    better="lower",
    description="Standard deviation of the groups' true sharpness, without what noise and few examples add.",
)


class GroupSharpness(Record):
    """E[L_g(θ + σ|θ|ε)] − L_g(θ) with ε ~ N(0, I) for the loss L_g of each group g. Lower is flatter.

    As `sharpness_average` of the probe `sharpness`, on each group's validation examples; near a minimum it is
    σ² Σᵢ θᵢ² Hᵢᵢ / 2 with that group's Hessian. A group's examples are cut into runs with noise of their own, each
    draw both ways. The error is that of the draws *and* of the group's examples as a sample, added up: groups are
    small, and two of them differ by chance. Student's interval is approximate: of 360 groups of 40 to 80 examples it
    held 92 %. Candidates see the same noise on the same group.

    The spread between groups is √max(0, s² − mean SE²), s the standard deviation of the groups' numbers (the method of
    moments of DerSimonian & Laird 1986); its own error is unknown. Groups of fewer than `min_members` examples are
    named without a number and left out of the spread: from one example no error can be told.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (SPREAD,)
    families: ClassVar[tuple[Metric, ...]] = (GROUP,)
    """``group_sharpness/<group>``, for each group that the data happen to have."""

    sigma: PositiveFloat = 0.1
    """Standard deviation of the noise, relative to each parameter."""
    draws: int = Field(4, ge=2)
    """Draws of the noise for each run, each both ways."""
    min_members: int = Field(20, ge=2)
    """Groups of fewer examples get no number."""
    most: PositiveInt = 50
    """Only the largest groups get a metric of their own; where others are large enough, one more is unmeasured."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that move."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The spread, then each group, the largest first."""
        if data.groups is None:
            advice = "name their column or array: `groups:` beside `targets:`"
            return [Reading(SPREAD.missing(Outcome.NOT_APPLICABLE, "the data have no groups", advice))]
        members = by_group(np.arange(len(data), dtype=np.float64), data.groups, data.group_names)
        named = {name: rows.astype(np.int64) for name, rows in list(members.items())[: self.most]}
        enough = {name: rows for name, rows in named.items() if len(rows) >= self.min_members}
        passes = (1 + 2 * self.draws) * sum(map(len, enough.values())) / len(data) / 2
        deadline = Deadline().sooner(budget.seconds if passes <= budget.passes else -math.inf)
        found = {name: self._rise(model, data, name, rows, seed, deadline) for name, rows in enough.items()}
        each = [Reading(self._member(name, len(rows), found.get(name))) for name, rows in named.items()]
        left = others(GROUP, members, most=self.most, min_examples=self.min_members)
        return [Reading(self._spread(found, len(members))), *each, *([Reading(left)] if left else [])]

    def _rise(
        self, model: Differentiable, data: AuditData, name: str, rows: NDArray[np.int64], seed: int, deadline: Deadline
    ) -> "_Rise | str":
        """Of one group, or why there is none."""
        assert data.targets is not None
        if deadline.over:
            return _SPENT
        part = replace(data, inputs=data.inputs[rows], targets=data.targets[rows], groups=None)
        objective = Objective(model, part, parameters=self.parameters)
        objective.deadline = deadline
        scale = self.sigma * scale_of(objective, "element")
        if not bool((scale > 0).any()):
            return _STILL
        source = generator(seed, f"group sharpness {zlib.crc32(name.encode())}")
        edges = np.linspace(0, len(rows), min(_RUNS, len(rows)) + 1).round().astype(int).tolist()
        try:
            return _Rise.of(
                [_run(objective, start, stop, scale, self.draws, source) for start, stop in pairwise(edges)]
            )
        except OutOfTime:
            return _SPENT

    def _member(self, name: str, size: int, found: "_Rise | str | None") -> Measurement:
        metric = GROUP.of(name)
        if found is None:
            members = "1 example" if size == 1 else f"{size} examples"
            reason = f"{members}, fewer than {self.min_members}"
            return metric.missing(Outcome.NOT_APPLICABLE, reason, "lower `min_members`, or collect more")
        if isinstance(found, str):
            outcome = {_SPENT: Outcome.OVER_BUDGET, _STILL: Outcome.NOT_APPLICABLE}.get(found, Outcome.FAILED)
            return metric.missing(outcome, found, _ADVICE.get(found))
        details = {"sigma": self.sigma, "error of draws": found.by_draws, "error of examples": found.by_examples}
        error, interval = found.error, found.interval
        return metric.measured(found.estimate, standard_error=error, interval=interval, n=size, details=details)

    def _spread(self, found: "Mapping[str, _Rise | str]", groups: int) -> Measurement:
        for name, one in found.items():
            if isinstance(one, str):
                outcome = self._member(name, 0, one).outcome
                return SPREAD.missing(outcome, f"{name}: {one}", _ADVICE.get(one))
        rises = {name: one for name, one in found.items() if isinstance(one, _Rise)}
        if len(rises) < _FEWEST_GROUPS:
            reason = f"{len(rises)} groups of {self.min_members} examples, fewer than {_FEWEST_GROUPS}"
            return SPREAD.missing(Outcome.NOT_APPLICABLE, reason)
        values = np.array([one.estimate for one in rises.values()])
        noise = float(np.mean([(one.error or 0.0) ** 2 for one in rises.values()]))
        names, excess = list(rises), float(values.var(ddof=1)) - noise
        details = {
            "between groups": float(values.std(ddof=1)),
            "by noise": math.sqrt(noise),
            "highest minus lowest": float(np.ptp(values)),
            "highest": names[int(values.argmax())],
            "lowest": names[int(values.argmin())],
            "left out": float(groups - len(rises)),
        }
        return SPREAD.measured(math.sqrt(max(excess, 0.0)), n=len(rises), details=details)


_RUNS = 8
"""Runs of a group's examples with noise of their own."""
_FEWEST_GROUPS = 3
_SPENT = "the budget has no room for it"
_STILL = "all parameters are 0: in units of their size they cannot move"
_OVERFLOW = "the loss overflows under this noise"
_ADVICE = {_SPENT: "raise budget.passes or budget.seconds, or lower draws or most", _OVERFLOW: "take a smaller sigma"}


@dataclass(frozen=True)
class _Rise:
    """The mean rise of one group's loss, with what its error is made of."""

    estimate: float
    by_draws: float
    by_examples: float
    freedom: float
    """Degrees of freedom, by Welch and Satterthwaite."""

    @classmethod
    def of(cls, runs: Sequence[NDArray[np.float64]]) -> "_Rise | str":
        """From the rises ``(examples, draws)`` of each run."""
        if not all(np.isfinite(run).all() for run in runs):
            return _OVERFLOW
        n = sum(map(len, runs))
        drawn = stratified([len(run) / n for run in runs], [run.mean(axis=0).tolist() for run in runs])
        means = np.concatenate([run.mean(axis=1) for run in runs])
        parts = [(drawn.standard_error or 0.0) ** 2, float(means.var(ddof=1)) / n]
        bent = parts[0] ** 2 / drawn.degrees_of_freedom + parts[1] ** 2 / (n - 1)
        freedom = sum(parts) ** 2 / bent if bent > 0 else math.inf
        return cls(drawn.estimate, math.sqrt(parts[0]), math.sqrt(parts[1]), freedom)

    @property
    def error(self) -> float | None:
        """None where nothing varies: unknown."""
        return math.hypot(self.by_draws, self.by_examples) or None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's, at 95 %."""
        if self.error is None:
            return None
        half = float(stdtrit(self.freedom, 0.975)) * self.error
        return self.estimate - half, self.estimate + half


def _run(
    objective: Objective, start: int, stop: int, scale: Tensor, draws: int, source: torch.Generator
) -> NDArray[np.float64]:
    """How much the loss of each example from ``start`` to ``stop`` rises in each draw, ``(examples, draws)``."""
    origin, rises = objective.origin, np.zeros((stop - start, draws))
    steps = [scale * normals(scale, source) for _ in range(draws)]
    with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
        for batch, at in _placed(objective, start, stop):
            clean = _losses(batch, origin)
            for draw, step in enumerate(steps):
                both = _losses(batch, origin + step) + _losses(batch, origin - step)
                rises[at, draw] = both / 2 - clean
    return rises


def _placed(objective: Objective, start: int, stop: int) -> Iterator[tuple[Batch, slice]]:
    """Batches with their places in the run."""
    first = 0
    for batch in objective.batches(start, stop):
        yield batch, slice(first, first + batch.size)
        first += batch.size


def _losses(batch: Batch, vector: Tensor) -> NDArray[np.float64]:
    """The share of each example in the group's loss times their number, so that the mean is the loss."""
    objective = batch.objective
    terms = objective.model.loss_function.terms(batch.outputs(vector), batch.targets)
    each = terms.reshape(batch.size, -1).double().sum(dim=1)
    return np.asarray((each * (len(objective.data) / objective.total)).cpu().numpy())
