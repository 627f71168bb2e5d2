"""What the model says of recent inputs that nobody labelled."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.errors import ModelError
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answers import answers, said
from flataudit.statistics.means import bounded_mean

__all__ = ["Unlabelled"]

CONFIDENCE = Metric(
    name="average_confidence",
    unit="probability",
    better="neither",
    description=(
        "Mean probability of the predicted class on unlabelled inputs. The average confidence is a label-free estimate "
        "of accuracy only for a calibrated model, and calibration itself rarely survives a shift."
    ),
)


class Unlabelled(Record):
    """Average confidence on unlabelled inputs, and the predictions from which agreement is computed.

    Arrays, one value an example, for the set ``<set>``: ``average_confidence/<set>``, and ``predictions/<set>``: the
    most probable class (uint8 or int32), or the value (float64) of a regression; ``validation_predictions``, the same
    on the validation inputs, against which agreement on the set is held. One forward pass over each, for all probes.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "unlabelled"
    reference: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (CONFIDENCE,)

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The average confidence; not applicable to regression, whose predictions are kept all the same."""
        metric = CONFIDENCE.of(data.name)
        predictions = _numbers(answers(model, data), data.name)
        if model.task not in ("multiclass", "binary", "regression") or predictions.ndim > 2:
            reason = "agreement and confidence of several answers an example are not yet measured"
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason))]
        arrays = {f"predictions/{data.name}": Array.pack(said(predictions))}
        if data.reference is not None:
            clean = _numbers(answers(model, data.reference), "validation")
            arrays["validation_predictions"] = Array.pack(said(clean))
        if model.task == "regression":
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, "a regression states no confidence"), arrays)]
        because = getattr(model, "no_probabilities_because", None)
        if because is not None:
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, because), arrays)]
        confidences = np.minimum(np.exp(np.max(predictions, axis=1)), 1.0)
        arrays[metric.name] = Array.pack(confidences)
        return [Reading(metric.measured(**vars(bounded_mean(confidences)), samples=metric.name), arrays)]


def _numbers(predictions: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if np.isnan(predictions).any():
        raise ModelError("numbers", got="NaN", remedy=f"the model answers NaN on inputs of {name}")
    return predictions
