"""Whether a classifier's columns are the data's classes, in their order, as its answers tell it."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from flataudit.errors import ModelError

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

    Labels = NDArray[generic] | None
    Table = NDArray[np.int64]

__all__ = ["refuse_exchanged_classes", "refuse_other_numbers"]

_LEAST = 16
"""Examples of the classes in question below which answers alone say nothing of the order."""
_LEAST_AGAIN = 8
"""Those of them that are not the first of their class."""
_RIGHT, _WRONG = 0.8, 0.1
_DRAWS = 200


def refuse_other_numbers(answers: "NDArray[generic]", targets: "Labels") -> None:
    """Refuse targets that count the classes from 1 where the model's columns count from 0.

    Args:
        answers: log-probabilities ``(n, classes)``.
        targets: of the same examples.

    Raises:
        ModelError: the targets have no 0 and a number that is the number of columns.
    """
    columns = answers.shape[-1]
    if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iu" or int(targets.min()) == 0:
        return
    if int(targets.max()) != columns:
        return
    listed = ", ".join(map(str, range(1, columns + 1))) if columns <= 8 else f"1, …, {columns}"
    remedy = f"list the classes with the data, in the order of the columns: `classes: [{listed}]`"
    expected = f"class numbers from 0 to {columns - 1}, one for each of the model's {columns} columns"
    raise ModelError(expected, got=f"class {columns} and no class 0 in the targets", remedy=remedy)


def refuse_exchanged_classes(answers: "NDArray[generic]", targets: "Labels") -> None:
    """Refuse a classifier that answers some classes by each other's names, nearly always.

    The order that fits best is found by the Hungarian method on the confusion table (Kuhn 1955). What it moves must be
    right in 8 of 10 examples where the present order is right in at most one of 10. That alone is no sign: with many
    classes and few examples some order fits whatever is answered. So it must also be right in 8 of 10 of those examples
    that are not the first of their class, and more often than in any of 200 draws in which the same answers belong to
    other examples (a permutation test, p < 0.005). A model that has learned nothing, or always gives the same answer,
    passes.

    Args:
        answers: log-probabilities ``(n, classes)``.
        targets: class numbers ``(n,)``.

    Raises:
        ModelError: with the order that would be right.

    >>> answers = np.log(np.eye(3)[np.arange(60) % 3] * 0.9 + 0.03)
    >>> refuse_exchanged_classes(answers, np.arange(60) % 3)
    >>> refuse_exchanged_classes(answers[:, [1, 0, 2]], np.arange(60) % 3)
    Traceback (most recent call last):
      ...
    flataudit.errors.ModelError: expected columns in the order of the data's classes, got class 0 in column 1, class 1 \
in column 0 (right in 100% of these 40 examples, and in 0% as they are); number the classes alike in data and model
    """
    usable = answers.ndim == 2 and targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu"
    if not usable or targets is None or int(targets.max()) >= answers.shape[1]:
        return
    # Of the classes that occur alone: a stranger's model may have any number of columns.
    classes, places = np.unique(
        np.concatenate([targets.astype(np.int64), np.argmax(answers, axis=1)]), return_inverse=True
    )
    truth, answered = np.split(places.reshape(-1), 2)
    table = _table(truth, answered, len(classes))
    moved = _moved(table)
    of, at = np.array([row for row, _ in moved], dtype=int), np.array([column for _, column in moved], dtype=int)
    examples, right = int(table[of].sum()), int(table[of, at].sum())
    as_they_are = int(table[of, of].sum())
    if examples < _LEAST or right < _RIGHT * examples or as_they_are > _WRONG * examples:
        return
    again = int((table[of].sum(axis=1) - 1).sum())
    if again < _LEAST_AGAIN or _again(table, moved) < _RIGHT * again or _by_chance(truth, answered, table):
        return
    order = ", ".join(f"class {classes[row]} in column {classes[column]}" for row, column in moved[:6])
    shares = f"right in {right / examples:.0%} of these {examples} examples, and in {as_they_are / examples:.0%}"
    raise ModelError(
        "columns in the order of the data's classes",
        got=f"{order} ({shares} as they are)",
        remedy="number the classes alike in data and model",
    )


def _table(truth: "Table", answered: "Table", classes: int) -> "Table":
    """Examples ``(classes, classes)`` by what they are and what is answered."""
    counted = np.bincount(truth * classes + answered, minlength=classes * classes)
    return counted.astype(np.int64).reshape(classes, classes)


def _moved(table: "Table") -> list[tuple[int, int]]:
    """Classes that occur and that the order that fits best puts elsewhere, each with its column."""
    rows, columns = linear_sum_assignment(-table)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if r != c and table[r].sum()]


def _again(table: "Table", moved: list[tuple[int, int]]) -> int:
    """Examples that agree with one of their class before: the first of a class fits any column."""
    return sum(max(0, int(table[row, column]) - 1) for row, column in moved)


def _by_chance(truth: "Table", answered: "Table", table: "Table") -> bool:
    """Whether the answers fit the labels of other examples as well, under the order that fits those best."""
    generator, found = np.random.default_rng(0), _again(table, _moved(table))
    draws = (_table(truth, generator.permutation(answered), len(table)) for _ in range(_DRAWS))
    return any(_again(drawn, _moved(drawn)) >= found for drawn in draws)
