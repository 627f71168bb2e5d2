"""How right a model stays when each input is moved, within a small radius, to where it does most harm."""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from flataudit.attacks.curve import Curve, error_curve, robustness_curve
from flataudit.attacks.methods import Attack, Choice, Method, Settings, fitting, searching
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Limits, Norm, Room, Unit
from flataudit.attacks.schedule import Schedule
from flataudit.attacks.victims import Cases, Victims, wrong
from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.errors import ConfigurationError
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.cluster_details import cluster_details
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import bounded_mean, mean

__all__ = ["Adversarial"]

ACCURACY = Metric(
    name="adversarial_accuracy",
    unit="accuracy",
    better="higher",
    description="Share of examples that no attack tried could make wrong within the radius. Wilson interval.",
)
LOSS = Metric(
    name="adversarial_loss",
    unit="loss",
    better="lower",
    description="Mean of the largest squared error that an attack found within the radius of each example.",
)

Detail = float | str | None


def _several(value: object) -> object:
    return (value,) if isinstance(value, int | float) else value


class Adversarial(Record):
    """How right a model stays within a radius ε of each input, under attack: classifiers, and regressions.

    *Classifiers*: `adversarial_accuracy`, the share of examples that no attack tried could make wrong; an upper bound
    of the robust accuracy. Models with a gradient in their inputs are attacked by PGD (Madry et al. 2018), others by
    the square attack (images; Andriushchenko et al. 2020) or a search of values (everything else). On the first
    `check` examples FGSM and a search are tried too: what they find counts, and where they beat PGD by more than chance
    the details name them under ``masking``. *Regressions*: `adversarial_loss`, the mean over examples of the largest
    (f(x + δ) − y)² found by the same means, a lower bound; on w·x + b it is (|w·x + b − y| + ε‖w‖_q)² with q dual to
    the norm, where no limit is in the way.

    The examples are the same for all candidates, a seeded choice, so that candidates pair example by example; array
    ``adversarial/examples``: their numbers in the data. The interval (Wilson's, or Student's) is that of the examples
    as a sample; where the data have groups the details add that of whole groups, ``clustered_low`` to
    ``clustered_high``. ε is in units of the inputs' standard deviation over the data set: of each feature in a table,
    of all values together otherwise. In the L2 ball it is ‖δ/s‖₂. What is found at one radius counts at every larger.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, LOSS)
    families: ClassVar[tuple[Metric, ...]] = (ACCURACY, LOSS)
    """``adversarial_accuracy/<epsilon>`` (or ``_loss``) for each radius, where there are several."""

    norm: Norm = "linf"
    """What ε bounds: the largest change of a value, or the Euclidean length of the change."""
    epsilon: Annotated[tuple[PositiveFloat, ...], BeforeValidator(_several)] | None = Field(None, min_length=1)
    """One radius, or several of which the first is the metric's; None: 0.1, or 0.05 √values in the L2 ball."""
    unit: Unit = "deviation"
    """What ε is a share of: the inputs' ``deviation``, their ``range``, or ``input``: the inputs' own unit."""
    limits: Limits = "data"
    """Inputs stay within: the smallest and largest of the ``data`` (of each feature in a table), ``none``, or two."""
    method: Choice = "auto"
    """``gradient``, ``search``, or ``auto``: the gradient where the model has one."""
    steps: PositiveInt = 10
    """Steps of the gradient attack from each start."""
    step_size: PositiveFloat | None = None
    """Length of a step in units of ε; None: 2.5 / steps."""
    starts: PositiveInt = 2
    """The first from the input itself, each further one from a random point towards one wrong class; for regressions
    the first two from the input, away from the target and past it."""
    queries: PositiveInt = 200
    """Answers an example that a search may ask for."""
    check: NonNegativeInt = 64
    """Examples on which a gradient attack is compared with FGSM and a search; 0: none."""
    max_examples: PositiveInt = 512
    """A seeded choice of so many, where the data have more."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            self._schedule()
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        if self.epsilon and len(set(self.epsilon)) < len(self.epsilon):
            raise ValueError(f"expected each epsilon once, got {', '.join(f'{one:g}' for one in self.epsilon)}")
        if isinstance(self.limits, tuple) and not self.limits[0] < self.limits[1]:
            raise ValueError(f"expected limits as the smallest and the largest value, got {self.limits}")
        return self

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The first radius, and each of several.

        Raises:
            ConfigurationError: inputs outside of the declared limits.
            ModelError: `method` asks for a gradient that the model does not have.
        """
        metric, other = (LOSS, ACCURACY) if model.task == "regression" else (ACCURACY, LOSS)
        apart = Reading(other.missing(Outcome.NOT_APPLICABLE, f"a {model.task} model has {metric.name} instead"))
        if (unfit := _unfit(model, data)) is not None:
            return [*self._missing(metric, Outcome.NOT_APPLICABLE, *unfit), apart]
        room = Room.of(data.inputs, unit=self.unit, limits=self.limits, by_feature=data.kind == "table")
        room = room.moving(data.movable)
        if not (room.scale > 0).any():
            reason, advice = "all inputs are equal: they have no scale", "use `unit: input`"
            return [*self._missing(metric, Outcome.NOT_APPLICABLE, reason, advice), apart]
        purse = Purse(model, budget, len(data))
        chosen = _examples(len(data), self.max_examples, seed)
        if len(chosen) / len(data) / 2 > budget.passes:
            reason = f"{budget.passes:g} passes are left"
            return [*self._missing(metric, Outcome.OVER_BUDGET, reason, _RAISE), apart]
        settings = Settings(seed=seed, schedule=self._schedule(), queries=self.queries)
        measured = self._values if metric is LOSS else self._classes
        return [*measured(model, data, chosen, room, settings, purse), apart]

    def _classes(
        self,
        model: Predictor,
        data: AuditData,
        chosen: NDArray[np.int64],
        room: Room,
        settings: Settings,
        purse: Purse,
    ) -> list[Reading]:
        victims = _victims(model, data, chosen)
        if victims.answers.shape[1] < 2:
            return self._missing(ACCURACY, Outcome.NOT_APPLICABLE, "the model knows one class only")
        attack = fitting(model, data, self.method, settings)
        check = self.check if attack.method == "gradient" else 0
        radii = self._radii(data)
        curve = robustness_curve(
            model,
            victims,
            room,
            norm=self.norm,
            radii=radii,
            attack=attack,
            other=searching(data, settings) if check else None,
            check=check,
            purse=purse,
        )
        clean = {"clean_accuracy": float(np.mean(~wrong(victims.answers, victims.labels)))}
        first = _masking(curve, attack.method, checks=self.check > 0)
        misled = _MISLED if curve.masking and curve.masking.suspects else None
        rows = []
        for metric, radius in zip(_members(ACCURACY, radii), (radii[0], *radii), strict=False):
            robust = curve.robust.get(radius)
            if robust is None:
                reason = f"the budget ended during the attack; at most {np.mean(curve.left):.3f} are robust"
                rows.append(Reading(metric.missing(Outcome.OVER_BUDGET, reason, _RAISE)))
                continue
            values = robust.astype(np.float64)
            details = {**self._told(attack, room, radius), **clean, **(first if radius == radii[0] else {})}
            advice = misled if radius == radii[0] else None
            rows.append(_reading(metric, values, data, chosen, settings.seed, details, advice))
        return _with_places(rows, chosen)

    def _values(
        self,
        model: Predictor,
        data: AuditData,
        chosen: NDArray[np.int64],
        room: Room,
        settings: Settings,
        purse: Purse,
    ) -> list[Reading]:
        assert data.targets is not None
        answers = model.predict(data.inputs[chosen]).astype(np.float64)
        if answers.ndim > 1:
            return self._missing(LOSS, Outcome.NOT_APPLICABLE, "no attack on several answers an example")
        cases = Cases(data.inputs[chosen], data.targets[chosen].astype(np.float64), chosen, answers)
        attack, radii = fitting(model, data, self.method, settings), self._radii(data)
        curve = error_curve(model, cases, room, norm=self.norm, radii=radii, attack=attack, purse=purse)
        clean = {"clean_loss": float(np.mean((answers - cases.targets) ** 2))}
        rows = []
        for metric, radius in zip(_members(LOSS, radii), (radii[0], *radii), strict=False):
            if radius not in curve:
                rows.append(Reading(metric.missing(Outcome.OVER_BUDGET, "the budget ended during the attack", _RAISE)))
                continue
            values = curve[radius] ** 2
            if not np.isfinite(values).all():
                reason = (
                    f"{np.sum(~np.isfinite(values))} examples have inputs within {radius:g} without a finite answer"
                )
                rows.append(Reading(metric.missing(Outcome.FAILED, reason, "mend the model, or declare `limits`")))
                continue
            details = {**self._told(attack, room, radius), **clean}
            rows.append(_reading(metric, values, data, chosen, settings.seed, details))
        return _with_places(rows, chosen)

    def _radii(self, data: AuditData) -> tuple[float, ...]:
        return self.epsilon or (0.1 if self.norm == "linf" else 0.05 * math.sqrt(data.inputs[0].size),)

    def _told(self, attack: Attack, room: Room, radius: float) -> dict[str, Detail]:
        allowed = radius * float(np.mean(room.scale))
        common = {"method": attack.method, "norm": self.norm, "unit": self.unit}
        return {**common, "epsilon": radius, "mean_change_allowed": allowed}

    def _schedule(self) -> Schedule:
        return Schedule(self.steps, 2.5 / self.steps if self.step_size is None else self.step_size, self.starts)

    def _missing(self, metric: Metric, outcome: Outcome, reason: str, advice: str | None = None) -> list[Reading]:
        return [Reading(one.missing(outcome, reason, advice)) for one in _members(metric, self.epsilon or ())]


