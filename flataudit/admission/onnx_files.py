"""What an ONNX file names and declares, read from its bytes before any library parses it.

The operators of graphs, subgraphs and functions are listed by their domains: those that no runtime has come from a
library of somebody's. Every tensor's declared size is held against the limits, and every tensor kept elsewhere must
lie in a file of the artifact that has those bytes. The package ``onnx`` and onnxruntime read the file in the worker
only, where the same is checked again by the schema (`flataudit.backends.onnx_admission`).
"""

import math
import mmap
import os
import stat
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from flataudit.admission.archives import leaves
from flataudit.admission.pieces import MOST_NAMED, Piece, Work
from flataudit.admission.wire import Span, WireError, fields, numbers
from flataudit.evidence import Finding

__all__ = ["FIELDS", "in_onnx", "may_be_onnx"]

_MOST_MESSAGES = 2_000_000
_DEEPEST = 48
"""Messages within messages: sixteen subgraphs, each behind an operator and an attribute."""
_LONGEST_KEY = 4096
_MOST_KINDS = 10_000
"""Operators and functions of different names."""
_MOST_DIMENSIONS, _MOST_ENTRIES = 64, 16
"""Of a tensor, and of its place in another file."""
FIELDS: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
        "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
        "NodeProto": {5: "AttributeProto"},
        "AttributeProto": {
            **{5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto"},
            **{22: "SparseTensorProto", 23: "SparseTensorProto"},
        },
        "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
        "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
        "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
        "TensorProto": {},
    }
)
"""Of each message, its fields that can lead to an operator or a tensor (onnx/onnx.proto)."""
_NAMED = {"NodeProto": (7, 4), "FunctionProto": (10, 1)}
"""Fields with a domain and a name in it."""
_SINGLE = {
    *(("ModelProto", 7), ("AttributeProto", 5), ("AttributeProto", 6), ("AttributeProto", 22)),
    *(("SparseTensorProto", 1), ("SparseTensorProto", 2), ("TrainingInfoProto", 1), ("TrainingInfoProto", 2)),
}
"""Fields that a message has once: a parser would merge two of them into one that neither is."""
_BITS = {
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **{15: 128, 21: 4, 22: 4, 23: 4, 25: 2, 26: 2, 27: 6, 28: 6},
}
"""Of one number, by the number of its type; texts (8) have no fixed size."""
_KNOWN_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"}
)
_RUNS_MORE = frozenset({"ATen", "EPContext", "PythonOp", "PythonOpGrad"})
"""Operators of ``com.microsoft`` that run another runtime, Python, or a compiled program that they carry."""


@dataclass
class _Tensor:
    """What a tensor says of itself."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    type: int = 0
    held: int | None = None
    """Bytes of raw numbers inside."""
    elsewhere: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Bytes that it declares; None: of a type whose size is not known."""
        bits = _BITS.get(self.type)
        return None if bits is None else (math.prod(self.dims) * bits + 7) // 8


def _product(dims: Sequence[int]) -> int:
    return -1 if any(size < 0 for size in dims) else math.prod(dims)


