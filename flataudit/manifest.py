"""A candidate's identity: one digest over the path, size and SHA-256 of every file it consists of."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from flataudit.errors import ModelError
from flataudit.evidence import canonical_digest

__all__ = ["Entry", "digest_of", "file_digest", "manifest_digest"]

Entry = tuple[str, int, str]
"""Path with ``/`` between its parts, bytes, hex SHA-256."""


def file_digest(path: Path) -> str:
    """Hex SHA-256 of all bytes of one file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest_digest(directory: Path) -> str:
    """``sha256:…`` of the sorted manifest of a directory of regular files.

    Raises:
        ModelError: the directory is empty, or holds a link or another thing that is no regular file.
    """
    entries = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    odd = [path.name for path in entries if path.is_symlink() or not path.is_file()]
    if odd:
        got = f"{odd[0]!r}, which is a link or a device"
        raise ModelError("an artifact of regular files", got=got, remedy="log the model again")
    found = [(path.relative_to(directory).as_posix(), path.stat().st_size, file_digest(path)) for path in entries]
    return digest_of(found, directory.name)


def digest_of(entries: Sequence[Entry], name: str) -> str:
    """``sha256:…`` of files that were read already, in whatever order.

    Args:
        entries: each file once.
        name: of their folder, for the message.

    Raises:
        ModelError: there are none, or a name is no text.
    """
    if not entries:
        raise ModelError("an artifact of regular files", got=f"no file in {name!r}", remedy="log the model again")
    try:
        return canonical_digest([list(entry) for entry in sorted(entries, key=lambda entry: entry[0].split("/"))])
    except UnicodeEncodeError as error:
        raise ModelError("file names of text", got=ascii(error.object)[:80], remedy="log the model again") from error
