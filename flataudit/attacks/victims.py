"""The examples that an attack is tried on, and when it has succeeded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cases", "Judged", "Victims", "margins", "wrong"]

_FLOOR = -1e6
"""Logarithms of probabilities below this count as this: of two infinities there is no difference."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What an attack makes of some answers, ``(k,)`` each."""

    done: "NDArray[np.bool_]"
    """It has succeeded, and needs no further one."""
    height: "NDArray[np.float64]"
    """How far it has come; higher is worse for the model."""
    level: "NDArray[np.float64]"
    """What has a slope in the input that leads there, up (or, for values, down)."""


@dataclass(frozen=True, eq=False)
class Victims:
    """Some examples with the model's clean answers."""

    inputs: "NDArray[np.generic]"
    """``(n, …)``."""
    labels: "NDArray[np.int64]"
    """``(n,)`` class numbers."""
    places: "NDArray[np.int64]"
    """``(n,)`` numbers in the data set: an example's random draws depend on them alone."""
    answers: "NDArray[np.float64]"
    """``(n, classes)`` log-probabilities of the inputs as they are."""

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, kept: "NDArray[np.bool_ | np.int64]") -> "Victims":
        """Some of them, by a mask or by numbers."""
        return Victims(self.inputs[kept], self.labels[kept], self.places[kept], self.answers[kept])

    def judged(self, answers: "NDArray[np.generic]", chosen: "NDArray[np.int64]") -> Judged:
        """Of the chosen ones; done where wrong."""
        labels = self.labels[chosen]
        ahead = margins(answers, labels)
        return Judged(wrong(answers, labels), ahead, ahead)

    def rivals(self) -> "NDArray[np.int64]":
        """The other classes of each example, the most probable first, ``(n, classes − 1)``.

        >>> answers = np.log([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])
        >>> Victims(np.zeros((2, 1)), np.array([0, 1]), np.arange(2), answers).rivals().tolist()
        [[2, 1], [0, 2]]
        """
        others = np.array(self.answers, copy=True)
        np.put_along_axis(others, self.labels[:, None], np.inf, axis=1)
        return np.argsort(-others, axis=1, kind="stable")[:, 1:]


@dataclass(frozen=True, eq=False)
class Cases:
    """The same for a regression: there is no wrong answer, only one that is farther off."""

    inputs: "NDArray[np.generic]"
    targets: "NDArray[np.float64]"
    """``(n,)`` values."""
    places: "NDArray[np.int64]"
    answers: "NDArray[np.float64]"
    """``(n,)`` values for the inputs as they are."""

    def __len__(self) -> int:
        return len(self.targets)

    def only(self, kept: "NDArray[np.bool_ | np.int64]") -> "Cases":
        """Some of them, by a mask or by numbers."""
        return Cases(self.inputs[kept], self.targets[kept], self.places[kept], self.answers[kept])

    def judged(self, answers: "NDArray[np.generic]", chosen: "NDArray[np.int64]") -> Judged:
        """Never done; the height is |answer − target|, infinite where the answer is not a number."""
        values = answers.astype(np.float64)
        error = np.abs(values - self.targets[chosen])
        return Judged(np.zeros(len(values), dtype=bool), np.where(np.isnan(error), np.inf, error), values)


def wrong(answers: "NDArray[np.generic]", labels: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """Whether the most probable class (the first of equals) is not the label, ``(n,)``; no number is no answer."""
    return np.asarray((np.argmax(answers, axis=1) != labels) | np.isnan(answers.astype(np.float64)).any(axis=1))


def margins(answers: "NDArray[np.generic]", labels: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """How far the best other class is ahead of the label, in log-probability, ``(n,)``; above 0 the answer is wrong.

    >>> margins(np.log([[0.5, 0.25], [0.5, 0.25]]), np.array([0, 1])).round(4).tolist()
    [-0.6931, 0.6931]
    """
    floored = np.maximum(np.nan_to_num(answers.astype(np.float64), nan=_FLOOR), _FLOOR)
    own = np.take_along_axis(floored, labels[:, None], axis=1)[:, 0]
    np.put_along_axis(floored, labels[:, None], -np.inf, axis=1)
    return np.asarray(floored.max(axis=1) - own)
