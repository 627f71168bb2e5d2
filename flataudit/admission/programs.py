"""What members of an archive are by their names and by its documents: exported programs, TorchScript, skops files.

A reader of such an archive goes by these names, so that what lies under one is what the name says, whatever its bytes
look like.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence

from flataudit.admission.pieces import MOST_DOCUMENT, MOST_NAMED, Piece
from flataudit.admission.schemas import uses_pickle
from flataudit.admission.skops import foreign_types, types_of
from flataudit.evidence import Finding

__all__ = ["is_source", "meant"]

_SOURCE = re.compile(r"(.*/)?code/.*\.py")
_COMPILED = re.compile(r"(.*/)?data/aotinductor/.+")
_OBJECT = re.compile(r"(.*/)?data/constants/custom_obj_\d+(/.*)?")
_MOBILE = re.compile(r"([^/]+/)?bytecode\.pkl")


def is_source(name: str) -> bool:
    """Whether a member is a source of a TorchScript program, which the whole program is reported for.

    >>> is_source("m/code/__torch__/net.py"), is_source("m/data.pkl")
    (True, False)
    """
    return bool(_SOURCE.fullmatch(name))


def meant(piece: Piece, archive: zipfile.ZipFile) -> Iterator[Finding]:
    """Findings that follow from names and documents; the members' own bytes are looked at elsewhere."""
    names = archive.namelist()
    words = (
        (is_source, "a TorchScript program"),
        (_COMPILED.fullmatch, "a compiled program"),
        (_OBJECT.fullmatch, "an object of a class that a library registers"),
        (_MOBILE.fullmatch, "a program for torch's mobile interpreter"),
    )
    for known, what in words:
        found = [name for name in names if known(name)]
        if found:
            yield piece.code(what, f"{found[0][:120]}" + f" and {len(found) - 1} more" * (len(found) > 1))
    yield from _skops(piece, archive, names)
    yield from _weights(piece, archive, names)


def _skops(piece: Piece, archive: zipfile.ZipFile, names: Sequence[str]) -> Iterator[Finding]:
    """The types that a skops file says it is made of, against our list."""
    if "schema.json" not in names:
        return
    if archive.getinfo("schema.json").file_size > MOST_DOCUMENT:
        yield piece.refusal("a skops file whose schema is too large to read")
        return
    schema = archive.read("schema.json")
    piece.work.spend(steps=len(schema) // 8)
    types = types_of(schema)
    foreign = foreign_types(types)
    if foreign:
        yield piece.code("a skops file of types beyond scikit-learn's", ", ".join(foreign[:MOST_NAMED]))
    elif types:
        more = f" and {len(types) - MOST_NAMED} more" * (len(types) > MOST_NAMED)
        yield piece.note("a skops file", ", ".join(types[:MOST_NAMED]) + more)


def _weights(piece: Piece, archive: zipfile.ZipFile, names: Sequence[str]) -> Iterator[Finding]:
    """An exported program's lists of weights and constants, which say of each whether it is pickled."""
    for name in names:
        if not name.endswith("_config.json"):
            continue
        if archive.getinfo(name).file_size > MOST_DOCUMENT:
            yield piece.refusal("a list of tensors too large to read", name)
            continue
        document = archive.read(name)
        piece.work.spend(steps=len(document) // 8)
        if uses_pickle(document):
            yield piece.code("a program with pickled tensors", name)
