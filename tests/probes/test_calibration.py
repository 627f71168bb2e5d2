"""The calibration probe on models whose calibration is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Meter
from flataudit.evidence import Outcome
from flataudit.plugins import load
from flataudit.probes.calibration import Calibration
from flataudit.specs import Budget, Task


class _Answers:
    """A model whose inputs are its answers."""

    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, task: Task = "binary") -> None:
        self.task, self.meter = task, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return inputs


def _claiming(n: int, excess: float, seed: int) -> AuditData:
    """Confidences uniform on [.5, 1], true in confidence − excess of the cases."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1.0, n)
    right = generator.random(n) < confidence - excess
    inputs = np.log(np.stack([confidence, 1 - confidence], axis=1))
    return AuditData("validation", "validation", inputs, np.where(right, 0, 1), None, "sha256:0")


def _measured(data: AuditData, seed: int = 0):  # type: ignore[no-untyped-def]
    readings = Calibration().measure(_Answers(), data, seed, Budget())
    return {r.measurement.metric: r.measurement for r in readings}, {
        k: v for r in readings for k, v in r.arrays.items()
    }


def test_calibrated_model_lies_in_the_null_band() -> None:
    found, _ = _measured(_claiming(1000, 0.0, 0))
    error, null = found["calibration_error"], found["calibration_null_p95"]
    assert null.estimate == pytest.approx(0.051, abs=0.003)
    assert error.details["expected_if_calibrated"] == pytest.approx(0.0384, rel=0.05)
    assert error.estimate is not None and null.estimate is not None and error.estimate < null.estimate
    assert found["calibration_error_debiased"].interval is not None
    assert found["calibration_error_debiased"].interval[0] == 0


def test_overconfident_model_is_outside_it() -> None:
    found, arrays = _measured(_claiming(20_000, 0.1, 1))
    assert found["calibration_error"].estimate == pytest.approx(0.1, abs=0.01)
    assert found["calibration_error_debiased"].estimate == pytest.approx(0.1, abs=0.01)
    low, high = found["calibration_error_debiased"].interval or (0, 0)
    assert low < 0.1 < high and high - low < 0.02
    table = np.asarray(arrays["calibration/bins"].view())
    assert table.shape == (15, 3)
    assert table[:, 2].sum() == 20_000
    assert np.mean(table[:, 0] - table[:, 1]) == pytest.approx(0.1, abs=0.01)


def test_same_seed_same_numbers_whatever_ran_before() -> None:
    data = _claiming(300, 0.05, 2)
    first = _measured(data)
    np.random.default_rng(0).random(100)
    assert _measured(data) == first
    assert _measured(data, seed=1)[0]["calibration_null_p95"] != first[0]["calibration_null_p95"]


def test_regression_states_no_confidence() -> None:
    data = AuditData("validation", "validation", np.arange(3.0), np.arange(3.0), None, "sha256:0")
    readings = load("probes", "calibration")().measure(_Answers("regression"), data, 0, Budget())
    assert [r.measurement.outcome for r in readings] == [Outcome.NOT_APPLICABLE] * 3


def test_certain_and_right_model() -> None:
    inputs = np.log(np.tile([1.0 - 1e-300, 1e-300], (50, 1)))
    data = AuditData("validation", "validation", inputs, np.zeros(50, dtype=np.int64), None, "sha256:0")
    found, _ = _measured(data)
    assert found["calibration_error"].estimate == 0.0
    assert found["calibration_error"].standard_error is None
