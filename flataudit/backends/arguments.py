"""From the one tensor of an audit's batch to the arguments of a module's forward: cut, cast and named.

A probe moves one packed tensor ``(n, …)``; what depends on it through the parts that are real numbers keeps its
gradient. What a module takes is read from the module: an exported program knows its inputs, a script has a schema, and
an eager forward a signature.
"""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from flataudit.backends.feeding import Feed, Part
from flataudit.errors import ModelError

__all__ = ["Arguments", "Taken", "taken_by"]

_EXACT = 2**24
"""Whole numbers that float32 holds exactly."""


@dataclass(frozen=True)
class Taken:
    """One argument of a forward."""

    name: str
    by: Literal["place", "name", "either"] = "either"
    required: bool = True
    keys: tuple[str, ...] | None = None
    """It takes a dictionary with these keys (none: any); None: a tensor."""
    rest: bool = False
    """It stands for any number of further arguments."""


def taken_by(module: nn.Module) -> list[Taken]:
    """The arguments of a module's forward, in order."""
    spec = getattr(module, "_in_spec", None)
    if spec is not None:
        return _of_program(module, spec)
    if isinstance(module, torch.jit.ScriptModule):
        return [
            Taken(one.name, "either", not one.has_default_value(), () if one.type.kind() == "DictType" else None)
            for one in cast("Any", module.forward).schema.arguments[1:]
        ]
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return [Taken("input", "place")]
    return [_of_parameter(one) for one in parameters]


def _of_parameter(one: inspect.Parameter) -> Taken:
    by: Literal["place", "name", "either"] = "either"
    if one.kind in (one.POSITIONAL_ONLY, one.VAR_POSITIONAL):
        by = "place"
    elif one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD):
        by = "name"
    rest = one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    kind = get_origin(one.annotation) or one.annotation
    mapping = isinstance(kind, type) and issubclass(kind, Mapping)
    if isinstance(kind, str):
        mapping = kind.partition("[")[0].rpartition(".")[2] in ("dict", "Dict", "Mapping", "MutableMapping")
    return Taken(one.name, by, one.default is one.empty and not rest, () if mapping and not rest else None, rest)


def _of_program(module: nn.Module, spec: "torch.utils._pytree.TreeSpec") -> list[Taken]:
    """A program takes exactly what it was exported with, by place or by name."""
    places, named = spec.children()
    try:
        names = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        names = []
    found = []
    for place, child in enumerate(places.children()):
        name = names[place] if place < len(names) else str(place)
        found.append(Taken(name, "place", keys=_keys(child)))
    for name, child in zip(named.context or (), named.children(), strict=True):
        found.append(Taken(str(name), "name", keys=_keys(child)))
    return found


def _keys(spec: "torch.utils._pytree.TreeSpec") -> tuple[str, ...] | None:
    return tuple(str(key) for key in spec.context) if spec.type is dict else None


