"""Smooth calibration error against the integral that it is, the paper's own program, and its spread over samples."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.statistics.smooth_calibration import Smoothed, null_smooth_errors

Values = NDArray[np.float64]


def _waving() -> tuple[Values, Values]:
    """Too sure in one half, not sure enough in the other."""
    i = np.arange(2000)
    confidences = (i + 0.5) / 2000
    return confidences, ((i * 37) % 101 / 101 < confidences + 0.2 * np.sin(2 * np.pi * confidences)).astype(float)


def _integral(confidences: Values, correct: Values, width: float) -> float:
    """The definition: images of every confidence behind the walls at 0 and 1, and the trapezoidal rule."""
    points = np.linspace(0, 1, 1001)
    total = np.zeros(len(points))
    for image in (confidences, -confidences, 2 - confidences, 2 + confidences, confidences - 2):
        kernel = np.exp(-0.5 * ((points[:, None] - image) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        total += kernel @ (correct - confidences) / len(confidences)
    return float(np.trapezoid(np.abs(total), points))


def test_it_is_its_own_bandwidth() -> None:
    confidences, correct = _waving()
    error = Smoothed.of(confidences, correct).error
    assert error == pytest.approx(_integral(confidences, correct, error), abs=1e-5)


def test_the_papers_program_finds_the_same() -> None:
    """relplot 1.0.3 on these numbers: 0.114648; it stops searching at a width within 0.001."""
    assert Smoothed.of(*_waving()).error == pytest.approx(0.114648, abs=5e-4)


def test_known_errors() -> None:
    assert Smoothed.of(np.array([0.95, 1.0]), np.array([1.0, 0.0])).error == pytest.approx(0.475, abs=1e-9)
    assert Smoothed.of(np.full(50, 1.0), np.ones(50)).error == pytest.approx(0.0, abs=1e-7)
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.5, 1, 100_000)
    shifted = (generator.random(100_000) < confidences - 0.1).astype(float)
    assert Smoothed.of(confidences, shifted).error == pytest.approx(0.1, abs=0.005)


def test_values_average_to_the_error_and_spread_as_it_does() -> None:
    errors, spreads = [], []
    for seed in range(150):
        generator = np.random.default_rng(seed)
        confidences = generator.uniform(0.3, 1, 800)
        chance = confidences + 0.25 * np.sin(2 * np.pi * confidences)
        found = Smoothed.of(confidences, (generator.random(800) < chance).astype(float))
        assert found.values.mean() == pytest.approx(found.error, abs=1e-9)
        errors.append(found.error)
        spreads.append(float(found.values.std()) / 800**0.5)
    assert np.mean(spreads) == pytest.approx(np.std(errors), rel=0.2)


def test_null_is_where_calibrated_models_lie() -> None:
    confidences = np.linspace(0.5, 1, 1000)
    null = null_smooth_errors(confidences, np.ones(1000), 400, np.random.default_rng(0))
    generator = np.random.default_rng(1)
    errors = [Smoothed.of(confidences, (generator.random(1000) < confidences).astype(float)).error for _ in range(150)]
    assert null.mean() == pytest.approx(np.mean(errors), rel=0.05)


def test_answers_of_one_example_keep_their_sign_together() -> None:
    generator = np.random.default_rng(2)
    confidences = generator.uniform(0.5, 1, 1000)
    correct = (generator.random(1000) < confidences).astype(float)
    units = np.tile(np.arange(1000), 4)
    once = null_smooth_errors(confidences, correct, 200, np.random.default_rng(0))
    copies = np.tile(confidences, 4), np.tile(correct, 4)
    together = null_smooth_errors(*copies, 200, np.random.default_rng(0), units=units)
    blind = null_smooth_errors(*copies, 200, np.random.default_rng(0))
    assert together.mean() == pytest.approx(once.mean(), rel=0.1)
    assert blind.mean() < 0.7 * together.mean()
