"""Grouped examples against loops and closed forms, then the coverage of groups that err together."""

import numpy as np
import pytest

from flataudit.errors import ConfigurationError
from flataudit.statistics.clusters import (
    FEW_GROUPS,
    cluster_means,
    cluster_standard_error,
    clustered_difference,
    clustered_mean,
)
from flataudit.statistics.means import mean
from flataudit.statistics.paired import paired_t


def grouped(count: int, generator: np.random.Generator, most: int = 12) -> np.ndarray:
    return np.repeat(np.arange(count), generator.integers(2, most, size=count))


def test_resampled_means_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(0)
    groups = grouped(7, generator)
    values = generator.normal(size=(len(groups), 2))
    drawn = np.random.default_rng(5).integers(0, 7, size=(30, 7))
    naive = np.array([np.concatenate([values[groups == g] for g in row]).mean(axis=0) for row in drawn])
    assert cluster_means(values, groups, 30, np.random.default_rng(5)) == pytest.approx(naive, abs=1e-12)


def test_groups_of_one_are_independent_examples() -> None:
    values = np.random.default_rng(1).normal(size=30)
    found, plain = clustered_mean(values, np.arange(30)), mean(values)
    assert (found.estimate, found.standard_error) == pytest.approx((plain.estimate, plain.standard_error))
    assert found.interval == pytest.approx(plain.interval)
    assert found.design_effect == pytest.approx(1.0)
    first = np.zeros(30)
    one, other = clustered_difference(first, values, np.arange(30)), paired_t(first, values)
    assert one.p_value == pytest.approx(other.p_value) and one.interval == pytest.approx(other.interval)


def test_copies_of_an_example_say_nothing_new() -> None:
    """Each example ten times, in its own group: the error of the single examples, design effect about ten."""
    values = np.random.default_rng(2).normal(size=25)
    found = clustered_mean(np.repeat(values, 10), np.repeat(np.arange(25), 10))
    assert found.standard_error == pytest.approx(mean(values).standard_error)
    assert found.design_effect == pytest.approx(10, rel=0.05)


def test_the_robust_error_is_that_of_its_formula_and_of_the_bootstrap() -> None:
    generator = np.random.default_rng(3)
    groups = grouped(200, generator)
    values = generator.normal(size=200)[groups] + generator.normal(size=len(groups))
    residual = values - values.mean()
    naive = np.sqrt(200 / 199 * sum(residual[groups == g].sum() ** 2 for g in range(200))) / len(values)
    assert cluster_standard_error(values, groups) == pytest.approx(naive)
    resampled = cluster_means(values[:, None], groups, 4000, generator)
    assert float(resampled.std()) == pytest.approx(naive, rel=0.06)


def test_few_groups_are_said_to_be_few() -> None:
    values = np.random.default_rng(4).normal(size=2 * FEW_GROUPS)
    few, enough = (clustered_mean(values[: 2 * g], np.repeat(np.arange(g), 2)) for g in (FEW_GROUPS - 1, FEW_GROUPS))
    assert few.warning is not None and "39 groups are few" in few.warning and few.method.startswith("cluster-robust t")
    assert enough.warning is None and enough.method == "BCa bootstrap of 40 groups"
    one = clustered_mean(values, np.zeros(len(values)))
    assert one.interval is None and one.standard_error is None and one.design_effect is None


def test_all_right_is_not_certain_and_counts_groups() -> None:
    found = clustered_mean(np.ones(1000), np.repeat(np.arange(50), 20))
    assert found.interval is not None and found.interval[0] == pytest.approx(0.9287, abs=1e-4)
    assert found.standard_error is not None and found.standard_error > 0.01


@pytest.mark.parametrize("count", [12, 60])
def test_differences_are_antisymmetric(count: int) -> None:
    generator = np.random.default_rng(5)
    groups = grouped(count, generator)
    first, second = generator.exponential(size=(2, len(groups)))
    forth, back = clustered_difference(first, second, groups), clustered_difference(second, first, groups)
    assert forth.interval is not None and back.difference == -forth.difference
    assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]), abs=1e-12)
    assert (back.p_value, back.standard_error) == pytest.approx((forth.p_value, forth.standard_error))


def test_equal_differences_have_an_unknown_error() -> None:
    found = clustered_difference(np.zeros(20), np.full(20, 0.5), np.repeat(np.arange(4), 5))
    assert (found.difference, found.interval, found.p_value) == (0.5, None, None)
    assert found.reason is not None and "4 groups" in found.reason


@pytest.mark.parametrize(("count", "tolerance"), [(10, 0.02), (20, 0.02), (60, 0.02), (150, 0.015)])
def test_groups_that_err_together_are_covered(count: int, tolerance: float) -> None:
    """2,000 worlds with an intra-group correlation of a half; independent examples would cover about 65 %."""
    generator, covered, naive = np.random.default_rng(6), 0, 0
    groups = grouped(count, generator)
    for seed in range(2000):
        values = generator.normal(size=count)[groups] + generator.normal(size=len(groups))
        found = clustered_mean(values, groups, replicates=400, seed=seed)
        assert found.interval is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
        naive += abs(values.mean()) <= 1.96 * values.std() / np.sqrt(len(values))
    assert covered / 2000 == pytest.approx(0.95, abs=tolerance)
    assert naive / 2000 < 0.75


@pytest.mark.parametrize("count", [20, 80])
def test_paired_differences_of_writers_are_covered(count: int) -> None:
    """0/1 correctness of two models of equal accuracy, each writer hard or easy for both and for each."""
    generator, covered, rejected = np.random.default_rng(7), 0, 0
    groups = grouped(count, generator, 15)
    for seed in range(2000):
        common, own = generator.normal(size=count), generator.normal(0, 0.7, size=(2, count))
        chance = 1 / (1 + np.exp(-1.5 - common - own))
        first, second = (generator.random((2, len(groups))) < chance[:, groups]).astype(float)
        found = clustered_difference(first, second, groups, replicates=400, seed=seed)
        assert found.interval is not None and found.p_value is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
        rejected += found.p_value <= 0.05
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)
    assert rejected / 2000 == pytest.approx(0.05, abs=0.02)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="one group for each example"):
        clustered_mean(np.zeros(3), np.zeros(4))
    with pytest.raises(ConfigurationError, match="finite values"):
        clustered_mean(np.array([np.inf, 0.0]), np.zeros(2))
