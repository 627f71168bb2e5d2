"""How right the model is on labelled examples from elsewhere."""

from collections.abc import Sequence
from typing import ClassVar

from flataudit.contracts import AuditData, Budget, Predictor, Reading, Role
from flataudit.evidence import Array, Metric, Record
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import bounded_mean

__all__ = ["Shift"]

ACCURACY = Metric(
    name="shift_accuracy",
    unit="accuracy",
    better="higher",
    description="Accuracy on one labelled shifted set; for regression the mean bounded skill. Wilson interval.",
)


class Shift(Record):
    """Accuracy, or mean bounded skill, on each labelled shifted set; one forward pass, exact on these examples.

    Array ``shift_accuracy/<set>``: correctness of each example. Some 50 labelled examples of the target distribution
    tell as much about the best candidate as the best of the other probes.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "shifted"
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY,)

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The one metric of this set."""
        assert data.targets is not None
        metric = ACCURACY.of(data.name)
        right = correctness(model.task, model.predict(data.inputs), data.targets)
        measured = metric.measured(**vars(bounded_mean(right)), samples=metric.name)
        return [Reading(measured, {metric.name: Array.pack(right)})]
