"""One numbering for all data sets of an audit: the same columns in the same places, categories and classes alike.

Each set numbers its own categories and classes, and names them. A model is matched with the validation set once; so
that place 2 of a shifted set does not mean another colour, the others are given the validation set's numbers, and
what only they hold comes after. The core names no array library: arrays are used by their own methods here.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flataudit.contracts import AuditData
from flataudit.errors import DataError
from flataudit.specs import InputField

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

__all__ = ["aligned", "spelled"]

_GENERAL = ("boolean", "integer", "number")
"""Kinds of numbers, each of which holds those before it."""


def aligned(data: Sequence[AuditData]) -> list[AuditData]:
    """The sets with the fields and classes of the validation set; digests stay those of the files.

    Columns are matched by name, and those that the validation set lacks are left out. A column of whole numbers in one
    set and of fractions in another is one of numbers in all.

    Raises:
        DataError: a column that a set lacks, or that holds names in one and numbers in another; columns or classes that
            have names in some sets and none in others.
    """
    first = next((one for one in data if one.role == "validation"), None)
    if first is None or len(data) == 1:
        return list(data)
    for one in data:
        _refuse_nameless(one, first)
    named = [one for one in data if one.fields]
    fields = tuple(_shared(field, first, named) for field in first.fields)
    classes = _class_names(first, data)
    return [_moved(one, first, fields if one.fields else (), classes) for one in data]


def spelled(label: object) -> str:
    """A class as text: whole numbers and truth values alike, whether they are Python's, an array's or floating point.

    >>> spelled(2.0), spelled(2), spelled("2"), spelled(True), spelled(0.5)
    ('2', '2', '2', '1', '0.5')
    """
    plain: object = label.item() if hasattr(label, "item") else label
    if isinstance(plain, int) or (isinstance(plain, float) and plain.is_integer()):
        return str(int(plain))
    return str(plain)


def _refuse_nameless(one: AuditData, first: AuditData) -> None:
    """Where only one of two sets names its columns nothing tells their order, and a wrong one gives numbers too."""
    if bool(one.fields) == bool(first.fields):
        return
    named, nameless = (one, first) if one.fields else (first, one)
    listed = ", ".join(field.name for field in named.fields[:6]) + (", …" if len(named.fields) > 6 else "")
    remedy = f"name them there too, in the order of its file (`columns: [{listed}]` of an npz file)"
    raise DataError(f"names of the columns in {nameless.name!r}, as in {named.name!r}", got="none", remedy=remedy)


def _shared(field: InputField, first: AuditData, data: Sequence[AuditData]) -> InputField:
    """A field of the validation set, as general as that of any set."""
    found = [_own(one, field.name, first) for one in data]
    kinds = {own.kind for own in found}
    if "category" in kinds and len(kinds) > 1:
        other = next(one.name for one, own in zip(data, found, strict=True) if own.kind != field.kind)
        remedy = "write the column alike in both"
        raise DataError(f"column {field.name!r} of kind {field.kind} in {other!r}", got="another kind", remedy=remedy)
    if "category" in kinds:
        return field.model_copy(update={"categories": _joined(field.categories, [own.categories for own in found])})
    fractional = any(own.fractional for own in found)
    if "number" in kinds and kinds != {"number"} and not fractional:
        kinds = kinds - {"number"} | {"integer"}  # a file without kinds, or one that had gaps, holds whole numbers too
    return field.model_copy(update={"kind": max(kinds, key=_GENERAL.index), "fractional": fractional})


def _own(one: AuditData, name: str, first: AuditData) -> InputField:
    found = next((field for field in one.fields if field.name == name), None)
    if found is None:
        got = f"only {', '.join(field.name for field in one.fields[:8])}"
        remedy = "write it there too, or list the columns that both have with `inputs`"
        raise DataError(f"the column {name!r} of {first.name!r} in {one.name!r}", got=got, remedy=remedy)
    return found


def _class_names(first: AuditData, data: Sequence[AuditData]) -> tuple[str, ...]:
    labelled = [one for one in data if one.targets is not None]
    unlike = next((one for one in labelled if bool(one.class_names) != bool(first.class_names)), None)
    if unlike is not None:
        expected = "names" if first.class_names else "numbers"
        remedy = "write the targets alike in all data sets, or list the classes in all (`classes`)"
        raise DataError(f"{expected} of classes in {unlike.name!r}, as in {first.name!r}", got="others", remedy=remedy)
    return _joined(first.class_names, [one.class_names for one in labelled])


def _joined(known: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """All names of all sets, sorted: so the numbers do not depend on which of them the validation set happens to hold.

    A list of the validation set that is not sorted was declared: it stays, and what only others hold comes after.

    >>> _joined(("a", "c"), [("a", "c"), ("b", "a")]), _joined(("9", "10"), [("10", "8")])
    (('a', 'b', 'c'), ('9', '10', '8'))
    """
    every = {name for names in (known, *others) for name in names}
    if list(known) == sorted(known):
        return tuple(sorted(every))
    return (*known, *sorted(every - set(known)))


def _moved(one: AuditData, first: AuditData, fields: tuple[InputField, ...], classes: tuple[str, ...]) -> AuditData:
    if (one.fields == fields or not one.fields) and one.class_names in (classes, ()):
        return one
    inputs = _inputs(one, fields) if fields else one.inputs
    targets = one.targets
    if targets is not None and one.class_names not in (classes, ()):
        targets = _renumbered(targets, one.class_names, classes)
    return replace(one, inputs=inputs, targets=targets, fields=fields, class_names=classes if one.class_names else ())


def _inputs(one: AuditData, fields: tuple[InputField, ...]) -> "NDArray[generic]":
    """The set's inputs, their columns where these fields have them and by their categories' numbers."""
    starts: dict[str, int] = {}
    for own in one.fields:
        starts[own.name] = sum(field.size for field in one.fields[: len(starts)])
    places = [place for field in fields for place in range(starts[field.name], starts[field.name] + field.size)]
    moved = one.inputs[:, places]
    own_fields = {field.name: field for field in one.fields}
    for place, field in enumerate(fields):
        own = own_fields[field.name]
        if own.categories != field.categories:
            start = sum(other.size for other in fields[:place])
            column = slice(start, start + field.size)
            moved[:, column] = _renumbered(moved[:, column], own.categories, field.categories)
    return moved


def _renumbered(places: "NDArray[generic]", old: tuple[str, ...], new: tuple[str, ...]) -> "NDArray[generic]":
    """Places in one list as places in another that holds all of its names."""
    number = {name: place for place, name in enumerate(new)}
    moved = places.copy()
    for place, name in enumerate(old):
        moved[places == place] = number[name]
    return moved
