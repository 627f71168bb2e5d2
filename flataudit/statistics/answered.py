"""Every answer of a classifier by itself: one an example, one a label, or one a token.

Calibration asks of each answer whether its confidence is the chance that it is right. Answers of one example err
together, so each keeps the number of its example.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flataudit.specs import Task
from flataudit.statistics.correctness import correctness

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "answered"]


@dataclass(frozen=True, eq=False)
class Answered:
    """N answers of n examples."""

    log_probabilities: "NDArray[np.float64]"
    """``(N, classes)``; of a label that holds or not two: log(1 − p), log p."""
    labels: "NDArray[np.int64]"
    """``(N,)`` the class that was right."""
    units: "NDArray[np.int64] | None"
    """``(N,)`` the example of each answer; None: one answer an example."""
    examples: int
    """n, also those of which no answer counts."""
    marks: int | None = None
    """Labels an example, each to hold or not; None: classes exclude each other."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def confidences(self) -> "NDArray[np.float64]":
        """``(N,)`` probability of what was answered, at most 1."""
        return np.asarray(np.minimum(np.exp(np.max(self.log_probabilities, axis=1)), 1.0))

    @property
    def right(self) -> "NDArray[np.float64]":
        """``(N,)`` 1 where the most probable class (the first of equals) was right, else 0."""
        return np.asarray(np.argmax(self.log_probabilities, axis=1) == self.labels, dtype=np.float64)

    def columns(self) -> "Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]":
        """For each class, or each label, ``(N,)`` or ``(n,)``: its probability, and 1 where it held, else 0."""
        if self.marks is not None:
            positive = np.exp(self.log_probabilities[:, 1]).reshape(-1, self.marks)
            held = self.labels.reshape(-1, self.marks)
            for k in range(self.marks):
                yield positive[:, k], held[:, k].astype(np.float64)
            return
        for k in range(self.log_probabilities.shape[1]):
            yield np.exp(self.log_probabilities[:, k]), (self.labels == k).astype(np.float64)

    @property
    def column_units(self) -> "NDArray[np.int64] | None":
        """The example of each row of `columns`; None: one row an example."""
        return None if self.marks is not None else self.units


def answered(task: Task, predictions: "NDArray[np.float64]", targets: "NDArray[np.generic]") -> Answered:
    """The answers that count, in order.

    Args:
        task: of a classifier.
        predictions: log-probabilities ``(n, classes)``, ``(n, tokens, classes)`` or ``(n, labels)``.
        targets: class numbers ``(n,)`` or ``(n, tokens)``, −100 where none counts, or 0 and 1 ``(n, labels)``.

    Raises:
        ModelError: they do not fit each other.

    >>> found = answered("multilabel", np.log([[0.9, 0.25]]), np.array([[1, 1]]))
    >>> found.confidences.round(2).tolist(), found.right.tolist(), found.units.tolist()
    ([0.9, 0.75], [1.0, 0.0], [0, 0])
    """
    correctness(task, predictions, targets)  # refuses what does not fit, by name
    n, labels = len(predictions), np.asarray(targets).astype(np.int64)
    if task == "multilabel":
        positive = np.minimum(predictions, -np.finfo(np.float64).tiny).ravel()  # p = 1 has no finite log-odds
        both = np.stack([np.log(np.maximum(-np.expm1(positive), np.finfo(np.float64).tiny)), positive], axis=1)
        units = np.repeat(np.arange(n), predictions.shape[1])
        return Answered(both, labels.ravel(), units, n, predictions.shape[1])
    if labels.ndim == 1:
        return Answered(predictions, labels, None, n)
    counted = labels != -100
    return Answered(predictions[counted], labels[counted], np.nonzero(counted)[0], n)
