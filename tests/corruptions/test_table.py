"""Corruptions of tables and series against what they are by definition."""

import numpy as np
import pytest

from flataudit.corruptions.catalogue import Suite
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.table import Features, column_loss, missing, quantise, stale, swap, unit
from flataudit.errors import ConfigurationError

GENERATOR = np.random.default_rng(5)
ROWS = np.stack(
    [
        GENERATOR.lognormal(size=4000),
        GENERATOR.normal(size=4000),
        GENERATOR.integers(0, 4, 4000) * 2.0,
        GENERATOR.integers(0, 900, 4000),
    ],
    axis=1,
)
SCALE = Features.of(ROWS)
DRAWS = Draws(0, "s/1", np.arange(4000))


def test_missing_values_are_medians_or_nan():
    filled = missing(SCALE, ROWS, DRAWS, 0.25)
    lost = filled != ROWS
    assert lost.mean() == pytest.approx(0.25, abs=0.02)
    assert set(filled[lost[:, 0], 0]) == {np.median(ROWS[:, 0])}
    empty = Suite.of(ROWS, "table", missing="nan").corrupt(ROWS, "missing", 3, seed=0)
    assert np.isnan(empty).mean() == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(empty[~np.isnan(empty)], ROWS[~np.isnan(empty)])
    with pytest.raises(ConfigurationError, match="floating-point table for NaN"):
        Suite.of(ROWS.astype(np.int64), "table", missing="nan")


def test_the_effect_counts_nan_as_one_standard_deviation():
    suite = Suite.of(ROWS, "table", missing="nan")
    empty = np.full_like(ROWS, np.nan)
    np.testing.assert_allclose(suite.changes(ROWS, empty)[SCALE.deviation.argmin() : 3], 1)


def test_lost_columns_are_the_same_for_all_rows_and_grow_by_severity():
    lost = [column_loss(SCALE, ROWS, DRAWS, amount) != ROWS for amount in (0.1, 0.25, 0.5, 0.6)]
    shares = [one.mean(axis=0) for one in lost]
    assert [(share > 0.5).sum() for share in shares] == [0, 1, 2, 2]
    assert [np.count_nonzero(share) for share in shares] == [1, 1, 2, 3]
    assert sorted(shares[0])[-1] == pytest.approx(0.4, abs=0.05)
    first = shares[0].argmax()
    assert all(share[first] > 0.5 for share in shares[1:])


def test_swapped_categories_are_other_categories_of_the_column():
    assert list(SCALE.categories) == [2]
    swapped = swap(SCALE, ROWS, DRAWS, 1.0)
    assert np.array_equal(swapped[:, [0, 1, 3]], ROWS[:, [0, 1, 3]])
    assert (swapped[:, 2] != ROWS[:, 2]).all() and set(swapped[:, 2]) == {0, 2, 4, 6}
    moves, counts = np.unique((swapped[:, 2] - ROWS[:, 2]) % 8, return_counts=True)
    assert list(moves) == [2, 4, 6] and np.abs(counts / 4000 - 1 / 3).max() < 0.03
    kept = swap(SCALE, ROWS, DRAWS, 0.3)[:, 2] != ROWS[:, 2]
    assert kept.mean() == pytest.approx(0.3, abs=0.03)


def test_stale_values_are_those_of_the_row_before():
    late = stale(SCALE, ROWS, DRAWS, 1.0)
    assert np.array_equal(late[1:], ROWS[:-1]) and np.array_equal(late[0], ROWS[0])
    some = stale(SCALE, ROWS[100:150], Draws(0, "s/1", np.arange(100, 150)), 0.3)
    whole = stale(SCALE, ROWS, DRAWS, 0.3)[100:150]
    assert np.array_equal(some, whole) and np.isin(some, ROWS[99:150]).all()


def test_rounding_and_units_in_closed_form():
    rounded = (quantise(SCALE, ROWS, DRAWS, 0.5) - SCALE.mean) / SCALE.deviation
    np.testing.assert_allclose(rounded * 2, np.rint(rounded * 2), atol=1e-9)
    assert np.abs(rounded - (ROWS - SCALE.mean) / SCALE.deviation).max() <= 0.25 + 1e-9
    ratio = unit(SCALE, ROWS, DRAWS, 4.0)[:, :2] / ROWS[:, :2]
    assert set(ratio.round(9).ravel()) == {0.25, 1.0, 4.0}


def test_whole_numbers_stay_within_their_dtype():
    small = GENERATOR.integers(0, 256, (500, 3)).astype(np.uint8)
    changed = Suite.of(small, "table").corrupt(small, "offset", 5, seed=0)
    assert changed.dtype == np.uint8
    up = changed.astype(int) - small
    assert np.count_nonzero(up, axis=1).max() == 1, "no value wraps around"
    assert (np.abs(up) <= 3 * small.std(axis=0) + 1).all()
