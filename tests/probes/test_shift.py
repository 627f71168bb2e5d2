"""Accuracy on labelled examples from elsewhere, its gap to validation, and its groups."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Meter
from flataudit.evidence import Measurement, Outcome
from flataudit.examination import measure_all
from flataudit.probes.shift import Shift
from flataudit.specs import Budget, Task
from flataudit.statistics.gaps import gap
from flataudit.statistics.means import bounded_mean
from flataudit.statistics.proportions import wilson_interval


class _Answers:
    """A model whose inputs are its answers."""

    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, task: Task) -> None:
        self.task, self.meter = task, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        self.meter.forward += len(inputs)
        return inputs


def _run(task: Task, *data: AuditData):  # type: ignore[no-untyped-def]
    probes = [("shift", Shift())]
    return measure_all(_Answers(task), data, probes, seed=0, budget=Budget(), announce=lambda what, share: None)


def _named(task: Task, *data: AuditData) -> dict[str, Measurement]:
    return {r.measurement.metric: r.measurement for r in _run(task, *data)}


def _set(name: str, right: int, n: int, groups: NDArray[np.generic] | None = None) -> AuditData:
    """A binary set of which that many answers are right."""
    inputs = np.where(np.arange(n)[:, None] < right, np.log([[0.9, 0.1]]), np.log([[0.2, 0.8]]))
    role = "validation" if name == "validation" else "shifted"
    return AuditData(name, role, inputs, np.zeros(n, dtype=np.int64), groups, f"sha256:{name}")


def test_each_set_under_its_name() -> None:
    answers = np.log(np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]]))
    autumn = AuditData("autumn", "shifted", answers, np.array([0, 1, 1, 0]), None, "sha256:0")
    winter = AuditData("winter", "shifted", answers[:2], np.array([0, 0]), None, "sha256:1")
    readings = _run("binary", autumn, winter)
    first, second = (r for r in readings if r.measurement.metric.startswith("shift_accuracy/"))
    assert [r.measurement.metric for r in (first, second)] == ["shift_accuracy/autumn", "shift_accuracy/winter"]
    assert (first.measurement.estimate, second.measurement.estimate) == (0.75, 1.0)
    assert first.measurement.interval == pytest.approx(wilson_interval(0.75, 4))
    assert first.measurement.samples == "shift_accuracy/autumn"
    assert first.arrays["shift_accuracy/autumn"].values() == [1.0, 0.0, 1.0, 1.0]


def test_regression_gives_skill() -> None:
    data = AuditData("autumn", "shifted", np.array([0.0, 3.0, 4.0, 99.0]), np.array([0.0, 2.0, 4.0, 6.0]), None, "d")
    assert _named("regression", data)["shift_accuracy/autumn"].estimate == pytest.approx((1 + 0.8 + 1 + 0) / 4)


def test_the_gap_to_validation_is_that_of_two_separate_sets() -> None:
    found = _named("binary", _set("autumn", 48, 80), _set("validation", 56, 70))["shift_gap/autumn"]
    assert found.estimate == pytest.approx(0.2) and found.interval == pytest.approx((0.0524, 0.3339), abs=6e-5)
    assert found.details["validation"] == pytest.approx(0.8) and found.n == 70


def test_validation_is_predicted_once_for_all_sets() -> None:
    readings = _run("binary", _set("autumn", 4, 10), _set("winter", 5, 10), _set("validation", 56, 70))
    first, second = (r.measurement.cost for r in readings if r.measurement.metric.startswith("shift_gap/"))
    assert (first.forward, second.forward) == (8.0, 1.0) and (first.reused, second.reused) == (0.0, 3.5)


def test_without_validation_beside_it_there_is_no_gap() -> None:
    found = {
        r.measurement.metric: r.measurement for r in Shift().measure(_Answers("binary"), _set("a", 3, 9), 0, Budget())
    }
    assert found["shift_gap/a"].outcome is Outcome.NOT_APPLICABLE
    assert found["shift_accuracy/a"].outcome is Outcome.MEASURED


def test_groups_of_a_shifted_set() -> None:
    groups = np.repeat([0, 1, 2], [40, 30, 5])
    data = replace(_set("autumn", 55, 75, groups), group_names=("north", "south", "islands"))
    found = _named("binary", data)
    assert found["shift_group_accuracy/autumn/north"].estimate == 1.0
    assert found["shift_group_accuracy/autumn/south"].estimate == pytest.approx(0.5)
    assert found["shift_group_accuracy/autumn/islands"].n == 5
    worst = found["shift_worst_group_accuracy/autumn"]
    assert worst.estimate == pytest.approx(0.5) and worst.details["group"] == "south" and worst.details["left out"] == 1
    assert found["shift_gap/autumn"].outcome is Outcome.NOT_APPLICABLE


def test_the_gaps_interval_holds_the_true_gap() -> None:
    generator, held = np.random.default_rng(0), 0
    for _ in range(1000):
        ours, theirs = (generator.random(size) < share for size, share in ((300, 0.93), (60, 0.8)))
        found = gap(bounded_mean(ours.astype(float)), bounded_mean(theirs.astype(float)))
        assert found.interval is not None
        held += found.interval[0] <= 0.13 <= found.interval[1]
    assert 930 <= held <= 975


def test_without_shifted_data() -> None:
    for reading in _run("binary"):
        assert reading.measurement.outcome is Outcome.NOT_APPLICABLE
        assert "no shifted data" in (reading.measurement.reason or "")


def test_large_groups_of_a_set_without_a_number_of_their_own_are_said_to_have_none() -> None:
    data = _set("autumn", 60, 60, np.repeat([0, 1], [30, 30]))
    readings = Shift(most=1).measure(_Answers("binary"), data, 0, Budget())
    left = readings[-1].measurement
    assert left.metric == "shift_group_accuracy/autumn/(others)" and left.outcome is Outcome.OVER_BUDGET