@dataclass
class _Seen:
    """What a walk through a file has met; nothing is kept of a tensor that is as it should be."""

    path: Path
    most: int
    """Bytes of all tensors."""
    work: Work
    operators: dict[tuple[str, str], None] = field(default_factory=dict)
    functions: set[tuple[str, str]] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong, each with the first tensor that has it, so that a hostile file cannot fill a report."""
    places: set[tuple[str, int, int]] = field(default_factory=set)
    """Parts of other files."""
    files: dict[str, os.stat_result | None] = field(default_factory=dict)
    total: int = 0
    messages: int = 0


def may_be_onnx(head: bytes) -> bool:
    """Whether a file begins as a graph does: with the version of the format.

    >>> may_be_onnx(bytes([8, 9])), may_be_onnx(b"hello")
    (True, False)
    """
    return head[:1] == b"\x08"


def in_onnx(piece: Piece, path: Path, *, claims: bool) -> Iterator[Finding]:
    """Findings of one file.

    Args:
        piece: its name and limits.
        path: where it is, beside the files that it may keep its numbers in.
        claims: by its name or the MLmodel file it is a graph; else it may turn out to be none, without a finding.
    """
    seen = _Seen(path, piece.limits.bytes, piece.work)
    try:
        if piece.size:
            with path.open("rb") as stream:
                content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            _met(Span(content, 0, len(content)), "ModelProto", seen, 0)
    except WireError as error:
        if claims:
            yield piece.refusal("a damaged ONNX model", str(error))
        return
    if not seen.operators:  # anything at all may begin like a graph
        if claims:
            yield piece.refusal("an ONNX model without operators")
        return
    yield from _of_operators(piece, seen)
    if seen.total > seen.most:
        seen.faults.setdefault("numbers of more bytes than are admitted", "")
    if _lie_over(seen.places):
        seen.faults.setdefault("a tensor that lies over another", "")
    yield from (piece.refusal(wrong, name) for wrong, name in seen.faults.items())


def _met(span: Span, kind: str, seen: _Seen, depth: int) -> None:
    """Walk one message and those in it.

    Raises:
        WireError: damaged, too many, too deep, or with two of what there can be one.
        ExhaustedError: of more fields than any model has.
    """
    seen.messages += 1
    if seen.messages > _MOST_MESSAGES or depth > _DEEPEST:
        raise WireError("more operators, tensors or levels than any model has")
    inner, named, once = FIELDS[kind], _NAMED.get(kind, ()), set[int]()
    texts, tensor, count = dict[int, Span](), _Tensor(), 0
    for count, (number, value) in enumerate(fields(span), 1):  # it is what is left at the end
        if not count % 1024:
            seen.work.spend(steps=1024)
        if number in inner:
            if isinstance(value, int) or ((kind, number) in _SINGLE and number in once):
                raise WireError(f"field {number} of {kind} {'as a number' if isinstance(value, int) else 'twice'}")
            once.add(number)
            _met(value, inner[number], seen, depth + 1)
        elif number in named and isinstance(value, Span):
            texts[number] = value  # of several the last, as parsers take it
        else:
            _tell(tensor, kind, number, value)
    seen.work.spend(steps=1 + count % 1024)
    _end(seen, kind, texts, tensor)


def _end(seen: _Seen, kind: str, texts: Mapping[int, Span], tensor: _Tensor) -> None:
    """What a message comes to when all its fields are known."""
    named = _NAMED.get(kind)
    if named:
        _name(seen, kind, *(texts[number].text() if number in texts else "" for number in named))
    elif kind == "TensorProto":
        _weigh(seen, tensor)
    elif kind == "SparseTensorProto" and not 0 <= _product(tensor.dims) <= seen.most:
        seen.faults.setdefault("numbers of more bytes than are admitted", "")


def _name(seen: _Seen, kind: str, domain: str, name: str) -> None:
    if kind == "NodeProto":
        seen.operators.setdefault((domain, name))
    else:
        seen.functions.add((domain, name))
    if len(seen.operators) + len(seen.functions) > _MOST_KINDS:
        raise WireError("more kinds of operators than any model has")


def _tell(tensor: _Tensor, kind: str, number: int, value: "int | Span") -> None:
    """One field of a tensor; of other messages nothing is of interest."""
    if (kind, number) in (("TensorProto", 1), ("SparseTensorProto", 3)):
        _add_dimensions(tensor, value)
    elif kind != "TensorProto":
        return
    elif number == 2 and isinstance(value, int):
        tensor.type = value & 0xFFFFFFFF  # as parsers cut it
    elif number == 8 and isinstance(value, Span):
        tensor.name = value.text()[:80]
    elif number == 9 and isinstance(value, Span):
        tensor.held = len(value)
    elif number == 13 and isinstance(value, Span):
        if len(value) > _LONGEST_KEY:
            raise WireError("a place of external data longer than a path")
        entry = {part: text.text() for part, text in fields(value) if isinstance(text, Span)}
        key = entry.get(1, "")
        if key in tensor.elsewhere or len(tensor.elsewhere) >= _MOST_ENTRIES:
            raise WireError(f"external data with {key[:40]!r} twice, or with more than it can have")
        tensor.elsewhere[key] = entry.get(2, "")


def _add_dimensions(tensor: _Tensor, value: "int | Span") -> None:
    for size in numbers(value):
        if len(tensor.dims) >= _MOST_DIMENSIONS:
            raise WireError(f"a tensor of more than {_MOST_DIMENSIONS} dimensions")
        tensor.dims.append(size)


def _weigh(seen: _Seen, tensor: _Tensor) -> None:
    """Hold what a tensor declares against what there is."""
    wrong = _declared(tensor, seen.most)
    if wrong is None and tensor.elsewhere:
        place = _place(tensor, seen)
        if isinstance(place, str):
            wrong = place
        elif place[2]:
            seen.places.add(place)
    if wrong is None:
        seen.total += tensor.size or 0
    else:
        seen.faults.setdefault(wrong, tensor.name)


def _of_operators(piece: Piece, seen: _Seen) -> Iterator[Finding]:
    foreign = [
        f"{domain[:80]}::{name[:80]}"
        for domain, name in seen.operators
        if (domain, name) not in seen.functions
        and (domain not in _KNOWN_DOMAINS or (domain == "com.microsoft" and name in _RUNS_MORE))
    ]
    if foreign:
        more = f" and {len(foreign) - MOST_NAMED} more" * (len(foreign) > MOST_NAMED)
        yield piece.code("an ONNX graph with operators of a library of its own", ", ".join(foreign[:MOST_NAMED]) + more)


def _declared(tensor: _Tensor, most: int) -> str | None:
    """What is wrong with a tensor's dimensions, or with how many bytes it has for them."""
    if _product(tensor.dims) < 0:
        return "a tensor with a dimension below 0"
    size = tensor.size
    if size is not None and size > most:
        return "a tensor of more bytes than are admitted"
    if size is not None and tensor.held not in (None, size) and not tensor.elsewhere:
        return "a tensor that holds other bytes than it declares"
    return None


