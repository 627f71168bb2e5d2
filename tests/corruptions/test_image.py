"""Closed forms of the corruptions of images, and independent makers of the same."""

import io
import math

import numpy as np
import pytest
from scipy import ndimage, stats

from flataudit.corruptions import image_blur, image_coding, image_light, image_noise, image_warp
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.poisson import counts
from flataudit.corruptions.ranges import Range
from flataudit.corruptions.sampling import along, bilinear, shifted, smooth_field

GENERATOR = np.random.default_rng(3)
UNIT = Range(0.0, 1.0, 1)
IMAGES = GENERATOR.random((12, 1, 16, 16))
DRAWS = Draws(0, "s/1", np.arange(12))


def test_translation_is_scipys_and_of_the_declared_length():
    images = GENERATOR.random((6, 2, 9, 12))
    by = np.array([0.0, 0.4, -0.4, 1.0, -2.3, 3.7])
    for axis in (2, 3):
        offsets = [[0, by[i] if axis == 2 else 0, by[i] if axis == 3 else 0] for i in range(6)]
        expected = np.stack([ndimage.shift(images[i], offsets[i], order=1, mode="nearest") for i in range(6)])
        np.testing.assert_allclose(shifted(images, by, axis), expected, atol=1e-12)
    ramp = np.tile(np.arange(40.0), (400, 1, 40, 1))
    moved = image_warp.translate(UNIT, ramp, Draws(0, "s/1", np.arange(400)), 0.05) - ramp
    inner = moved[:, 0, 20, 20]
    assert np.abs(inner).max() == pytest.approx(0.05 * 40, rel=0.01) and np.abs(inner.mean()) < 0.25


def test_whole_pixels_move_exactly():
    np.testing.assert_array_equal(shifted(IMAGES, np.full(12, 3.0), 3)[..., 3:], IMAGES[..., :-3])


def test_bilinear_is_map_coordinates():
    rows, columns = GENERATOR.uniform(-3, 19, (2, 12, 16, 16))
    expected = [
        ndimage.map_coordinates(IMAGES[i, 0], [rows[i], columns[i]], order=1, mode="nearest") for i in range(12)
    ]
    np.testing.assert_allclose(bilinear(IMAGES, rows, columns)[:, 0], expected, atol=1e-12)


def test_rotation_by_right_angles_and_of_a_symmetric_image():
    quarter = image_warp.rotate(UNIT, IMAGES, DRAWS, 90.0)
    for before, after in zip(IMAGES[:, 0], quarter[:, 0], strict=True):
        assert min(np.abs(after - np.rot90(before, k)).max() for k in (1, 3)) < 1e-12
    np.testing.assert_allclose(image_warp.rotate(UNIT, IMAGES, DRAWS, 180.0), IMAGES[:, :, ::-1, ::-1], atol=1e-12)
    radius = np.hypot(np.arange(41)[:, None] - 20, np.arange(41) - 20)
    round_ = np.exp(-((radius / 8) ** 2))[None, None].repeat(12, axis=0)
    turned = image_warp.rotate(UNIT, round_, DRAWS, 33.0)
    assert np.abs(turned - round_).max() < 0.01
    assert np.abs(image_warp.translate(UNIT, round_, DRAWS, 0.05) - round_).max() > 0.1


def test_shear_and_scale_of_a_plane_are_the_plane_sheared_and_scaled():
    rows, columns = np.arange(21)[:, None] - 10.0, np.arange(21) - 10.0
    plane = (3 * rows + columns)[None, None].repeat(12, axis=0)
    inner = (slice(None), 0, slice(6, 15), slice(6, 15))
    sheared = image_warp.shear(UNIT, plane, DRAWS, 0.2)[inner]
    both = [np.abs(sheared - (plane - sign * 0.2 * rows)[inner]).max(axis=(1, 2)) for sign in (-1, 1)]
    assert np.minimum(*both).max() < 1e-12 and np.maximum(*both).min() > 0.1
    scaled = image_warp.scale(UNIT, plane, DRAWS, 1.25)[inner]
    both = [np.abs(scaled - plane[inner] * factor).max(axis=(1, 2)) for factor in (1.25, 0.8)]
    assert np.minimum(*both).max() < 1e-12 and np.maximum(*both).min() > 0.1


