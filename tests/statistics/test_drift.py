"""Effect sizes against the closed forms of two normals a shift apart, and what their intervals hold."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import ks_2samp, norm, wasserstein_distance

from flataudit.statistics.domains import area_under_curve, domain_auc, kernel_distance, ridge_logistic
from flataudit.statistics.drift import kolmogorov_smirnov, population_stability, wasserstein

SHIFTS = (0.0, 0.5, 1.0, 2.0)


def normals(delta: float, n: int, m: int, d: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of d independent normals; the first feature of the second is shifted."""
    generator = np.random.default_rng([seed, n, m, d])
    ours, theirs = generator.standard_normal((n, d)), generator.standard_normal((m, d))
    theirs[:, 0] += delta
    return ours, theirs


@pytest.mark.parametrize("delta", SHIFTS)
def test_ks_of_a_mean_shift(delta: float) -> None:
    found = kolmogorov_smirnov(*normals(delta, 40_000, 40_000))
    assert found.estimates[0] == pytest.approx(2 * ndtr(delta / 2) - 1, abs=0.012)


@pytest.mark.parametrize("delta", SHIFTS)
def test_wasserstein_of_a_mean_shift(delta: float) -> None:
    found = wasserstein(*normals(delta, 40_000, 40_000))
    assert found.estimates[0] == pytest.approx(delta, abs=0.025)


@pytest.mark.parametrize("delta", SHIFTS)
def test_auc_of_a_mean_shift(delta: float) -> None:
    found = domain_auc(*normals(delta, 10_000, 10_000, d=3), np.random.default_rng(0))
    assert found.estimate == pytest.approx(ndtr(delta / 2**0.5), abs=0.012)


@pytest.mark.parametrize("delta", (0.2, 0.5, 1.0))
def test_psi_of_a_mean_shift_is_its_square_in_the_limit_of_fine_bins(delta: float) -> None:
    fine = population_stability(*normals(delta, 400_000, 400_000), bins=400)
    assert fine.estimates[0] - fine.by_chance == pytest.approx(delta**2, rel=0.05)


@pytest.mark.parametrize("delta", (0.0, 0.5, 1.0))
def test_psi_of_ten_bins(delta: float) -> None:
    q = np.diff(ndtr(norm.ppf(np.linspace(0, 1, 11)) - delta))
    truth = float(np.sum((q - 0.1) * np.log(q / 0.1)))
    found = population_stability(*normals(delta, 100_000, 100_000), bins=10)
    assert found.estimates[0] == pytest.approx(truth, rel=0.03, abs=0.001)


@pytest.mark.parametrize("delta", (0.0, 1.0, 3.0))
def test_mmd_of_a_mean_shift(delta: float) -> None:
    d, found = 4, []
    for seed in range(100):
        distance, width = kernel_distance(*normals(delta, 150, 150, d=d, seed=seed))
        square = width**2
        truth = 2 * (square / (square + 2)) ** (d / 2) * (1 - np.exp(-(delta**2) / (2 * square + 4)))
        found.append((distance.estimate - truth, distance.standard_error))
    errors, claimed = np.array(found).T
    assert abs(errors.mean()) < 4 * errors.std() / 10
    assert claimed.mean() == pytest.approx(errors.std(), rel=0.3)


def test_single_features_agree_with_scipy_where_values_repeat() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 7, (90, 3)).astype(float), generator.integers(1, 9, (70, 3)).astype(float)
    ks, w1 = kolmogorov_smirnov(x, y), wasserstein(x, y)
    for k in range(3):
        assert ks.estimates[k] == pytest.approx(ks_2samp(x[:, k], y[:, k]).statistic)
        assert w1.estimates[k] == pytest.approx(wasserstein_distance(x[:, k], y[:, k]) / x[:, k].std())


def test_the_worst_feature_is_named_and_its_interval_holds_the_largest_truth() -> None:
    truths = {kolmogorov_smirnov: 2 * ndtr(0.25) - 1, wasserstein: 0.5}
    held = dict.fromkeys(truths, 0)
    for seed in range(60):
        ours, theirs = normals(0.5, 400, 300, d=5, seed=seed)
        for measure, truth in truths.items():
            found = measure(ours, theirs)
            held[measure] += found.interval[0] <= truth <= found.interval[1]
            assert found.worst == int(np.argmax(found.estimates))
    assert min(held.values()) >= 55


@pytest.mark.parametrize("measure", (kolmogorov_smirnov, wasserstein, population_stability))
def test_what_an_unmoved_feature_shows_by_chance(measure) -> None:  # type: ignore[no-untyped-def]
    found = [measure(*normals(0.0, 400, 300, seed=seed)) for seed in range(120)]
    assert np.mean([f.estimates[0] for f in found]) == pytest.approx(found[0].by_chance, rel=0.12)


def test_constant_features_do_not_move_and_new_values_do() -> None:
    still, moved = np.full((50, 1), 3.0), np.concatenate([np.full((25, 1), 3.0), np.full((25, 1), 5.0)])
    for measure in (kolmogorov_smirnov, wasserstein, population_stability):
        assert measure(still, still).estimates[0] == 0
        assert np.isfinite(measure(still, moved).estimates[0]) and measure(still, moved).estimates[0] > 0.3


def test_area_under_the_curve_by_counting_pairs() -> None:
    generator = np.random.default_rng(2)
    low, high = generator.integers(0, 6, 31).astype(float), generator.integers(2, 9, 23).astype(float)
    pairs = np.mean((high[:, None] > low) + 0.5 * (high[:, None] == low))
    assert area_under_curve(low, high)[0] == pytest.approx(pairs)


def test_sets_that_are_apart_are_not_certain_to_be() -> None:
    ours, theirs = normals(40.0, 60, 50)
    found = domain_auc(ours, theirs, np.random.default_rng(0))
    assert found.estimate == 1.0 and found.standard_error > 0 and found.interval[0] < 0.97


def test_logistic_weights_leave_no_gradient() -> None:
    ours, theirs = normals(1.0, 80, 60, d=3)
    rows, labels = np.concatenate([ours, theirs]), np.repeat([0.0, 1.0], [80, 60])
    rows = np.column_stack([rows, np.ones(140)])
    weights = ridge_logistic(rows, labels)
    unit = (rows - rows.mean(axis=0))[:, :3] / rows[:, :3].std(axis=0)
    standard = weights[:3] * rows[:, :3].std(axis=0)
    logits = unit @ standard
    offsets = np.linspace(-3, 3, 20001)
    offset = offsets[np.argmin([np.logaddexp(0, logits + b).sum() - labels.sum() * b for b in offsets])]
    gradient = unit.T @ (1 / (1 + np.exp(-logits - offset)) - labels) + standard
    assert weights[3] == 0 and np.abs(gradient).max() < 0.02
