"""Whether a model's columns are the data's classes, in their order: by the labels it names, else by its answers."""

from collections.abc import Sequence

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from flataudit.contracts import AuditData
from flataudit.errors import ModelError
from flataudit.vocabulary import spelled

__all__ = ["column_of_each_class", "places_of_classes", "refuse_exchanged_classes", "refuse_other_numbers"]

_LEAST = 16
"""Examples of the classes in question below which answers alone say nothing of the order."""
_RIGHT, _WRONG = 0.8, 0.1


def column_of_each_class(labels: Sequence[object], data: AuditData) -> tuple[int, ...]:
    """For each of the data's classes, the model's column that answers for it.

    Args:
        labels: the model's own names or numbers of its classes, one a column.
        data: whose targets are class numbers, named by ``data.class_names`` where they have names.

    Classes that only the model knows come last: rare ones may be absent from the data.

    Raises:
        ModelError: a class of the data that the model does not know, or labels that cannot be told apart.

    >>> import dataclasses, numpy as np
    >>> data = AuditData("d", "validation", np.zeros((2, 1)), np.array([0, 1]), None, "", class_names=("ant", "bee"))
    >>> column_of_each_class(["bee", "ant"], data)
    (1, 0)
    >>> column_of_each_class([1, 0], dataclasses.replace(data, class_names=()))
    (1, 0)
    """
    named = [spelled(label) for label in labels]
    wanted = list(data.class_names) or [str(number) for number in range(max(len(named), _classes_of(data)))]
    if len(set(named)) != len(named):
        raise ModelError("different labels of the model's classes", got=", ".join(named[:8]), remedy="log it again")
    if data.class_names and not set(wanted) & set(named) and named == [str(i) for i in range(len(wanted))]:
        return tuple(range(len(wanted)))  # trained on numbers, which the data's names stand for in their order
    lacking = [name for name in wanted if name not in named]
    if lacking:
        got = f"a model of the classes {', '.join(named[:8])}"
        remedy = "compare models that were trained on the same classes"
        if data.class_names and len(wanted) == len(named) and named == [str(i) for i in range(len(named))]:
            remedy = "number the classes of the data as this model does, from 0"
        if not data.class_names and _present(data) <= set(named):
            remedy = f"list the classes with the data: `classes: [{', '.join(named)}]`"
        raise ModelError(f"the classes {', '.join(wanted[:8])}", got=got, remedy=remedy)
    own = [name for name in named if name not in wanted]
    return tuple(named.index(name) for name in (*wanted, *own))


def places_of_classes(columns: int, data: AuditData) -> tuple[int, ...]:
    """`column_of_each_class` of a model that numbers its columns from 0 whatever its classes are called (boosters).

    >>> import numpy as np
    >>> places_of_classes(2, AuditData("d", "validation", np.zeros((2, 1)), np.array([0, 1]), None, "",
    ...     class_names=("1", "2")))
    (0, 1)
    """
    if data.class_names and len(data.class_names) == columns:
        return tuple(range(columns))
    return column_of_each_class(range(columns), data)


def _present(data: AuditData) -> set[str]:
    """The class numbers among the targets, as text."""
    return set() if data.targets is None else {spelled(number) for number in np.unique(data.targets)}


def _classes_of(data: AuditData) -> int:
    """How many classes the targets number."""
    labels = data.targets
    return 0 if labels is None or labels.dtype.kind not in "iu" or not labels.size else int(labels.max()) + 1


def refuse_other_numbers(answers: NDArray[generic], data: AuditData) -> None:
    """Refuse targets that count the classes from 1 where the model's columns count from 0.

    Args:
        answers: log-probabilities ``(n, classes)``.
        data: the same examples.

    Raises:
        ModelError: the targets have no 0 and a number that is the number of columns.
    """
    targets, columns = data.targets, answers.shape[-1]
    if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iu" or int(targets.min()) == 0:
        return
    if int(targets.max()) != columns:
        return
    listed = ", ".join(map(str, range(1, columns + 1))) if columns <= 8 else f"1, …, {columns}"
    remedy = f"list the classes with the data, in the order of the columns: `classes: [{listed}]`"
    expected = f"class numbers from 0 to {columns - 1}, one for each of the model's {columns} columns"
    raise ModelError(expected, got=f"class {columns} and no class 0 in the targets", remedy=remedy)


def refuse_exchanged_classes(answers: NDArray[generic], targets: NDArray[generic] | None) -> None:
    """Refuse a classifier that answers some classes by each other's names, nearly always.

    A model that has learned nothing is bad under every order, and passes. The order that fits best is found by the
    Hungarian method on the confusion table; what it moves must then be right in 8 of 10 examples where the present
    order is right in at most one of 10.

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
    table = np.zeros((answers.shape[1], answers.shape[1]), dtype=np.int64)
    for truth, answer in zip(targets.astype(np.int64), np.argmax(answers, axis=1), strict=True):
        table[truth, answer] += 1
    rows, columns = linear_sum_assignment(-table)
    moved = [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if r != c and table[r].sum()]
    examples = sum(int(table[row].sum()) for row, _ in moved)
    if examples < _LEAST:
        return
    right = sum(int(table[row, column]) for row, column in moved) / examples
    as_they_are = sum(int(table[row, row]) for row, _ in moved) / examples
    if right < _RIGHT or as_they_are > _WRONG:
        return
    order = ", ".join(f"class {row} in column {column}" for row, column in moved[:6])
    raise ModelError(
        "columns in the order of the data's classes",
        got=f"{order} (right in {right:.0%} of these {examples} examples, and in {as_they_are:.0%} as they are)",
        remedy="number the classes alike in data and model",
    )
