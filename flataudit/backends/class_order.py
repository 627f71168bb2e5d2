"""Whether a model's columns are the data's classes, in their order, by the labels that it names.

Of a model that names none its answers tell (`flataudit.statistics.exchanged_classes`).
"""

from collections.abc import Sequence

import numpy as np

from flataudit.contracts import AuditData
from flataudit.errors import ModelError
from flataudit.vocabulary import spelled

__all__ = ["column_of_each_class", "places_of_classes"]


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
