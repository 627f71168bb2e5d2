"""Means and paired differences against naive twins, closed forms and simulated coverage."""

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_rel

from flataudit.statistics.means import bounded_mean, mean
from flataudit.statistics.paired import (
    bca_interval,
    bootstrap_means,
    bootstrap_p_value,
    bootstrapped,
    no_variance,
    paired_accuracy,
    paired_t,
    unpaired,
)
from flataudit.statistics.proportions import wilson_interval


def test_bounded_mean_of_binary_values_is_wilson() -> None:
    values = np.repeat([1.0, 0.0], [37, 13])
    found = bounded_mean(values)
    assert found.interval == pytest.approx(wilson_interval(0.74, 50), abs=1e-12)
    assert found.standard_error == pytest.approx(np.sqrt(0.74 * 0.26 / 50))


def test_all_right_is_not_certain() -> None:
    found = bounded_mean(np.ones(50))
    assert found.standard_error is not None and found.standard_error > 0.01
    assert found.interval is not None and found.interval[0] == pytest.approx(0.9287, abs=1e-4)


def test_bounded_mean_covers_graded_values() -> None:
    generator = np.random.default_rng(3)
    draws = generator.beta(4, 1, size=(800, 60))
    ends = np.array([bounded_mean(row).interval for row in draws])
    assert 0.93 < np.mean((ends[:, 0] <= 0.8) & (ends[:, 1] >= 0.8)) < 0.97


def test_constant_losses_have_an_unknown_error() -> None:
    assert mean(np.full(9, 2.0)).standard_error is None
    assert mean(np.array([2.0])).interval is None


def test_paired_accuracy_counts() -> None:
    first, second = np.repeat([1.0, 0.0, 1.0], [10, 25, 65]), np.repeat([0.0, 1.0, 1.0], [10, 25, 65])
    found = paired_accuracy(first, second)
    assert found.difference == pytest.approx(0.15)
    assert found.standard_error == pytest.approx(np.sqrt((0.35 - 0.15**2) / 100))
    assert found.p_value == pytest.approx(0.01667, abs=5e-6)


def test_identical_candidates_differ_by_nothing_with_an_error() -> None:
    found = paired_accuracy(np.ones(400), np.ones(400))
    assert found.difference == 0 and found.p_value == 1.0
    assert found.standard_error is not None and found.standard_error > 0
    assert no_variance(0.0, 400).interval == pytest.approx(found.interval, abs=1e-12)
    assert no_variance(0.0, 400).standard_error == pytest.approx(found.standard_error, abs=1e-12)


def test_paired_t_is_that_of_scipy() -> None:
    generator = np.random.default_rng(1)
    first = generator.normal(size=30)
    second = first + generator.normal(0.3, 1, size=30)
    theirs = ttest_rel(second, first)
    found = paired_t(first, second)
    limits = theirs.confidence_interval(0.95)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx((limits.low, limits.high))


def test_unpaired_normal() -> None:
    found = unpaired((1.0, 0.3), (2.0, 0.4))
    assert (found.difference, found.standard_error) == pytest.approx((1.0, 0.5))
    assert found.interval == pytest.approx((0.020018, 1.979982), abs=1e-6)
    assert found.p_value == pytest.approx(0.0455, abs=1e-4)
    exact = unpaired((1.0, 0.0), (2.0, 0.0))
    assert exact.interval == (1.0, 1.0) and exact.p_value == 0.0
    assert unpaired((1.0, 0.0), (1.0, 0.0)).p_value == 1.0


def test_bootstrap_means_are_those_of_a_loop() -> None:
    values = np.random.default_rng(0).normal(size=(17, 3))
    drawn = np.random.default_rng(5).integers(0, 17, size=(40, 17))
    naive = np.array([values[row].mean(axis=0) for row in drawn])
    assert bootstrap_means(values, 40, np.random.default_rng(5)) == pytest.approx(naive, abs=1e-12)


def test_bootstrap_chunks_do_not_lose_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flataudit.statistics.paired._CELLS", 100)
    means = bootstrap_means(np.random.default_rng(0).normal(size=(30, 2)), 1001, np.random.default_rng(1))
    assert means.shape == (1001, 2)
    assert len(np.unique(means[:, 0])) > 900


def test_bca_is_that_of_scipy() -> None:
    values = np.random.default_rng(2).exponential(size=60)
    means = bootstrap_means(values[:, None], 20000, np.random.default_rng(0))[:, 0]
    ours = bca_interval(means, float(values.mean()), (values - values.mean()) / 60)
    theirs = bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(9))
    limits = theirs.confidence_interval
    assert ours == pytest.approx((limits.low, limits.high), abs=0.01)
    plain = np.quantile(means, [0.025, 0.975])
    assert ours[1] > plain[1] + 0.01


