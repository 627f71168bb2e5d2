"""How steeply the answers can change near an input: a lower bound of the local Lipschitz constant."""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from flataudit.attacks.methods import Choice
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Room, Unit
from flataudit.attacks.slopes import Chords, Vanished, outputs_of, sampled_slopes
from flataudit.contracts import AuditData, Differentiable, Predictor, Reading
from flataudit.errors import ModelError
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answers import answers
from flataudit.statistics.means import Mean, mean
from flataudit.statistics.percentiles import percentile

__all__ = ["Lipschitz"]

MEAN = Metric(
    name="local_lipschitz",
    unit="output/input scale",
    better="lower",
    description="Mean over examples of the steepest change of the outputs found near each. Student's interval.",
)
TAIL = Metric(
    name="local_lipschitz_p95",
    unit="output/input scale",
    better="lower",
    description="95th percentile over examples of the steepest change found near each. Order-statistic interval.",
)
MOST = Metric(
    name="local_lipschitz_max",
    unit="output/input scale",
    better="lower",
    description="Steepest change of the outputs that was found near any of the examples.",
)

Detail = float | str | None


class Lipschitz(Record):
    """The largest ‖f(x + δ) − f(x)‖₂ / ‖δ/s‖₂ found near each example, a lower bound of its local Lipschitz constant.

    Lower is steadier (Wood and Zhang 1996; Weng et al. 2018). f are the outputs: of classes the logits without their
    mean, of several labels the log-odds, of a regression the values; δ has the length r = `radius` √(values that
    move) in units of s, the standard deviation of the inputs over the data set: of each feature in a table, of all
    values together otherwise. Nothing is clipped to the range of the inputs. Where the inputs name their fields only
    numbers move.

    Models with a gradient in their inputs are climbed (`steps` of power iteration at a finite length), others asked
    along `directions` at right angles and once along what these promise. For a linear map f = Wx both tend to the
    spectral norm of W diag(s), its rows less their mean for classes: exact for a regression that is climbed, and where
    there are as many directions as values that move. Every number is a *lower bound*, being made of lower bounds. With
    many values the climb finds more than the search: compare candidates of which both were climbed or both searched;
    the detail ``method`` says which. Not blind to a temperature of the logits; the detail ``at_unit_rms`` is, the mean
    over the root mean square of the outputs. The examples are a seeded choice, the same for all candidates; array
    ``lipschitz/examples``: their numbers in the data.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (MEAN, TAIL, MOST)

    radius: PositiveFloat = 0.05
    """Root mean square of δ/s over the values that move: how near is near."""
    unit: Unit = "deviation"
    """What s is: the inputs' ``deviation``, their ``range``, or ``input``: 1."""
    method: Choice = "auto"
    """``gradient``, ``search``, or ``auto``: the gradient where the model has one."""
    steps: PositiveInt = 6
    """Steps of the climb, a forward and a backward pass each."""
    directions: PositiveInt = 8
    """Directions at right angles that a model without gradients is asked along, a forward pass each."""
    max_examples: PositiveInt = 256
    """A seeded choice of so many, where the data have more."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Mean, 95th percentile and maximum, with the slope of each example.

        Raises:
            ModelError: `method` asks for a gradient that the model does not have.
        """
        climbs = self._climbs(model, data)
        if (unfit := _unfit(data, climbs=climbs)) is not None:
            return self._missing(Outcome.NOT_APPLICABLE, *unfit)
        room = Room.of(data.inputs, unit=self.unit, limits="none", by_feature=data.kind == "table")
        chords = Chords.of(room.moving(data.movable), self.radius, data.inputs.shape[1:])
        if not chords.moves.any():
            reason, advice = "all inputs are equal: they have no scale", "use `unit: input`"
            return self._missing(Outcome.NOT_APPLICABLE, reason, advice)
        places = _examples(len(data), self.max_examples, seed)
        passes = (self.steps + 1 if climbs else self.directions / 2 + 1) * len(places) / len(data)
        if passes > budget.passes:
            reason = f"it takes {passes:.3g} passes, {budget.passes:g} are left"
            return self._missing(Outcome.OVER_BUDGET, reason, _RAISE)
        purse = Purse(model, budget.model_copy(update={"passes": 2 * passes}), len(data))
        try:
            found = self._slopes(model, data, places, chords, seed, purse, climbs=climbs)
        except Vanished:
            return self._missing(Outcome.NOT_APPLICABLE, *_VANISHED)
        if found is None:
            return self._missing(Outcome.OVER_BUDGET, f"{budget.seconds:g} s ran out", _RAISE)
        if not np.isfinite(found).all():
            reason = f"{np.sum(~np.isfinite(found))} examples have inputs near them without a finite answer"
            return self._missing(Outcome.FAILED, reason, "mend the model, or lower `radius`")
        size = _root_mean_square(model, data, places)
        details = {"method": "gradient" if climbs else "search", "unit": self.unit, "length": chords.radius}
        return _readings(found, places, details | {"at_unit_rms": float(found.mean()) / size if size else None})

    def _climbs(self, model: Predictor, data: AuditData) -> bool:
        """Whether along the gradient."""
        # Here, so that models which only answer are measured where torch is not installed.
        if self.method != "search" and isinstance(model, Differentiable):
            from flataudit.curvature.inputs import has_input_gradients

            if has_input_gradients(model, data):
                return True
        if self.method == "gradient":
            got, remedy = "one without", "leave `method` out: it is searched by answers"
            raise ModelError("a model with a gradient in its inputs", got=got, remedy=remedy)
        return False

    def _slopes(
        self,
        model: Predictor,
        data: AuditData,
        places: NDArray[np.int64],
        chords: Chords,
        seed: int,
        purse: Purse,
        *,
        climbs: bool,
    ) -> NDArray[np.float64] | None:
        inputs, may_go_on = data.inputs[places], partial(_filled, purse)
        if not climbs:
            count = self.directions
            return sampled_slopes(model, inputs, places, chords, seed=seed, directions=count, may_go_on=may_go_on)
        from flataudit.attacks.slope_ascent import ascended_slopes

        assert isinstance(model, Differentiable)
        return ascended_slopes(model, inputs, places, chords, seed=seed, steps=self.steps, may_go_on=may_go_on)

    def _missing(self, outcome: Outcome, reason: str, advice: str | None = None) -> list[Reading]:
        return [Reading(metric.missing(outcome, reason, advice)) for metric in self.metrics]