@dataclass(frozen=True)
class _Cut:
    """One part of the packed tensor as the module takes it."""

    part: Part
    dtype: torch.dtype | None
    """None: the module's own floating-point dtype, or tokens as they are."""
    columns: slice | tuple[int, ...] | None
    table: tuple[float, ...] = ()
    """What a place in the data stands for."""

    def of(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """Differentiable where the module takes real numbers."""
        found = inputs if self.columns is None else inputs[:, self.columns].reshape(len(inputs), *self.part.shape)
        if self.table:
            places = found.detach().round().long().clamp(0, len(self.table) - 1)
            return torch.tensor(self.table, dtype=dtype, device=inputs.device)[places]
        wanted = self.dtype or (dtype if found.is_floating_point() else found.dtype)
        if found.is_floating_point() and not wanted.is_floating_point:
            found = found.round()
        return found.to(dtype if wanted.is_floating_point else wanted)


@dataclass(frozen=True)
class Arguments:
    """The way from a packed batch to what a module is called with.

    >>> Arguments()(torch.ones(2, 3, dtype=torch.float64), torch.float32)[0][0].dtype
    torch.float32
    """

    cuts: tuple[_Cut, ...] = (_Cut(Part(None, None, (), ""), None, None),)
    names: tuple[str | None, ...] = (None,)
    """The keyword of each; None: by its place."""
    form: Literal["each", "mapping", "stacked"] = "each"
    """Each part is an argument; all are one dictionary; all are the columns of one tensor."""
    keyword: str | None = None
    """Of the dictionary or the one tensor; None: by its place."""
    notes: tuple[str, ...] = ()
    """What a person should know of how inputs and arguments were matched."""

    @property
    def rounded(self) -> tuple[int, ...] | Literal["all"]:
        """Which values of an example reach the module as whole numbers, so that no gradient passes."""
        whole = [cut for cut in self.cuts if cut.dtype is not None and not cut.dtype.is_floating_point]
        if any(cut.part.columns is None for cut in whole):
            return "all"
        return tuple(place for cut in whole for place in cut.part.columns or ())

    @classmethod
    def of(cls, feed: Feed, module: nn.Module) -> "Arguments":
        """Match a feed with what the module takes.

        By name where all of them agree, an argument being given by keyword where the module allows that; else by
        place. One dictionary where the module takes one argument that is annotated, scripted or exported as one, or
        takes one argument and is given several tensors. Single values are the columns of one tensor for a module of
        one argument: tables, also where a column happens to have the argument's name.

        Raises:
            ModelError: an argument without an input, an input without an argument, by name, or texts.
        """
        cuts = tuple(_cut(part) for part in feed.parts)
        taken = taken_by(module)
        required = [one for one in taken if one.required]
        first, alone = (required or taken or [Taken("input", "place")])[0], len(required) <= 1
        keyword = first.name if first.by == "name" and not first.rest else None
        if alone and first.keys is not None:
            return cls(cuts, _keyed(cuts, first), "mapping", keyword, feed.notes)
        table = all(cut.part.columns is not None and cut.part.shape == () for cut in cuts)
        if alone and table and not first.rest and not (len(cuts) > 1 and _all_named(cuts, taken)):
            return cls(cuts, (None,) * len(cuts), "stacked", keyword, feed.notes)
        if len(cuts) == 1:
            return cls(cuts, (keyword,), notes=feed.notes)
        if len(taken) == 1 and not first.rest and not _named(cuts, taken):
            return cls(cuts, _keyed(cuts, replace(first, keys=())), "mapping", keyword, feed.notes)
        return _each(cuts, taken, feed.notes)

    def __call__(self, inputs: Tensor, dtype: torch.dtype) -> tuple[tuple[object, ...], dict[str, object]]:
        """Positional and keyword arguments for a batch ``(n, …)`` of a module that computes in this dtype."""
        if self.form == "stacked":
            columns = [cut.of(inputs, dtype).to(dtype) for cut in self.cuts]
            return self._alone(torch.stack(columns, dim=1))
        found = [cut.of(inputs, dtype) for cut in self.cuts]
        if self.form == "mapping":
            return self._alone({str(name): tensor for name, tensor in zip(self.names, found, strict=True)})
        pairs = list(zip(self.names, found, strict=True))
        return tuple(x for name, x in pairs if name is None), {name: x for name, x in pairs if name is not None}

    def _alone(self, one: object) -> tuple[tuple[object, ...], dict[str, object]]:
        return ((one,), {}) if self.keyword is None else ((), {self.keyword: one})

    def check(self, inputs: "np.typing.NDArray[np.generic]", dtype: torch.dtype) -> None:
        """Refuse whole numbers that a packed batch of this dtype cannot hold exactly.

        Raises:
            ModelError: some are too large.
        """
        if inputs.dtype.kind != "f" or dtype == torch.float64:
            return
        for cut in self.cuts:
            if cut.dtype is None or cut.dtype.is_floating_point or cut.part.columns is None:
                continue
            largest = float(np.abs(inputs[:, list(cut.part.columns)]).max(initial=0.0))
            if largest > _EXACT:
                expected = f"whole numbers of {cut.part.name!r} up to {_EXACT} beside fractions in float32"
                raise ModelError(expected, got=f"{largest:.0f}", remedy="audit with `dtype: float64`")


def _cut(part: Part) -> _Cut:
    columns: slice | tuple[int, ...] | None = part.columns
    if part.columns and part.columns == tuple(range(part.columns[0], part.columns[-1] + 1)):
        columns = slice(part.columns[0], part.columns[-1] + 1)
    if part.categories:
        numbers = _numbers(part.categories)
        return _Cut(part, None if numbers else torch.int64, columns, numbers)
    if not part.dtype:
        return _Cut(part, None, columns)
    dtype = getattr(torch, part.dtype, None)
    if not isinstance(dtype, torch.dtype):
        named = f" for {part.name!r}" if part.name else ""
        raise ModelError(f"tensors{named}", got=f"inputs of type {part.dtype}", remedy="declare `tokenizer:` for texts")
    return _Cut(part, dtype, columns)


def _numbers(categories: Sequence[str]) -> tuple[float, ...]:
    """The numbers that the categories are; none: they are words, of which a module takes the places."""
    try:
        return tuple(float(category) for category in categories)
    except ValueError:
        return ()


def _named(cuts: Sequence[_Cut], taken: Sequence[Taken]) -> bool:
    """Whether some input has the name of an argument."""
    return bool({cut.part.name for cut in cuts} & {one.name for one in taken if not one.rest})


def _all_named(cuts: Sequence[_Cut], taken: Sequence[Taken]) -> bool:
    """Whether every input has the name of an argument, or may have any."""
    if any(one.rest and one.by == "name" for one in taken):
        return _named(cuts, taken)
    return {cut.part.name for cut in cuts} <= {one.name for one in taken if not one.rest}


def _keyed(cuts: Sequence[_Cut], one: Taken) -> tuple[str | None, ...]:
    """The keys of a dictionary's entries."""
    names = [cut.part.name for cut in cuts]
    if len(names) == 1 and one.keys is not None and len(one.keys) == 1:
        return one.keys
    wanted = set(one.keys or ()) or {name for name in names if name}
    if None in names or set(names) != wanted:
        _refuse(sorted(wanted), names, f"keys of the dictionary {one.name!r}")
    return tuple(names)


def _each(cuts: tuple[_Cut, ...], taken: Sequence[Taken], notes: tuple[str, ...]) -> Arguments:
    known = {one.name: one for one in taken if not one.rest}
    any_name = any(one.rest and one.by == "name" for one in taken)
    any_place = any(one.rest and one.by == "place" for one in taken)
    names = [cut.part.name for cut in cuts]
    required = [one.name for one in taken if one.required]
    if _named(cuts, taken) or (any_name and all(names)):
        strange = [name for name in names if name not in known and not any_name]
        if strange or set(required) - set(names):
            _refuse(list(known), names, "arguments of its forward")
        order = sorted(range(len(cuts)), key=lambda i: list(known).index(names[i] or "") if names[i] in known else -1)
        keywords = tuple(None if names[i] in known and known[names[i] or ""].by == "place" else names[i] for i in order)
        return Arguments(tuple(cuts[i] for i in order), keywords, notes=notes)
    if len(cuts) < len(required) or (len(cuts) > len(known) and not any_place):
        _refuse(list(known), names, "arguments of its forward")
    order_told = ", ".join(f"{name} as {one}" for name, one in zip(names, known, strict=False))
    keywords = tuple(one.name if one.by == "name" else None for one in known.values())[: len(cuts)]
    keywords += (None,) * (len(cuts) - len(keywords))
    return Arguments(cuts, keywords, notes=(*notes, f"inputs were matched with arguments by their place: {order_told}"))


def _refuse(wanted: Sequence[str], names: Sequence[str | None], what: str) -> None:
    lacking = next((name for name in wanted if name not in names), "")
    near = difflib.get_close_matches(lacking, [name for name in names if name], n=1)
    remedy = f"rename {near[0]!r} to {lacking!r} in the data" if near else "give the inputs these names in the data"
    got = ", ".join(str(name) for name in names)
    raise ModelError(f"the {what}: {', '.join(wanted)}", got=f"the inputs {got}", remedy=remedy)