def test_a_smooth_field_is_standard_normal_at_every_place():
    fields = smooth_field(GENERATOR.normal(size=(4000, 5, 5)), 12, 9)
    np.testing.assert_allclose(fields.std(axis=0), 1, atol=0.06)
    assert np.corrcoef(fields[:, 3, 3], fields[:, 3, 4])[0, 1] > 0.9


def test_elastic_displaces_by_the_declared_length():
    ramp = np.tile(np.arange(40.0), (2000, 1, 40, 1))
    moved = image_warp.elastic(UNIT, ramp, Draws(0, "s/1", np.arange(2000)), 0.03)[:, 0, 20, 20] - 20
    assert moved.std() == pytest.approx(0.03 * 40, rel=0.06)


def test_poisson_counts_are_poisson():
    for mean in (0.0, 0.3, 5.0, 11.9):
        drawn = GENERATOR.random(4000)
        np.testing.assert_array_equal(counts(np.full(4000, mean), drawn), stats.poisson.ppf(drawn, mean))
    for mean in (12.0, 40.0, 300.0):
        grid = (np.arange(200_000) + 0.5) / 200_000
        found = counts(np.full(len(grid), mean), grid)
        support = np.arange(int(mean * 3))
        shares = np.searchsorted(found, support, side="right") / len(grid)
        assert np.abs(shares - stats.poisson.cdf(support, mean)).max() < 0.003


def test_shot_noise_keeps_the_mean_and_has_the_variance_of_the_light():
    images = np.array([0.0, 0.25, 1.0]).repeat(20_000).reshape(1, 1, 3, 20_000)
    found = image_noise.shot(UNIT, images, Draws(0, "s/1", np.arange(1)), 0.2)[0, 0]
    np.testing.assert_allclose(found.mean(axis=1), [0, 0.25, 1], atol=0.006)
    np.testing.assert_allclose(found.var(axis=1), 0.2**2 * np.array([0, 0.25, 1]), rtol=0.04)


def _points(kind, amount, size=31):
    """The point spread function: what becomes of one bright pixel in the middle."""
    point = np.zeros((12, 1, size, size))
    point[:, :, size // 2, size // 2] = 1
    return kind(UNIT, point, DRAWS, amount)[:, 0]


@pytest.mark.parametrize("kind", [image_blur.defocus, image_blur.motion, image_blur.blur, image_blur.zoom])
def test_blurs_keep_the_light_and_a_constant_image(kind):
    if kind is not image_blur.zoom:
        np.testing.assert_allclose(_points(kind, 0.1).sum(axis=(1, 2)), 1, atol=1e-9)
    constant = np.full((12, 1, 16, 12), 0.3)
    np.testing.assert_allclose(kind(UNIT, constant, DRAWS, 0.2), constant, atol=1e-12)


def test_defocus_is_a_disc():
    radius = 4.5
    spread = _points(image_blur.defocus, (radius - 0.5) / 31)[0]
    rows, columns = np.arange(31)[:, None] - 15, np.arange(31) - 15
    far = np.hypot(rows, columns)
    assert (spread[far < radius - 1] == pytest.approx(spread[15, 15])) and not spread[far > radius + 1].any()
    variance = (spread * columns**2).sum()
    assert variance == pytest.approx(radius**2 / 4, rel=0.06)


def test_motion_is_a_line_of_the_declared_length():
    spread = _points(image_blur.motion, 10 / 31)
    rows, columns = np.arange(31)[:, None] - 15, np.arange(31)[None] - 15
    for one in spread:
        covariance = [[(one * a * b).sum() for a in (rows, columns)] for b in (rows, columns)]
        small, large = np.linalg.eigvalsh(covariance)
        assert large == pytest.approx(10**2 / 12, rel=0.15) and small < 0.4
    assert len({one.tobytes() for one in spread}) > 4


def test_zoom_of_a_plane_is_the_mean_of_its_zooms():
    plane = np.tile(np.arange(21.0) - 10, (1, 1, 21, 1))
    factors = np.linspace(1, 1.4, 1 + math.ceil(0.4 * 21 / 2))
    found = image_blur.zoom(UNIT, plane, Draws(0, "s/1", np.arange(1)), 0.4)
    np.testing.assert_allclose(found, plane * (1 / factors).mean(), atol=1e-12)


def test_light_in_closed_form():
    constant = np.full((12, 1, 8, 8), 0.5)
    brighter = image_light.brightness(UNIT, constant, DRAWS, 0.2)
    assert set(brighter.round(12).ravel()) == {0.3, 0.7}
    np.testing.assert_allclose(
        image_light.contrast(UNIT, IMAGES, DRAWS, 0.0), IMAGES.mean(axis=(1, 2, 3), keepdims=True) + 0 * IMAGES
    )
    wide = Range(-2.0, 6.0, 1)
    powered = (image_light.gamma(wide, -2 + 8 * IMAGES, DRAWS, 2.0) + 2) / 8
    both = [np.abs(powered - IMAGES**power).max(axis=(1, 2, 3)) for power in (2.0, 0.5)]
    assert np.minimum(*both).max() < 1e-12 and np.maximum(*both).min() > 0.01
    haze = image_light.fog(UNIT, IMAGES, DRAWS, 1.0)
    assert haze.min() >= 0.5 and haze.max() <= 1 and haze.std() > 0.05
    np.testing.assert_allclose(image_light.fog(UNIT, IMAGES, DRAWS, 0.3), 0.7 * IMAGES + 0.3 * haze)


def test_saturation_keeps_the_grey():
    images = GENERATOR.random((12, 3, 5, 5))
    found = image_light.saturate(UNIT, images, DRAWS, 1.0)
    grey = images.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.mean(axis=1, keepdims=True), grey)
    both = [np.abs(found - other).max(axis=(1, 2, 3)) for other in (grey + 0 * images, 2 * images - grey)]
    assert np.minimum(*both).max() < 1e-12 and np.maximum(*both).min() > 0.1


