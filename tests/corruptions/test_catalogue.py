import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import shift

from flataudit.corruptions import scale
from flataudit.corruptions.catalogue import KINDS, SEVERITIES, Suite
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.image import Range, _shifted
from flataudit.errors import ConfigurationError

GENERATOR = np.random.default_rng(7)
IMAGES = GENERATOR.random((300, 1, 8, 8)).astype(np.float32) * 16 - 3
ROWS = (GENERATOR.normal(size=(300, 4)) * [1, 10, 0, 100] + [5, 0, 2, -1]).astype(np.float32)
SUITES = {"image": Suite.of(IMAGES, "image"), "table": Suite.of(ROWS, "table")}
DATA = {"image": IMAGES, "table": ROWS}
CASES = [(data, kind) for data, kinds in KINDS.items() for kind in kinds]
RANDOM = [case for case in CASES if case[1] not in {"blur", "contrast", "quantise"}]

every_kind = pytest.mark.parametrize(("data", "kind"), CASES)


@every_kind
@given(order=st.permutations(range(40)), severity=st.sampled_from(SEVERITIES))
def test_an_example_is_corrupted_by_its_index_alone(data, kind, order, severity):
    inputs, order = DATA[data][:40], np.array(order)
    whole = SUITES[data].corrupt(inputs, kind, severity, seed=3)
    part = SUITES[data].corrupt(inputs[order[:25]], kind, severity, seed=3, indices=order[:25])
    assert np.array_equal(part, whole[order[:25]])


@every_kind
def test_stronger_is_further_away(data, kind):
    inputs, spread = DATA[data], DATA[data].std(axis=0) + 1e-6
    distances = [
        np.mean(((SUITES[data].corrupt(inputs, kind, severity, seed=0) - inputs) / spread) ** 2)
        for severity in SEVERITIES
    ]
    assert distances == sorted(distances) and distances[0] > 0 and distances[4] > 1.5 * distances[0]


@every_kind
def test_shape_dtype_and_original_are_kept(data, kind):
    for dtype in (np.float32, np.float64, np.float16):
        inputs = DATA[data].astype(dtype)
        before = inputs.copy()
        changed = SUITES[data].corrupt(inputs, kind, 5, seed=0)
        assert changed.dtype == dtype and changed.shape == inputs.shape and np.isfinite(changed).all()
        assert np.array_equal(inputs, before) and not np.shares_memory(changed, inputs)


@pytest.mark.parametrize("kind", KINDS["image"])
@pytest.mark.parametrize("shape", [(8, 1, 8, 8), (5, 3, 9, 16), (3, 1, 28, 20), (2, 3, 3, 3), (2, 1, 1, 5)])
def test_images_of_any_size_and_of_bytes_stay_in_their_range(kind, shape):
    images = GENERATOR.integers(10, 200, shape).astype(np.uint8)
    images.flat[:2] = 10, 200
    for severity in SEVERITIES:
        changed = Suite.of(images, "image").corrupt(images, kind, severity, seed=0)
        assert changed.dtype == np.uint8 and changed.shape == shape
        assert changed.min() >= 10 and changed.max() <= 200


@pytest.mark.parametrize("kind", KINDS["image"])
@given(low=st.floats(-100, 100), width=st.floats(0.1, 1000))
def test_severity_is_relative_to_the_range(kind, low, width):
    unit = (IMAGES[:20].astype(np.float64) - IMAGES[:20].min()) / np.ptp(IMAGES[:20])
    scaled = low + width * unit
    one, other = (Suite.of(images, "image").corrupt(images, kind, 3, seed=1) for images in (unit, scaled))
    np.testing.assert_allclose((other - low) / width, one, atol=1e-9 * (1 + abs(low) / width))


@pytest.mark.parametrize("kind", KINDS["table"])
def test_severity_is_relative_to_each_feature(kind):
    units = np.array([1.0, 1000.0, 1.0, 0.01])
    one, other = (Suite.of(rows, "table").corrupt(rows, kind, 3, seed=1) for rows in (ROWS * 1.0, ROWS * units))
    np.testing.assert_allclose(other, one * units, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS["table"])
def test_a_constant_feature_changes_only_by_its_unit(kind):
    changed = SUITES["table"].corrupt(ROWS, kind, 5, seed=0)[:, 2]
    assert np.array_equal(changed, ROWS[:, 2]) == (kind != "unit")


