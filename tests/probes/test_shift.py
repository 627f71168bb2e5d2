"""Accuracy on labelled examples from elsewhere."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Budget, Meter, Task
from flataudit.evidence import Outcome
from flataudit.examination import measure_all
from flataudit.probes.shift import Shift
from flataudit.statistics.proportions import wilson_interval


class _Answers:
    """A model whose inputs are its answers."""

    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, task: Task) -> None:
        self.task, self.meter = task, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return inputs


def _run(task: Task, *data: AuditData):  # type: ignore[no-untyped-def]
    probes = [("shift", Shift())]
    return measure_all(_Answers(task), data, probes, seed=0, budget=Budget(), announce=lambda what, share: None)


def test_one_reading_a_set() -> None:
    answers = np.log(np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]]))
    autumn = AuditData("autumn", "shifted", answers, np.array([0, 1, 1, 0]), None, "sha256:0")
    winter = AuditData("winter", "shifted", answers[:2], np.array([0, 0]), None, "sha256:1")
    first, second = _run("binary", autumn, winter)
    assert [r.measurement.metric for r in (first, second)] == ["shift_accuracy/autumn", "shift_accuracy/winter"]
    assert (first.measurement.estimate, second.measurement.estimate) == (0.75, 1.0)
    assert first.measurement.interval == pytest.approx(wilson_interval(0.75, 4))
    assert first.measurement.samples == "shift_accuracy/autumn"
    assert first.arrays["shift_accuracy/autumn"].values() == [1.0, 0.0, 1.0, 1.0]


def test_regression_gives_skill() -> None:
    data = AuditData("autumn", "shifted", np.array([0.0, 3.0, 4.0, 99.0]), np.array([0.0, 2.0, 4.0, 6.0]), None, "d")
    (reading,) = _run("regression", data)
    assert reading.measurement.estimate == pytest.approx((1 + 0.8 + 1 + 0) / 4)


def test_without_shifted_data() -> None:
    (reading,) = _run("binary")
    assert reading.measurement.outcome is Outcome.NOT_APPLICABLE and "no shifted data" in (
        reading.measurement.reason or ""
    )
