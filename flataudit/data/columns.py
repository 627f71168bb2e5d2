"""What a column of a table holds: numbers that may move, whole numbers and booleans that may not, or categories.

An audit holds examples as one array of numbers. A category is its place in the sorted list of the column's own, which
the field keeps, so that models get the names back; a class is its place in the sorted list of the class names.
"""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow
import pyarrow.types

from flataudit.specs import InputField

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["column_field", "holds_numbers", "holds_strings", "places_of"]


def holds_numbers(kind: pyarrow.DataType) -> bool:
    """Whether a column of this type holds numbers or booleans."""
    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind))


def holds_strings(kind: pyarrow.DataType) -> bool:
    """Whether a column of this type holds strings, listed once or each by itself."""
    inner = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return bool(pyarrow.types.is_string(inner) or pyarrow.types.is_large_string(inner))


def column_field(
    name: str, values: "NDArray[np.generic]", kind: pyarrow.DataType, *, integers_move: bool
) -> "tuple[InputField, NDArray[np.generic]]":
    """The field of a column, and its values ``(n,)`` as numbers.

    Args:
        name: of the column.
        values: ``(n,)``, without missing strings.
        kind: of the column in its file; whole numbers that came as text are of an integer type only as far as was
            looked.
        integers_move: whether whole numbers are plain numbers.

    >>> field, codes = column_field("sky", np.array(["red", "blue", "red"]), pyarrow.string(), integers_move=False)
    >>> field.categories, codes.tolist()
    (('blue', 'red'), [1.0, 0.0, 1.0])
    """
    if holds_strings(kind):
        codes, categories = places_of(values)
        return InputField(name=name, kind="category", categories=categories), codes.astype(np.float64)
    if pyarrow.types.is_boolean(kind):
        return InputField(name=name, kind="boolean"), values.astype(np.float64)
    fixed = pyarrow.types.is_integer(kind) and not integers_move
    if fixed and np.array_equal(known := values[~np.isnan(values.astype(np.float64))], np.rint(known)):
        return InputField(name=name, kind="integer"), values
    return InputField(name=name), values


def places_of(values: "NDArray[np.generic]") -> "tuple[NDArray[np.int64], tuple[str, ...]]":
    """The place of each string ``(n,)`` in the sorted list of all, and that list.

    >>> places_of(np.array(["dog", "cat", "dog"]))
    (array([1, 0, 1]), ('cat', 'dog'))
    """
    names, places = np.unique(np.asarray([str(value) for value in values]), return_inverse=True)
    return places.astype(np.int64).reshape(-1), tuple(str(name) for name in names)