_RAISE = "raise budget.passes or budget.seconds, or lower max_examples, starts or queries"
_MISLED = "the gradients hide errors: set method: search, and read this as a loose upper bound"
_PLACES = "adversarial/examples"


def _members(metric: Metric, radii: Sequence[float]) -> list[Metric]:
    """The metric, and its family's members where there are several radii."""
    return [metric, *([metric.of(f"{radius:g}") for radius in radii] if len(radii) > 1 else [])]


def _reading(
    metric: Metric,
    values: NDArray[np.float64],
    data: AuditData,
    chosen: NDArray[np.int64],
    seed: int,
    details: Mapping[str, Detail],
    advice: str | None = None,
) -> Reading:
    """One number with its examples' values, and what whole groups would make of its interval."""
    told = {**details, **cluster_details(values, None if data.groups is None else data.groups[chosen], seed=seed)}
    share = metric.better == "higher"
    measured = metric.measured(
        **vars((bounded_mean if share else mean)(values)),
        bound="upper" if share else "lower",
        samples=metric.name,
        details=told,
        advice=advice,
    )
    return Reading(measured, {metric.name: Array.pack(values)})


def _with_places(rows: list[Reading], chosen: NDArray[np.int64]) -> list[Reading]:
    """With the numbers of the examples beside the first array."""
    for index, row in enumerate(rows):
        if row.arrays:
            return [
                *rows[:index],
                Reading(row.measurement, {**row.arrays, _PLACES: Array.pack(chosen)}),
                *rows[index + 1 :],
            ]
    return rows


