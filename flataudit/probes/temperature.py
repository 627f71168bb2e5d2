"""What one temperature would do for the model's confidences: advice, never applied."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answered import Answered, answered
from flataudit.statistics.answers import answers
from flataudit.statistics.calibration import Bins
from flataudit.statistics.cluster_details import cluster_details
from flataudit.statistics.influence import per_example, value_mean
from flataudit.statistics.temperature import NoTemperature, at_temperature, fit_temperature

__all__ = ["TemperatureScaling"]

TEMPERATURE = Metric(
    name="temperature",
    unit="1",
    better="neither",
    description="What to divide the logits by for the least loss; above 1 the model is too sure. Advice: not applied.",
)
ERROR = Metric(
    name="calibration_error_after_temperature",
    unit="probability",
    better="lower",
    description="Calibration error (equal-mass bins) if logits were divided by a temperature fitted on other examples.",
)
LOSS = Metric(
    name="loss_after_temperature",
    unit="nats",
    better="lower",
    description="Mean −log p(target) if logits were divided by a temperature that was fitted on other examples.",
)


@dataclass(frozen=True, eq=False)
class _Crossed:
    """Answers of each half at the temperature of the other."""

    scaled: NDArray[np.float64]
    temperatures: tuple[float, float]


class TemperatureScaling(Record):
    """Temperature scaling (Guo et al. 2017) as advice: the number, and what calibration and loss would be after it.

    ``temperature`` is fitted on all examples; its interval is normal in the logarithm, from the sandwich variance. The
    other two are measured on each half of the examples at the temperature of the other half, so that no example is
    judged by a number that it helped to choose; their intervals are those of the examples at these temperatures.
    `details` hold both numbers before (``before``) and the temperatures of the halves; for the loss also the paired
    gain with its interval. Answers of one example (labels, tokens), and examples of one group, stay in one half.

    No number where no temperature is best (a half without an error, or scores that say nothing), or where the examples
    are too few. Whoever follows the advice has another model, which must be audited again.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (TEMPERATURE, ERROR, LOSS)

    bins: int = Field(default=15, ge=1)
    """The most bins of equal mass, each of 10 answers or more."""
    min_examples: int = Field(default=100, ge=4)
    """With fewer examples there is no number: each half would have fewer than half of them."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All three metrics from one forward pass, which other probes share."""
        because: str | None = getattr(model, "no_probabilities_because", None)
        if model.task == "regression":
            because = "a regression states no confidence"
        if because is not None:
            return self._missing(Outcome.NOT_APPLICABLE, because)
        assert data.targets is not None
        said = answered(model.task, answers(model, data), data.targets)
        independent = _independent(said, data.groups)
        if said.examples < self.min_examples or len(np.unique(independent)) < 4:
            groups = "" if data.groups is None else f" in {len(np.unique(independent))} groups"
            reason = f"{said.examples} example{'s' * (said.examples != 1)}{groups}: too few for two halves"
            advice = f"give {self.min_examples} examples or more{', of 4 groups or more' if groups else ''}"
            return self._missing(Outcome.NOT_APPLICABLE, reason, advice)
        try:
            crossed = _crossed(said, independent, seed)
            return [_temperature(said, crossed, data), *self._after(said, crossed, data, seed)]
        except NoTemperature as error:
            return self._missing(Outcome.NOT_CONVERGED, str(error), "leave the logits as they are")

    def _missing(self, outcome: Outcome, reason: str, advice: str | None = None) -> list[Reading]:
        return [Reading(metric.missing(outcome, reason, advice)) for metric in self.metrics]

    def _after(self, said: Answered, crossed: _Crossed, data: AuditData, seed: int) -> list[Reading]:
        """Calibration error and loss of each half at the other's temperature."""
        after = Answered(crossed.scaled, said.labels, said.units, said.examples, said.marks)
        bins, old = (Bins.equal_mass(s.confidences, s.right, bins=self.bins, units=s.units) for s in (after, said))
        error = bins.values
        told = {
            "before": old.error,
            "expected_if_calibrated": bins.expected,
            "debiased": bins.debiased().estimate,
            "debiased_before": old.debiased().estimate,
        }
        losses, before = _nats(after), _nats(said)
        change = value_mean(before - losses, said.units)
        gain = {"before": float(before.mean()), "gain": change.estimate}
        if change.interval is not None:
            gain |= {"gain_low": change.interval[0], "gain_high": change.interval[1]}
        rows = ((ERROR, error, told, 1.0), (LOSS, losses, gain, np.inf))
        return [_reading(m, values, said, data, details, high, seed) for m, values, details, high in rows]


def _independent(said: Answered, groups: NDArray[np.generic] | None) -> NDArray[np.generic]:
    """``(N,)`` the group of each answer, or its example where there are no groups."""
    units = np.arange(len(said)) if said.units is None else said.units
    return units if groups is None else groups[units]


def _crossed(said: Answered, independent: NDArray[np.generic], seed: int) -> _Crossed:
    """Two random halves of what is independent, each at the temperature that is best for the other."""
    names, place = np.unique(independent, return_inverse=True)
    first = np.zeros(len(names), dtype=bool)
    first[np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]] = True
    inside = first[place]
    scaled, fitted = np.empty_like(said.log_probabilities), []
    for half in (inside, ~inside):
        if not half.any():
            raise NoTemperature("one half of the groups has no answer that counts")
        found = fit_temperature(said.log_probabilities[half], said.labels[half]).estimate
        scaled[~half] = at_temperature(said.log_probabilities[~half], found)
        fitted.append(found)
    return _Crossed(scaled, (fitted[0], fitted[1]))


def _temperature(said: Answered, crossed: _Crossed, data: AuditData) -> Reading:
    found = fit_temperature(said.log_probabilities, said.labels, said.units)
    details: dict[str, float | str | None] = dict(zip(("first_half", "second_half"), crossed.temperatures, strict=True))
    if data.groups is not None:
        clustered = fit_temperature(said.log_probabilities, said.labels, _independent(said, data.groups)).interval
        if clustered is not None:
            details |= {"clustered_low": clustered[0], "clustered_high": clustered[1]}
    advice = "none: 1 lies in the interval"
    if found.interval is None:
        advice = "none: its error is unknown"
    elif not found.interval[0] <= 1 <= found.interval[1]:
        sure = "too" if found.estimate > 1 else "not"
        advice = f"it is {sure} sure{'' if sure == 'too' else ' enough'}: divide its logits by {found.estimate:.3g}"
        last = "softmax" if said.marks is None else "sigmoid"
        advice += f" before the {last}, and audit that model"
    return Reading(TEMPERATURE.measured(**vars(found), n=said.examples, details=details, advice=advice))


def _nats(said: Answered) -> NDArray[np.float64]:
    """``(N,)`` −log p of what was right."""
    return -np.take_along_axis(said.log_probabilities, said.labels[:, None], axis=1)[:, 0]


def _reading(
    metric: Metric,
    values: NDArray[np.float64],
    said: Answered,
    data: AuditData,
    details: dict[str, float],
    high: float,
    seed: int,
) -> Reading:
    found = value_mean(values, said.units, low=0.0, high=high)
    if found.interval is not None:  # chance adds to a calibration error at most what a calibrated model shows
        low = found.interval[0] - details.get("expected_if_calibrated", 0.0)
        found = replace(found, interval=(max(0.0, low), found.interval[1]))
    each = per_example(values, said.units, said.examples)
    told = details | cluster_details(each, data.groups, seed=seed)
    kept = {metric.name: Array.pack(np.ascontiguousarray(each))}
    return Reading(metric.measured(**vars(found), samples=metric.name, details=told), kept)
