"""Whether a ``.pt2`` archive is data, or would run code while it loads.

`torch.export.load` unpickles more than it seems to: weights and constants that say ``use_pickle``, custom objects, and
the sample inputs (first with ``weights_only``, and when that fails without). Symbolic shapes are parsed by sympy, which
evaluates them, and guards on shapes become Python source. So the archive is read here first, member by member; what is
not plainly data is code. And what was read is what torch gets: two zip readers may see different members in one file.

A node of a program names its operation, and torch looks the name up as ``torch.…``, so that a graph of plain JSON might
call what is no arithmetic at all; only names of operators that compute are data. Tensors of another device are written
as the CPU's, since a program that was exported on a GPU could not even be opened without one; it is moved afterwards.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor
from torch.export import ExportedProgram

__all__ = ["Archive", "fixed_batch", "read_archive"]

_DATA = re.compile(
    r"(data/(weights|constants)/((weight|tensor|constant)_\d+|model_(weights|constants)_config\.json)"
    r"|data/sample_inputs/[\w-]+\.pt|models/[\w-]+\.json|archive_format|archive_version|byteorder|version"
    r"|\.data/(version|serialization_id)|\.format_version|\.storage_alignment)"
)
_WORDS = re.compile(r"[A-Za-z_]\w*")
_SYMBOLIC = re.compile(
    r"(s|u|zuf|zf)\d+|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|CeilToInt|FloorToInt|TruncToInt|IntTrueDiv"
    r"|PowByNatural|Where|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|True|False|oo|int_oo|Integer|Symbol|Add|Mul|Pow|Rational"
    r"|positive|nonnegative|integer|and|or|not"
)
_PLAIN = re.compile(r"[\w\s+\-*/%(),<>=!&|~.']*")
_SIZE = re.compile(r"L\['\w+'\](\[\d+\]|\['\w+'\])*\.(size|stride)\(\)\[\d+\]")


_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|higher_order|torchvision)\.\w+(\.\w+)?"
    r"|torch\.sym_\w+|torch\._sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|and_|or_|xor|not_|eq|ne|lt|le|gt|ge)"
)
_FILES = re.compile(r"from_file|save|load")
"""In the name of an operator that reads or writes files."""


@dataclass(frozen=True)
class Archive:
    """An archive, read."""

    stream: io.BytesIO
    """Its members written anew, all on the CPU."""
    code: str | None
    """What in it would run code, in a few words; None: nothing."""
    devices: tuple[str, ...]
    """Other devices that it was exported for."""


def read_archive(path: Path) -> Archive:
    """Read every member of an archive and write it anew.

    Raises:
        zipfile.BadZipFile: it is no archive, is cut off, or a member is damaged.
        ValueError: a member is not the JSON it should be.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in dict.fromkeys(archive.namelist())}
    root = next(iter(members), "").partition("/")[0]
    code = next(filter(None, (_code_in_member(name, root, content) for name, content in members.items())), None)
    documents = {name: json.loads(content) for name, content in members.items() if name.endswith(".json")}
    moved = {name: set(_on_cpu(document)) for name, document in documents.items()}
    devices = tuple(sorted(set().union(*moved.values())))
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as written:
        for name, content in members.items():
            if moved.get(name):
                content = json.dumps(documents[name]).encode()
            elif devices and name.endswith(".pt") and content and _plain_tensors(content):
                content = _samples_on_cpu(content)
            written.writestr(zipfile.ZipInfo(name), content)
    copy.seek(0)
    return Archive(copy, code, devices)


def _on_cpu(value: JsonValue) -> Iterator[str]:
    """Make every device in a document the CPU; gives the others that were there."""
    if isinstance(value, dict):
        kind = value.get("type")
        if set(value) == {"type", "index"} and isinstance(kind, str) and kind not in ("cpu", "meta"):
            yield kind
            value.update(type="cpu", index=None)
        for item in value.values():
            yield from _on_cpu(item)
    elif isinstance(value, list):
        for item in value:
            yield from _on_cpu(item)


def _samples_on_cpu(content: bytes) -> bytes:
    copy = io.BytesIO()
    torch.save(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"), copy)
    return copy.getvalue()


def _code_in_member(name: str, root: str, content: bytes) -> str | None:
    if not _DATA.fullmatch(name.removeprefix(f"{root}/")):
        return f"the member {name!r}"
    if name.endswith(".pt") and not _plain_tensors(content):
        return "sample inputs that are more than tensors"
    return _code_in_json(json.loads(content)) if name.endswith(".json") else None


def _plain_tensors(content: bytes) -> bool:
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception:  # noqa: BLE001  # whatever the restricted reader refuses, the unrestricted one would run
        return not content
    return True


def _code_in_json(document: JsonValue) -> str | None:
    for key, value in _leaves(document):
        if key == "use_pickle" and value:
            return "pickled tensors"
        if key == "expr_str" and not _harmless(str(value)):
            return "a symbolic shape that is an expression of another kind"
        if key == "guards_code" and not _harmless(_SIZE.sub("0", str(value))):
            return "a guard that is more than a comparison of sizes"
        if key == "target" and not _computes(str(value)):
            return f"a call of {str(value)[:80]!r}, which is no operator that computes"
    return None


def _computes(target: str) -> bool:
    """Whether a node's target is a known operator; targets of the signature are names of parameters, with no prefix.

    >>> _computes("torch.ops.aten.linear.default"), _computes("0.weight"), _computes("torch.hub.load")
    (True, True, False)
    >>> _computes("torch.ops.aten.from_file.default"), _computes("_operator.add"), _computes("#custom:thing")
    (False, True, False)
    """
    if target.startswith(("torch", "_operator", "math", "#")):
        return bool(_OPERATORS.fullmatch(target)) and not _FILES.search(target)
    return True


def _leaves(value: JsonValue, key: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def _harmless(expression: str) -> bool:
    """Only symbols of shapes, numbers, arithmetic and the functions that shape expressions are made of."""
    words = _WORDS.findall(expression)
    return bool(_PLAIN.fullmatch(expression)) and "__" not in expression and all(_SYMBOLIC.fullmatch(w) for w in words)


def fixed_batch(program: ExportedProgram) -> int | None:
    """The one batch size that a program takes, by the shape of its first input; None where it takes any."""
    names = program.graph_signature.user_inputs
    first = next((node for node in program.graph.nodes if node.op == "placeholder" and node.name in names), None)
    value = None if first is None else first.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() == 0:
        return None
    size = value.shape[0]
    return size if isinstance(size, int) else None
