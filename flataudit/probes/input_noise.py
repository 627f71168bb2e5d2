"""Accuracy under Gaussian noise on the inputs."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.image import Range
from flataudit.corruptions.scale import blocks, moments
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import bounded_mean

__all__ = ["InputNoise"]

_ACCURACY = Metric(
    name="noise_accuracy", better="higher", description="mean correctness under Gaussian noise on the inputs"
)


class InputNoise(Record):
    """Mean correctness under Gaussian noise on the inputs. Higher is better.

    Each example is answered `draws` times as x + `scale` · s · ε with ε ~ N(0, I), where s is the standard deviation
    of the inputs over the data set: of each feature in a table, of all values together otherwise. Nothing is clipped
    but integer images, which are rounded into their range. Where the inputs name their fields only numbers move, no
    categories or whole numbers; a missing value stays missing. The noise on an example depends on the seed and its
    index, so candidates pair example by example. Estimated: the standard error and the interval are over examples and
    hold the noise of the draws.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (_ACCURACY,)

    scale: PositiveFloat = 0.1
    """Standard deviation of the noise, as a share of the inputs' own."""
    draws: PositiveInt = 5
    """Noisy copies of each example."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> list[Reading]:
        """One number and its per-example values."""
        assert data.targets is not None
        if data.kind != "image" and data.inputs.dtype.kind != "f":
            reason = f"noise has no meaning on inputs of type {data.inputs.dtype}"
            return [Reading(_ACCURACY.missing(Outcome.NOT_APPLICABLE, reason, "give the inputs as floating point"))]
        if data.movable is not None and not any(data.movable):
            reason = "no field of the inputs is a number that could move"
            return [Reading(_ACCURACY.missing(Outcome.NOT_APPLICABLE, reason))]
        if self.draws / 2 > budget.passes:
            reason = f"{self.draws} forward passes, {budget.passes:g} passes left"
            return [Reading(_ACCURACY.missing(Outcome.OVER_BUDGET, reason, "lower draws or raise budget.passes"))]
        deviation = _deviation(data)
        right = np.zeros(len(data))
        for draw in range(self.draws):
            answers = _answers(model, data, self.scale * deviation, seed, draw)
            right += correctness(model.task, answers, data.targets)
        right /= self.draws
        found = bounded_mean(right)
        measurement = _ACCURACY.measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=found.n,
            samples=_ACCURACY.name,
            details={"scale": self.scale, "draws": float(self.draws), "mean_deviation": float(np.mean(deviation))},
        )
        return [Reading(measurement, {_ACCURACY.name: Array.pack(right)})]


def _deviation(data: AuditData) -> NDArray[np.float64]:
    """Standard deviation of each feature of a table, else of all values; 0 for those that do not move."""
    absent = np.isnan(data.inputs) if data.inputs.dtype.kind == "f" else np.zeros(data.inputs.shape, dtype=bool)
    if absent.any():
        known = np.ma.masked_array(data.inputs.astype(np.float64), absent)
        deviation = np.ma.filled(known.std(axis=0 if data.kind == "table" else None), 0.0)
    else:
        deviation = moments(data.inputs, by_feature=data.kind == "table")[1]
    return np.asarray(deviation if data.movable is None else np.where(np.asarray(data.movable), deviation, 0.0))


def _answers(
    model: Predictor, data: AuditData, level: NDArray[np.float64], seed: int, draw: int
) -> NDArray[np.generic]:
    span, parts = Range.of(data.inputs), []
    for block in blocks(data.inputs):
        inputs = data.inputs[block]
        draws = Draws(seed, f"input_noise/{draw}", np.arange(block.start, block.stop))
        noisy = inputs.astype(np.float64) + level * draws.normals(inputs[0].size).reshape(inputs.shape)
        if inputs.dtype.kind != "f":
            noisy = np.clip(np.rint(noisy), span.low, span.high)
        parts.append(model.predict(noisy.astype(inputs.dtype)))
    return np.concatenate(parts)
