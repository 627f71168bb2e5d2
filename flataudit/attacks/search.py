"""Attacks on models that only answer: try a perturbation, keep it where the answer gets worse.

Images: the square attack (Andriushchenko et al. 2020). Everything else: the slope of every value over the whole radius
(a finite difference, which small steps and rounding inside the model do not hide), the best point that they promise,
then a random search from there; where there are more values than half the queries, the random search alone. On a
linear model the first part is exact.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

from flataudit.attacks.proposals import coordinates, share_moved, squares, stripes
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Ball, Region
from flataudit.attacks.victims import Victims, margins, wrong
from flataudit.contracts import Predictor
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.scale import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Proposals", "search"]

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


class _Hunt:
    """One block; shrinks as examples are done."""

    def __init__(self, model: Predictor, victims: Victims, region: Region, seed: int, purse: Purse) -> None:
        self._model, self._victims, self._seed, self._purse = model, victims, seed, purse
        self._ball = region.around(victims.inputs)
        self._z, self._best = self._ball.still(), margins(victims.answers, victims.labels)
        self._fooled = np.zeros(len(victims), dtype=bool)

    def run(self, proposals: Proposals, queries: int) -> "NDArray[np.bool_]":
        size, left = self._z[0].size, queries
        if proposals == "square":
            self._start(stripes(self._z.shape[1:], self._ball.norm, self._draws("start")))
            left -= 1
        elif size + 1 <= queries // 2:
            self._start(self._ball.steepest(self._slopes()))
            left -= size + 1
        else:
            self._start(self._ball.random(self._draws("start")))
            left -= 1
        move = squares if proposals == "square" else coordinates
        for query in range(left):
            if self._fooled.all() or self._purse.empty():
                break
            share = share_moved(query, left, _FIRST_SHARE[proposals])
            alive = np.flatnonzero(~self._fooled)
            draws = Draws(self._seed, f"search/{query}", self._victims.places[alive])
            self._try(alive, move(self._z[alive], share, self._ball.norm, draws))
        return self._fooled

    def _draws(self, stream: str) -> Draws:
        return Draws(self._seed, f"search/{stream}", self._victims.places)

    def _start(self, z: "NDArray[np.floating]") -> None:
        """Move there, for better or worse."""
        alive = np.flatnonzero(~self._fooled)
        if len(alive) and not self._purse.empty():
            self._best[alive] = -np.inf
            self._try(alive, z[alive])

    def _try(self, alive: "NDArray[np.int64]", z: "NDArray[np.floating]") -> None:
        """One answer each; where it is not better for the label than before, the new z stays."""
        ball = self._ball.only(alive)
        z = ball.inside(z)
        found, ahead = self._answered(alive, ball, z)
        better = ahead >= self._best[alive]
        self._z[alive[better]], self._best[alive[better]] = z[better], ahead[better]
        self._fooled[alive[found]] = True

    def _slopes(self) -> "NDArray[np.float64]":
        """Change of the margin over a whole radius along each value, on the side with more room, ``(n, …)``."""
        n, size = len(self._z), self._z[0].size
        slopes = np.zeros((n, size))
        for k in range(size):
            alive = np.flatnonzero(~self._fooled)
            if not len(alive) or self._purse.empty():
                break
            ball = self._ball.only(alive)
            z = _along(ball, k)
            found, ahead = self._answered(alive, ball, z)
            length = z.reshape(len(z), -1)[:, k]
            slopes[alive, k] = np.divide(ahead - self._best[alive], length, out=np.zeros(len(z)), where=length != 0)
            self._fooled[alive[found]] = True
        return slopes.reshape(self._z.shape)

    def _answered(
        self, alive: "NDArray[np.int64]", ball: Ball, z: "NDArray[np.floating]"
    ) -> "tuple[NDArray[np.bool_], NDArray[np.float64]]":
        answers, labels = self._model.predict(ball.at(z)), self._victims.labels[alive]
        return wrong(answers, labels), margins(answers, labels)


def _along(ball: Ball, k: int) -> "NDArray[np.floating]":
    """A whole radius along the k-th value, up or down."""
    z = ball.still()
    low, high, moved = (array.reshape(len(z), -1) for array in (ball.low, ball.high, z))
    moved[:, k] = np.where(high[:, k] >= -low[:, k], np.minimum(high[:, k], 1), np.maximum(low[:, k], -1))
    return z
