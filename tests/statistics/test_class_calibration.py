"""Class-wise calibration and the Brier score's parts, against loops, closed forms and scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from flataudit.statistics.calibration import Bins, brier_scores
from flataudit.statistics.class_calibration import ClassCalibration, brier_parts

Values = NDArray[np.float64]


def _drawn(n: int, seed: int, power: float = 1.0) -> tuple[Values, NDArray[np.int64]]:
    """Probabilities of three classes, and labels that follow their powers."""
    generator = np.random.default_rng(seed)
    chances = generator.dirichlet([1.0, 2.0, 0.5], n)
    true = chances**power / np.sum(chances**power, axis=1, keepdims=True)
    labels = (generator.random(n)[:, None] > np.cumsum(true, axis=1)).sum(axis=1)
    return chances, np.minimum(labels, 2)


def _found(chances: Values, labels: NDArray[np.int64], bins: int = 15) -> ClassCalibration:
    return ClassCalibration.of(((chances[:, k], (labels == k).astype(float)) for k in range(3)), bins=bins)


def test_classwise_error_is_a_loop_over_classes_and_bins() -> None:
    chances, labels = _drawn(20_000, 0, power=0.5)
    total = 0.0
    for k in range(3):
        for low in np.arange(5) / 5:
            part = (chances[:, k] > low) & (chances[:, k] <= low + 0.2)
            assert part.sum() >= 10
            total += part.mean() * abs(np.mean(labels[part] == k) - chances[part, k].mean()) / 3
    found = _found(chances, labels, bins=5)
    assert found.values.mean() == pytest.approx(total)
    assert found.table[:, 0].mean() == pytest.approx(total)
    assert found.table[:, 3].tolist() == [np.mean(labels == k) for k in range(3)]


def test_small_bins_are_joined() -> None:
    chances = np.concatenate([np.full(30, 0.05), np.full(4, 0.35), np.full(8, 0.55), np.full(40, 0.75), [0.99]])
    held = np.zeros(83)
    sizes = Bins.equal_width(chances, held, bins=10, smallest=10).sizes
    assert sizes.tolist() == [30, 12, 41]
    assert Bins.equal_width(chances[:5], held[:5], bins=10, smallest=10).sizes.tolist() == [5]


def test_the_top_class_may_be_calibrated_where_the_classes_are_not() -> None:
    """Two classes exchange their small probabilities; the first is right with its own."""
    n = 30_000
    labels = np.random.default_rng(1).choice(3, n, p=[0.6, 0.1, 0.3])
    chances = np.tile([0.6, 0.3, 0.1], (n, 1))
    top = Bins.equal_mass(chances.max(axis=1), (labels == 0).astype(float))
    assert top.error < 0.01
    assert _found(chances, labels).values.mean() == pytest.approx((0.0 + 0.2 + 0.2) / 3, abs=0.01)


def test_expected_error_of_calibrated_classes() -> None:
    found = [_found(*_drawn(400, seed)) for seed in range(120)]
    errors = [float(one.values.mean()) for one in found]
    assert np.mean([one.expected for one in found]) == pytest.approx(np.mean(errors), rel=0.06)


def test_the_parts_add_up_to_the_brier_score() -> None:
    chances, labels = _drawn(700, 2, power=2.0)
    parts = _found(chances, labels).brier
    brier = float(brier_scores(chances, labels).mean())
    told = float(parts.reliability.mean() - parts.resolution.mean() + parts.uncertainty.mean()) + parts.within_bins
    assert told == pytest.approx(brier)
    assert parts.score.mean() == pytest.approx(brier)
    one = brier_parts(Bins.equal_mass(chances[:, 0], (labels == 0).astype(float)))
    assert one.score.mean() == pytest.approx(brier_score_loss(labels == 0, chances[:, 0]))


def test_forecasts_of_few_values_have_murphys_parts() -> None:
    """Each value its own bin: nothing is left within bins, and each part is its textbook sum, corrected."""
    forecasts = np.repeat([0.1, 0.5, 0.8], [100, 60, 140])
    outcomes = np.concatenate([np.arange(100) < 20, np.arange(60) < 27, np.arange(140) < 119]).astype(float)
    sizes, rates = np.array([100, 60, 140]), np.array([0.2, 0.45, 0.85])
    base, shares = outcomes.mean(), sizes / 300
    noise = np.sum(shares * rates * (1 - rates) / (sizes - 1))  # Ferro & Fricker 2012, equations 7 to 9
    common = base * (1 - base) / 299
    parts = brier_parts(Bins.equal_mass(forecasts, outcomes, bins=3))
    assert parts.reliability.mean() == pytest.approx(np.sum(shares * (np.array([0.1, 0.5, 0.8]) - rates) ** 2) - noise)
    assert parts.resolution.mean() == pytest.approx(np.sum(shares * (rates - base) ** 2) - noise + common)
    assert parts.uncertainty.mean() == pytest.approx(base * (1 - base) + common)
    assert parts.within_bins == pytest.approx(0, abs=1e-12)


def _parts_of_samples(forecasts: Values, chances: Values, n: int) -> Values:
    """``(400, 2, 2)``: reliability and resolution of 400 samples, each with its standard error."""
    found = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        place = generator.integers(0, 3, n)
        bins = Bins.equal_mass(forecasts[place], (generator.random(n) < chances[place]).astype(float))
        parts = brier_parts(bins)
        more = parts.second_order
        values = (parts.reliability, parts.resolution)
        found.append([(float(v.mean()), float(np.sqrt(v.var(ddof=1) / n + more))) for v in values])
    return np.array(found)


@pytest.mark.parametrize("miss", [0.0, 0.05, 0.2])
def test_corrected_parts_are_unbiased_and_their_intervals_cover(miss: float) -> None:
    """Three forecasts that are calibrated, a little off, and far off, on 150 examples."""
    forecasts = np.array([0.1, 0.5, 0.7])
    chances = forecasts + miss * np.array([1.0, -1.0, 1.0])
    truth = np.array([np.mean((forecasts - chances) ** 2), np.var(chances)])
    table = _parts_of_samples(forecasts, chances, 150)
    assert table[:, 0, 0].mean() == pytest.approx(truth[0], abs=0.001)
    assert table[:, 1, 0].mean() == pytest.approx(truth[1], abs=0.003)
    covered = np.abs(table[:, :, 0] - truth) <= 1.976 * table[:, :, 1]
    assert (covered.mean(axis=0) > 0.92).all()


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.25, 0.25, 0.25, 0.25), (0.48, 0.48, 0.04)])
def test_the_uncertainty_of_classes_of_equal_shares_varies(shares: tuple[float, ...]) -> None:
    """1 − Σ ȳ² has no slope there: what it varies by is the second order, against 2,000 samples of 200 examples."""
    generator, n = np.random.default_rng(5), 200
    drawn = generator.multinomial(n, shares, size=2000) / n
    deviation = float(np.std((1 - np.sum(drawn**2, axis=1)) * n / (n - 1)))
    labels = np.repeat(np.arange(len(shares)), np.round(np.array(shares) * n).astype(int))
    columns = [(np.full(n, share), (labels == k).astype(float)) for k, share in enumerate(shares)]
    found = ClassCalibration.of(columns)
    first, more = float(np.var(found.brier.uncertainty, ddof=1)) / n, found.uncertainty_variance(exclusive=True)
    assert np.sqrt(first + more) == pytest.approx(deviation, rel=0.1)
    assert found.uncertainty_variance(exclusive=False) >= more * (1 - 1e-9)


def test_rows_of_one_example_count_once() -> None:
    chances, labels = _drawn(1500, 3, power=0.7)
    columns = [(np.tile(chances[:, k], 2), np.tile((labels == k).astype(float), 2)) for k in range(3)]
    once, twice = _found(chances, labels), ClassCalibration.of(columns, units=np.tile(np.arange(1500), 2))
    assert twice.values.mean() == pytest.approx(once.values.mean())
    assert twice.expected == pytest.approx(once.expected, rel=0.15)
    for name in ("reliability", "resolution", "uncertainty"):
        assert getattr(twice.brier, name).mean() == pytest.approx(getattr(once.brier, name).mean(), abs=5e-4)


def test_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="one class or more"):
        ClassCalibration.of([])
