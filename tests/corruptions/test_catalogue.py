import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from flataudit.corruptions import catalogue, scale
from flataudit.corruptions.catalogue import CORRUPTIONS, DEFAULT_KINDS, EFFECTS, KINDS, SEVERITIES, Suite
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.effects import effect
from flataudit.corruptions.image import Range
from flataudit.corruptions.samples import sample
from flataudit.corruptions.sampling import interpolation
from flataudit.errors import ConfigurationError

GENERATOR = np.random.default_rng(7)
IMAGES = GENERATOR.random((300, 3, 8, 8)).astype(np.float32) * 16 - 3
ROWS = (GENERATOR.normal(size=(1500, 5)) * [1, 10, 0, 100, 1] + [5, 0, 2, -1, 0]).astype(np.float32)
ROWS[:, 4] = GENERATOR.integers(0, 6, 1500)
SERIES = np.cumsum(GENERATOR.normal(size=(200, 3, 60)), axis=2).astype(np.float32) * np.array([[1], [10], [0.1]], "f4")
TEXTS = np.array([f"Example {k} has {k * k} Words, and a few more words of text" for k in range(150)])
DATA = {"image": IMAGES, "table": ROWS, "series": SERIES, "text": TEXTS}
SUITES = {name: Suite.of(inputs, name) for name, inputs in DATA.items()}
CASES = [(data, kind) for data, kinds in KINDS.items() for kind in kinds]
FIXED = {"blur", "defocus", "zoom", "contrast", "pixelate", "jpeg", "quantise", "resample"}
RANDOM = [case for case in CASES if case[1] not in FIXED]

every_kind = pytest.mark.parametrize(("data", "kind"), CASES)


@every_kind
@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(40)), severity=st.sampled_from(SEVERITIES), size=st.integers(1, 25))
def test_an_example_is_corrupted_by_its_index_alone(data, kind, order, severity, size):
    inputs, order = DATA[data][:40], np.array(order)
    whole = SUITES[data].corrupt(inputs, kind, severity, seed=3)
    part = SUITES[data].corrupt(inputs[order[:size]], kind, severity, seed=3, indices=order[:size])
    assert np.array_equal(part, whole[order[:size]])


@every_kind
def test_stronger_is_further_away(data, kind):
    suite, inputs = SUITES[data], DATA[data]
    effects = [effect(suite.changes(inputs, suite.corrupt(inputs, kind, s, seed=0))) for s in SEVERITIES]
    assert effects == sorted(effects) and effects[0] > 0 and effects[4] > 1.2 * effects[0]


@every_kind
def test_the_neutral_amount_changes_nothing(data, kind):
    suite, graded = SUITES[data], CORRUPTIONS[data][kind]
    opened = suite.layout.opened(DATA[data][:20])
    changed = graded.change(suite.scale, opened, Draws(0, "s/1", np.arange(20)), graded.neutral)
    # JPEG at quality 100 rounds 64 coefficients to whole numbers of 255 and is the one that cannot do nothing.
    tolerance = 5 / 255 * 16 if kind == "jpeg" else 1e-9
    np.testing.assert_allclose(changed[:, : opened.shape[1]], opened, atol=tolerance)


@every_kind
def test_strengths_run_from_nothing_over_severity_five_to_the_utmost(data, kind):
    graded = CORRUPTIONS[data][kind]
    assert [graded.at(s / 5) for s in range(6)] == pytest.approx([graded.neutral, *graded.amounts])
    assert abs(graded.at(2) - graded.neutral) > abs(graded.amounts[4] - graded.neutral)
    steps = np.diff([graded.at(s) for s in np.linspace(0, 2, 41)])
    assert (steps > 0).all() or (steps < 0).all()
    suite, inputs = SUITES[data], DATA[data][:20]
    utmost = suite._changed(inputs, kind, graded.at(2), Draws(0, "s/1", np.arange(20)))
    assert data == "text" or np.isfinite(utmost).all()


