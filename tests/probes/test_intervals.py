"""Stated intervals: models that are right about their uncertainty, too sure, or silent."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from flataudit.contracts import AuditData, Meter, Predictor
from flataudit.evidence import Array, Measurement, Outcome
from flataudit.probes.intervals import Intervals
from flataudit.specs import Budget, Task
from flataudit.testing import check_probe
from flataudit.testing.subjects import Subject


class _Stated:
    """A distribution whose numbers are the inputs' own columns."""

    origin = "the inputs"

    def __init__(self, levels: tuple[float, ...] = ()) -> None:
        self.levels = levels

    def __call__(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return inputs


class _Model:
    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, stated: _Stated | None, task: Task = "regression") -> None:
        self.task, self.meter = task, Meter()
        self.distribution = stated

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return inputs[:, 0]


def _normal(n: int, said: float, seed: int = 0) -> AuditData:
    """Values of standard deviation 1 to 3 about a mean; the model says ``said`` times that."""
    generator = np.random.default_rng(seed)
    mean, deviation = generator.normal(size=n), generator.uniform(1, 3, n)
    values = mean + deviation * generator.standard_normal(n)
    return AuditData("validation", "validation", np.stack([mean, said * deviation], axis=1), values, None, "sha256:0")


def _measured(
    model: Predictor, data: AuditData, probe: Intervals | None = None
) -> tuple[dict[str, Measurement], dict[str, Array]]:
    readings = (probe or Intervals()).measure(model, data, 0, Budget())
    return {r.measurement.metric: r.measurement for r in readings}, {
        k: v for r in readings for k, v in r.arrays.items()
    }


def test_a_model_that_knows_how_sure_it_is() -> None:
    data = _normal(5000, 1.0)
    found, arrays = _measured(_Model(_Stated()), data)
    low, high = found["interval_coverage"].interval or (0, 0)
    assert low < 0.9 < high and high - low < 0.02
    assert found["interval_width"].estimate == pytest.approx(2 * 1.6449 * 2.0, rel=0.02)
    assert found["crps"].estimate == pytest.approx(2.0 / np.sqrt(np.pi), rel=0.03)
    error = found["quantile_calibration_error"]
    assert (error.estimate or 1) < error.details["calibrated_p95"] < 0.02
    table = np.asarray(arrays["intervals/levels"].view())
    assert table.shape == (19, 4) and table[:, 0] == pytest.approx(np.arange(1, 20) / 20)
    assert np.asarray(arrays["intervals/coverage"].view())[:, 0] == pytest.approx(np.arange(1, 10) / 10)
    for name, measurement in found.items():
        assert np.asarray(arrays[name].view()).mean() == pytest.approx(measurement.estimate)


def test_a_model_that_is_twice_too_sure() -> None:
    found, _ = _measured(_Model(_Stated()), _normal(5000, 0.5))
    assert found["interval_coverage"].estimate == pytest.approx(2 * norm.cdf(1.6449 / 2) - 1, abs=0.02)
    assert found["interval_coverage"].details["coverage_error"] < -0.2
    assert found["interval_coverage"].details["below"] == pytest.approx(0.206, abs=0.02)
    levels = np.arange(1, 20) / 20
    truth = np.abs(norm.cdf(norm.ppf(levels) / 2) - levels).mean()
    error = found["quantile_calibration_error"]
    assert error.interval is not None and error.interval[0] < truth < error.interval[1]
    assert (error.estimate or 0) > 5 * error.details["calibrated_p95"]


def test_quantiles_in_columns() -> None:
    data = _normal(4000, 1.0, 1)
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    columns = data.inputs[:, :1] + data.inputs[:, 1:] * norm.ppf(levels)
    found, arrays = _measured(_Model(_Stated(levels)), data.replace_inputs(columns))
    assert found["interval_coverage"].estimate == pytest.approx(0.9, abs=0.015)
    assert "5 levels, an approximation" in str(found["crps"].details["method"])
    assert found["crps"].estimate == pytest.approx(2.0 / np.sqrt(np.pi), rel=0.1)
    assert found["crps"].details["crossing"] == 0.0
    assert np.asarray(arrays["intervals/coverage"].view())[:, 0] == pytest.approx([0.5, 0.9])
    other, _ = _measured(_Model(_Stated(levels)), data.replace_inputs(columns), Intervals(level=0.8))
    assert other["interval_coverage"].outcome is Outcome.NOT_APPLICABLE
    assert "0.5, 0.9" in (other["interval_coverage"].advice or "")
    assert other["crps"].estimate == found["crps"].estimate


def test_coverage_has_a_binomial_interval_that_covers() -> None:
    found = [_measured(_Model(_Stated()), _normal(200, 1.0, seed), Intervals(replicates=2))[0] for seed in range(200)]
    ends = [one["interval_coverage"].interval or (0, 0) for one in found]
    assert np.mean([low <= 0.9 <= high for low, high in ends]) > 0.92


def test_groups_are_told_beside() -> None:
    data = _normal(400, 1.0, 2)
    found, _ = _measured(_Model(_Stated()), replace(data, groups=np.repeat(np.arange(50), 8)))
    assert all(measurement.details["clusters"] == 50 for measurement in found.values())


@pytest.mark.parametrize(
    ("model", "reason"), [(_Model(None), "a value alone"), (_Model(_Stated(), "binary"), "probabilities of classes")]
)
def test_who_states_nothing_has_no_number(model: _Model, reason: str) -> None:
    found, _ = _measured(model, _normal(20, 1.0))
    assert {m.outcome for m in found.values()} == {Outcome.NOT_APPLICABLE}
    assert all(reason in (m.reason or "") for m in found.values())
    silent = model.distribution is None
    assert all(("return_std" in (m.advice or "")) is silent for m in found.values())


def test_a_backend_may_say_why() -> None:
    model = _Model(None)
    model.no_distribution_because = "the server answers with one number"  # type: ignore[attr-defined]
    assert _measured(model, _normal(20, 1.0))[0]["crps"].reason == "the server answers with one number"


def test_it_conforms() -> None:
    def stated() -> Subject:
        return Subject("stated", _Model(_Stated()), _normal(60, 1.0), lambda: b"")

    def single() -> Subject:
        return Subject("single", _Model(_Stated()), _normal(1, 1.0), lambda: b"")

    check_probe(Intervals(), subjects=[stated, single])
