"""Expected maxima against simulation and printed values; the corrected winner covers what the plain one does not."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import truncnorm

from flataudit.errors import ConfigurationError
from flataudit.statistics.means import mean
from flataudit.statistics.proportions import wilson_interval
from flataudit.statistics.winners_curse import (
    corrected_winner,
    correlation_of_candidates,
    expected_maximum,
    expected_optimism,
)


def correct(generator: np.random.Generator, n: int, accuracies: list[float], shared: float) -> np.ndarray:
    """0/1 correctness of candidates that share the difficulty of each example."""
    k = len(accuracies)
    hard = np.sqrt(shared) * generator.normal(size=(n, 1)) + np.sqrt(1 - shared) * generator.normal(size=(n, k))
    return np.asarray(hard < ndtri(np.array(accuracies)), dtype=np.float64)


def test_published_expected_maxima() -> None:
    assert [round(expected_maximum(k), 2) for k in (2, 5, 10, 20, 50)] == [0.56, 1.16, 1.54, 1.87, 2.25]
    assert expected_maximum(2) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-12)
    assert expected_maximum(3) == pytest.approx(1.5 / np.sqrt(np.pi), abs=1e-12)
    assert expected_maximum(10_000) == pytest.approx(3.8516, abs=1e-3)


def test_optimism_of_equal_candidates_is_that_of_a_simulation() -> None:
    generator = np.random.default_rng(0)
    worlds = np.array([correct(generator, 500, [0.9] * 10, 0.8).mean(axis=0).max() for _ in range(2000)])
    two = correct(generator, 400_000, [0.9, 0.9], 0.8)
    correlation = correlation_of_candidates(0.9, float(np.mean(two[:, 0] != two[:, 1])))
    assert correlation == pytest.approx(float(np.corrcoef(two.T)[0, 1]), abs=0.005)
    assert worlds.mean() - 0.9 == pytest.approx(expected_optimism(0.9, 500, 10, correlation=correlation), rel=0.05)


def test_one_candidate_is_not_corrected() -> None:
    values = np.random.default_rng(1).normal(size=(100_000, 1))
    found, plain = corrected_winner(values), mean(values[:, 0])
    assert found.estimate == pytest.approx(found.observed, abs=1e-9)
    assert found.interval == pytest.approx(plain.interval, rel=1e-3)
    right = np.repeat([1.0, 0.0], [84, 16])[:, None]
    assert corrected_winner(right).interval == pytest.approx(wilson_interval(0.84, 100), abs=1e-9)


def test_a_clear_winner_costs_nothing_and_copies_cost_nothing() -> None:
    generator = np.random.default_rng(2)
    values = correct(generator, 2000, [0.9, 0.7, 0.6], 0.5)
    found = corrected_winner(values)
    assert found.estimate == pytest.approx(found.observed, abs=2e-5)
    assert found.interval == pytest.approx(found.observed_interval, abs=2e-3)
    copies = corrected_winner(np.repeat(values[:, :1], 4, axis=1))
    assert copies.index == 0 and copies.estimate == pytest.approx(copies.observed, abs=1e-9)
    perfect = corrected_winner(np.ones((50, 3)))
    assert perfect.interval == pytest.approx(perfect.observed_interval, abs=0.005) and perfect.interval[0] > 0.9


def test_the_estimate_is_the_median_of_the_cut_normal() -> None:
    """Two independent candidates: conditional on winning, y is a normal cut off at the loser's mean."""
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(400, 2))
    noise -= noise.mean(axis=0)
    noise[:, 1] -= noise[:, 0] * (noise[:, 0] @ noise[:, 1]) / (noise[:, 0] @ noise[:, 0])
    found = corrected_winner(noise + np.array([0.06, 0.0]))
    deviation = noise[:, 0].std(ddof=1) / 20
    cut = (0.0 - found.estimate) / deviation
    median = truncnorm.median(max(cut, -2.81), 2.81, loc=found.estimate, scale=deviation)
    assert median == pytest.approx(0.06, abs=2e-4)
    assert found.estimate < 0.06


@pytest.mark.parametrize(
    ("n", "accuracies", "shared", "plain_at_most"),
    [
        (2000, [0.9] * 10, 0.85, 0.91),
        (2000, [0.9] * 10, 0.0, 0.82),
        (500, [0.9] * 10, 0.85, 0.92),
        (500, [0.8] * 4 + [0.79] * 4, 0.6, 0.91),
        (500, [0.9, 0.85, 0.8], 0.85, 0.97),
    ],
)
def test_the_winner_is_covered(n: int, accuracies: list[float], shared: float, plain_at_most: float) -> None:
    """1,000 worlds: the corrected interval covers at least 93.5 % and is nearly unbiased, the plain one falls short."""
    generator, rows = np.random.default_rng(4), []
    for _ in range(1000):
        found = corrected_winner(correct(generator, n, accuracies, shared))
        truth = accuracies[found.index]
        inside = [low <= truth <= high for low, high in (found.interval, found.observed_interval)]
        rows.append([*inside, found.observed - truth, found.estimate - truth])
    covered, plain, curse, left = np.mean(rows, axis=0)
    assert covered >= 0.935
    assert plain <= plain_at_most
    assert abs(left) < max(0.3 * curse, 0.0015)


def test_real_values_are_covered_exactly() -> None:
    """Normal values, ten equal and correlated candidates: 95 % and median-unbiased within simulation error."""
    generator, covered, above = np.random.default_rng(5), 0, 0
    for _ in range(2000):
        found = corrected_winner(generator.normal(size=(200, 1)) + generator.normal(size=(200, 10)))
        covered += found.interval[0] <= 0 <= found.interval[1]
        above += found.estimate > 0
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)
    assert above / 2000 == pytest.approx(0.5, abs=0.05)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="n ≥ 2 examples"):
        corrected_winner(np.zeros((1, 2)))
    with pytest.raises(ConfigurationError, match="got NaN"):
        corrected_winner(np.array([[np.nan], [0.0]]))
    with pytest.raises(ConfigurationError, match="winner whose values vary"):
        corrected_winner(np.full((9, 1), 0.5))
    with pytest.raises(ConfigurationError, match="one candidate or more"):
        expected_maximum(0)
