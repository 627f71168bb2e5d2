"""Whether a ``.pt2`` archive is data, or would run code while it loads.

`torch.export.load` unpickles more than it seems to: weights and constants that say ``use_pickle``, custom objects, and
the sample inputs (first with ``weights_only``, and when that fails without). Symbolic shapes are parsed by sympy, which
evaluates them, and guards on shapes become Python source. So the archive is read here first, member by member; what is
not plainly data is code.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import JsonValue

__all__ = ["code_in_archive"]

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


def code_in_archive(path: Path) -> str | None:
    """What in the archive would run code when it is loaded, in a few words; None if nothing was found.

    Raises:
        zipfile.BadZipFile: it is no archive, or is cut off.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = names[0].partition("/")[0] if names else ""
        odd = [name for name in names if not _DATA.fullmatch(name.removeprefix(f"{root}/"))]
        if odd:
            return f"the member {odd[0]!r}"
        for name in names:
            if name.endswith(".pt") and not _plain_tensors(archive.read(name)):
                return "sample inputs that are more than tensors"
            if name.endswith(".json"):
                found = _code_in_json(json.loads(archive.read(name)))
                if found:
                    return found
    return None


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
