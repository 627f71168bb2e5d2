"""Scores of stated distributions against their definitions by quadrature, and propriety."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from flataudit.statistics.forecasts import NormalForecast, QuantileForecast, null_quantile_errors


@pytest.mark.parametrize(("mean", "deviation", "value"), [(0.0, 1.0, 0.3), (2.0, 0.5, -1.0), (-1.0, 3.0, 4.0)])
def test_crps_of_a_normal_is_its_integral(mean: float, deviation: float, value: float) -> None:
    low, _ = quad(lambda t: norm.cdf(t, mean, deviation) ** 2, -np.inf, value)
    high, _ = quad(lambda t: norm.sf(t, mean, deviation) ** 2, value, np.inf)
    found = NormalForecast(np.array([mean]), np.array([deviation])).crps(np.array([value]))
    assert found[0] == pytest.approx(low + high, rel=1e-6)


def test_crps_is_proper_and_has_a_known_mean() -> None:
    values = norm.ppf((np.arange(4000) + 0.5) / 4000)

    def score(mean: float, deviation: float) -> float:
        return float(NormalForecast(np.full(4000, mean), np.full(4000, deviation)).crps(values).mean())

    assert score(0.0, 1.0) == pytest.approx(1 / np.sqrt(np.pi), rel=1e-3)
    assert all(score(0.0, 1.0) < score(*other) for other in ((0.2, 1.0), (0.0, 0.8), (0.0, 1.2)))


@pytest.mark.parametrize(("count", "tolerance"), [(9, 0.06), (99, 0.004)])
def test_crps_of_quantiles_nears_that_of_the_normal(count: int, tolerance: float) -> None:
    levels = tuple((k + 1) / (count + 1) for k in range(count))
    values = norm.ppf((np.arange(500) + 0.5) / 500)
    quantiles = QuantileForecast(np.tile(norm.ppf(levels), (500, 1)), levels)
    exact = NormalForecast(np.zeros(500), np.ones(500)).crps(values).mean()
    assert quantiles.crps(values).mean() == pytest.approx(exact, rel=tolerance)


def test_one_median_scores_the_absolute_error() -> None:
    found = QuantileForecast(np.array([[1.0], [3.0]]), (0.5,)).crps(np.array([4.0, 3.0]))
    assert found.tolist() == [3.0, 0.0]


def test_central_intervals() -> None:
    low, high = NormalForecast(np.zeros(1), np.full(1, 2.0)).central(0.9)
    assert (low[0], high[0]) == pytest.approx((-3.2897, 3.2897), abs=1e-4)
    forecast = QuantileForecast(np.array([[1.0, 2.0, 5.0]]), (0.05, 0.5, 0.95))
    ends = forecast.central(0.9)
    assert ends is not None and (ends[0][0], ends[1][0]) == (1.0, 5.0)
    assert forecast.central(0.8) is None


def test_crossing_quantiles_are_counted_and_left_alone() -> None:
    stated = np.array([[1.0, 0.5], [1.0, 2.0], [3.0, 3.0]])
    forecast = QuantileForecast(stated, (0.25, 0.75))
    assert forecast.crossing == pytest.approx(1 / 3) and forecast.quantiles is stated


def test_what_is_below_its_quantile() -> None:
    normal = NormalForecast(np.zeros(3), np.ones(3))
    values = np.array([-2.0, 0.0, 2.0])
    assert normal.below(values).sum(axis=1).tolist() == [19.0, 10.0, 0.0]
    none = NormalForecast(np.zeros(1), np.zeros(1))
    assert none.below(np.array([0.0])).tolist() == [[1.0] * 19]


def test_null_of_the_quantile_error_is_where_such_models_lie() -> None:
    levels = tuple(k / 10 for k in range(1, 10))
    generator = np.random.default_rng(0)
    ranks = generator.random((600, 200, 1))
    errors = np.abs((ranks <= np.array(levels)).mean(axis=1) - np.array(levels)).mean(axis=1)
    null = null_quantile_errors(levels, 200, 2000, np.random.default_rng(1))
    assert null.mean() == pytest.approx(errors.mean(), rel=0.04)
    assert np.quantile(null, 0.95) == pytest.approx(np.quantile(errors, 0.95), rel=0.08)
