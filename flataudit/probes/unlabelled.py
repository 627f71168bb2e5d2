"""What the model says of recent inputs that nobody labelled."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flataudit.contracts import AuditData, Budget, Predictor, Reading, Role
from flataudit.errors import ModelError
from flataudit.evidence import Array, Metric, Outcome, Record
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
    most probable class (int64), or the value (float64) of a regression. One forward pass.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "unlabelled"
    metrics: ClassVar[tuple[Metric, ...]] = (CONFIDENCE,)

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The average confidence; not applicable to regression, whose predictions are kept all the same."""
        metric, kept = CONFIDENCE.of(data.name), f"predictions/{data.name}"
        predictions = np.asarray(model.predict(data.inputs), dtype=np.float64)
        if np.isnan(predictions).any():
            raise ModelError("numbers", got="NaN", remedy=f"the model answers NaN on inputs of {data.name}")
        if model.task == "regression":
            reason = "a regression states no confidence"
            arrays = {kept: Array.pack(np.ascontiguousarray(predictions))}
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason), arrays)]
        confidences = np.minimum(np.exp(np.max(predictions, axis=1)), 1.0)
        classes = np.argmax(predictions, axis=1).astype(np.int64)
        arrays = {metric.name: Array.pack(confidences), kept: Array.pack(classes)}
        return [Reading(metric.measured(**vars(bounded_mean(confidences)), samples=metric.name), arrays)]