@every_kind
def test_shape_dtype_and_original_are_kept(data, kind):
    for dtype in [np.str_] if data == "text" else [np.float32, np.float64, np.float16]:
        inputs = DATA[data].astype(dtype)
        before = inputs.copy()
        changed = SUITES[data].corrupt(inputs, kind, 5, seed=0)
        assert changed.dtype.kind == inputs.dtype.kind and changed.shape == inputs.shape
        assert data == "text" or (changed.dtype == dtype and np.isfinite(changed).all())
        assert np.array_equal(inputs, before) and not np.shares_memory(changed, inputs)


@pytest.mark.parametrize("kind", KINDS["image"])
@pytest.mark.parametrize("shape", [(8, 3, 8, 8), (5, 3, 9, 16), (3, 3, 28, 20), (2, 3, 3, 3), (2, 3, 1, 5)])
def test_images_of_any_size_and_of_bytes_stay_in_their_range(kind, shape):
    images = GENERATOR.integers(10, 200, shape).astype(np.uint8)
    images.flat[:2] = 10, 200
    for severity in SEVERITIES:
        changed = Suite.of(images, "image").corrupt(images, kind, severity, seed=0)
        assert changed.dtype == np.uint8 and changed.shape == shape
        assert changed.min() >= 10 and changed.max() <= 200


@pytest.mark.parametrize("kind", KINDS["image"])
@settings(max_examples=20, deadline=None)
@given(low=st.floats(-100, 100), width=st.floats(0.1, 1000))
def test_severity_is_relative_to_the_range(kind, low, width):
    unit = (IMAGES[:20].astype(np.float64) - IMAGES[:20].min()) / np.ptp(IMAGES[:20])
    scaled = low + width * unit
    one, other = (Suite.of(images, "image").corrupt(images, kind, 3, seed=1) for images in (unit, scaled))
    np.testing.assert_allclose((other - low) / width, one, atol=1e-9 * (1 + abs(low) / width))


@pytest.mark.parametrize("kind", KINDS["table"])
def test_severity_is_relative_to_each_feature(kind):
    units = np.array([1.0, 1000.0, 1.0, 0.01, 1.0])
    one, other = (Suite.of(rows, "table").corrupt(rows, kind, 3, seed=1) for rows in (ROWS * 1.0, ROWS * units))
    np.testing.assert_allclose(other, one * units, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS["table"])
def test_a_constant_feature_changes_only_by_its_unit(kind):
    changed = SUITES["table"].corrupt(ROWS, kind, 5, seed=0)[:, 2]
    assert np.array_equal(changed, ROWS[:, 2]) == (kind != "unit")


@pytest.mark.parametrize(("data", "kind"), RANDOM)
def test_seed_and_severity_change_the_draw(data, kind):
    def touched(seed, severity):
        changed = SUITES[data].corrupt(DATA[data], kind, severity, seed=seed)
        return changed != DATA[data] if data == "text" else np.sign(changed - DATA[data])

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


def test_unknown_names_and_severities():
    with pytest.raises(ConfigurationError, match="did you mean occlusion"):
        SUITES["image"].corrupt(IMAGES, "oclusion", 3, seed=0)
    with pytest.raises(ConfigurationError, match=r"kind table.*choose one of column_loss"):
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
    assert len(parts) == 60 and np.array_equal(np.concatenate([IMAGES[part] for part in parts]), IMAGES)


@every_kind
def test_examples_are_corrupted_a_few_at_a_time_to_the_same_bits(data, kind, monkeypatch):
    inputs = DATA[data][:50]
    whole = SUITES[data].corrupt(inputs, kind, 4, seed=5)
    for values in (1, 500):
        monkeypatch.setattr(catalogue, "_CACHED_VALUES", values)
        assert np.array_equal(SUITES[data].corrupt(inputs, kind, 4, seed=5), whole)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_is_the_gaussian_filter_written_out(severity):
    sigma = CORRUPTIONS["image"]["blur"].amounts[severity - 1] * 8
    expected = gaussian_filter(IMAGES.astype(float), (0, 0, sigma, sigma), mode="nearest")
    np.testing.assert_allclose(
        SUITES["image"].corrupt(IMAGES, "blur", severity, seed=0), expected, rtol=1e-5, atol=1e-5
    )