def _place(tensor: _Tensor, seen: _Seen) -> tuple[str, int, int] | str:
    """File and part of it that a tensor's numbers are kept in, or what is wrong with that."""
    told = tensor.elsewhere
    location = told.get("location", "")
    wrong = "no path" if not location else leaves(location)
    if wrong is not None:
        return f"external data in {wrong}"
    location = PurePosixPath(location).as_posix()
    if location not in seen.files:
        seen.files[location] = _there(seen.path.parent / location)
    found = seen.files[location]
    if found is None:
        return "external data in no file of the artifact"
    if not stat.S_ISREG(found.st_mode) or location == seen.path.name:
        return "external data in no other file of the artifact"
    numbers_told = (told.get("offset", "0"), told.get("length", "0"))
    if not all(one.isascii() and one.isdigit() and len(one) <= 18 for one in numbers_told):
        return "external data at a place that is no number"
    offset, there = int(numbers_told[0]), found.st_size
    size = tensor.size if tensor.size is not None else max(0, there - offset)
    if int(numbers_told[1] if "length" in told else size) != size:
        return "external data of other bytes than it declares"
    if offset + size > there:
        return "external data that its file does not have"
    return location, offset, size


def _there(file: Path) -> os.stat_result | None:
    try:
        return file.lstat()
    except (OSError, ValueError):
        return None


def _lie_over(places: Set[tuple[str, int, int]]) -> bool:
    """Whether parts of a file overlap without being the same, as tied weights are."""
    ordered = sorted(places)
    return any(one[0] == other[0] and one[1] + one[2] > other[1] for one, other in pairwise(ordered))