def test_pixelation_is_block_means():
    found = image_coding.pixelate(UNIT, IMAGES, DRAWS, 3 / 16)
    means = IMAGES.reshape(12, 1, 4, 4, 4, 4).mean(axis=(3, 5), keepdims=True)
    np.testing.assert_allclose(found, (means + np.zeros((1, 1, 1, 4, 1, 4))).reshape(IMAGES.shape), atol=1e-12)
    uneven = image_coding.pixelate(UNIT, IMAGES[..., :13], DRAWS, 0.3)
    assert uneven.shape == (12, 1, 16, 13) and 0 <= uneven.min() and uneven.max() <= 1


@pytest.mark.parametrize(("channels", "shape"), [(1, (24, 19)), (3, (17, 32))])
@pytest.mark.parametrize("quality", [100, 75, 25, 5])
def test_jpeg_is_pillows(channels, shape, quality):
    pillow = pytest.importorskip("PIL.Image")
    picture = ndimage.gaussian_filter(GENERATOR.normal(size=(*shape, channels)), (2, 2, 0))
    picture = np.rint(255 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)
    file = io.BytesIO()
    pillow.fromarray(picture[..., 0] if channels == 1 else picture).save(
        file, "JPEG", quality=quality, **({} if channels == 1 else {"subsampling": 0})
    )
    expected = np.asarray(pillow.open(file), dtype=float).reshape(*shape, channels)
    images = np.moveaxis(picture, 2, 0)[None].astype(float)
    found = np.moveaxis(image_coding.jpeg(Range(0.0, 255.0, channels), images, DRAWS, quality)[0], 0, 2)
    difference = np.abs(np.rint(found) - expected)
    # Pillow's transform is in whole numbers: a coefficient near a tie may fall on the other side.
    assert difference.mean() < 0.6 and (difference == 0).mean() > 0.65


def test_jpeg_at_quality_100_changes_next_to_nothing_and_a_flat_image_never():
    images = GENERATOR.integers(0, 256, (4, 1, 24, 24)).astype(float)
    found = image_coding.jpeg(Range(0.0, 255.0, 1), images, Draws(0, "s/1", np.arange(4)), 100.0)
    # 64 rounding errors of variance 1/12 under an orthonormal transform, rounded again to whole levels.
    assert (found - images).std() == pytest.approx(math.sqrt(2 * stats.norm.sf(0.5 * math.sqrt(12))), rel=0.06)
    flat = np.full((1, 1, 16, 16), 128.0)
    np.testing.assert_allclose(
        image_coding.jpeg(Range(0.0, 255.0, 1), flat, Draws(0, "s/1", np.arange(1)), 5.0), flat, atol=1e-9
    )


def test_along_takes_a_single_value():
    assert along(np.array([[4.0]]), np.array([[0.7]]), 1).tolist() == [[4.0]]
