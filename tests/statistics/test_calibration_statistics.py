"""Calibration error where the answer is known in closed form."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

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


def test_values_average_to_the_error_and_spread_as_it_does() -> None:
    samples = [_bins(1000, lambda c: c - 0.1, seed) for seed in range(300)]
    assert samples[0].values.mean() == pytest.approx(samples[0].error, abs=1e-15)
    spreads = [float(bins.values.std()) / 1000**0.5 for bins in samples]
    assert np.mean(spreads) == pytest.approx(np.std([bins.error for bins in samples]), rel=0.1)
    calibrated = [_bins(1000, lambda c: c, seed) for seed in range(300)]
    too_wide = np.mean([bins.values.std() for bins in calibrated]) / 1000**0.5
    assert too_wide > np.std([bins.error for bins in calibrated]), "never too narrow near a perfect calibration"


def test_equal_width_is_what_scikit_learn_draws() -> None:
    generator = np.random.default_rng(0)
    confidences = np.concatenate([generator.random(500), [0.0, 0.2, 1.0, 1.0]])
    correct = (generator.random(504) < confidences).astype(float)
    bins = Bins.equal_width(confidences, correct, bins=10)
    share, middle = calibration_curve(correct, confidences, n_bins=10, strategy="uniform")
    assert bins.table[:, 0] == pytest.approx(middle) and bins.table[:, 1] == pytest.approx(share)
    assert bins.table[-1, 2] == np.sum(confidences > 0.9), "a confidence of 1 is in the last bin"
    assert bins.error == pytest.approx(float(np.sum(bins.table[:, 2] * np.abs(middle - share)) / 504))


def test_equal_mass_is_what_scikit_learn_draws_without_ties() -> None:
    generator = np.random.default_rng(1)
    confidences, correct = generator.random(1001), generator.integers(0, 2, 1001).astype(float)
    share, middle = calibration_curve(correct, confidences, n_bins=10, strategy="quantile")
    bins = Bins.equal_mass(confidences, correct, bins=10)
    assert bins.table[:, 0] == pytest.approx(middle, abs=0.003) and bins.table[:, 1] == pytest.approx(share, abs=0.02)


def test_expected_error_of_a_calibrated_model_in_closed_form() -> None:
    for seed, confidences in enumerate((np.linspace(0.5, 1, 3000), np.linspace(0, 0.02, 3000), np.full(40, 0.97))):
        bins = Bins.equal_width(confidences, np.arange(len(confidences)) % 2, bins=8)
        simulated = bins.null_errors(2000, np.random.default_rng(seed)).mean()
        assert bins.expected == pytest.approx(simulated, rel=0.06)


def test_several_answers_an_example() -> None:
    """Each example twice is the same knowledge: numbers stay, errors and null band stay those of the examples."""
    generator = np.random.default_rng(3)
    confidences = generator.uniform(0.5, 1, 2000)
    correct = (generator.random(2000) < confidences - 0.05).astype(float)
    units = np.tile(np.arange(2000), 2)
    once = Bins.equal_mass(confidences, correct)
    twice = Bins.equal_mass(np.tile(confidences, 2), np.tile(correct, 2), units=units)
    assert twice.error == pytest.approx(once.error)
    assert twice.debiased().estimate == pytest.approx(once.debiased().estimate, rel=0.01)
    assert twice.debiased().interval == pytest.approx(once.debiased().interval, rel=0.02)
    nulls = [bins.null_errors(800, np.random.default_rng(0)) for bins in (once, twice)]
    assert nulls[1].mean() == pytest.approx(nulls[0].mean(), rel=0.1)
    assert twice.expected == pytest.approx(once.expected, rel=0.1)
    assert twice.intervals() == pytest.approx(once.intervals(), abs=0.004)
    blind = Bins.equal_mass(np.tile(confidences, 2), np.tile(correct, 2))
    assert np.ptp(blind.intervals(), axis=1).mean() < 0.8 * np.ptp(twice.intervals(), axis=1).mean()


def test_bands_hold_calibrated_bins_and_intervals_hold_accuracies() -> None:
    inside, covered = [], []
    for seed in range(60):
        bins = _bins(600, lambda c: c, seed)
        low, high = np.quantile(bins.null_gaps(400, np.random.default_rng(seed)), [0.025, 0.975], axis=0)
        gap, ends, confidence = bins.means(bins.residuals), bins.intervals(), bins.means(bins.confidences)
        inside.append((low <= gap) & (gap <= high))
        covered.append((ends[:, 0] <= confidence) & (confidence <= ends[:, 1]))
    assert 0.93 < np.mean(inside) < 0.98
    assert 0.92 < np.mean(covered) < 0.98


def test_a_sample_without_an_error_is_no_model_without_one() -> None:
    low, high = Bins.equal_mass(np.full(300, 0.9999), np.ones(300)).debiased().interval
    assert low == 0 and 0.01 < high < 0.02, "Wilson: up to 1.3 % may be wrong"


def test_brier_score_is_proper() -> None:
    truth = np.array([0.2, 0.5, 0.3])
    labels = np.arange(3)

    def expected(said: np.ndarray) -> float:
        return float(truth @ brier_scores(np.tile(said, (3, 1)), labels))

    assert all(expected(truth) < expected(np.array(other)) for other in ([0.3, 0.4, 0.3], [0.1, 0.8, 0.1]))
    assert expected(truth) == pytest.approx(1 - np.sum(truth**2))