@pytest.mark.parametrize(("data", "kind"), RANDOM)
def test_seed_and_severity_change_the_draw(data, kind):
    def touched(seed, severity):
        return np.sign(SUITES[data].corrupt(DATA[data], kind, severity, seed=seed) - DATA[data])

    assert not np.array_equal(touched(0, 3), touched(1, 3)) and not np.array_equal(touched(0, 3), touched(0, 4))


def test_known_amounts():
    wide = np.tile(np.linspace(0, 1, 64), (500, 1, 64, 1))
    suite = Suite.of(wide, "image")

    def change(kind, severity=3, images=wide, of=suite):
        return of.corrupt(images, kind, severity, seed=0) - images

    grey = np.full((50, 1, 64, 64), 0.5)
    assert change("noise", images=grey).std() == pytest.approx(0.12, rel=0.01)
    assert np.mean(change("impulse", images=grey) != 0) == pytest.approx(0.08, rel=0.03)
    assert np.unique(np.abs(change("brightness", images=grey)).round(12)) == pytest.approx([0.15])
    assert suite.corrupt(wide, "contrast", 3, seed=0).std() == pytest.approx(wide.std() / 2)
    dark = np.zeros((50, 1, 64, 64))
    covered = change("occlusion", images=dark).sum(axis=(1, 2, 3)) / 0.5
    np.testing.assert_allclose(covered, (0.25 * 64) ** 2)
    table = SUITES["table"]
    moved = (change("offset", images=ROWS, of=table) / np.where(ROWS.std(0) > 0, ROWS.std(0), 1)).round(2)
    assert set(np.abs(np.unique(moved))) <= {0.0, 1.5} and np.count_nonzero(moved, axis=1).max() == 1
    assert np.mean(change("dropout", images=ROWS, of=table)[:, 0] != 0) == pytest.approx(0.2, abs=0.07)


def test_translation_is_scipys_and_of_the_declared_length():
    images = GENERATOR.random((6, 2, 9, 12))
    by = np.array([0.0, 0.4, -0.4, 1.0, -2.3, 3.7])
    for axis in (2, 3):
        offsets = [[0, by[i] if axis == 2 else 0, by[i] if axis == 3 else 0] for i in range(6)]
        expected = np.stack([shift(images[i], offsets[i], order=1, mode="nearest") for i in range(6)])
        np.testing.assert_allclose(_shifted(images, by, axis), expected, atol=1e-12)
    ramp = np.tile(np.arange(40.0), (400, 1, 40, 1))
    moved = Suite.of(ramp, "image").corrupt(ramp, "translate", 3, seed=0) - ramp
    inner = moved[:, 0, 20, 20]
    assert np.abs(inner).max() == pytest.approx(0.05 * 40, rel=0.01) and np.abs(inner.mean()) < 0.25


def test_unknown_names_and_severities():
    with pytest.raises(ConfigurationError, match="did you mean occlusion"):
        SUITES["image"].corrupt(IMAGES, "oclusion", 3, seed=0)
    with pytest.raises(ConfigurationError, match=r"kind table.*choose one of dropout"):
        SUITES["table"].corrupt(ROWS, "blur", 3, seed=0)
    for severity in (0, 6):
        with pytest.raises(ConfigurationError, match="1 to 5"):
            SUITES["image"].corrupt(IMAGES, "blur", severity, seed=0)


def test_scale_is_of_the_whole_set_whatever_the_blocks(monkeypatch):
    monkeypatch.setattr(scale, "_BLOCK_VALUES", 1000)
    mean, deviation = scale.moments(ROWS, by_feature=True)
    np.testing.assert_allclose(mean, ROWS.mean(axis=0, dtype=float))
    np.testing.assert_allclose(deviation, ROWS.std(axis=0, dtype=float), atol=1e-12)
    np.testing.assert_allclose(scale.moments(IMAGES, by_feature=False)[1], IMAGES.std(dtype=float))
    parts = list(scale.blocks(IMAGES))
    assert len(parts) == 20 and np.array_equal(np.concatenate([IMAGES[part] for part in parts]), IMAGES)


def test_constant_images_and_single_rows():
    flat = np.zeros((3, 1, 8, 8))
    row = np.ones((1, 3))
    assert all(not Suite.of(flat, "image").corrupt(flat, kind, 5, seed=0).any() for kind in KINDS["image"])
    assert all(np.isfinite(Suite.of(row, "table").corrupt(row, kind, 5, seed=0)).all() for kind in KINDS["table"])
    assert Range.of(flat).width == 0 and Draws(0, "s", np.arange(0)).uniforms(3).shape == (0, 3)
