"""How steeply a model's answers can change near each input: the steepest chord that a search of few answers finds.

For every example a lower bound of its local Lipschitz constant sup ‖f(x + δ) − f(x)‖₂ / ‖δ/s‖₂ over ‖δ/s‖₂ ≤ r (Wood
and Zhang 1996; Weng et al. 2018), by a chord of length r whose two ends the model has answered. Models that only answer
are asked along a few directions at right angles, and once more along the mixture of these that changes f most: the
first right singular vector of what they told. Where there are as many directions as values that move, that is the
spectral norm of a linear map, exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from flataudit.attacks.region import Room
from flataudit.contracts import Predictor
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.scale import blocks
from flataudit.specs import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Chords", "Vanished", "outputs_of", "sampled_slopes"]

_SMALLEST = -69.0
"""Logarithms of probabilities that count as 0: backends write 1e-30 for it."""
_LARGEST_BLOCK = 2**21


class Vanished(Exception):
    """The model answers probabilities of 0, whose logarithm can change by any amount: there is no slope to find."""


@dataclass(frozen=True, eq=False)
class Chords:
    """Where the ends of the chords may lie."""

    room: Room
    """The unit s of each value; what has none does not move."""
    radius: float
    """r of the whole input, in units of s."""
    moves: "NDArray[np.bool_]"
    """Which values of an input move, ``(values,)``."""

    @classmethod
    def of(cls, room: Room, share: float, shape: tuple[int, ...]) -> "Chords":
        """With r = share √(values that move): a root mean square change of the share in each."""
        moves = np.broadcast_to(room.scale, shape).reshape(-1) > 0
        return cls(room, share * float(np.sqrt(moves.sum())), moves)

    def scale(self, shape: tuple[int, ...]) -> "NDArray[np.float64]":
        """S of every value of an input, ``(values,)``."""
        return np.broadcast_to(self.room.scale, shape).reshape(-1)


def outputs_of(task: Task, answers: "NDArray[np.generic]") -> "NDArray[np.float64]":
    """What is to change: ``(n, outputs)`` from log-probabilities or values.

    Of classes the logits without their mean, which log-probabilities give as well, so that models pair whatever they
    return; of several labels the log-odds; of a regression the values.

    Raises:
        Vanished: a probability is 0.

    >>> outputs_of("multiclass", np.log([[0.8, 0.2]])).round(4).tolist()
    [[0.6931, -0.6931]]
    """
    found = answers.astype(np.float64)
    if task == "regression":
        return found.reshape(len(found), -1)
    if (found < _SMALLEST).any() or (task == "multilabel" and (found >= 0).any()):
        raise Vanished
    if task == "multilabel":
        return np.asarray(found - np.log(-np.expm1(found)))
    return np.asarray(found - found.mean(axis=-1, keepdims=True)).reshape(len(found), -1)


def sampled_slopes(
    model: Predictor,
    inputs: "NDArray[np.generic]",
    places: "NDArray[np.int64]",
    chords: Chords,
    *,
    seed: int,
    directions: int,
    may_go_on: Callable[[], bool],
) -> "NDArray[np.float64] | None":
    """The steepest chord of each example found by answers alone, ``(n,)``; None where it may not go on.

    It takes ``directions`` + 2 forward passes, fewer where fewer values move.

    Args:
        model: any that answers.
        inputs: ``(n, …)`` in floating point, without gaps.
        places: ``(n,)`` numbers of the inputs in their data set, on which their directions depend.
        chords: how long they are.
        seed: of the directions.
        directions: at right angles, for each example its own.
        may_go_on: asked before each forward pass.

    Raises:
        Vanished: a probability is 0.
    """
    count = min(directions, int(chords.moves.sum()))
    found = []
    for block in blocks(inputs, _LARGEST_BLOCK // (count + 1)):
        probe = _Sampling(model, inputs[block], chords, Draws(seed, "slopes/directions", places[block]))
        slopes = probe.steepest(count, may_go_on)
        if slopes is None:
            return None
        found.append(slopes)
    return np.concatenate(found)


class _Sampling:
    """A block of examples, and what is known of them."""

    def __init__(self, model: Predictor, inputs: "NDArray[np.generic]", chords: Chords, draws: Draws) -> None:
        self._model, self._inputs, self._chords, self._draws = model, inputs.astype(np.float64), chords, draws
        self._dtype, self._scale = inputs.dtype, chords.scale(inputs.shape[1:])
        self._clean = outputs_of(model.task, model.predict(inputs))

    def steepest(self, count: int, may_go_on: Callable[[], bool]) -> "NDArray[np.float64] | None":
        frame, told, best = self._frame(count), [], np.zeros(len(self._inputs))
        for place in range(count):
            if not may_go_on():
                return None
            change, slopes = self._asked(frame[:, :, place])
            told.append(change)
            best = np.maximum(best, slopes)
        if not may_go_on():
            return None
        # What is no number stays one in `best`; a decomposition would not end.
        known = np.nan_to_num(np.stack(told, axis=1), posinf=0.0, neginf=0.0)
        mixture = np.linalg.svd(known, full_matrices=False)[0][:, :, 0]
        return np.maximum(best, self._asked(np.einsum("ndk,nk->nd", frame, mixture))[1])

    def _frame(self, count: int) -> "NDArray[np.float64]":
        """Directions of length 1 at right angles, ``(n, values that move, count)``."""
        n, moving = len(self._inputs), int(self._chords.moves.sum())
        drawn = self._draws.normals(moving * count).reshape(n, moving, count)
        return cast("NDArray[np.float64]", np.linalg.qr(drawn)[0])

    def _asked(self, directions: "NDArray[np.float64]") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """Change of the outputs ``(n, outputs)`` and slope of each example, along directions of length 1."""
        n, moves = len(directions), self._chords.moves
        steps = np.zeros((n, len(moves)))
        steps[:, moves] = self._chords.radius * directions * self._scale[moves]
        moved = (self._inputs + steps.reshape(self._inputs.shape)).astype(self._dtype)
        # What was answered is the rounded input: its distance counts.
        taken = (moved.astype(np.float64) - self._inputs).reshape(n, -1)[:, moves] / self._scale[moves]
        change = outputs_of(self._model.task, self._model.predict(moved)) - self._clean
        length = np.linalg.norm(taken, axis=1)
        slopes = np.divide(np.linalg.norm(change, axis=1), length, out=np.zeros(n), where=length > 0)
        return change, slopes
