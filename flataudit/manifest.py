"""A candidate's identity: one digest over the path, size and SHA-256 of every file it consists of."""

import hashlib
from pathlib import Path

from flataudit.errors import ModelError
from flataudit.evidence import canonical_digest

__all__ = ["file_digest", "manifest_digest"]


def file_digest(path: Path) -> str:
    """Hex SHA-256 of all bytes of one file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest_digest(directory: Path) -> str:
    """``sha256:…`` of the sorted manifest of a directory of regular files.

    Raises:
        ModelError: the directory is empty, or holds a link or another thing that is no regular file.
    """
    entries = [path for path in sorted(directory.rglob("*")) if path.is_symlink() or not path.is_dir()]
    odd = [path.name for path in entries if path.is_symlink() or not path.is_file()]
    if odd or not entries:
        got = f"{odd[0]!r}, which is a link or a device" if odd else f"no file in {directory.name!r}"
        raise ModelError("an artifact of regular files", got=got, remedy="log the model again")
    return canonical_digest(
        [[path.relative_to(directory).as_posix(), path.stat().st_size, file_digest(path)] for path in entries]
    )
