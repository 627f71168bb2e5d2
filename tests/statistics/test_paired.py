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


def test_bca_covers_skewed_differences() -> None:
    generator, covered = np.random.default_rng(6), 0
    for _ in range(400):
        changes = generator.exponential(size=50) - generator.exponential(0.5, size=50)
        means = bootstrap_means(changes[:, None], 600, generator)[:, 0]
        low, high = bca_interval(means, float(changes.mean()), (changes - changes.mean()) / 50)
        covered += low <= 0.5 <= high
    assert 0.91 < covered / 400 < 0.98
