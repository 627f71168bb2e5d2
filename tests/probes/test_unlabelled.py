"""Confidence and predictions without labels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Budget, Meter, Task
from flataudit.evidence import Outcome
from flataudit.examination import measure_all
from flataudit.probes.unlabelled import Unlabelled


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
    assert (kept.format, kept.values()) == ("q", [0, 2])


def test_regression_keeps_its_values() -> None:
    reading = _run("regression", np.array([1.5, -2.0]))
    assert reading.measurement.outcome is Outcome.NOT_APPLICABLE
    kept = reading.arrays["predictions/last-week"]
    assert (kept.format, kept.values()) == ("d", [1.5, -2.0])


def test_nan_is_a_failure() -> None:
    reading = _run("multiclass", np.array([[np.nan, 0.0]]))
    assert reading.measurement.outcome is Outcome.FAILED and reading.arrays == {}


def test_says_when_confidence_means_accuracy() -> None:
    (metric,) = Unlabelled.metrics
    assert "only for a calibrated model" in metric.description
