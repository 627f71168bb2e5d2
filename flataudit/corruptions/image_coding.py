"""Corruptions of images by how they are stored: fewer pixels, and JPEG's quantised frequencies.

The loss of a JPEG file is in the quantisation of its discrete cosine coefficients; all else in the format is lossless.
So the same arithmetic in numpy (ITU-T T.81, tables of its annex K, scaled as libjpeg scales them) makes the same
picture without an encoder. Chroma is not subsampled.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.ranges import Range

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["jpeg", "pixelate"]

_LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
_RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136286, -0.714136286], [1.0, 1.772, 0.0]])


def pixelate(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Means of square cells, one pixel plus this share of the width wide; nothing is random."""
    cell = 1 + amount * images.shape[3]
    rows, columns = (_cell_means(size, cell) for size in images.shape[2:])
    return np.asarray(np.matmul(np.matmul(rows, images), columns.T))


def _cell_means(size: int, cell: float) -> "NDArray[np.float64]":
    """The matrix that takes cell means along one axis and spreads them again; shared pixels get a weighted mean."""
    edges = np.arange(math.ceil(size / cell))[:, None] * cell
    pixels = np.arange(size)
    overlap = np.clip(np.minimum(pixels + 1, edges + cell) - np.maximum(pixels, edges), 0, 1)
    return np.asarray(overlap.T @ (overlap / overlap.sum(axis=1, keepdims=True)))


def jpeg(span: Range, images: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """JPEG compression with this quality, 100 (best) to 1; nothing is random.

    The range is taken for 0 to 255 and rounded, as the format stores samples of eight bits. At quality 100 every
    coefficient is rounded to a whole number.
    """
    if span.width == 0:
        return images.copy()
    levels = 255 * span.shares(images) - 128
    if images.shape[1] == 3:
        # Luma is centred by the subtraction of 128 and the two chroma planes by their own definition.
        levels = _mixed(levels, _YCBCR)
    tables = [_LUMINANCE] + [_CHROMINANCE] * (images.shape[1] - 1)
    steps = np.stack([_table(table, amount) for table in tables])[:, None, None]
    coefficients = _transformed(_blocks(np.rint(levels)), _cosines())
    changed = _transformed(steps * np.rint(coefficients / steps), _cosines().T)
    pixels = np.clip(np.rint(_joined(changed, images.shape)), -128, 127)
    if images.shape[1] == 3:
        pixels = _mixed(pixels, _RGB)
    return np.asarray(span.low + span.width * np.clip((pixels + 128) / 255, 0.0, 1.0))


def _mixed(images: "NDArray[np.float64]", matrix: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """New channels, each a weighted sum of the three."""
    return np.stack([sum(weight * images[:, k] for k, weight in enumerate(row)) for row in matrix], axis=1)


def _table(text: str, quality: float) -> "NDArray[np.float64]":
    """Steps of the 64 coefficients, ``(8, 8)``, at this quality."""
    base = np.array(text.split(), dtype=np.float64).reshape(8, 8)
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    return np.asarray(np.clip(np.floor((base * np.floor(percent) + 50) / 100), 1, 255))


def _cosines() -> "NDArray[np.float64]":
    """The orthonormal cosine transform of eight values."""
    k, i = np.arange(8)[:, None], np.arange(8)
    return np.asarray(np.cos(np.pi * k * (2 * i + 1) / 16) * np.where(k == 0, math.sqrt(0.125), 0.5))


def _blocks(images: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """``(n, channels, rows, columns, 8, 8)`` blocks; the border repeats up to a multiple of 8."""
    n, channels, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")
    return padded.reshape(n, channels, (height + 7) // 8, 8, (width + 7) // 8, 8).swapaxes(3, 4)


def _joined(blocks: "NDArray[np.float64]", shape: tuple[int, ...]) -> "NDArray[np.float64]":
    rows, columns = 8 * blocks.shape[2], 8 * blocks.shape[3]
    return blocks.swapaxes(3, 4).reshape(*shape[:2], rows, columns)[:, :, : shape[2], : shape[3]]


def _transformed(blocks: "NDArray[np.float64]", matrix: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The transform along both axes of every block.

    One matrix product an image and channel: a product over the whole batch would sum in an order that depends on its
    size.
    """
    shape = blocks.shape
    for _ in range(2):
        rows = np.ascontiguousarray(blocks).reshape(*shape[:2], -1, 8)
        blocks = np.matmul(rows, matrix.T).reshape(shape).swapaxes(4, 5)
    return blocks
