"""How the seconds of one candidate are shared out among its probes."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit import examination
from flataudit.contracts import AuditData, Meter, Predictor, Reading
from flataudit.data.examples import checked
from flataudit.evidence import Metric, Record
from flataudit.examination import measure_all
from flataudit.specs import Budget, Role, Task


class Silent:
    """A model that nobody asks."""

    task: Task = "multiclass"
    batch_size, dtype, device = 10, "float64", "cpu"

    def __init__(self) -> None:
        self.meter = Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.float64]:
        raise NotImplementedError


class Clock:
    """Stands still unless a probe takes its time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Told(Record):
    """A probe that says how many seconds it was given and takes some of them."""

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="given"),)
    clock: ClassVar[Clock] = Clock()

    share: float
    """Of what it was given, that it takes."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        self.clock.now += self.share * budget.seconds
        metric = self.metrics[0].of(data.name) if self.role == "shifted" else self.metrics[0]
        return [Reading(metric.measured(budget.seconds))]


class Shifted(Told):
    role: ClassVar[Role] = "shifted"


def given(monkeypatch: pytest.MonkeyPatch, *probes: Told, sets: int = 0) -> list[float | None]:
    Told.clock.now = 0.0
    monkeypatch.setattr(examination, "time", Told.clock)
    whole = [checked("validation", "validation", np.zeros((5, 3)), np.zeros(5, dtype=int), source="test")]
    whole += [checked(f"s{i}", "shifted", np.zeros((5, 3)), np.zeros(5, dtype=int), source="test") for i in range(sets)]
    readings = measure_all(
        Silent(),
        whole,
        [(f"probe {place}", probe) for place, probe in enumerate(probes)],
        seed=0,
        budget=Budget(seconds=1024.0),
        announce=lambda what, share: None,
    )
    return [reading.measurement.estimate for reading in readings]


def test_one_alone_may_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, Told(share=1.0)) == [1024.0]


def test_slow_ones_take_a_quarter_of_what_is_left_and_the_last_an_even_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = given(monkeypatch, *[Told(share=1.0)] * 5)
    assert found == [256.0, 192.0, 192.0, 192.0, 192.0]


def test_what_a_quick_one_does_not_need_is_there_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    found = given(monkeypatch, *[Told(share=0.0)] * 9, Told(share=1.0), Told(share=1.0))
    assert found[:9] == [256.0] * 7 + [pytest.approx(256.0), pytest.approx(1024 / 3)]
    assert found[9:] == [512.0, 512.0]


def test_each_set_of_a_probe_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, Shifted(share=1.0), sets=2) == [512.0, 512.0]
