"""Accuracy under Gaussian noise on the inputs, and how often the noise changes the answer."""

import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.image import Range
from flataudit.corruptions.scale import blocks, moments
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role, Task
from flataudit.statistics.answers import answers
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import Mean, bounded_mean, mean

__all__ = ["InputNoise"]

ACCURACY = Metric(
    name="noise_accuracy", better="higher", description="mean correctness under Gaussian noise on the inputs"
)
FLIPS = Metric(
    name="noise_flip_rate",
    unit="share of answers",
    better="lower",
    description="Share of noisy copies whose most probable class is another than without noise. Wilson interval.",
)
CHANGE = Metric(
    name="noise_change",
    unit="target deviation",
    better="lower",
    description="Mean absolute change of a regression's answer under noise, over the targets' standard deviation.",
)


class InputNoise(Record):
    """What Gaussian noise on the inputs does to correctness (higher is better) and to the answers (lower is better).

    Each example is answered `draws` times as x + `scale` · s · ε with ε ~ N(0, I), where s is the standard deviation
    of the inputs over the data set: of each feature in a table, of all values together otherwise. Nothing is clipped
    but integer images, which are rounded into their range. Where the inputs name their fields only numbers move, no
    categories or whole numbers; a missing value stays missing. The noise on an example depends on the seed and its
    index, so candidates pair example by example. Estimated: the standard errors and intervals are over examples and
    hold the noise of the draws.

    `noise_accuracy` is the mean correctness. `noise_flip_rate` (classes) is the share of copies with another most
    probable class than the example itself, right or wrong; of several labels, or of a sequence's tokens that count,
    the share that changes. On two classes parted by w·x + b it is the mean of Φ(−|w·x + b| / (scale ‖w s‖₂)).
    `noise_change` (regression) is the mean of |f(x + δ) − f(x)| over the standard deviation of the targets: scale
    ‖w s‖₂ √(2/π) of that for w·x + b. The passes are the same for all; the clean answers are those of other probes.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, FLIPS, CHANGE)

    scale: PositiveFloat = 0.1
    """Standard deviation of the noise, as a share of the inputs' own."""
    draws: PositiveInt = 5
    """Noisy copies of each example."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Correctness and the changes of the answers, each with its per-example values."""
        assert data.targets is not None
        if (unfit := _unfit(data)) is not None:
            return self._missing(Outcome.NOT_APPLICABLE, *unfit)
        deviation, until = _deviation(data), time.monotonic() + budget.seconds
        if not np.any(deviation > 0):
            return self._missing(Outcome.NOT_APPLICABLE, "all inputs are equal: no share of their deviation is a noise")
        if (self.draws + 1) / 2 > budget.passes:
            reason = f"{self.draws + 1} forward passes, {budget.passes:g} passes left"
            return self._missing(Outcome.OVER_BUDGET, reason, "lower draws or raise budget.passes")
        clean = answers(model, data)
        right, changed = np.zeros(len(data)), np.zeros(len(data))
        for draw in range(self.draws):
            if time.monotonic() > until:
                reason = f"{budget.seconds:g} s ran out after {draw} draws"
                return self._missing(Outcome.OVER_BUDGET, reason, "lower draws or raise budget.seconds")
            noisy = _answers(model, data, self.scale * deviation, seed, draw)
            right += correctness(model.task, noisy, data.targets)
            changed += _changes(model.task, clean, noisy, data.targets)
        details = {"scale": self.scale, "draws": float(self.draws), "mean_deviation": float(np.mean(deviation))}
        measured = _reading(ACCURACY, bounded_mean(right / self.draws), right / self.draws, details)
        return [measured, *_of_changes(model.task, changed / self.draws, data.targets, details)]

    def _missing(self, outcome: Outcome, reason: str, advice: str | None = None) -> list[Reading]:
        return [Reading(metric.missing(outcome, reason, advice)) for metric in self.metrics]


def _of_changes(
    task: Task, changed: NDArray[np.float64], targets: NDArray[np.generic], details: dict[str, float]
) -> list[Reading]:
    """The flip rate, or of a regression the change; the other has no meaning."""
    metric, other = (CHANGE, FLIPS) if task == "regression" else (FLIPS, CHANGE)
    apart = Reading(other.missing(Outcome.NOT_APPLICABLE, f"a {task} model has {metric.name} instead"))
    if metric is FLIPS:
        return [_reading(FLIPS, bounded_mean(changed), changed, details), apart]
    if (targets == targets[0]).all():
        return [apart, Reading(CHANGE.missing(Outcome.NOT_APPLICABLE, "the targets are all equal: they have no unit"))]
    unit = float(np.std(targets.astype(np.float64)))
    changed, told = changed / unit, details | {"target_deviation": unit}
    return [apart, _reading(CHANGE, mean(changed), changed, told)]


def _reading(metric: Metric, found: Mean, values: NDArray[np.float64], details: dict[str, float]) -> Reading:
    measured = metric.measured(**vars(found), samples=metric.name, details=details)
    return Reading(measured, {metric.name: Array.pack(values)})


def _unfit(data: AuditData) -> tuple[str, str | None] | None:
    """Why there is no noise on these inputs, and what to do."""
    if data.kind != "image" and data.inputs.dtype.kind != "f":
        return f"noise has no meaning on inputs of type {data.inputs.dtype}", "give the inputs as floating point"
    if data.movable is not None and not any(data.movable):
        return "no field of the inputs is a number that could move", None
    return None


def _changes(
    task: Task, clean: NDArray[np.float64], noisy: NDArray[np.generic], targets: NDArray[np.generic]
) -> NDArray[np.float64]:
    """How much of each answer is another than without noise, ``(n,)``: 0 to 1, or |f(x + δ) − f(x)|."""
    if task == "regression":
        return np.abs(noisy.astype(np.float64) - clean)
    if task == "multilabel":
        return np.asarray(np.mean((noisy > np.log(0.5)) != (clean > np.log(0.5)), axis=1, dtype=np.float64))
    other = np.asarray(np.argmax(noisy, axis=-1) != np.argmax(clean, axis=-1), dtype=np.float64)
    if other.ndim == 1:
        return other
    counted = np.asarray(targets, dtype=np.int64) >= 0
    return np.asarray((other * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1))


def _deviation(data: AuditData) -> NDArray[np.float64]:
    """Standard deviation of each feature of a table, else of all values; 0 for those that do not move."""
    deviation = moments(data.inputs, by_feature=data.kind == "table")[1]
    return deviation if data.movable is None else np.where(np.asarray(data.movable), deviation, 0.0)


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
