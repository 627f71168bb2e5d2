"""The temperature of least loss: known answers, another optimiser, its interval's coverage, and where there is none."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from flataudit.statistics.temperature import NoTemperature, at_temperature, fit_temperature

Values = NDArray[np.float64]


def _drawn(n: int, temperature: float, seed: int, classes: int = 4) -> tuple[Values, NDArray[np.int64]]:
    """Log-probabilities of a model whose right temperature is this one."""
    generator = np.random.default_rng(seed)
    logits = 2.5 * generator.standard_normal((n, classes))
    chances = np.exp(log_softmax(logits / temperature, axis=1))
    labels = (generator.random(n)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1)
    return np.asarray(log_softmax(logits, axis=1)), np.minimum(labels, classes - 1)


@pytest.mark.parametrize("right", [0.4, 1.0, 3.0])
def test_it_is_the_minimum_that_another_optimiser_finds(right: float) -> None:
    answers, labels = _drawn(800, right, 0)

    def loss(logarithm: float) -> float:
        scaled = at_temperature(answers, math.exp(logarithm))
        return float(-scaled[np.arange(800), labels].mean())

    other = minimize_scalar(loss, bracket=(-1.0, 1.0), tol=1e-12)
    assert fit_temperature(answers, labels).estimate == pytest.approx(math.exp(other.x), rel=1e-5)


def test_interval_covers() -> None:
    found = [fit_temperature(*_drawn(300, 1.7, seed)) for seed in range(400)]
    inside = [f.interval is not None and f.interval[0] <= 1.7 <= f.interval[1] for f in found]
    assert 0.92 < np.mean(inside) < 0.98
    errors = [f.standard_error or 0.0 for f in found]
    assert np.mean(errors) == pytest.approx(np.std([f.estimate for f in found]), rel=0.12)


def test_answers_of_one_example_count_once() -> None:
    answers, labels = _drawn(500, 2.0, 1)
    once = fit_temperature(answers, labels)
    twice = fit_temperature(np.tile(answers, (2, 1)), np.tile(labels, 2), np.tile(np.arange(500), 2))
    assert twice.estimate == pytest.approx(once.estimate)
    assert twice.standard_error == pytest.approx(once.standard_error, rel=1e-6)


def test_one_is_no_change_and_the_order_stays() -> None:
    answers, _ = _drawn(50, 1.0, 2)
    assert at_temperature(answers, 1.0) == pytest.approx(answers)
    assert (at_temperature(answers, 5.0).argmax(axis=1) == answers.argmax(axis=1)).all()


def test_where_no_temperature_is_best() -> None:
    sure = np.log(np.tile([0.7, 0.3], (50, 1)))
    with pytest.raises(NoTemperature, match="every answer is right"):
        fit_temperature(sure, np.zeros(50, dtype=np.int64))
    with pytest.raises(NoTemperature, match="hotter"):
        fit_temperature(sure, np.tile([0, 1], 25))
    with pytest.raises(NoTemperature, match="probability 0"):
        fit_temperature(np.array([[0.0, -np.inf]] * 4), np.array([0, 0, 0, 1]))


def test_one_error_among_many_is_far_and_finite() -> None:
    labels = np.zeros(1000, dtype=np.int64)
    labels[0] = 1
    found = fit_temperature(np.log(np.tile([0.6, 0.4], (1000, 1))), labels)
    assert found.estimate == pytest.approx(math.log(1.5) / math.log(999))
    assert found.interval is not None and found.interval[0] < found.estimate < found.interval[1]