def _unfit(model: Predictor, data: AuditData) -> tuple[str, str | None] | None:
    """Why these examples cannot be attacked, and what to do."""
    if model.task not in ("multiclass", "binary", "regression"):
        return f"no attack on a {model.task} model: only one class or one value an example can become wrong", None
    if data.targets is None or data.targets.ndim > 1:
        return "no attack on several answers an example", None
    if data.inputs.dtype.kind != "f":
        reason = f"inputs of type {data.inputs.dtype} cannot be moved a little: between whole numbers is nothing"
        return reason, "give the inputs as floating point"
    return ("some inputs are missing (NaN)", "fill the gaps") if np.isnan(data.inputs).any() else None


def _examples(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """The same for every candidate, in an order that depends on the seed alone."""
    generator = np.random.default_rng([seed, zlib.crc32(b"adversarial examples")])
    return generator.permutation(n)[:most].astype(np.int64)


def _victims(model: Predictor, data: AuditData, chosen: NDArray[np.int64]) -> Victims:
    """The chosen examples with their clean answers; checks labels and answers."""
    assert data.targets is not None
    answers, labels = model.predict(data.inputs[chosen]), data.targets[chosen].astype(np.int64)
    correctness(model.task, answers, labels)
    return Victims(data.inputs[chosen], labels, chosen, answers.astype(np.float64))


def _masking(curve: Curve, method: Method, *, checks: bool) -> dict[str, Detail]:
    """Details of the check, in which ``masking`` says how it ended."""
    if method != "gradient" or not checks:
        return {}
    if curve.masking is None:
        return {"masking": "not checked: the budget ended, or no example is right"}
    suspects = curve.masking.suspects
    return {"masking": f"likely: PGD is beaten by {' and '.join(suspects)}" if suspects else "none seen"} | dict(
        curve.masking.found
    )
