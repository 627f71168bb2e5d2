"""Closed forms first, then flataudit's own conformance suite."""

import math

import numpy as np
import pytest
from flataudit_prediction_entropy import PredictionEntropy, entropies
from numpy.typing import NDArray

from flataudit.contracts import Meter, Predictor
from flataudit.data.examples import checked
from flataudit.evidence import Outcome
from flataudit.specs import Budget, Task
from flataudit.testing import check_probe


class Fixed:
    """Answers every example with one distribution."""

    batch_size, dtype, device = 8, "float64", "cpu"

    def __init__(self, probabilities: list[float], task: Task = "multiclass") -> None:
        self.task, self.meter, self.row = task, Meter(), np.array(probabilities)

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.float64]:
        self.meter.forward += len(inputs)
        with np.errstate(divide="ignore"):
            return np.log(np.tile(self.row, (len(inputs), 1)))


DATA = checked("validation", "validation", np.zeros((5, 2)), np.zeros(5, dtype=int), source="test")


def estimate(model: Predictor) -> float | None:
    (reading,) = PredictionEntropy().measure(model, DATA, 0, Budget())
    return reading.measurement.estimate


@pytest.mark.parametrize("k", [2, 3, 10, 1000])
def test_uniform_is_log_k(k: int) -> None:
    assert estimate(Fixed([1 / k] * k)) == pytest.approx(math.log(k), rel=1e-12)


def test_certain_is_zero() -> None:
    assert estimate(Fixed([0.0, 1.0, 0.0])) == 0.0


def test_a_sum_by_hand() -> None:
    row = [0.5, 0.25, 0.25]
    assert entropies(np.log([row]))[0] == pytest.approx(1.5 * math.log(2), rel=1e-12)


def test_a_regression_has_none() -> None:
    (reading,) = PredictionEntropy().measure(Fixed([1.0], "regression"), DATA, 0, Budget())
    assert reading.measurement.outcome is Outcome.NOT_APPLICABLE


def test_it_conforms() -> None:
    check_probe(PredictionEntropy())
