"""How right a model is, with proof, when its answers are votes over noisy copies of each input."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Room, Unit
from flataudit.attacks.smoothing import Certificates, certify, largest_radius
from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.cluster_details import cluster_details
from flataudit.statistics.means import Mean, bounded_mean, mean

__all__ = ["Certified"]

ACCURACY = Metric(
    name="certified_accuracy",
    unit="accuracy",
    better="higher",
    description="Share of examples on which the smoothed model is right, and provably stays so within the radius.",
)
RADIUS = Metric(
    name="certified_radius",
    unit="input scale",
    better="higher",
    description="Mean radius within which the smoothed model provably stays right; 0 where it is wrong or abstains.",
)


def _several(value: object) -> object:
    return (value,) if isinstance(value, int | float) else value


class Certified(Record):
    """Certified accuracy of the *smoothed* model in the L2 ball (Cohen, Rosenfeld and Kolter 2019). Higher is better.

    The smoothed model answers the class that the candidate gives most often under Gaussian noise; it is another model
    than the candidate, and only as good as the candidate is under that noise. Right where it is the target's class, at
    a certified radius of at least r; an abstention counts as wrong. A lower bound: each certificate is false with a
    probability of at most `alpha`. The interval is that of the examples as a sample. ‖δ/s‖₂ < r with s the standard
    deviation of each feature in a table, of all values together otherwise, or 1. The largest radius that so many draws
    can prove stands in the details, and so does the interval of whole groups where the data have them
    (``clustered_low`` to ``clustered_high``). Array ``certified/examples``: the numbers of the examples in the data,
    the same for all candidates.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, RADIUS)
    families: ClassVar[tuple[Metric, ...]] = (ACCURACY,)
    """``certified_accuracy/<radius>`` for each radius, where there are several."""

    sigma: PositiveFloat = 0.25
    """Standard deviation of the noise."""
    radius: Annotated[tuple[NonNegativeFloat, ...], BeforeValidator(_several)] = Field((0.25,), min_length=1)
    """One radius, or several of which the first is the metric's; 0: the smoothed model's own accuracy."""
    unit: Unit = "deviation"
    """What `sigma` and `radius` are shares of: the inputs' ``deviation``, their ``range``, or ``input``."""
    choosing: PositiveInt = 32
    """Noisy answers that the class is chosen from."""
    draws: PositiveInt = 256
    """Noisy answers that its probability is estimated from."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Chance that the certificate of an example is false."""
    max_examples: PositiveInt = 100
    """A seeded choice of so many, where the data have more."""

    @field_validator("radius")
    @classmethod
    def _distinct(cls, radius: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(radius)) < len(radius):
            raise ValueError(f"expected each radius once, got {', '.join(f'{one:g}' for one in radius)}")
        return radius

    @model_validator(mode="after")
    def _provable(self) -> Self:
        most = largest_radius(self.draws, alpha=self.alpha, sigma=self.sigma)
        if max(self.radius) > most:
            told = f"expected radii that {self.draws} draws can prove, at most {most:.3g}, got {max(self.radius):g}"
            raise ValueError(f"{told}; raise sigma or draws")
        return self

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The accuracy at the first radius, the mean radius, and the accuracy at each of several."""
        if (unfit := _unfit(model, data)) is not None:
            return self._missing(Outcome.NOT_APPLICABLE, *unfit)
        room = Room.of(data.inputs, unit=self.unit, limits="none", by_feature=data.kind == "table")
        room = room.moving(data.movable)
        if not (room.scale > 0).any():
            return self._missing(
                Outcome.NOT_APPLICABLE, "all inputs are equal: they have no scale", "use `unit: input`"
            )
        places = _examples(len(data), self.max_examples, seed)
        passes = (self.choosing + self.draws) * len(places) / len(data) / 2
        if passes > budget.passes:
            reason = f"it takes {passes:.3g} passes, {budget.passes:g} are left"
            return self._missing(Outcome.OVER_BUDGET, reason, _RAISE)
        purse = Purse(model, budget.model_copy(update={"passes": 2 * passes}), len(data))
        found = certify(
            model,
            data.inputs[places],
            places,
            level=self.sigma * room.scale,
            sigma=self.sigma,
            seed=seed,
            choosing=self.choosing,
            draws=self.draws,
            alpha=self.alpha,
            may_go_on=lambda: not purse.empty(),
        )
        if found is None:
            return self._missing(Outcome.OVER_BUDGET, f"{budget.seconds:g} s ran out before all draws", _RAISE)
        return self._readings(found, data, places, seed)

    def _missing(self, outcome: Outcome, reason: str, advice: str | None = None) -> list[Reading]:
        return [Reading(metric.missing(outcome, reason, advice)) for metric in (RADIUS, *self._members())]

    def _members(self) -> list[Metric]:
        """The accuracy, and its family's members where there are several radii."""
        return [ACCURACY, *([ACCURACY.of(f"{one:g}") for one in self.radius] if len(self.radius) > 1 else [])]

    def _readings(self, found: Certificates, data: AuditData, places: NDArray[np.int64], seed: int) -> list[Reading]:
        assert data.targets is not None
        groups = None if data.groups is None else data.groups[places]
        right = found.classes == data.targets[places]
        proven = np.where(right, found.radii, 0.0)
        details: dict[str, float | str | None] = {
            "sigma": self.sigma,
            "unit": self.unit,
            "alpha": self.alpha,
            "abstained": float(np.mean(found.classes < 0)),
            "smoothed_accuracy": float(np.mean(right)),
            "largest_provable": largest_radius(self.draws, alpha=self.alpha, sigma=self.sigma),
        }
        rows = [_reading(RADIUS, mean(proven), proven, details | cluster_details(proven, groups, seed=seed))]
        for metric, radius in zip(self._members(), (self.radius[0], *self.radius), strict=False):
            values = (right & (found.radii >= radius)).astype(np.float64)
            told = details | {"radius": radius} | cluster_details(values, groups, seed=seed)
            rows.append(_reading(metric, bounded_mean(values), values, told))
        return [Reading(rows[0].measurement, {**rows[0].arrays, "certified/examples": Array.pack(places)}), *rows[1:]]


_RAISE = "lower max_examples or draws, or raise budget.passes or budget.seconds"


def _reading(
    metric: Metric, found: Mean, values: NDArray[np.float64], details: Mapping[str, float | str | None]
) -> Reading:
    measured = metric.measured(**vars(found), bound="lower", samples=metric.name, details=details)
    return Reading(measured, {metric.name: Array.pack(np.ascontiguousarray(values))})


def _unfit(model: Predictor, data: AuditData) -> tuple[str, str | None] | None:
    """Why these examples have no certificates, and what to do."""
    if model.task not in ("multiclass", "binary"):
        return f"no certificate for a {model.task} model: only one class an example can be voted on", None
    if data.targets is None or data.targets.ndim > 1:
        return "no certificate for several answers an example", None
    if data.inputs.dtype.kind != "f":
        return f"inputs of type {data.inputs.dtype} take no Gaussian noise", "give the inputs as floating point"
    return ("some inputs are missing (NaN)", "fill the gaps") if np.isnan(data.inputs).any() else None


def _examples(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """The same for every candidate, in an order that depends on the seed alone."""
    generator = np.random.default_rng([seed, zlib.crc32(b"certified examples")])
    return generator.permutation(n)[:most].astype(np.int64)