def test_zoom_is_the_mean_of_matrices_that_read_between_the_pixels():
    images, centre = IMAGES.astype(float), 3.5
    total = np.zeros_like(images)
    factors = 1 + 0.36 * np.arange(3) / 2
    for factor in factors:
        matrix = interpolation(centre + (np.arange(8) - centre) / factor, 8)
        total += matrix @ images @ matrix.T
    np.testing.assert_allclose(SUITES["image"].corrupt(IMAGES, "zoom", 5, seed=0), total / 3, rtol=1e-5, atol=1e-5)


def test_constant_images_and_single_rows():
    flat = np.zeros((3, 3, 8, 8))
    row = np.ones((1, 3))
    assert all(not Suite.of(flat, "image").corrupt(flat, kind, 5, seed=0).any() for kind in KINDS["image"])
    rows = Suite.of(row, "table")
    kinds = [kind for kind in KINDS["table"] if rows.unfit(kind) is None]
    assert all(np.isfinite(rows.corrupt(row, kind, 5, seed=0)).all() for kind in kinds)
    assert set(KINDS["table"]) - set(kinds) == {"swap"}
    assert Range.of(flat).width == 0 and Draws(0, "s", np.arange(0)).uniforms(3).shape == (0, 3)


@pytest.mark.parametrize("data", KINDS)
def test_defaults_are_known_and_apply_to_any_data_of_their_kind(data):
    assert set(DEFAULT_KINDS[data]) <= set(KINDS[data])
    assert all(CORRUPTIONS[data][kind].needs(SUITES[data].scale) is None for kind in DEFAULT_KINDS[data])
    assert all(CORRUPTIONS[data][kind].summary.endswith(".") for kind in KINDS[data])


@pytest.mark.parametrize(
    ("data", "kind"), [("image", "rotate"), ("image", "blur"), ("table", "unit"), ("series", "warp"), ("text", "typos")]
)
def test_calibrated_severities_have_the_same_effect_whatever_the_kind(data, kind):
    inputs = sample(data)
    suite = Suite.of(inputs, data).calibrated(inputs, (kind,), seed=0)
    effects = [effect(suite.changes(inputs, suite.corrupt(inputs, kind, s, seed=0))) for s in (1, 2, 3)]
    assert effects == pytest.approx(EFFECTS[:3], rel=0.25, abs=0.02)


@pytest.mark.parametrize("order", ["last", "none"])
def test_channels_are_where_they_are_said_to_be(order):
    first = IMAGES[:20] if order == "last" else IMAGES[:20, :1]
    other = np.moveaxis(first, 1, 3) if order == "last" else first[:, 0]
    one, two = Suite.of(first, "image"), Suite.of(other, "image")
    assert one.told["channels"] == "first (inferred)" and two.told["channels"] == f"{order} (inferred)"
    assert Suite.of(other, "image", channels=order).told["channels"] == order
    for kind in ("noise", "saturate", "rotate", "jpeg"):
        if kind == "saturate" and order == "none":
            continue
        expected, found = one.corrupt(first, kind, 4, seed=1), two.corrupt(other, kind, 4, seed=1)
        assert np.array_equal(np.moveaxis(expected, 1, 3) if order == "last" else expected[:, 0], found)
        assert found.shape == other.shape


def test_what_does_not_fit_is_said():
    grey = Suite.of(IMAGES[:, :1], "image")
    assert "1 channel" in grey.unfit("saturate") and grey.unfit("noise") is None
    with pytest.raises(ConfigurationError, match=r"saturate has a meaning.*1 channel"):
        grey.corrupt(IMAGES[:, :1], "saturate", 3, seed=0)
    for arguments, words in [
        ((IMAGES, "picture"), "a kind of data, got 'picture'"),
        ((ROWS, "image"), r"images, got inputs of shape \(1500, 5\)"),
        ((ROWS, "series"), r"series of numbers \(n, channels, time\)"),
        ((IMAGES, "table"), r"table of numbers \(n, features\)"),
        ((ROWS.astype(int), "text"), "no tokenizer"),
        ((ROWS, "text"), "texts"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            Suite.of(*arguments)
    with pytest.raises(ConfigurationError, match="channels first, got"):
        Suite.of(np.moveaxis(IMAGES, 1, 3), "image", channels="first")
