"""Attacks on models that only answer: try a perturbation, keep it where the answer gets worse.

Images: the square attack (Andriushchenko et al. 2020). Everything else: a random search of values. Where half of the
queries are enough for it, both begin at the best point that slopes promise, those of every value over the whole radius
(finite differences, which small steps and rounding inside the model do not hide); on a linear model that is exact.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

from flataudit.attacks.proposals import coordinates, share_moved, squares, stripes
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Ball, Region
from flataudit.attacks.victims import Cases, Judged, Victims
from flataudit.contracts import Predictor
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.scale import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Proposals", "farthest", "search"]

Proposals = Literal["square", "coordinate"]

_FIRST_SHARE = {"square": 0.8, "coordinate": 0.5}


def search(
    model: Predictor,
    victims: Victims,
    region: Region,
    *,
    seed: int,
    proposals: Proposals,
    queries: int,
    purse: Purse,
) -> "NDArray[np.bool_]":
    """Which examples a gradient-free attack fools with so many answers each, ``(n,)``.

    An example is out of all further queries once it is fooled. Where the purse is empty, those not reached are False.
    """
    fooled = np.zeros(len(victims), dtype=bool)
    for block in blocks(victims.inputs) if len(victims) else ():
        part = np.arange(block.start, block.stop)
        hunt = _Hunt(model, victims.only(part), region, seed, purse)
        fooled[part] = hunt.run(proposals, queries)
    return fooled


def farthest(
    model: Predictor, cases: Cases, region: Region, *, seed: int, proposals: Proposals, queries: int, purse: Purse
) -> "NDArray[np.float64]":
    """The largest |answer − target| that the same attack finds for a regression, ``(n,)``; at least the clean one."""
    found = np.abs(cases.answers - cases.targets)
    for block in blocks(cases.inputs) if len(cases) else ():
        part = np.arange(block.start, block.stop)
        hunt = _Hunt(model, cases.only(part), region, seed, purse)
        hunt.run(proposals, queries)
        found[part] = np.maximum(found[part], hunt.highest)
    return found


class _Hunt:
    """One block; its examples are left alone once they are done."""

    def __init__(self, model: Predictor, victims: Victims | Cases, region: Region, seed: int, purse: Purse) -> None:
        self._model, self._victims, self._seed, self._purse = model, victims, seed, purse
        self._ball = region.around(victims.inputs)
        self._clean = victims.judged(victims.answers, np.arange(len(victims)))
        self._z, self._best = self._ball.still(), self._clean.height.copy()
        self._fooled = np.zeros(len(victims), dtype=bool)
        self.highest = self._best.copy()
        """``(n,)``, of all points that were tried."""

    def run(self, proposals: Proposals, queries: int) -> "NDArray[np.bool_]":
        size, spent = self._z[0].size, 1
        if size + 1 <= queries // 2:
            spent += size + self._promised(self._slopes())
        elif proposals == "square":
            self._start(stripes(self._z.shape[1:], self._ball.norm, self._draws("start")))
        else:
            self._start(self._ball.random(self._draws("start")))
        move = squares if proposals == "square" else coordinates
        for query in range(spent, queries):
            if self._fooled.all() or self._purse.empty():
                break
            share = share_moved(query, queries, _FIRST_SHARE[proposals])
            alive = np.flatnonzero(~self._fooled)
            draws = Draws(self._seed, f"search/{query}", self._victims.places[alive])
            self._try(alive, move(self._ball.only(alive), self._z[alive], share, draws))
        return self._fooled

    def _draws(self, stream: str) -> Draws:
        return Draws(self._seed, f"search/{stream}", self._victims.places)

    def _promised(self, slopes: "NDArray[np.float64]") -> int:
        """Move up the slopes; for values down too, and stay where it is worse. How many queries more than one."""
        self._start(self._ball.steepest(slopes))
        if isinstance(self._victims, Victims):
            return 0
        down = self._ball.inside(self._ball.steepest(-slopes))
        self._try(np.arange(len(self._victims)), down)
        return 1

    def _start(self, z: "NDArray[np.floating]") -> None:
        """Move there, for better or worse."""
        alive = np.flatnonzero(~self._fooled)
        if len(alive) and not self._purse.empty():
            self._best[alive] = -np.inf
            self._try(alive, self._ball.only(alive).inside(z[alive]))

    def _try(self, alive: "NDArray[np.int64]", z: "NDArray[np.floating]") -> None:
        """One answer each; where it is not better for the model than before, the new z stays."""
        found = self._answered(alive, self._ball.only(alive), z)
        better = found.height >= self._best[alive]
        self._z[alive[better]], self._best[alive[better]] = z[better], found.height[better]

    def _slopes(self) -> "NDArray[np.float64]":
        """Change of the level over a whole radius along each value, on the side with more room, ``(n, …)``."""
        n, size = len(self._z), self._z[0].size
        slopes = np.zeros((n, size))
        for k in range(size):
            alive = np.flatnonzero(~self._fooled)
            if not len(alive) or self._purse.empty():
                break
            ball = self._ball.only(alive)
            z = _along(ball, k)
            risen = self._answered(alive, ball, z).level - self._clean.level[alive]
            length = z.reshape(len(z), -1)[:, k]
            slopes[alive, k] = np.divide(risen, length, out=np.zeros(len(z)), where=length != 0)
        return slopes.reshape(self._z.shape)

    def _answered(self, alive: "NDArray[np.int64]", ball: Ball, z: "NDArray[np.floating]") -> Judged:
        found = self._victims.judged(self._model.predict(ball.at(z)), alive)
        self._fooled[alive[found.done]] = True
        self.highest[alive] = np.fmax(self.highest[alive], found.height)
        return found


def _along(ball: Ball, k: int) -> "NDArray[np.floating]":
    """A whole radius along the k-th value, up or down."""
    z = ball.still()
    low, high, moved = (array.reshape(len(z), -1) for array in (ball.low, ball.high, z))
    moved[:, k] = np.where(high[:, k] >= -low[:, k], np.minimum(high[:, k], 1), np.maximum(low[:, k], -1))
    return z