_RAISE = "lower max_examples, steps or directions, or raise budget.passes or budget.seconds"
_PLACES = "lipschitz/examples"
_VANISHED = (
    "the model answers probabilities of 0, whose logarithm may change by any amount",
    "read `noise_flip_rate` instead",
)


def _readings(slopes: NDArray[np.float64], places: NDArray[np.int64], details: Mapping[str, Detail]) -> list[Reading]:
    first = MEAN.measured(**vars(mean(slopes)), bound="lower", samples=MEAN.name, details=details)
    others = ((TAIL, percentile(slopes, 0.95)), (MOST, Mean(float(slopes.max()), None, None, len(slopes))))
    kept = {MEAN.name: Array.pack(slopes), _PLACES: Array.pack(places)}
    rows = [Reading(metric.measured(**vars(found), bound="lower", details=details)) for metric, found in others]
    return [Reading(first, kept), *rows]


def _root_mean_square(model: Predictor, data: AuditData, places: NDArray[np.int64]) -> float | None:
    """Of the outputs over the chosen examples; None where a probability is 0 in them."""
    try:
        return float(np.sqrt(np.mean(np.square(outputs_of(model.task, answers(model, data)[places])))))
    except Vanished:
        return None


def _filled(purse: Purse) -> bool:
    return not purse.empty()


def _unfit(data: AuditData, *, climbs: bool) -> tuple[str, str | None] | None:
    """Why there are no slopes in these inputs, and what to do."""
    if data.movable is not None and not any(data.movable):
        return "no field of the inputs is a number that could move", None
    if data.inputs.dtype.kind != "f":
        reason = f"inputs of type {data.inputs.dtype} cannot be moved a little: between whole numbers is nothing"
        return None if climbs else (reason, "give the inputs as floating point")
    return ("some inputs are missing (NaN)", "fill the gaps") if np.isnan(data.inputs).any() else None


def _examples(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """The same for every candidate, in an order that depends on the seed alone."""
    generator = np.random.default_rng([seed, zlib.crc32(b"lipschitz examples")])
    return generator.permutation(n)[:most].astype(np.int64)
