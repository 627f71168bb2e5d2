"""Corruptions of series against what they are by definition."""

import numpy as np
import pytest

from flataudit.corruptions.catalogue import Suite
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.series import Channels, channel_loss, drift, dropout, gaps, jitter, resample, warp

GENERATOR = np.random.default_rng(6)
SERIES = GENERATOR.normal(size=(300, 2, 50)) * [[1.0], [20.0]] + [[0.0], [7.0]]
SCALE = Channels.of(SERIES)
DRAWS = Draws(0, "s/1", np.arange(300))
LINE = np.tile(np.arange(50.0), (300, 2, 1))


def test_scale_is_of_each_channel():
    np.testing.assert_allclose(SCALE.mean[:, 0], SERIES.mean(axis=(0, 2)))
    np.testing.assert_allclose(SCALE.deviation[:, 0], SERIES.std(axis=(0, 2)))


def test_jitter_and_drift_in_standard_deviations():
    moved = (jitter(SCALE, SERIES, DRAWS, 0.5) - SERIES) / SCALE.deviation
    np.testing.assert_allclose(moved.std(axis=(0, 2)), 0.5, rtol=0.03)
    ramp = (drift(SCALE, SERIES, DRAWS, 1.5) - SERIES) / SCALE.deviation
    np.testing.assert_allclose(np.abs(ramp), np.broadcast_to(1.5 * np.arange(50) / 49, ramp.shape), atol=1e-9)
    assert 0.4 < (ramp[..., -1] > 0).mean() < 0.6


def test_time_runs_forward_and_keeps_its_ends():
    for amount in (0.02, 0.1):
        warped = warp(SCALE, LINE, DRAWS, amount)[:, 0]
        assert (np.diff(warped) >= 0).all() and np.abs(warped[:, [0, -1]] - [0, 49]).max() < 1e-9
        assert np.abs(warped - LINE[:, 0]).max(axis=1) == pytest.approx(amount * 50, rel=0.1)


def test_gaps_hold_the_last_value_for_the_declared_time():
    held = gaps(SCALE, LINE, DRAWS, 0.2)
    assert np.array_equal(held[:, 0], held[:, 1])
    lost = held[:, 0] != LINE[:, 0]
    assert set(lost.sum(axis=1)) <= {9, 10}, "ten steps, of which the first one's own value may be held"
    for row, gone in zip(held[:, 0], lost, strict=True):
        start = int(np.argmax(gone))
        assert gone[start : start + gone.sum()].all() and set(row[gone]) == {max(0, start - 1)}
    firsts = {int(np.argmax(gone)) for gone in lost}
    assert len(firsts) > 30


def test_lost_samples_hold_the_last_that_came():
    held = dropout(SCALE, LINE, DRAWS, 0.3)[:, 0]
    lost = held != LINE[:, 0]
    assert lost.mean() == pytest.approx(0.3, abs=0.03)
    for row in held:
        kept = row == np.arange(50)
        assert np.array_equal(row, np.maximum.accumulate(np.where(kept, np.arange(50), 0)))


def test_a_lower_rate_keeps_lines_and_loses_what_is_between():
    np.testing.assert_allclose(resample(SCALE, LINE, DRAWS, 0.06)[..., :48], LINE[..., :48], atol=1e-9)
    every_other = resample(SCALE, SERIES, DRAWS, 1 / 50)
    np.testing.assert_allclose(every_other[..., :49:2], SERIES[..., :49:2], atol=1e-9)
    np.testing.assert_allclose(every_other[..., 1:48:2], (SERIES[..., :48:2] + SERIES[..., 2:49:2]) / 2, atol=1e-9)


def test_dead_channels_give_their_mean():
    changed = channel_loss(SCALE, SERIES, DRAWS, 0.3)
    dead = (changed != SERIES).any(axis=2)
    assert dead.mean() == pytest.approx(0.3, abs=0.06)
    np.testing.assert_allclose(changed[dead], np.broadcast_to(SCALE.mean, SERIES.shape)[dead])


def test_short_series_and_single_channels():
    for shape in ((3, 1, 1), (3, 1, 2), (2, 4, 7)):
        series = GENERATOR.normal(size=shape).astype(np.float32)
        suite = Suite.of(series, "series")
        for kind in ("jitter", "drift", "warp", "gaps", "dropout", "resample", "channel_loss"):
            changed = suite.corrupt(series, kind, 5, seed=0)
            assert changed.shape == shape and changed.dtype == np.float32 and np.isfinite(changed).all()
