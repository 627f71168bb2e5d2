"""The one gate through which examples enter an audit: checked, never mended, bound to a digest of all their bytes."""

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from flataudit.contracts import AuditData
from flataudit.data.texts import as_texts, looks_like_texts, utf8
from flataudit.errors import DataError
from flataudit.specs import DataKind, InputField, Role

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["checked"]


_NO_TOKEN = -100
"""Target of a token that does not count, as PyTorch's cross-entropy has it."""


def checked(
    name: str,
    role: Role,
    inputs: "ArrayLike",
    targets: "ArrayLike | None" = None,
    groups: "ArrayLike | None" = None,
    *,
    source: str,
    kind: DataKind | None = None,
    fields: tuple[InputField, ...] = (),
    class_names: tuple[str, ...] = (),
    gaps: bool = False,
) -> AuditData:
    """A data set that every probe may rely on.

    Args:
        name: of the data set.
        role: what it is for; targets of ``unlabelled`` data are left out.
        inputs: ``(n, …)`` numbers, all finite, or strings ``(n,)``. Four dimensions with one or three channels second
            are images, two dimensions of floating point are tables, strings are texts.
        targets: ``(n,)``. The dtype decides what they are: integers are class numbers from 0, floating point numbers
            are values, even where all of them are whole. Integers ``(n, labels)`` of 0 and 1 are labels that may hold
            together, ``(n, tokens)`` a class for each token, −100 where there is none.
        groups: ``(n,)`` of anything sortable; become numbers in the order of the sorted names.
        source: where they come from, for messages.
        kind: what the inputs are; None: as their shape and dtype tell, which know no series.
        fields: the named parts of an example.
        class_names: of the class numbers.
        gaps: whether inputs may be NaN, where they are numbers that are missing.

    Raises:
        DataError: empty, not of the declared kind, misshapen, not numbers or strings, not finite, or labels that are
            not class numbers.

    >>> data = checked("day", "validation", [[0.0, 1.0], [2.0, 3.0]], [0, 1], ["north", "south"], source="a list")
    >>> len(data), data.kind, data.group_names, data.targets.dtype.name
    (2, 'table', ('north', 'south'), 'int64')
    >>> checked("day", "validation", [[0.0], [float("nan")]], [0, 1], source="day.npz")
    Traceback (most recent call last):
      ...
    flataudit.errors.DataError: expected finite inputs in day.npz, got 1 of 2 values missing (NaN), \
the first in example 1; repair or remove these examples: flataudit never fills gaps
    """
    texts = kind == "text" or (kind is None and looks_like_texts(inputs))
    features: NDArray[np.generic] = as_texts(inputs, source) if texts else _numbers(inputs, "inputs", source)
    _refuse_empty(features, source)
    _refuse_other_kind(features, kind, source)
    _refuse_not_finite(features, "inputs", source, gaps=gaps)
    labels = None if role == "unlabelled" else _targets(targets, role, len(features), source)
    codes, group_names = _groups(groups, len(features), source)
    inferred = _inferred(features)
    # A declared kind that is the inferred one leaves the digest as it is: it changes no number.
    other = kind if kind != inferred else None
    digest = _digest({"inputs": features, "targets": labels, "groups": codes}, group_names, other, fields, class_names)
    return AuditData(
        name,
        role,
        features,
        labels,
        codes,
        digest,
        kind or inferred,
        group_names,
        fields=_looked_through(fields, features),
        class_names=class_names,
        declared=kind is not None,
    )


def _looked_through(fields: tuple[InputField, ...], inputs: "NDArray[np.generic]") -> tuple[InputField, ...]:
    """The fields, and of numbers whether some are fractions: the examples that models are tried on may have none."""
    found, start = [], 0
    for field in fields:
        values = inputs[:, start : start + field.size]
        start += field.size
        whole = (
            field.kind != "number"
            or values.dtype.kind != "f"
            or bool(np.all((values == np.rint(values)) | np.isnan(values)))
        )
        found.append(field if whole else field.model_copy(update={"fractional": True}))
    return tuple(found)


