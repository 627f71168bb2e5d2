"""Calibration error where the answer is known in closed form."""

import math

import numpy as np
import pytest

from flataudit.statistics.calibration import Bins, brier_scores


def _bins(n: int, accuracy: "np.ufunc | object", seed: int, bins: int = 15) -> Bins:
    generator = np.random.default_rng(seed)
    confidences = generator.uniform(0.5, 1.0, n)
    correct = (generator.random(n) < accuracy(confidences)).astype(float)  # type: ignore[operator]
    return Bins.equal_mass(confidences, correct, bins=bins)


def test_no_phantom_bin_at_one() -> None:
    assert Bins.equal_mass(np.array([0.95, 1.0]), np.array([1.0, 0.0])).error == pytest.approx(0.475)
    bins = Bins.equal_mass(np.ones(100), np.repeat([1.0, 0.0], 50))
    assert bins.table.tolist() == [[1.0, 0.5, 100.0]]


def test_known_errors() -> None:
    shifted = _bins(400_000, lambda c: c - 0.1, 0)
    assert shifted.error == pytest.approx(0.1, abs=0.004)
    assert shifted.debiased().estimate == pytest.approx(0.1, abs=0.004)
    squared = _bins(400_000, lambda c: c**2, 1, bins=100)
    assert squared.error == pytest.approx(1 / 6, abs=0.004)
    assert squared.debiased().estimate == pytest.approx(1 / math.sqrt(30), abs=0.004)


@pytest.mark.parametrize(("n", "expected"), [(1000, 0.0384), (10_000, 0.0121)])
def test_a_calibrated_model_does_not_score_zero(n: int, expected: float) -> None:
    bins = _bins(n, lambda c: c, 2)
    null = bins.null_errors(1500, np.random.default_rng(0))
    assert null.mean() == pytest.approx(expected, rel=0.04)
    assert null.mean() == pytest.approx(math.sqrt(2 * 15 / (math.pi * n)) * math.pi / 8, rel=0.04)
    if n == 1000:
        assert np.quantile(null, 0.95) == pytest.approx(0.051, abs=0.0015)


def test_null_band_is_where_calibrated_models_lie() -> None:
    errors = [_bins(1000, lambda c: c, seed).error for seed in range(300)]
    assert np.mean(errors) == pytest.approx(0.0384, abs=0.0015)


def test_debiased_square_is_unbiased_and_its_interval_covers() -> None:
    found = [_bins(1000, lambda c: c - 0.08, seed).debiased() for seed in range(400)]
    assert np.sqrt(np.mean([f.estimate**2 for f in found])) == pytest.approx(0.08, abs=0.003)
    assert 0.92 < np.mean([f.interval[0] <= 0.08 <= f.interval[1] for f in found]) < 0.98
    calibrated = [_bins(1000, lambda c: c, seed).debiased() for seed in range(400)]
    assert np.mean([f.interval[0] == 0 for f in calibrated]) > 0.9
    assert np.mean([f.estimate == 0 for f in calibrated]) > 0.4


def test_order_of_examples_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    confidences, correct = generator.integers(5, 11, 200) / 10, generator.integers(0, 2, 200).astype(float)
    order = generator.permutation(200)
    one, other = Bins.equal_mass(confidences, correct), Bins.equal_mass(confidences[order], correct[order])
    assert one.table == pytest.approx(other.table)
    assert one.error == pytest.approx(other.error, abs=1e-12)


def test_bins_have_equal_mass_and_match_a_loop() -> None:
    bins = _bins(1003, lambda c: c**3, 3)
    assert len(bins.sizes) == 15 and bins.sizes.max() - bins.sizes.min() <= 1
    naive = 0.0
    for start, size in zip(bins.starts, bins.sizes, strict=True):
        inside = slice(start, start + size)
        naive += size / 1003 * abs(bins.correct[inside].mean() - bins.confidences[inside].mean())
    assert bins.error == pytest.approx(naive)


def test_bootstrap_spread_is_the_spread_over_samples() -> None:
    errors = [_bins(1000, lambda c: c - 0.1, seed).error for seed in range(300)]
    spread = _bins(1000, lambda c: c - 0.1, 999).bootstrap_errors(500, np.random.default_rng(0)).std()
    assert spread == pytest.approx(np.std(errors), rel=0.15)


def test_brier_score_is_proper() -> None:
    truth = np.array([0.2, 0.5, 0.3])
    labels = np.arange(3)

    def expected(said: np.ndarray) -> float:
        return float(truth @ brier_scores(np.tile(said, (3, 1)), labels))

    assert all(expected(truth) < expected(np.array(other)) for other in ([0.3, 0.4, 0.3], [0.1, 0.8, 0.1]))
    assert expected(truth) == pytest.approx(1 - np.sum(truth**2))
