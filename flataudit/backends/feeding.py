"""How an example of the data goes into a model: which of its values are which of the model's named inputs.

An audit holds examples as one array, so that probes can move and corrupt them; models take columns, tensors by name, or
a data frame. A `Feed` is the way from the one to the other, made once from what both declare.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.contracts import AuditData
from flataudit.errors import ModelError
from flataudit.mlmodel import Signature, SignatureField, kind_of
from flataudit.specs import InputField

if TYPE_CHECKING:
    import pandas

__all__ = ["Feed", "Part", "feed"]


@dataclass(frozen=True)
class Part:
    """One input of a model, as values of an example."""

    name: str | None
    """None: the model's only input, or one by its position."""
    columns: tuple[int, ...] | None
    """Which values of an example, along the second axis; None: all of it, as it is."""
    shape: tuple[int, ...]
    """Of one example of this input; only where `columns` are given."""
    dtype: str
    """NumPy's name of what the model takes; ``str`` for text; empty: as the data are."""
    categories: tuple[str, ...] = ()
    """The data hold places in this list; the model takes its entries."""

    def of(self, inputs: NDArray[generic]) -> NDArray[generic]:
        """This input of a batch ``(n, …)``."""
        found = inputs if self.columns is None else inputs[:, list(self.columns)].reshape(len(inputs), *self.shape)
        if self.categories:
            places = np.clip(np.rint(found.astype(np.float64)).astype(np.int64), 0, len(self.categories) - 1)
            names = np.asarray(self.categories, dtype=object)
            return (names.astype(self.dtype) if self.dtype else names)[places]
        if not self.dtype:
            return found
        if np.dtype(self.dtype).kind not in "iu" or found.dtype.kind != "f":
            return found.astype(self.dtype)
        if np.isnan(found).any():
            remedy = "fill the gaps, or log the model with floating-point inputs"
            raise ModelError(f"whole numbers{f' of {self.name!r}' if self.name else ''}", got="NaN", remedy=remedy)
        limits = np.iinfo(self.dtype)
        return np.asarray(np.clip(np.rint(found), limits.min, limits.max), dtype=self.dtype)


@dataclass(frozen=True)
class Feed:
    """All inputs of a model, in its own order."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    """What a person should know of how they were matched."""

    def arrays(self, inputs: NDArray[generic]) -> list[NDArray[generic]]:
        """The batch as one array for each input."""
        return [part.of(inputs) for part in self.parts]

    def frame(self, inputs: NDArray[generic]) -> "pandas.DataFrame":
        """The batch as a data frame with a column for each input."""
        import pandas  # only models of tables need it

        return pandas.DataFrame({part.name or str(i): part.of(inputs) for i, part in enumerate(self.parts)})

    @property
    def whole(self) -> bool:
        """Whether the model takes the data's one array as it is, up to its dtype."""
        return len(self.parts) == 1 and self.parts[0].columns is None


def feed(data: AuditData, signature: Signature | None) -> Feed:
    """Match what the data hold with what the model declares.

    Names decide where both have some, in any order, and values that the model does not ask for stay out; else places
    decide, and the numbers of them must agree.

    Args:
        data: a few examples.
        signature: what the model declares; None: nothing.

    Raises:
        ModelError: an input of the model that the data lack, or values of another kind, by name.
    """
    declared = signature.inputs if signature else ()
    if not declared:
        return Feed(tuple(_own_part(data, field) for field in data.fields) or (Part(None, None, (), ""),))
    if all(field.shape is None for field in declared):
        return _columns(data, declared)
    return _tensors(data, declared)


def _own_part(data: AuditData, field: InputField) -> Part:
    dtype = {"number": "", "integer": "int64", "boolean": "bool", "category": ""}[field.kind]
    return Part(field.name, _places(data, field), field.shape, dtype, field.categories)


def _places(data: AuditData, field: InputField) -> tuple[int, ...]:
    start = 0
    for one in data.fields:
        if one.name == field.name:
            return tuple(range(start, start + one.size))
        start += one.size
    raise AssertionError(field.name)


def _columns(data: AuditData, declared: Sequence[SignatureField]) -> Feed:
    names = [field.name or str(place) for place, field in enumerate(declared)]
    if data.inputs.ndim == 1 and len(declared) == 1:
        return Feed((Part(names[0], None, (), _dtype(declared[0], data.inputs, None)),))
    if not data.fields:
        return _columns_by_place(data, declared, names)
    known = {field.name: field for field in data.fields}
    lacking = [name for name, field in zip(names, declared, strict=True) if field.required and name not in known]
    if lacking:
        raise _lacking(lacking, known, "columns")
    parts = []
    for name, wanted in zip(names, declared, strict=True):
        if name in known:
            own = known[name]
            places = _places(data, own)
            dtype = _dtype(wanted, data.inputs[:, list(places)], own)
            parts.append(Part(name, places, (), dtype, own.categories))
    left = [name for name in known if name not in names]
    return Feed(tuple(parts), _told_of(left))


def _told_of(left: Sequence[str]) -> tuple[str, ...]:
    if not left:
        return ()
    return (f"columns of the data that the model does not take were left out: {', '.join(left[:8])}",)


