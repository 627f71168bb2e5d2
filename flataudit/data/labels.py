"""From the targets of a file to class numbers from 0, where the policy lists the classes in the models' own order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flataudit.errors import DataError
from flataudit.vocabulary import spelled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["numbered"]


def numbered(
    targets: "ArrayLike", classes: Sequence[str | int], source: str
) -> "tuple[NDArray[np.int64], tuple[str, ...]]":
    """The place of each target ``(n,)`` in the list of classes, and the list as names.

    Args:
        targets: strings, or whole numbers of any type.
        classes: in the order of the models' columns.
        source: where the targets come from, for messages.

    Raises:
        DataError: a class twice, or a target that is none of them.

    >>> numbered([3, 1, 1], [1, 2, 3], "a list")
    (array([2, 0, 0]), ('1', '2', '3'))
    """
    names = tuple(spelled(one) for one in classes)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"each class once in `classes` of {source}", got=f"{twice!r} twice", remedy="remove one")
    array = np.asarray(targets)
    found, inverse = np.unique(array, return_inverse=True)
    places = {name: place for place, name in enumerate(names)}
    strange = next((number for number, value in enumerate(found) if spelled(value) not in places), None)
    if strange is not None:
        first = int(np.flatnonzero(inverse.reshape(-1) == strange)[0])
        expected = f"targets in {source} that are one of the classes {', '.join(names[:8])}"
        remedy = "correct `classes`: all classes, in the order of the models' columns"
        raise DataError(expected, got=f"{spelled(found[strange])!r} in example {first}", remedy=remedy)
    known = np.array([places[spelled(value)] for value in found], dtype=np.int64)
    return known[inverse].reshape(array.shape), names
