"""Confidence and predictions without labels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Meter
from flataudit.evidence import Outcome
from flataudit.examination import measure_all
from flataudit.probes.unlabelled import Unlabelled
from flataudit.specs import Budget, Task


class _Answers:
    """A model whose inputs are its answers."""

    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, task: Task) -> None:
        self.task, self.meter = task, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return inputs


def _run(task: Task, inputs: NDArray[np.float64]):  # type: ignore[no-untyped-def]
    data = [AuditData("last-week", "unlabelled", inputs, None, None, "sha256:0")]
    probes = [("unlabelled", Unlabelled())]
    (reading,) = measure_all(_Answers(task), data, probes, seed=0, budget=Budget(), announce=lambda what, share: None)
    return reading


def test_confidence_and_classes() -> None:
    reading = _run("multiclass", np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])))
    measurement = reading.measurement
    assert (measurement.metric, measurement.samples) == ("average_confidence/last-week",) * 2
    assert measurement.estimate == pytest.approx(0.65)
    assert reading.arrays["average_confidence/last-week"].values() == pytest.approx([0.7, 0.6])
    kept = reading.arrays["predictions/last-week"]
    assert (kept.format, kept.values()) == ("B", [0, 2])


def test_regression_keeps_its_values() -> None:
    reading = _run("regression", np.array([1.5, -2.0]))
    assert reading.measurement.outcome is Outcome.NOT_APPLICABLE
    kept = reading.arrays["predictions/last-week"]
    assert (kept.format, kept.values()) == ("d", [1.5, -2.0])


def test_predictions_on_validation_are_kept_beside_them() -> None:
    answers = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
    validation = AuditData("validation", "validation", answers[[1, 1, 0]], np.zeros(3, dtype=int), None, "sha256:1")
    data = AuditData("week", "unlabelled", answers, None, None, "sha256:0")
    (reading,) = measure_all(
        _Answers("multiclass"),
        [validation, data],
        [("unlabelled", Unlabelled())],
        seed=0,
        budget=Budget(),
        announce=lambda what, share: None,
    )
    assert reading.arrays["validation_predictions"].values() == [2, 2, 0]
    assert reading.arrays["predictions/week"].values() == [0, 2]


@pytest.mark.parametrize(("task", "shape"), [("multilabel", (2, 3)), ("multiclass", (2, 4, 3))])
def test_several_answers_an_example_are_not_taken_for_one(task: Task, shape: tuple[int, ...]) -> None:
    reading = _run(task, np.log(np.full(shape, 0.3)))
    assert reading.measurement.outcome is Outcome.NOT_APPLICABLE and reading.arrays == {}


def test_nan_is_a_failure() -> None:
    reading = _run("multiclass", np.array([[np.nan, 0.0]]))
    assert reading.measurement.outcome is Outcome.FAILED and reading.arrays == {}


def test_says_when_confidence_means_accuracy() -> None:
    (metric,) = Unlabelled.metrics
    assert "only for a calibrated model" in metric.description
