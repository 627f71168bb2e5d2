"""How undecided the model is about the validation examples."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.means import mean

__all__ = ["PredictionEntropy", "entropies"]


def entropies(log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shannon entropy −Σ_k p_k log p_k of each row, ``(n,)`` in nats; p log p is 0 at p = 0.

    >>> entropies(np.log([[0.5, 0.5], [0.25, 0.75]])).round(4).tolist()
    [0.6931, 0.5623]
    """
    p = np.exp(log_probabilities)
    terms = np.where(p > 0, p * np.where(p > 0, log_probabilities, 0.0), 0.0)
    return np.maximum(-terms.sum(axis=1), 0.0)


class PredictionEntropy(Record):
    """Mean Shannon entropy (1948) of the predicted class distribution, in nats: 0 is certain, log k undecided.

    Exact on the examples given; Student's interval for the examples as a sample. Neither direction is better: a
    model may be rightly unsure. Array ``prediction_entropy`` ``(n,)``: one value an example. One forward pass.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="prediction_entropy",
            unit="nats",
            better="neither",
            description="Mean Shannon entropy of the predicted class distribution.",
        ),
    )

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """One number and its per-example values; not applicable to a regression, which predicts no distribution."""
        metric = self.metrics[0]
        if model.task == "regression":
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, "a regression predicts no distribution"))]
        values = entropies(np.asarray(model.predict(data.inputs), dtype=np.float64))
        measured = metric.measured(**vars(mean(values)), samples=metric.name)
        return [Reading(measured, {metric.name: Array.pack(values)})]
