"""How right the model is on the validation examples, and what its errors cost."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answers import answers, said
from flataudit.statistics.calibration import brier_scores
from flataudit.statistics.correctness import correctness, losses
from flataudit.statistics.means import Mean, bounded_mean, mean

__all__ = ["Accuracy"]

ACCURACY = Metric(
    name="validation_accuracy",
    unit="accuracy",
    better="higher",
    description="Share of the validation examples whose most probable class is the target. Wilson interval.",
)
LOSS = Metric(
    name="validation_loss",
    unit="nats or squared target unit",
    better="lower",
    description="Mean −log p(target), or mean squared error. Student's interval.",
)
BRIER = Metric(
    name="validation_brier",
    unit="probability²",
    better="lower",
    description="Mean of Σ_k (p_k − 1{k = target})², 0 to 2. Student's interval.",
)
R2 = Metric(
    name="validation_r2",
    unit="1",
    better="higher",
    description="1 − mean squared error / variance of the targets. Interval by the delta method.",
)
RMSE = Metric(
    name="validation_rmse",
    unit="target unit",
    better="lower",
    description="Root of the mean squared error. Interval by the delta method.",
)


class Accuracy(Record):
    """Accuracy, loss and Brier score of a classifier; R², RMSE and loss of a regression. One forward pass.

    Exact on the examples given; the errors are those of the examples as a sample. Arrays, one value an example:
    ``validation_accuracy``, ``validation_loss``, ``validation_brier``; for regression ``validation_loss``,
    ``validation_r2`` (1 − squared error / variance, whose mean is R²) and ``validation_skill`` (the same, cut to
    [0, 1], which the score uses). ``validation_predictions`` is what it said: the most probable class (uint8 or int32),
    or the value (float64).
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, LOSS, BRIER, R2, RMSE)

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All five metrics, those of the other task as not applicable."""
        assert data.targets is not None
        predictions = answers(model, data)
        right = correctness(model.task, predictions, data.targets)
        because: str | None = getattr(model, "no_probabilities_because", None)
        loss = _loss(losses(model.task, predictions, data.targets))
        if because is not None:
            loss = Reading(LOSS.missing(Outcome.NOT_APPLICABLE, because))
        if model.task == "regression":
            values = np.asarray(data.targets, dtype=np.float64)
            return [
                *_absent("regression", ACCURACY, BRIER),
                loss,
                *_regression(predictions, values, right),
            ]
        accuracy = ACCURACY.measured(**vars(bounded_mean(right)), samples=ACCURACY.name)
        kept = {"validation_predictions": Array.pack(said(predictions))} if data.targets.ndim == 1 else {}
        rows = [Reading(accuracy, _array(ACCURACY.name, right) | kept), loss]
        if data.targets.ndim > 1:
            return [*rows, *_absent("several answers an example", BRIER), *_absent("classification", R2, RMSE)]
        if because is not None:
            brier = Reading(BRIER.missing(Outcome.NOT_APPLICABLE, because))
        else:
            scores = brier_scores(np.exp(predictions), data.targets.astype(np.int64))
            brier = Reading(BRIER.measured(**vars(mean(scores)), samples=BRIER.name), _array(BRIER.name, scores))
        return [*rows, brier, *_absent("classification", R2, RMSE)]


def _loss(values: NDArray[np.float64]) -> Reading:
    infinite = int(np.sum(~np.isfinite(values)))
    if infinite:
        reason = f"the loss is infinite: {infinite} of {len(values)} examples have probability 0 for their class"
        return Reading(LOSS.missing(Outcome.FAILED, reason, "return log-probabilities or clip them in the model"))
    return Reading(LOSS.measured(**vars(mean(values)), samples=LOSS.name), _array(LOSS.name, values))


def _regression(
    predictions: NDArray[np.float64], targets: NDArray[np.float64], skill: NDArray[np.float64]
) -> list[Reading]:
    squares = np.square(predictions - targets)
    error, variance = float(np.mean(squares)), float(np.var(targets))
    root = float(np.sqrt(error))
    rmse = RMSE.measured(**vars(_delta(root, (squares - error) / (2 * root) if root > 0 else np.zeros_like(squares))))
    arrays = _array("validation_skill", skill) | _array("validation_predictions", predictions)
    if variance <= 0:
        return [
            Reading(R2.missing(Outcome.NOT_APPLICABLE, "all targets are equal: R² is undefined"), arrays),
            Reading(rmse),
        ]
    deviations = np.square(targets - np.mean(targets)) - variance
    influence = -(squares - error) / variance + error / variance**2 * deviations
    r2 = R2.measured(**vars(_delta(1 - error / variance, influence)), samples=R2.name)
    return [Reading(r2, arrays | _array(R2.name, 1 - squares / variance)), Reading(rmse)]


def _delta(estimate: float, influence: NDArray[np.float64]) -> Mean:
    """Error of a smooth function of means: that of the mean influence of an example (Hampel 1974)."""
    return replace(mean(influence + estimate), estimate=estimate)


def _absent(task: str, *metrics: Metric) -> list[Reading]:
    return [Reading(m.missing(Outcome.NOT_APPLICABLE, f"{m.name} does not apply to {task}")) for m in metrics]


def _array(name: str, values: NDArray[np.float64]) -> dict[str, Array]:
    return {name: Array.pack(np.ascontiguousarray(values, dtype=np.float64))}
