"""Corruptions of tables and series against what they are by definition."""

from dataclasses import replace

import numpy as np
import pytest

from flataudit.corruptions.catalogue import Suite
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.table import TABLE_CORRUPTIONS, Features, column_loss, missing, quantise, stale, swap, unit
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


# ── Tables with gaps ──


@pytest.mark.parametrize("kind", TABLE_CORRUPTIONS)
def test_gaps_count_in_no_scale_and_what_is_known_is_changed_as_without_them(kind):
    """Two columns with gaps beside their like without: scale, draws and results of the known values are the same."""
    generator = np.random.default_rng(5)
    whole = np.stack([generator.normal(3, 2, 200), generator.integers(0, 4, 200).astype(float)], axis=1)
    known = generator.random(200) < 0.8
    gapped = np.where(known[:, None], whole, np.nan)
    places = np.flatnonzero(known)
    suite, like = Suite.of(gapped, "table"), Suite.of(whole[known], "table")
    if kind == "stale":  # the row before may have been a gap
        places, like = places[np.isin(places - 1, places)], replace(like, scale=replace(like.scale, rows=whole))
    found, expected = suite.corrupt(gapped, kind, 5, seed=0), like.corrupt(whole, kind, 5, seed=0)
    np.testing.assert_allclose(found[places], expected[places], rtol=1e-12)
    replaced = {"missing", "column_loss", "dropout", "stale"}
    assert np.isnan(found[~known]).all() or kind in replaced


@pytest.mark.parametrize("missing", ["median", "nan"])
def test_a_gap_that_stays_is_no_change(missing):
    rows = np.array([[1.0, np.nan], [2.0, np.nan], [4.0, 5.0], [9.0, 7.0]])
    suite = Suite.of(rows, "table", missing=missing)
    np.testing.assert_allclose(suite.spread, [np.nanstd(rows[:, 0]), 1.0])
    assert suite.changes(rows, rows).tolist() == [0.0] * 4
    filled = np.nan_to_num(rows, nan=6.0)
    np.testing.assert_allclose(suite.changes(rows, filled), [0.5**0.5, 0.5**0.5, 0, 0])
    np.testing.assert_allclose(suite.changes(filled, rows), [0.5**0.5, 0.5**0.5, 0, 0])


def test_a_column_of_nothing_but_gaps_is_left_alone():
    rows = np.stack([np.arange(30.0), np.full(30, np.nan)], axis=1)
    suite = Suite.of(rows, "table")
    for kind in TABLE_CORRUPTIONS:
        if suite.unfit(kind) is None:
            found = suite.corrupt(rows, kind, 5, seed=0)
            assert np.isnan(found[:, 1]).all() and np.isfinite(suite.changes(rows, found)).all()
            assert np.isfinite(found[:, 0]).all()


def test_equal_values_that_no_binary_fraction_has_are_constant():
    """The mean of 1797 times 0.1 is not 0.1 but for rounding, and a deviation of 1e-15 would be a unit."""
    rows = np.stack([np.full(1797, 0.1), np.arange(1797.0)], axis=1)
    assert Suite.of(rows, "table").spread[0] == 0 and Suite.of(rows[:, :1], "table").constant
    assert Suite.of(np.full((1797, 1, 8, 8), 0.7), "image").constant
    assert Suite.of(np.full((499, 3, 7), 0.1), "series").constant
    moved = Suite.of(rows, "table").corrupt(rows, "unit", 5, seed=0)
    assert Suite.of(rows, "table").changes(rows, moved).max() < 100
