"""Whether a ``.pt2`` archive is data, or would run code while it loads.

`torch.export.load` unpickles more than it seems to: weights and constants that say ``use_pickle``, custom objects, and
the sample inputs (first with ``weights_only``, and when that fails without). Symbolic shapes are parsed by sympy, which
evaluates them, and guards on shapes become Python source. So the archive is read here first, member by member; what is
not plainly data is code. And what was read is what torch gets: two zip readers may see different members in one file.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor
from torch.export import ExportedProgram

__all__ = ["fixed_batch", "read_archive"]

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


def read_archive(path: Path) -> tuple[io.BytesIO, str | None]:
    """The archive written anew from its members, and what in it would run code, in a few words (None: nothing).

    Raises:
        zipfile.BadZipFile: it is no archive, is cut off, or a member is damaged.
        ValueError: a member is not the JSON it should be.
    """
    copy, code = io.BytesIO(), None
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
        names = list(dict.fromkeys(archive.namelist()))
        root = names[0].partition("/")[0] if names else ""
        for name in names:
            content = archive.read(name)
            code = code or _code_in_member(name, root, content)
            written.writestr(zipfile.ZipInfo(name), content)
    copy.seek(0)
    return copy, code


def _code_in_member(name: str, root: str, content: bytes) -> str | None:
    if not _DATA.fullmatch(name.removeprefix(f"{root}/")):
        return f"the member {name!r}"
    if name.endswith(".pt") and not _plain_tensors(content):
        return "sample inputs that are more than tensors"
    return _code_in_json(json.loads(content)) if name.endswith(".json") else None


def _plain_tensors(content: bytes) -> bool:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
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
    return None


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