def test_bootstrap_is_antisymmetric() -> None:
    changes = np.random.default_rng(4).exponential(size=80) - 0.8
    means = bootstrap_means(changes[:, None], 2000, np.random.default_rng(0))[:, 0]
    influence = (changes - changes.mean()) / 80
    forth = bootstrapped(float(changes.mean()), influence, means, n=80)
    back = bootstrapped(-float(changes.mean()), -influence, -means, n=80)
    assert forth.interval is not None
    assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]), abs=1e-12)
    assert back.p_value == forth.p_value and back.standard_error == pytest.approx(forth.standard_error)


def test_bootstrap_p_value_is_never_zero() -> None:
    assert bootstrap_p_value(np.ones(1999)) == pytest.approx(2 / 2000)
    assert bootstrap_p_value(np.zeros(99)) == 1.0
    assert bootstrap_p_value(np.repeat([-1.0, 1.0], [9, 990])) == pytest.approx(2 * 10 / 1000)


@pytest.mark.parametrize(("n", "short"), [(50, 0.025), (200, 0.015)])
def test_bca_covers_skewed_differences(n: int, short: float) -> None:
    """2,000 worlds of differences with a long tail on one side; what a paired t interval misses falls on one side."""
    generator, sides = np.random.default_rng(6), np.zeros(2)
    for _ in range(2000):
        changes = generator.exponential(size=n) - generator.exponential(0.5, size=n)
        means = bootstrap_means(changes[:, None], 500, generator)[:, 0]
        found = bootstrapped(float(changes.mean()), (changes - changes.mean()) / n, means, n=n)
        assert found.interval is not None
        sides += np.array([found.interval[0] > 0.5, found.interval[1] < 0.5])
    assert 0.95 - short <= 1 - sides.sum() / 2000 <= 0.965
    assert sides.max() / 2000 < 0.025 + short


@pytest.mark.parametrize("n", [5, 30, 200])
def test_paired_t_covers_normal_differences_exactly(n: int) -> None:
    generator = np.random.default_rng(8)
    difficulty, second = generator.normal(size=(4000, n)), generator.normal(0.3, 2, size=(4000, n))
    found = [paired_t(first, first + change) for first, change in zip(difficulty, second, strict=True)]
    covered = [one.interval is not None and one.interval[0] <= 0.3 <= one.interval[1] for one in found]
    assert float(np.mean(covered)) == pytest.approx(0.95, abs=0.012)


def test_more_units_are_needed_for_the_normal_quantile() -> None:
    """Few units: wider by √(n/(n − 1)) t over z; many: the plain BCa interval."""
    values = np.random.default_rng(9).normal(size=400)
    means = bootstrap_means(values[:, None], 4000, np.random.default_rng(0))[:, 0]
    influence = (values - values.mean()) / 400
    plain, many, few = (bca_interval(means, float(values.mean()), influence, units=u) for u in (None, 10**6, 10))
    assert many == pytest.approx(plain, abs=1e-4)
    assert (few[1] - few[0]) / (plain[1] - plain[0]) == pytest.approx(2.262 * np.sqrt(10 / 9) / 1.96, rel=0.03)


def test_p_values_go_beyond_what_the_replicates_resolve_and_hold_their_level() -> None:
    """Small levels, as many decisions share them, are neither out of reach nor passed by chance."""
    generator, n = np.random.default_rng(5), 200
    below: dict[float, int] = {0.02: 0, 0.005: 0}
    worlds = 4000
    for _ in range(worlds):
        values = generator.exponential(size=n) - 1.0
        means = bootstrap_means(values[:, None], 400, generator)[:, 0]
        found = bootstrapped(values.mean(), (values - values.mean()) / n, means, n=n)
        for level in below:
            below[level] += found.p_value <= level
    assert 0.5 * 0.02 < below[0.02] / worlds < 1.6 * 0.02
    assert 0.2 * 0.005 < below[0.005] / worlds < 2.2 * 0.005
    clear = generator.normal(0.5, 1.0, size=n)
    means = bootstrap_means(clear[:, None], 400, generator)[:, 0]
    found = bootstrapped(clear.mean(), (clear - clear.mean()) / n, means, n=n)
    assert found.p_value == pytest.approx(paired_t(np.zeros(n), clear).p_value, rel=5) and found.p_value < 1e-6
