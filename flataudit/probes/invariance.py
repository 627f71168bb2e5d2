"""Which measures of a candidate stand still when the same function is written with other parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.ascent import worst_rises
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

    version: ClassVar[str] = "2"
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
        each = Budget(passes=min(64.0, share), seconds=budget.seconds / _MEASUREMENTS)
        before = _measures(surface, seed, each)
        pair, norm = rescaled_pair(surface, self.factor), before_batch_norm(surface, self.factor)
        readings = [
            self._moved(RESCALING, pair, before, few, seed, each)
            or _absent(RESCALING, "no two layers can be rescaled"),
            self._moved(BATCH_NORM, norm, before, few, seed, each)
            or _absent(BATCH_NORM, "no weights before a batch norm"),
        ]
        if model.task == "regression":
            return [*readings, _absent(TEMPERATURE, "a regression has no logits")]
        warmer = (Reparametrised(model, factor=self.factor), "logits")
        return [*readings, self._moved(TEMPERATURE, warmer, before, few, seed, each) or _absent(TEMPERATURE, "")]

    def _moved(
        self,
        metric: Metric,
        other: tuple[Reparametrised, str] | None,
        before: Mapping[str, float],
        data: AuditData,
        seed: int,
        budget: Budget,
    ) -> Reading | None:
        if other is None:
            return None
        model, what = other
        after = _measures(Surface.of(model, data), seed, budget)
        model.charge()
        moves = {name: after[name] / before[name] - 1 for name in before if before[name] and name in after}
        largest = max((abs(moves[name]) for name in _RELATIVE if name in moves), default=0.0)
        details: dict[str, float | str | None] = {"what": what, "factor": self.factor, **moves}
        return Reading(metric.measured(largest, standard_error=0.0, n=len(data), details=details))


def _absent(metric: Metric, reason: str) -> Reading:
    return Reading(metric.missing(Outcome.NOT_APPLICABLE, reason))


def _measures(surface: Surface, seed: int, budget: Budget) -> dict[str, float]:
    """Each measure at modest effort, with the same random numbers before and after."""
    traces: Mapping[str, Callable[[], float | None]] = {
        "hessian_trace": lambda: _estimate(hessian_trace(surface, seed, relative_error=0.05, budget=budget)),
        "weighted_trace": lambda: _estimate(weighted_trace(surface, seed, relative_error=0.05, budget=budget)),
        "relative_flatness": lambda: _flatness(surface, seed, budget),
        "sharpness_l2": lambda: _worst(surface, seed, "unit", 0.05, budget),
        "sharpness_adaptive": lambda: _worst(surface, seed, "element", 0.5, budget),
        "sharpness_filter": lambda: _worst(surface, seed, "filter", 0.1, budget),
        "sharpness_average": lambda: _average(surface, seed, budget),
    }
    found = {name: measure() for name, measure in traces.items()}
    return {name: value for name, value in found.items() if value is not None}


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
