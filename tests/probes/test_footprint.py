"""Latency, throughput and size: order statistics by hand, intervals that cover; nothing asserts how fast it is."""

import numpy as np
import pytest
from networks import Network, examples, relu_mlp

import flataudit.probes.footprint as module
from flataudit.evidence import Outcome
from flataudit.probes.footprint import MEDIAN, TAIL, Footprint, _percentile
from flataudit.specs import Budget


def test_all_four_metrics() -> None:
    network, data = Network(relu_mlp()), examples()
    readings = Footprint(calls=60).measure(network, data, 0, Budget())
    found = {reading.measurement.metric: reading.measurement for reading in readings}
    assert list(found) == ["latency_p50", "latency_p95", "throughput", "parameter_count"]
    assert 0 < found["latency_p50"].estimate <= found["latency_p95"].estimate
    assert found["parameter_count"].estimate == sum(p.numel() for p in network.parameters.values())
    assert len(readings[0].arrays["latency"].values()) == found["latency_p50"].n == 60


def test_the_clock_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    found = Footprint(calls=500).measure(Network(relu_mlp()), examples(), 0, Budget(seconds=5))
    assert 1 <= found[0].measurement.n < 10


def test_percentiles_have_intervals_that_cover() -> None:
    generator, held = np.random.default_rng(0), 0
    for _ in range(1000):
        found = _percentile(TAIL, generator.exponential(size=200), 0.95)
        low, high = found.interval or (0.0, 0.0)
        held += low <= -np.log(0.05) <= high
    assert 930 <= held <= 985
    assert _percentile(TAIL, np.arange(10.0), 0.95).interval is None  # no order statistic of ten is beyond it
    assert _percentile(MEDIAN, np.arange(101.0), 0.5).estimate == 50


def test_a_model_that_hides_its_parameters() -> None:
    class Answers:
        task, batch_size, dtype, device, meter = "binary", 8, "float64", "cpu", None

        def predict(self, inputs):  # type: ignore[no-untyped-def]
            return np.zeros((len(inputs), 2))

    found = Footprint(calls=3, warm_up=1, repetitions=1).measure(Answers(), examples(), 0, Budget())
    assert found[-1].measurement.outcome is Outcome.NOT_APPLICABLE
