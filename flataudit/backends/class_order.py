"""Whether a model's columns are the data's classes, in their order: by the labels it names, else by its answers."""

from collections.abc import Sequence

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from flataudit.contracts import AuditData
from flataudit.errors import ModelError

__all__ = ["column_of_each_class", "refuse_exchanged_classes"]

_LEAST = 48
"""Labelled examples below which answers alone say nothing of the order."""


def column_of_each_class(labels: Sequence[object], data: AuditData) -> tuple[int, ...]:
    """For each of the data's classes, the model's column that answers for it.

    Args:
        labels: the model's own names or numbers of its classes, one a column.
        data: whose targets are class numbers, named by ``data.class_names`` where they have names.

    Raises:
        ModelError: a class of the data that the model does not know, or labels that cannot be told apart.

    >>> import dataclasses, numpy as np
    >>> data = AuditData("d", "validation", np.zeros((2, 1)), np.array([0, 1]), None, "", class_names=("ant", "bee"))
    >>> column_of_each_class(["bee", "ant"], data)
    (1, 0)
    >>> column_of_each_class([1, 0], dataclasses.replace(data, class_names=()))
    (1, 0)
    """
    named = [_word(label) for label in labels]
    wanted = list(data.class_names) or [str(number) for number in range(len(named))]
    if len(set(named)) != len(named):
        raise ModelError("different labels of the model's classes", got=", ".join(named[:8]), remedy="log it again")
    if data.class_names and not set(wanted) & set(named) and named == [str(i) for i in range(len(wanted))]:
        return tuple(range(len(wanted)))  # trained on numbers, which the data's names stand for in their order
    lacking = [name for name in wanted if name not in named]
    if lacking or len(wanted) != len(named):
        got = f"a model of the classes {', '.join(named[:8])}"
        remedy = "compare models that were trained on the same classes"
        raise ModelError(f"the classes {', '.join(wanted[:8])}", got=got, remedy=remedy)
    return tuple(named.index(name) for name in wanted)


def _word(label: object) -> str:
    """Whole numbers alike, whether they are Python's, NumPy's or floating point.

    >>> _word(np.float64(2.0)), _word(np.int32(2)), _word("2"), _word(True)
    ('2', '2', '2', '1')
    """
    if isinstance(label, bool | np.bool_ | int | np.integer):
        return str(int(label))
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    return str(label)


def refuse_exchanged_classes(answers: NDArray[generic], targets: NDArray[generic] | None) -> None:
    """Refuse a classifier that is right under another order of its columns and wrong under this one.

    A model that has learned nothing is bad under every order: it passes. The best order is found by the Hungarian
    method on the confusion table; chance alone raises its share by much less than the gap that is asked for.

    Args:
        answers: log-probabilities ``(n, classes)``.
        targets: class numbers ``(n,)``.

    Raises:
        ModelError: with the order that would be right.
    """
    usable = answers.ndim == 2 and targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu"
    if not usable or targets is None or len(targets) < _LEAST or int(targets.max()) >= answers.shape[1]:
        return
    classes = answers.shape[1]
    table = np.zeros((classes, classes), dtype=np.int64)
    for truth, answer in zip(targets.astype(np.int64), np.argmax(answers, axis=1), strict=True):
        table[truth, answer] += 1
    seen = np.flatnonzero(table.sum(axis=1))
    if len(seen) < 2:
        return
    rows, columns = linear_sum_assignment(-table)
    best, own = table[rows, columns].sum() / len(targets), np.trace(table) / len(targets)
    moved = [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if r != c and table[r].sum()]
    if best < 0.7 or own > best / 2 or not moved:
        return
    order = ", ".join(f"class {row} in column {column}" for row, column in moved[:6])
    raise ModelError(
        "columns in the order of the data's classes",
        got=f"{own:.0%} right in this order and {best:.0%} in another ({order})",
        remedy="number the classes alike in data and model",
    )
