"""Which measures of a candidate stand still when the same function is written with other parameters."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.ascent import worst_rises
from flataudit.curvature.deadline import Deadline, OutOfTime, out_of_time
from flataudit.curvature.noise import average_rises
from flataudit.curvature.relative_flatness import relative_flatness
from flataudit.curvature.reparametrisation import Reparametrised, before_batch_norm, rescaled_pair
from flataudit.curvature.scales import Scale, scale_of
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import HessianTraces, hessian_trace, weighted_trace
from flataudit.evidence import Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["Invariance"]

RESCALING = Metric(
    name="invariance_rescaling",
    unit="relative change",
    better="neither",
    description="Largest change of the relative measures when a layer is multiplied and the next one divided.",
)
BATCH_NORM = Metric(
    name="invariance_batch_norm",
    unit="relative change",
    better="neither",
    description="The same when the weights before a batch norm are multiplied, and its statistics with them.",
)
TEMPERATURE = Metric(
    name="invariance_temperature",
    unit="relative change",
    better="neither",
    description="The same when the logits are multiplied: the classes stay, the loss and most measures move.",
)
_RELATIVE = ("sharpness_adaptive", "sharpness_average", "weighted_trace", "relative_flatness")
"""Measures that must not react to a rescaled pair of layers."""
_MEASUREMENTS = 28
"""Seven measures, before and after three changes."""
_FEWEST_PASSES = 8.0


class Invariance(Record):
    """How far each measure moves under three changes of the parameters that leave the classifier as it is.

    Raw curvature can be made anything by rescaling (Dinh et al. 2017), so that only what stands still may rank
    candidates. The changes are made on this candidate, on a few of its examples; whether two layers are a pair that can
    be rescaled is tried on its outputs. The estimate is the largest movement |after / before − 1| of the relative
    measures; every measure's own is in the details.
    """

    version: ClassVar[str] = "3"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (RESCALING, BATCH_NORM, TEMPERATURE)

    factor: PositiveFloat = 3.0
    """What layers and logits are multiplied with."""
    examples: PositiveInt = 64
    """Examples that the measures are taken on, the first of the set."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Three numbers, and the movements behind them."""
        few = _first(data, self.examples)
        surface = Surface.of(model, few)
        share = budget.passes * len(data) / len(few) / _MEASUREMENTS
        if share < _FEWEST_PASSES:
            reason = f"{budget.passes:.3g} passes have no room for {_MEASUREMENTS} measurements on {len(few)} examples"
            advice = "raise budget.passes, or take fewer examples"
            return [Reading(m.missing(Outcome.OVER_BUDGET, reason, advice)) for m in self.metrics]
        deadline, passes = Deadline().sooner(budget.seconds), min(64.0, share)
        try:
            with surface.within(deadline.left):
                pair, norm = rescaled_pair(surface, self.factor), before_batch_norm(surface, self.factor)
        except OutOfTime:
            return out_of_time(self.metrics, budget)
        before = _measures(surface, seed, passes, deadline.left / 4)
        warmer = None if model.task == "regression" else (Reparametrised(model, factor=self.factor), "logits")
        changes = (
            (RESCALING, pair, "no two layers can be rescaled"),
            (BATCH_NORM, norm, "no weights before a batch norm"),
            (TEMPERATURE, warmer, "a regression has no logits"),
        )
        readings = []
        for left, (metric, other, why_not) in zip((3, 2, 1), changes, strict=True):
            if other is None:
                readings.append(Reading(metric.missing(Outcome.NOT_APPLICABLE, why_not)))
            else:
                model_after, what = other
                after = _measures(Surface.of(model_after, few), seed, passes, deadline.left / left)
                model_after.charge()
                readings.append(self._moved(metric, what, before, after, few))
        return readings

    def _moved(
        self, metric: Metric, what: str, before: Mapping[str, float], after: Mapping[str, float], data: AuditData
    ) -> Reading:
        moves = {name: after[name] / before[name] - 1 for name in before if before[name] and name in after}
        relative = [abs(moves[name]) for name in _RELATIVE if name in moves]
        if not relative:
            reason = "the time ended before any of the relative measures was taken twice"
            return Reading(metric.missing(Outcome.OVER_BUDGET, reason, "raise budget.seconds, or take fewer examples"))
        details: dict[str, float | str | None] = {"what": what, "factor": self.factor, **moves}
        return Reading(metric.measured(max(relative), standard_error=0.0, n=len(data), details=details))


def _measures(surface: Surface, seed: int, passes: float, seconds: float) -> dict[str, float]:
    """Each measure at modest effort, with the same random numbers before and after.

    Each may take an even share of the time that the ones before it left. One that came near its end may have been cut
    short, and would then move for that reason alone: it is left out.
    """
    budget, deadline = Budget(passes=passes, seconds=1e9), Deadline().sooner(seconds)
    measures: Mapping[str, Callable[[], float | None]] = {
        "hessian_trace": lambda: _estimate(hessian_trace(surface, seed, relative_error=0.05, budget=budget)),
        "weighted_trace": lambda: _estimate(weighted_trace(surface, seed, relative_error=0.05, budget=budget)),
        "relative_flatness": lambda: _flatness(surface, seed, budget),
        "sharpness_l2": lambda: _worst(surface, seed, "unit", 0.05, budget),
        "sharpness_adaptive": lambda: _worst(surface, seed, "element", 0.5, budget),
        "sharpness_filter": lambda: _worst(surface, seed, "filter", 0.1, budget),
        "sharpness_average": lambda: _average(surface, seed, budget),
    }
    found = {}
    for place, (name, measure) in enumerate(measures.items()):
        share = deadline.left / (len(measures) - place)
        with surface.within(share) as end, suppress(OutOfTime):
            value = measure()
            if value is not None and end.left >= share / 2:
                found[name] = value
    return found


def _estimate(found: HessianTraces | None) -> float | None:
    return None if found is None else found.trace.estimate


def _flatness(surface: Surface, seed: int, budget: Budget) -> float | None:
    found = relative_flatness(surface, seed, layer=None, relative_error=0.05, budget=budget)
    return None if found is None else found.estimate


def _worst(surface: Surface, seed: int, scale: Scale, radius: float, budget: Budget) -> float | None:
    found = worst_rises(
        surface,
        seed,
        scale=scale_of(surface, scale),
        radii=[radius],
        max_steps=20,
        relative_error=0.01,
        budget=budget,
    )
    return found[0].rise if found else None


def _average(surface: Surface, seed: int, budget: Budget) -> float | None:
    scale = scale_of(surface, "element")
    found = average_rises(surface, seed, scale=scale, sigmas=[0.1], draws=4, budget=budget)
    return found[0].estimate if found else None


def _first(data: AuditData, n: int) -> AuditData:
    """The first examples as a set of their own."""
    if len(data) <= n:
        return data
    return replace(data.head(n), digest=f"{data.digest}[:{n}]")
