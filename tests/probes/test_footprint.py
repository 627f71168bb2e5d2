"""Latency, throughput and size: order statistics by hand, intervals that cover; nothing asserts how fast it is."""

import numpy as np
import pytest
from networks import Network, examples, relu_mlp

import flataudit.probes.footprint as module
from flataudit.evidence import Outcome
from flataudit.probes.footprint import Footprint
from flataudit.specs import Budget


class Clock:
    """A second passes with every example that is answered, ten with every call, and none otherwise."""

    def __init__(self) -> None:
        self.now, self.calls, network = 0.0, [], Network(relu_mlp())
        self.network, predict = network, network.predict

        def slow(inputs):  # type: ignore[no-untyped-def]
            self.now += 10 + len(inputs)
            self.calls.append(len(inputs))
            return predict(inputs)

        network.predict = slow  # type: ignore[method-assign]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(module.time, "perf_counter", lambda: made.now)
    return made


def test_all_six_metrics_of_a_model_whose_time_is_known(clock: Clock) -> None:
    """11 s an answer and 50 s a batch of 40."""
    probe = Footprint(calls=90, repetitions=75, batch=40, seconds=100_000)
    readings = probe.measure(clock.network, examples(), 0, Budget(seconds=1e5))
    found = {reading.measurement.metric: reading.measurement for reading in readings}
    assert list(found) == [metric.name for metric in probe.metrics]
    for name, milliseconds in (("latency", 11_000), ("batch_latency", 50_000)):
        for share in ("p50", "p95"):
            one = found[f"{name}_{share}"]
            assert one.estimate == milliseconds and one.interval == (milliseconds, milliseconds)
    assert found["throughput"].estimate == 40 / 50 and found["throughput"].details["batch"] == 40
    assert found["parameter_count"].estimate == sum(p.numel() for p in clock.network.parameters.values())
    assert clock.calls == [1] * 95 + [40] * 80
    assert len(readings[0].arrays["latency"].values()) == 90 and len(readings[2].arrays["batch_latency"].values()) == 75


def test_the_clock_ends_each_half(clock: Clock) -> None:
    found = Footprint(seconds=300).measure(clock.network, examples(), 0, Budget())
    assert [reading.measurement.n for reading in found[:5]] == [9, 9, 1, 1, 1]
    assert clock.calls == [1] * (5 + 9) + [100] * 3


def test_large_batches_take_half_of_the_passes_that_are_left(clock: Clock) -> None:
    found = Footprint(batch=50, seconds=100_000).measure(clock.network, examples(), 0, Budget(passes=10, seconds=1e5))
    assert found[2].measurement.n == 15 and clock.calls.count(50) == 20


def test_a_model_that_hides_its_parameters() -> None:
    class Answers:
        task, batch_size, dtype, device, meter = "binary", 8, "float64", "cpu", None

        def predict(self, inputs):  # type: ignore[no-untyped-def]
            return np.zeros((len(inputs), 2))

    found = Footprint(calls=3, warm_up=1, repetitions=1).measure(Answers(), examples(), 0, Budget())
    assert found[-1].measurement.outcome is Outcome.NOT_APPLICABLE
