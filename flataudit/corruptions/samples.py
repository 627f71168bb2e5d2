"""Made-up inputs of each kind of data, on which corruptions are shown where nobody brings data."""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.sampling import smooth_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flataudit.corruptions.catalogue import DataKind

__all__ = ["sample"]

_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Delivery was late, but the staff were very helpful.",
    "Please reset my password and call me back today.",
    "Great sound, poor battery: would not buy it again.",
)


def sample(data_kind: "DataKind") -> "NDArray[np.generic]":
    """64 colour images of 32 × 32 pixels, 400 rows of five features, 64 series of two channels, or 64 texts."""
    makers = {"image": _images, "table": _table, "series": _series, "text": _texts}
    return makers[data_kind](np.random.default_rng(0))


def _images(generator: np.random.Generator) -> "NDArray[np.generic]":
    """A bright disc or square of some colour on a smooth dark ground."""
    centres = generator.uniform(11, 20, (2, 64, 1, 1))
    rows, columns = np.arange(32)[:, None] - centres[0], np.arange(32) - centres[1]
    disc = np.hypot(rows, columns) < 9
    square = np.maximum(np.abs(rows), np.abs(columns)) < 7
    shapes = np.where(np.arange(64)[:, None, None] % 2 == 0, disc, square)[:, None]
    ground = 60 + 20 * smooth_field(generator.normal(size=(64, 4, 4)), 32, 32)[:, None]
    colours = generator.uniform(120, 255, (64, 3, 1, 1))
    return np.clip(np.where(shapes, colours, ground), 0, 255).astype(np.uint8)


def _table(generator: np.random.Generator) -> "NDArray[np.generic]":
    """Length, price, a rate, a category and a count, in the order of time."""
    walk = 20 + np.cumsum(generator.normal(size=400))
    price, rate = generator.lognormal(3, 0.5, 400), generator.uniform(0, 1, 400)
    return np.stack([walk, price, rate, generator.integers(0, 5, 400), generator.poisson(7, 400)], axis=1)


def _series(generator: np.random.Generator) -> "NDArray[np.generic]":
    """Two channels of two waves each and a little noise."""
    time = np.arange(96) / 96
    phase, rate = generator.uniform(0, 2 * np.pi, (64, 2, 1)), generator.uniform(2, 4, (64, 2, 1))
    waves = np.sin(2 * np.pi * rate * time + phase) + 0.4 * np.sin(6 * np.pi * rate * time)
    return np.asarray(waves + 0.05 * generator.normal(size=waves.shape))


def _texts(generator: np.random.Generator) -> "NDArray[np.generic]":
    return np.array([_TEXTS[k % len(_TEXTS)] for k in range(64)])
