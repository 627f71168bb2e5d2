"""The worker's half: every failure of a candidate or a probe is evidence."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Meter, Perturbable, Predictor, Probe, Reading
from flataudit.data.examples import checked
from flataudit.evidence import Array, Cost, Metric, Outcome, Record
from flataudit.examination import measure_all
from flataudit.specs import Budget, Role, Task


class Constant:
    """Answers the same for every example, and counts."""

    task: Task = "multiclass"
    batch_size, dtype, device = 10, "float64", "cpu"

    def __init__(self) -> None:
        self.meter = Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.float64]:
        self.meter.forward += len(inputs)
        return np.log(np.full((len(inputs), 2), 0.5))


class Answers(Record):
    """A probe for these tests: it forwards once, then does as it is told."""

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="answer"), Metric(name="other"))

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        model.predict(data.inputs)
        return [
            Reading(self.metrics[0].measured(seed, samples="answer"), {"answer": Array.of([1.0])}),
            Reading(self.metrics[1].measured(budget.passes)),
        ]


class Raises(Answers):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        raise RuntimeError("out of luck\nsecond line")


class Silent(Answers):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        return [Reading(self.metrics[0].measured(1.0))]


class NeedsMore(Answers):
    requires: ClassVar[type] = Perturbable


class Shifted(Answers):
    role: ClassVar[Role] = "shifted"

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        return [Reading(metric.of(data.name).measured(1.0)) for metric in self.metrics]


class OnTrain(Answers):
    role: ClassVar[Role] = "train"


VALIDATION = checked("validation", "validation", np.zeros((20, 3)), np.zeros(20, dtype=int), source="test")


def ran(probe: Probe, *data: AuditData, passes: float = 100.0) -> list[Reading]:
    return measure_all(
        Constant(),
        data or (VALIDATION,),
        [("mine", probe)],
        seed=7,
        budget=Budget(passes=passes),
        announce=lambda what, share: None,
    )


def test_numbers_are_stamped_with_probe_and_cost() -> None:
    first, second = ran(Answers())
    assert first.measurement.estimate == 7.0 and first.arrays["answer"].values() == [1.0]
    assert first.measurement.probe == "mine"
    assert (first.measurement.cost.forward, first.measurement.cost.backward) == (1.0, 0.0)
    assert first.measurement.cost.seconds > 0
    assert second.measurement.estimate == 100.0


def test_an_exception_is_an_outcome_in_one_line() -> None:
    for reading in ran(Raises()):
        assert reading.measurement.outcome is Outcome.FAILED
        assert reading.measurement.reason == "RuntimeError: out of luck"


def test_a_metric_left_out_is_said_to_have_failed() -> None:
    first, second = ran(Silent())
    assert first.measurement.outcome is Outcome.MEASURED
    assert second.measurement.outcome is Outcome.FAILED and "no number" in (second.measurement.reason or "")


def test_a_capability_the_model_lacks_is_not_applicable() -> None:
    assert {r.measurement.outcome for r in ran(NeedsMore())} == {Outcome.NOT_APPLICABLE}


def test_each_shifted_set_is_measured_under_its_name() -> None:
    autumn = checked("autumn", "shifted", np.zeros((5, 3)), np.zeros(5, dtype=int), source="test")
    winter = checked("winter", "shifted", np.zeros((5, 3)), np.zeros(5, dtype=int), source="test")
    names = [r.measurement.metric for r in ran(Shifted(), VALIDATION, autumn, winter)]
    assert names == ["answer/autumn", "other/autumn", "answer/winter", "other/winter"]
    missing = ran(Shifted(), VALIDATION)[0].measurement
    assert (missing.metric, missing.outcome) == ("answer", Outcome.NOT_APPLICABLE)


def test_train_probes_fall_back_to_validation() -> None:
    assert ran(OnTrain())[0].measurement.outcome is Outcome.MEASURED


def test_a_spent_budget_is_an_outcome() -> None:
    probes: list[tuple[str, Probe]] = [("first", Answers()), ("second", OnTrain())]
    readings = measure_all(
        Constant(), [VALIDATION], probes, seed=0, budget=Budget(passes=0.4), announce=lambda what, share: None
    )
    assert [r.measurement.outcome for r in readings] == [Outcome.MEASURED] * 2 + [Outcome.OVER_BUDGET] * 2


def test_the_cost_in_passes_counts_a_product_as_two() -> None:
    assert Cost(forward=1, backward=1, matvecs=3).passes == pytest.approx(7.0)
