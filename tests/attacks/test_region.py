"""Balls, units and limits."""

import numpy as np
import pytest
from scipy.stats import kstest

from flataudit.attacks.region import Region, Room, lengths
from flataudit.corruptions.draws import Draws
from flataudit.errors import ConfigurationError

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((50, 4)) * np.array([1.0, 10.0, 0.1, 0.0]) + 3
NORMS = ("linf", "l2")


def of(inputs: np.ndarray, **options: object) -> Room:
    return Room.of(inputs, **({"unit": "deviation", "limits": "data", "by_feature": True} | options))  # type: ignore[arg-type]


def test_units():
    assert of(ROWS).scale == pytest.approx(ROWS.std(axis=0))
    assert of(ROWS, unit="range").scale == pytest.approx(np.ptp(ROWS, axis=0))
    assert of(ROWS, unit="input").scale.tolist() == [1.0] * 4
    assert of(ROWS, by_feature=False).scale == pytest.approx(ROWS.std())


def test_limits():
    assert np.array_equal(of(ROWS).low, ROWS.min(axis=0)) and np.array_equal(of(ROWS).high, ROWS.max(axis=0))
    assert np.isinf(of(ROWS, limits="none").low).all()
    assert of(ROWS, limits=(-100.0, 100.0)).high.tolist() == [100.0] * 4
    with pytest.raises(ConfigurationError, match=r"declared limits 0 to 1, got -?\d.* leave it out"):
        of(ROWS, limits=(0.0, 1.0))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_nothing_leaves_the_ball_or_the_range(norm: str, dtype: type):
    inputs = ROWS.astype(dtype)
    place = of(inputs)
    ball = Region(place, norm, 0.5).around(inputs)  # type: ignore[arg-type]
    for z in (ball.random(Draws(0, "a", np.arange(50))), ball.inside(100 * GENERATOR.standard_normal((50, 4)))):
        moved = ball.at(z)
        assert moved.dtype == dtype and (moved >= inputs.min(axis=0)).all() and (moved <= inputs.max(axis=0)).all()
        change = (moved.astype(float) - inputs.astype(float))[:, :3] / place.scale[:3]
        ulps = 4 * np.finfo(dtype).eps * np.abs(ROWS).max() / place.scale[:3].min()
        assert np.linalg.norm(change, ord=np.inf if norm == "linf" else 2, axis=1).max() <= 0.5 + ulps
        assert np.array_equal(moved[:, 3], inputs[:, 3])
        assert ball.inside(z) == pytest.approx(z, rel=1e-6)
    assert np.array_equal(ball.at(ball.still()), inputs)


def test_random_starts_are_uniform_and_belong_to_their_examples():
    inputs = np.zeros((20_000, 3))
    wide = Room(np.ones(3), np.full(3, -np.inf), np.full(3, np.inf))
    draws = Draws(0, "start", np.arange(20_000))
    z = Region(wide, "l2", 1.0).around(inputs).random(draws)
    assert kstest(lengths(z)[:, 0] ** 3, "uniform").pvalue > 1e-3
    assert kstest((z[:, 0] / lengths(z)[:, 0] + 1) / 2, "uniform").pvalue > 1e-3  # Archimedes: uniform in 3 dimensions
    cube = Region(wide, "linf", 1.0).around(inputs).random(draws)
    assert kstest((cube[:, 1] + 1) / 2, "uniform").pvalue > 1e-3
    few = np.array([7, 3])
    again = Region(wide, "l2", 1.0).around(inputs[few]).random(Draws(0, "start", few))
    assert np.array_equal(again, z[few])


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_direction_is_that_of_the_dual_norm(norm: str):
    ball = Region(of(ROWS), norm, 1.0).around(ROWS)  # type: ignore[arg-type]
    slopes = GENERATOR.standard_normal((50, 4))
    rise = (ball.steepest(slopes) * slopes).sum(axis=1)
    assert rise == pytest.approx(np.linalg.norm(slopes, ord=1 if norm == "linf" else 2, axis=1))
    assert not ball.steepest(np.zeros((50, 4))).any()
    assert not ball.steepest(np.zeros((50, 4), dtype=np.float32)).any()
