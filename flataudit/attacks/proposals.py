"""What a gradient-free attack tries next: squares of an image, or some values of a table.

A proposal takes z ``(n, …)`` and gives another in the ball; the attack keeps it where the answer gets worse. All are in
units of the ball (`flataudit.attacks.region`), so that L∞ is |z| ≤ 1 and L2 is ‖z‖ ≤ 1. A point of the border that is
proposed again, as half of all signs would, tells nothing: the opposite signs are tried instead.
"""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.attacks.region import Ball, Norm, lengths
from flataudit.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["coordinates", "share_moved", "squares", "stripes"]

_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which half as many values move (Andriushchenko et al. 2020)."""


def share_moved(query: int, queries: int, first: float) -> float:
    """Share of an input's values that one proposal moves: ``first``, and ever fewer.

    >>> [share_moved(query, 100, 0.8) for query in (0, 1, 50)]
    [0.8, 0.2, 0.00625]
    """
    return first * 0.5 ** sum(query / queries > after for after in _HALVINGS)


def stripes(shape: tuple[int, ...], norm: Norm, draws: Draws) -> "NDArray[np.float64]":
    """Columns of one random sign a channel, as long as the ball allows; ``(n, channels, height, width)``."""
    signs = np.where(draws.uniforms(shape[0] * shape[2]) < 0.5, -1.0, 1.0)
    z = np.broadcast_to(signs.reshape(-1, shape[0], 1, shape[2]), (len(signs), *shape))
    return np.asarray(z if norm == "linf" else z / lengths(z))


def squares(ball: Ball, z: "NDArray[np.floating]", share: float, draws: Draws) -> "NDArray[np.floating]":
    """A square somewhere of one random sign a channel (Andriushchenko et al. 2020).

    In the L∞ ball its values are at the border. In the L2 ball it is added at half the radius, and all is drawn to
    the border: simpler than the published proposal, and about as strong (`benchmarks/attack_parity.py`).
    """
    n, channels, height, width = z.shape
    side = int(np.clip(round(np.sqrt(share * height * width)), 1, min(height, width)))
    drawn = draws.uniforms(2 + channels)
    rows, columns = (_covered(drawn[:, k] * (size - side + 1), side, size) for k, size in enumerate((height, width)))
    mask = (rows[:, :, None] & columns[:, None, :])[:, None]
    signs = np.where(drawn[:, 2:] < 0.5, -1.0, 1.0).reshape(n, channels, 1, 1)
    if ball.norm == "linf":
        return _either(ball, z, np.where(mask, signs, z), np.where(mask, -signs, z))
    moved = z + mask * signs * (0.5 / (side * np.sqrt(channels)))
    return ball.inside(moved / lengths(moved))


def _either(
    ball: Ball, z: "NDArray[np.floating]", one: "NDArray[np.floating]", other: "NDArray[np.floating]"
) -> "NDArray[np.floating]":
    """The first of two proposals, where it is another point than z in the ball; else the second."""
    moved = ball.inside(one)
    same = (moved == z).reshape(len(z), -1).all(axis=1)
    moved[same] = ball.only(same).inside(other[same])
    return moved


def _covered(start: "NDArray[np.float64]", side: int, size: int) -> "NDArray[np.bool_]":
    """Which of ``size`` pixels lie in the square, ``(n, size)``."""
    pixels, first = np.arange(size), np.floor(start)[:, None]
    return np.asarray((pixels >= first) & (pixels < first + side))


def coordinates(ball: Ball, z: "NDArray[np.floating]", share: float, draws: Draws) -> "NDArray[np.floating]":
    """Some values anew, at least one; every other example's at the border, or anywhere for what has steps inside.

    In the L∞ ball the new values are ±1, or uniform between; in the L2 ball Gaussian moves are added.
    """
    n, size = len(z), z[0].size
    drawn = draws.uniforms(2 * size + 2)
    chosen = drawn[:, :size] < share
    chosen[np.arange(n), (drawn[:, -1] * size).astype(np.int64)] = True
    fresh, flat = 2 * drawn[:, size : 2 * size] - 1, z.reshape(n, -1)
    if ball.norm == "linf":
        fresh = np.where(drawn[:, -2:-1] < 0.5, np.where(fresh < 0, -1.0, 1.0), fresh)
        one, other = (np.where(chosen, new, flat).reshape(z.shape) for new in (fresh, -fresh))
        return _either(ball, z, one, other)
    length = np.where(drawn[:, -2:-1] < 0.5, 0.1, 0.5) / np.sqrt(np.maximum(share * size, 1))
    return ball.inside((flat + chosen * fresh * length * np.sqrt(3)).reshape(z.shape))