def _numbers(values: "ArrayLike", what: str, source: str) -> "NDArray[np.generic]":
    """A plain C-ordered array in the machine's byte order; booleans become 0 and 1."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise _missing(what, source, f"{int(np.sum(values.mask))} of {values.size} values masked")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(
            f"{what} in {source} that all have the same shape", got=str(error), remedy="pad, resize or split them"
        ) from error
    if array.dtype.kind not in "biuf":
        expected = "numbers" if what == "inputs" else "class numbers or values"
        remedy = "encode them as numbers from 0" if array.dtype.kind in "USOT" else "convert them to floating point"
        if what == "targets" and array.dtype.kind in "USOT":
            remedy += ", or list their classes with `classes`"
        if what == "inputs" and array.dtype.kind in "SOT":
            remedy += ", or texts to unicode, one an example: .astype(str)"
        raise DataError(f"{expected} as {what} in {source}", got=f"dtype {array.dtype}", remedy=remedy)
    native = np.uint8 if array.dtype.kind == "b" else array.dtype.newbyteorder("=")
    return np.asarray(array, dtype=native, order="C")


def _refuse_empty(inputs: "NDArray[np.generic]", source: str) -> None:
    if inputs.ndim == 0 or inputs.size == 0:
        remedy = "check how the file was written, and the names of its arrays or columns"
        raise DataError(f"at least one example in {source}", got=f"inputs of shape {inputs.shape}", remedy=remedy)


def _refuse_not_finite(values: "NDArray[np.generic]", what: str, source: str, *, gaps: bool = False) -> None:
    if values.dtype.kind != "f":
        return
    good = ~np.isinf(values) if gaps else np.isfinite(values)
    if good.all():
        return
    absent = 0 if gaps else int(np.isnan(values).sum())
    infinite = values.size - int(good.sum()) - absent
    counts = [f"{absent} of {values.size} values missing (NaN)"] if absent else []
    counts += [f"{infinite} of {values.size} values infinite"] if infinite else []
    first = int(np.argmin(good)) // (values.size // len(values))
    raise _missing(what, source, f"{' and '.join(counts)}, the first in example {first}")


def _missing(what: str, source: str, got: str) -> DataError:
    return DataError(
        f"finite {what} in {source}", got=got, remedy="repair or remove these examples: flataudit never fills gaps"
    )


def _targets(targets: "ArrayLike | None", role: Role, n: int, source: str) -> "NDArray[np.generic]":
    if targets is None:
        remedy = "name the targets, or declare the data as unlabelled"
        raise DataError(f"targets for the {role} data in {source}", got="none", remedy=remedy)
    labels = _numbers(targets, "targets", source)
    several = labels.ndim == 2 and labels.dtype.kind in "iu" and len(labels) == n and labels.shape[1] > 1
    if not several:
        _refuse_lengths(labels, "targets", n, source)
    if labels.dtype.kind == "f":
        _refuse_not_finite(labels, "targets", source)
        return labels.astype(np.float64)
    classes = labels.astype(np.int64)
    wrong = (classes < 0) & ~((classes == _NO_TOKEN) & several)
    if wrong.any():
        first = int(np.argmax(wrong.reshape(n, -1).any(axis=1)))
        raise DataError(
            f"class numbers from 0 as targets in {source}",
            got=f"{classes[wrong][0]} in example {first}",
            remedy="number the classes from 0, or list them with `classes`; targets of a regression must be stored as "
            "floating point",
        )
    return classes


def _groups(groups: "ArrayLike | None", n: int, source: str) -> tuple["NDArray[np.int64] | None", tuple[str, ...]]:
    if groups is None:
        return None, ()
    array = np.asarray(groups)
    _refuse_lengths(array, "groups", n, source)
    if array.dtype.kind == "f":
        _refuse_not_finite(array, "groups", source)
    if array.dtype.kind == "O":
        odd = next((i for i, value in enumerate(array) if not isinstance(value, str)), None)
        if odd is not None:
            remedy = "give every example the name or number of its group"
            raise DataError(f"groups in {source} of one type", got=f"{array[odd]!r} in example {odd}", remedy=remedy)
        array = array.astype(str)
    names, codes = np.unique(array, return_inverse=True)
    return codes.astype(np.int64), tuple(str(name) for name in names)


def _refuse_lengths(values: "NDArray[np.generic]", what: str, n: int, source: str) -> None:
    if values.ndim == 1 and len(values) == n:
        return
    flatten = values.ndim == 2 and 1 in values.shape and values.size == n
    one_hot = values.ndim == 2 and len(values) == n
    remedy = (
        "flatten them to one dimension"
        if flatten
        else "give one number an example (the argmax of a one-hot row)"
        if one_hot
        else "give one for each example"
    )
    raise DataError(
        f"{what} of shape ({n},) in {source}, as many as inputs", got=f"shape {values.shape}", remedy=remedy
    )


def _refuse_other_kind(inputs: "NDArray[np.generic]", kind: DataKind | None, source: str) -> None:
    """What is declared must be possible; which of several possible kinds it is, the user knows."""
    shape = inputs.shape
    fits = {
        "image": inputs.ndim == 3 or (inputs.ndim == 4 and not {1, 3}.isdisjoint((shape[1], shape[3]))),
        "table": inputs.ndim == 2,
        "series": inputs.ndim == 3,
    }
    if kind is not None and not fits.get(kind, True):
        shapes = {
            "image": "(n, channels, height, width) with 1 or 3 channels, (n, height, width, channels) or "
            "(n, height, width)",
            "table": "(n, features)",
            "series": "(n, channels, time)",
        }
        remedy = "correct `kind`, or the shape of the inputs"
        raise DataError(f"inputs of kind {kind} {shapes[kind]} in {source}", got=f"shape {shape}", remedy=remedy)


def _inferred(inputs: "NDArray[np.generic]") -> DataKind:
    if inputs.dtype.kind == "U":
        return "text"
    if inputs.ndim == 4 and inputs.shape[1] in {1, 3}:
        return "image"
    return "table" if inputs.ndim == 2 and inputs.dtype.kind == "f" else "other"


def _digest(
    arrays: "dict[str, NDArray[np.generic] | None]",
    group_names: tuple[str, ...],
    kind: DataKind | None,
    fields: tuple[InputField, ...],
    class_names: tuple[str, ...],
) -> str:
    """``sha256:…`` over every byte, with dtype and shape, so that no two data sets share one; texts by their UTF-8.

    Names of fields and classes are part of it: models take what they name.
    """
    hasher = hashlib.sha256()
    for name, array in arrays.items():
        texts = array is not None and array.dtype.kind == "U"
        shape = None if array is None else ("text" if texts else array.dtype.str, array.shape)
        hasher.update(json.dumps([name, shape]).encode())
        for part in () if array is None else utf8(array) if texts else (array.data,):
            hasher.update(part)
    hasher.update(json.dumps(group_names).encode())
    if kind is not None:
        hasher.update(json.dumps({"kind": kind}).encode())
    if fields or class_names:
        # Whether a column has fractions follows from its values.
        told = [field.model_dump(mode="json", exclude={"fractional"}) for field in fields]
        names = {"fields": told, "classes": list(class_names)}
        hasher.update(json.dumps(names, sort_keys=True).encode())
    return f"sha256:{hasher.hexdigest()}"
