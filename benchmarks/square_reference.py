"""The square attack as Andriushchenko et al. (2020) publish it, example by example: what ours must not lose to.

Written from the paper's algorithms 1 to 3 and its schedule, in plain NumPy, one example after the other where that is
simplest. It is slow, and nobody's optimisation.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["square_l2", "square_linf"]

Array = NDArray[np.float64]
Margin = Callable[[Array, NDArray[np.int64]], Array]
"""How far the best wrong class is ahead of the label, ``(k,)``: of inputs ``(k, c, h, w)``, those of these examples."""

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the share of moved pixels halves."""


def _share(first: float, query: int, queries: int) -> float:
    return first / 2.0 ** sum(int(query / queries * 10_000) > after for after in _HALVINGS)


def square_linf(
    margin: Margin,
    inputs: Array,
    *,
    epsilon: float,
    limits: tuple[float, float],
    queries: int,
    seed: int,
    first: float = 0.8,
) -> NDArray[np.bool_]:
    """Which examples ``(n, c, h, w)`` it fools within max |δ| ≤ ε and so many queries, ``(n,)``."""
    source, (n, c, h, w) = np.random.default_rng(seed), inputs.shape
    best = np.clip(inputs + epsilon * source.choice([-1.0, 1.0], (n, c, 1, w)), *limits)
    ahead = margin(best, np.arange(n))
    for query in range(queries - 1):
        alive = np.flatnonzero(ahead <= 0)
        if not len(alive):
            break
        side = int(np.clip(round(np.sqrt(_share(first, query, queries) * h * w)), 1, h - 1))
        tried = best[alive].copy()
        for row, image in enumerate(alive):
            top, left = source.integers(0, h - side), source.integers(0, w - side)
            window = (slice(None), slice(top, top + side), slice(left, left + side))
            before = best[image][window]
            for _ in range(100):  # until it changes anything
                signs = source.choice([-1.0, 1.0], (c, 1, 1))
                after = np.clip(inputs[image][window] + epsilon * signs, *limits)
                if (np.abs(after - before) >= 1e-7).any():
                    break
            tried[row][window] = after
        found = margin(tried, alive)
        better = found > ahead[alive]
        best[alive[better]], ahead[alive[better]] = tried[better], found[better]
    return np.asarray(ahead > 0)


def square_l2(
    margin: Margin,
    inputs: Array,
    *,
    epsilon: float,
    limits: tuple[float, float],
    queries: int,
    seed: int,
    first: float = 0.1,
) -> NDArray[np.bool_]:
    """Which examples it fools within ‖δ‖₂ ≤ ε."""
    source, (n, _, _, _) = np.random.default_rng(seed), inputs.shape
    begun = np.stack([_tiles(one.shape, source) for one in inputs])
    best = np.clip(inputs + epsilon * begun / _norm(begun), *limits)
    ahead = margin(best, np.arange(n))
    for query in range(queries - 1):
        alive = np.flatnonzero(ahead <= 0)
        if not len(alive):
            break
        share = _share(first, query, queries)
        moved = np.stack([_transferred(best[i] - inputs[i], share, epsilon, source) for i in alive])
        tried = np.clip(inputs[alive] + epsilon * moved / np.maximum(_norm(moved), 1e-12), *limits)
        found = margin(tried, alive)
        better = found > ahead[alive]
        best[alive[better]], ahead[alive[better]] = tried[better], found[better]
    return np.asarray(ahead > 0)


def _norm(deltas: Array) -> Array:
    return np.sqrt(np.square(deltas).sum(axis=(1, 2, 3), keepdims=True))


def _tiles(shape: tuple[int, ...], source: np.random.Generator) -> Array:
    """A grid of five by five double bumps, each of one random sign a channel."""
    channels, height, width = shape
    side, delta = max(1, height // 5), np.zeros(shape)
    start = (height - 5 * side) // 2
    for top in range(start, height - side + 1, side):
        for left in range(start, width - side + 1, side):
            signs = source.choice([-1.0, 1.0], (channels, 1, 1))
            delta[:, top : top + side, left : left + side] += _double_bump(side, source) * signs
    return delta


def _transferred(delta: Array, share: float, epsilon: float, source: np.random.Generator) -> Array:
    """The change with one window emptied into another."""
    channels, height, width = delta.shape
    side = max(3, round(np.sqrt(share * height * width)))
    side = min(side + (side % 2 == 0), min(height, width) - 1)
    to, off = (_window(height, width, side, source) for _ in range(2))
    both = np.zeros((height, width), dtype=bool)
    both[to[1:]], both[off[1:]] = True, True
    spare = max(epsilon**2 - float(np.square(delta).sum()), 0.0) / channels
    length = np.sqrt(spare + np.square(delta * both).sum(axis=(1, 2), keepdims=True))
    here = np.sqrt(np.square(delta[to]).sum(axis=(1, 2), keepdims=True))
    fresh = _double_bump(side, source) * source.choice([-1.0, 1.0], (channels, 1, 1)) + delta[to] / (1e-10 + here)
    fresh *= length / np.maximum(np.sqrt(np.square(fresh).sum(axis=(1, 2), keepdims=True)), 1e-12)
    moved = delta.copy()
    moved[off] = 0.0
    moved[to] = fresh
    return moved


def _window(height: int, width: int, side: int, source: np.random.Generator) -> tuple[slice, slice, slice]:
    top, left = int(source.integers(0, height - side)), int(source.integers(0, width - side))
    return slice(None), slice(top, top + side), slice(left, left + side)


def _bump(height: int, width: int) -> Array:
    """A sum of nested rectangles of heights 1, 1/4, 1/9, …, of length 1."""
    delta = np.zeros((height, width))
    middle, centre = height // 2, width // 2
    for ring in range(max(middle, centre) + 1):
        rows, columns = (slice(max(0, at - ring), at + ring + 1) for at in (middle, centre))
        delta[rows, columns] += 1 / (ring + 1) ** 2
    return delta / np.linalg.norm(delta)


def _double_bump(side: int, source: np.random.Generator) -> Array:
    """Two bumps of opposite sign, above each other or side by side."""
    if side == 1:
        return np.ones((1, 1))
    delta = np.concatenate([_bump(side // 2, side), -_bump(side - side // 2, side)])
    delta /= np.linalg.norm(delta)
    return delta.T if source.random() > 0.5 else delta
