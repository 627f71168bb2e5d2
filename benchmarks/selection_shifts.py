"""The shifts by which choices are judged: of other kinds than the score's own corruptions, one strength a kind.

Images: rotation, zoom, stroke thickness, gamma, pixelation. Tables of weather by the hour: stale weather, a wrong
clock, a warm season, lost calendar marks, values of other rows. Each example has its own random strength. They were
fixed before anything was measured.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, grey_dilation, grey_erosion, zoom

__all__ = ["IMAGE_SHIFTS", "WEATHER_SHIFTS"]

Array = NDArray[np.float32]
Shift = Callable[[Array, np.random.Generator], Array]


def rotation(images: Array, source: np.random.Generator) -> Array:
    """By up to 25° either way."""
    angles = np.deg2rad(source.uniform(-25, 25, len(images)))
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    return _warped(images, turns)


def scale(images: Array, source: np.random.Generator) -> Array:
    """To 0.75 to 1.25 times the size, about the centre."""
    return _warped(images, [np.eye(2) / size for size in source.uniform(0.75, 1.25, len(images))])


def thickness(images: Array, source: np.random.Generator) -> Array:
    """Strokes thicker or thinner: up to 0.7 of the way to the dilation, or the erosion, by a plus of 3 pixels."""
    plus = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)[None, None]
    share = source.uniform(-0.7, 0.7, len(images))[:, None, None, None]
    wide, narrow = grey_dilation(images, footprint=plus), grey_erosion(images, footprint=plus)
    return np.where(share > 0, images + share * (wide - images), images - share * (narrow - images)).astype(np.float32)


def gamma(images: Array, source: np.random.Generator) -> Array:
    """Greys raised to a power from 1/3 to 3."""
    powers = 3.0 ** source.uniform(-1, 1, len(images))
    return (images ** powers[:, None, None, None]).astype(np.float32)


def pixelation(images: Array, source: np.random.Generator) -> Array:
    """Up to wholly replaced by the means of 2 × 2 pixels."""
    coarse = images.reshape(*images.shape[:2], images.shape[2] // 2, 2, images.shape[3] // 2, 2).mean(axis=(3, 5))
    blocks = zoom(coarse, (1, 1, 2, 2), order=0)
    share = source.uniform(0, 1, len(images))[:, None, None, None]
    return (images + share * (blocks - images)).astype(np.float32)


def _warped(images: Array, maps: list[NDArray[np.float64]]) -> Array:
    """Each image ``(1, h, w)`` under its own linear map about the centre, bilinear; outside is 0."""
    centre = (np.array(images.shape[2:]) - 1) / 2
    warped = [
        affine_transform(image[0], turn, centre - turn @ centre, order=1)[None]
        for image, turn in zip(images, maps, strict=True)
    ]
    return np.clip(np.stack(warped), 0, 1).astype(np.float32)


IMAGE_SHIFTS: Mapping[str, Shift] = {
    "rotation": rotation,
    "scale": scale,
    "thickness": thickness,
    "gamma": gamma,
    "pixelation": pixelation,
}
"""On images ``(n, 1, h, w)`` from 0 to 1."""

_HOUR, _CALENDAR, _WEATHER, _WARMTH = 2, [3, 5], [6, 7, 8, 9, 10], [7, 8]
"""Columns of the bicycle table: month, day, hr, holiday, weekday, workingday, weathersit, temp, atemp, hum, windspeed.
"""


def stale(rows: Array, source: np.random.Generator) -> Array:
    """The weather of 6 to 48 rows (hours) before; rows are in the order of time, the first take later ones."""
    before = np.arange(len(rows)) - source.integers(6, 49, len(rows))
    changed = rows.copy()
    changed[:, _WEATHER] = rows[np.abs(before)][:, _WEATHER]
    return changed


def clock(rows: Array, source: np.random.Generator) -> Array:
    """The hour off by one, either way."""
    changed = rows.copy()
    changed[:, _HOUR] = (rows[:, _HOUR] + source.choice([-1, 1], len(rows))) % 24
    return changed


def warm(rows: Array, source: np.random.Generator) -> Array:
    """Both temperatures up by 0 to 2 of their standard deviations, together."""
    changed, degrees = rows.copy(), source.uniform(0, 2, len(rows))[:, None]
    changed[:, _WARMTH] = rows[:, _WARMTH] + degrees * rows[:, _WARMTH].std(axis=0)
    return changed


def unmarked(rows: Array, source: np.random.Generator) -> Array:
    """Holiday and working day are lost (0) in every second row."""
    changed, lost = rows.copy(), source.random(len(rows)) < 0.5
    changed[np.ix_(lost, _CALENDAR)] = 0
    return changed


def mixed(rows: Array, source: np.random.Generator) -> Array:
    """One value in ten is that of another row."""
    others = np.stack([source.permutation(column) for column in rows.T], axis=1)
    return np.where(source.random(rows.shape) < 0.1, others, rows)


WEATHER_SHIFTS: Mapping[str, Shift] = {
    "stale weather": stale,
    "clock": clock,
    "warm": warm,
    "unmarked": unmarked,
    "mixed rows": mixed,
}
"""On raw rows ``(n, 11)`` of the bicycle table, in the order of time."""