def _columns_by_place(data: AuditData, declared: Sequence[SignatureField], names: Sequence[str]) -> Feed:
    shape = data.inputs.shape[1:]
    if shape != (len(declared),):
        expected = f"the {len(declared)} columns {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
        remedy = "name the columns of the data, or write those that the model was trained on"
        raise ModelError(expected, got=f"examples of shape {shape} without names", remedy=remedy)
    parts = tuple(
        Part(name, (place,), (), _dtype(wanted, data.inputs[:, place], None))
        for place, (name, wanted) in enumerate(zip(names, declared, strict=True))
    )
    told = "the data name no columns: the model's were matched by their place"
    return Feed(parts, (told, *_looked_at(data, parts)))


def _tensors(data: AuditData, declared: Sequence[SignatureField]) -> Feed:
    if len(declared) == 1 and not (data.fields and data.fields[0].shape):
        (wanted,) = declared
        named = [field.name for field in data.fields if field.kind == "category"]
        if named:
            remedy = "log a model that takes columns by name, or write the column as numbers"
            raise ModelError(
                "columns of numbers for a model of one tensor", got=f"the words of {named[0]!r}", remedy=remedy
            )
        shape = wanted.shape or (-1,)
        if not _fits(data.inputs.shape[1:], shape[1:]):
            expected = f"inputs of shape (n, {', '.join('any' if s < 0 else str(s) for s in shape[1:])})"
            name = f" for {wanted.name!r}" if wanted.name else ""
            remedy = "give the data the shape that the model was logged with"
            raise ModelError(expected + name, got=f"(n, {', '.join(map(str, data.inputs.shape[1:]))})", remedy=remedy)
        told = (f"the model takes one tensor: its columns are the data's, by place: {', '.join(_some(data))}",)
        part = Part(wanted.name, None, (), _dtype(wanted, data.inputs, _fractional(data)))
        return Feed((part,), told if data.fields else _looked_at(data, (part,)))
    known = {field.name: field for field in data.fields}
    names = [field.name or str(place) for place, field in enumerate(declared)]
    lacking = [name for name, field in zip(names, declared, strict=True) if field.required and name not in known]
    if lacking:
        raise _lacking(lacking, known, "tensors")
    parts = []
    for name, wanted in zip(names, declared, strict=True):
        if name not in known:
            continue
        own = known[name]
        if not _fits(own.shape, (wanted.shape or (-1,))[1:]):
            remedy = "give the data the shape that the model was logged with"
            raise ModelError(f"{name!r} of shape {wanted.shape}", got=f"(n, {own.shape})", remedy=remedy)
        places = _places(data, own)
        dtype = _dtype(wanted, data.inputs[:, list(places)], own)
        parts.append(Part(name, places, own.shape, dtype, own.categories))
    return Feed(tuple(parts), _told_of([name for name in known if name not in names]))


def _fractional(data: AuditData) -> InputField | None:
    """The column that makes the whole array one of fractions, if some does."""
    return next((field for field in data.fields if field.fractional), None)


def _looked_at(data: AuditData, parts: Sequence[Part]) -> tuple[str, ...]:
    """Where the data name no columns, nobody looked through all of them for fractions."""
    whole = any(part.dtype and np.dtype(part.dtype).kind in "iu" for part in parts)
    if not whole or data.inputs.dtype.kind != "f":
        return ()
    return (f"the model takes whole numbers: fractions, of which {len(data)} examples have none, are rounded",)


def _some(data: AuditData) -> list[str]:
    names = [field.name for field in data.fields]
    return [*names[:8], "…"] if len(names) > 8 else names


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(size in (-1, own) for own, size in zip(shape, wanted, strict=True))


def _lacking(lacking: Sequence[str], known: "dict[str, InputField]", what: str) -> ModelError:
    near = difflib.get_close_matches(lacking[0], known, n=1)
    remedy = f"did you mean {near[0]!r}? Rename it in the data" if near else f"add the {what} to the data, by name"
    got = f"only {', '.join(list(known)[:8])}{', …' if len(known) > 8 else ''}" if known else "data without names"
    return ModelError(f"the {what} {', '.join(map(repr, lacking[:8]))}, which the model takes", got=got, remedy=remedy)


_COLUMN_DTYPES = {"double": "float64", "float": "float32", "long": "int64", "integer": "int32", "boolean": "bool"}


def _dtype(wanted: SignatureField, values: NDArray[generic], own: InputField | None) -> str:
    """NumPy's name of the dtype that the model takes, after a look at whether these values can be that."""
    kind, named = kind_of(wanted.dtype), f" of {wanted.name!r}" if wanted.name else ""
    remedy = "store these values as the model was trained on them"
    if kind is None:
        raise ModelError(f"numbers, text or booleans as input{named}", got=wanted.dtype, remedy="log another input")
    if values.dtype.kind == "U" or (own is not None and own.kind == "category"):
        if kind == "text":
            return ""
        if own is None or not _numeric(own.categories):
            raise ModelError(f"values{named} that are {wanted.dtype}", got="text", remedy=remedy)
    elif kind == "text":
        raise ModelError(f"text as values{named}", got="numbers", remedy=remedy)
    elif (
        kind == "integer" and values.dtype.kind == "f" and (_fractions(values) or (own is not None and own.fractional))
    ):
        raise ModelError(f"whole numbers{named} ({wanted.dtype})", got="fractions", remedy=remedy)
    return _COLUMN_DTYPES.get(wanted.dtype, wanted.dtype) if wanted.shape is None else wanted.dtype


def _fractions(values: NDArray[generic]) -> bool:
    return not np.array_equal(values, np.rint(values))


def _numeric(categories: Sequence[str]) -> bool:
    try:
        [float(category) for category in categories]
    except ValueError:
        return False
    return bool(categories)
