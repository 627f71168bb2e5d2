"""Accuracy, loss, Brier score, R² and RMSE against textbook formulae."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Meter, Predictor
from flataudit.evidence import Outcome
from flataudit.examination import measure_all
from flataudit.plugins import load
from flataudit.probes.accuracy import Accuracy
from flataudit.specs import Budget, Task
from flataudit.statistics.proportions import wilson_interval


class _Answers:
    """A model whose inputs are its answers."""

    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, task: Task) -> None:
        self.task, self.meter = task, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        self.meter.forward += len(inputs)
        return inputs


def _data(inputs: NDArray[np.float64], targets: NDArray[np.generic]) -> AuditData:
    return AuditData("validation", "validation", inputs, targets, None, "sha256:0")


def _measured(task: Task, inputs: NDArray[np.float64], targets: NDArray[np.generic]):  # type: ignore[no-untyped-def]
    readings = Accuracy().measure(_Answers(task), _data(inputs, targets), 0, Budget())
    return {r.measurement.metric: r.measurement for r in readings}, {
        k: v for r in readings for k, v in r.arrays.items()
    }


PROBABILITIES = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])


def test_classification_by_hand() -> None:
    found, arrays = _measured("binary", np.log(PROBABILITIES), np.array([0, 1, 1, 0]))
    assert found["validation_accuracy"].estimate == 0.75
    assert found["validation_accuracy"].interval == pytest.approx(wilson_interval(0.75, 4))
    assert found["validation_loss"].estimate == pytest.approx(-np.log([0.7, 0.4, 0.8, 0.9]).mean())
    assert found["validation_brier"].estimate == pytest.approx(2 * np.mean([0.09, 0.36, 0.04, 0.01]))
    assert arrays["validation_accuracy"].values() == [1.0, 0.0, 1.0, 1.0]
    for name in ("validation_accuracy", "validation_loss", "validation_brier"):
        assert found[name].samples == name
        assert np.mean(arrays[name].values()) == pytest.approx(found[name].estimate)
    for name in ("validation_r2", "validation_rmse"):
        assert found[name].outcome is Outcome.NOT_APPLICABLE and "classification" in (found[name].reason or "")


def test_regression_by_hand() -> None:
    targets, values = np.array([0.0, 2.0, 4.0, 6.0]), np.array([0.0, 3.0, 4.0, 12.0])
    found, arrays = _measured("regression", values, targets)
    assert found["validation_loss"].estimate == pytest.approx(37 / 4)
    assert found["validation_rmse"].estimate == pytest.approx((37 / 4) ** 0.5)
    assert found["validation_r2"].estimate == pytest.approx(1 - 37 / 20)
    assert np.mean(arrays["validation_r2"].values()) == pytest.approx(1 - 37 / 20)
    assert arrays["validation_skill"].values() == [1.0, 0.8, 1.0, 0.0]
    assert found["validation_accuracy"].outcome is Outcome.NOT_APPLICABLE


def test_errors_of_r2_and_rmse_are_their_spread_over_samples() -> None:
    generator = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(300):
        targets = generator.normal(size=200)
        found, _ = _measured("regression", targets + generator.normal(0, 0.7, size=200), targets)
        pair = [found[name] for name in ("validation_r2", "validation_rmse")]
        estimates.append([m.estimate for m in pair])
        errors.append([m.standard_error for m in pair])
    assert np.mean(errors, axis=0) == pytest.approx(np.std(estimates, axis=0), rel=0.12)


def test_perfect_regression_is_not_certain() -> None:
    targets = np.arange(5.0)
    found, _ = _measured("regression", targets, targets)
    assert found["validation_r2"].estimate == 1.0 and found["validation_r2"].standard_error is None
    assert found["validation_rmse"].estimate == 0.0 and found["validation_rmse"].interval is None


def test_equal_targets_have_no_r2() -> None:
    found, arrays = _measured("regression", np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    assert found["validation_r2"].outcome is Outcome.NOT_APPLICABLE
    assert "validation_skill" in arrays


def test_impossible_class_has_no_finite_loss() -> None:
    with np.errstate(divide="ignore"):
        answers = np.log(np.array([[1.0, 0.0], [0.5, 0.5]]))
    found, _ = _measured("binary", answers, np.array([1, 0]))
    assert found["validation_loss"].outcome is Outcome.FAILED and "1 of 2" in (found["validation_loss"].reason or "")
    assert found["validation_accuracy"].estimate == 0.5


def test_label_outside_the_model_is_evidence_and_cost_is_one_pass() -> None:
    assert load("probes", "accuracy") is Accuracy
    assert isinstance(_Answers("binary"), Predictor)

    def run(targets: list[int]):  # type: ignore[no-untyped-def]
        data = [_data(np.log(PROBABILITIES), np.array(targets))]
        probes = [("accuracy", Accuracy())]
        readings = measure_all(
            _Answers("binary"), data, probes, seed=0, budget=Budget(), announce=lambda what, share: None
        )
        return {r.measurement.metric: r.measurement for r in readings}

    failed = run([0, 1, 2, 0])
    assert {m.outcome for m in failed.values()} == {Outcome.FAILED} and len(failed) == 5
    assert "labels from 0 to 1" in (failed["validation_accuracy"].reason or "")
    assert run([0, 1, 1, 0])["validation_accuracy"].cost.forward == 1.0
