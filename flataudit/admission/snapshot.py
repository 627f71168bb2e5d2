"""A candidate's files as they are from now on: copied byte by byte into a folder of our own, and hashed on the way.

A registry's store is somebody else's disk. A link in it would be followed to any file of this machine, a pipe would
hold the audit for ever, and what is read twice may differ. So every folder and file is opened by its name in the
opened folder above it, never through a link and never waiting, only regular files are copied, and the digest is that
of the bytes that were written.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flataudit.errors import ModelError
from flataudit.manifest import Entry, digest_of

__all__ = ["SnapshotLimits", "snapshot"]

_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 2**20
_REMEDY = "log the model again, with nothing but its own files"


@dataclass(frozen=True)
class SnapshotLimits:
    """The most that a candidate's files may be; what is more is a refusal, never a cut."""

    files: int = 10_000
    bytes: int = 64 * 2**30
    """Of all files."""
    file_bytes: int = 32 * 2**30
    """Of one."""
    depth: int = 32
    """Folders in folders."""

    def check(self, files: int, total: int, largest: int, depth: int = 0) -> None:
        """Refuse what is more than one of them.

        Raises:
            ModelError: with the limit that was passed.
        """
        found = ((files, self.files, "files"), (total, self.bytes, "bytes"), (largest, self.file_bytes, "bytes a file"))
        for have, most, of in (*found, (depth, self.depth, "folders in folders")):
            if have > most:
                got = f"{have:,}" if of != "folders in folders" else "more"
                raise ModelError(f"an artifact of at most {most:,} {of}", got=got, remedy="audit a smaller model")


def snapshot(
    source: Path, into: Path, *, only: str = "", limits: SnapshotLimits | None = None, consume: bool = False
) -> str:
    """Copy a folder's regular files into an empty folder, which only this user may enter; the manifest's digest.

    Args:
        source: where the files lie; whoever can write there may do so meanwhile.
        into: an empty folder.
        only: name of the one file to copy; empty: all.
        limits: the most that they may be.
        consume: remove each file once it was copied: a download of our own need not lie here twice.

    Raises:
        ModelError: links, pipes or devices, names that are no text, no files, or more than is allowed.
        OSError: this machine cannot read or write.
    """
    into.chmod(0o700)
    copied: list[Entry] = []
    copy = _Copy(limits or SnapshotLimits(), consume, copied)
    top = os.open(source, _READING | os.O_DIRECTORY)
    try:
        copy.folder(top, into, "", 0, only=only)
    finally:
        os.close(top)
    return digest_of(copied, source.name)


@dataclass(frozen=True)
class _Copy:
    """One copy under way."""

    limits: SnapshotLimits
    consume: bool
    done: list[Entry]

    def folder(self, opened: int, into: Path, below: str, depth: int, *, only: str = "") -> None:
        self.limits.check(len(self.done), 0, 0, depth)
        for name in sorted(os.listdir(opened)):
            if only and name != only:
                continue
            place = f"{below}{_text(name)}"
            entry = _opened(opened, name, place)
            try:
                if stat.S_ISDIR(os.fstat(entry).st_mode):
                    (into / name).mkdir(mode=0o700)
                    self.folder(entry, into / name, f"{place}/", depth + 1)
                else:
                    self.done.append(self._file(entry, into / name, place))
                    if self.consume:
                        os.unlink(name, dir_fd=opened)
            finally:
                os.close(entry)

    def _file(self, entry: int, into: Path, place: str) -> Entry:
        size, total, told = 0, sum(size for _, size, _ in self.done), hashlib.sha256()
        declared = os.fstat(entry).st_size
        self.limits.check(len(self.done) + 1, total + declared, declared)
        written = os.open(into, _WRITING, 0o600)
        with os.fdopen(written, "wb") as target:
            for chunk in _chunks(entry):
                size += len(chunk)
                self.limits.check(0, total + size, size)  # it may grow while it is read
                told.update(chunk)
                target.write(chunk)
        return place, size, told.hexdigest()


def _opened(folder: int, name: str, place: str) -> int:
    """A regular file or a folder; what it is, is asked of what was opened, not of its name."""
    before = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    entry = os.open(name, _READING, dir_fd=folder) if stat.S_ISREG(before) or stat.S_ISDIR(before) else -1
    if entry >= 0:
        found = os.fstat(entry).st_mode
        if stat.S_ISREG(found) or stat.S_ISDIR(found):
            return entry
        os.close(entry)
    kind = "a link" if stat.S_ISLNK(before) else "a pipe, socket or device"
    raise ModelError("an artifact of regular files", got=f"{kind}, {place[-80:]!r}", remedy=_REMEDY)


def _chunks(entry: int) -> Iterator[bytes]:
    while chunk := os.read(entry, _CHUNK):
        yield chunk


def _text(name: str) -> str:
    """A file's name, which records and reports can hold."""
    if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        raise ModelError("file names of text", got=ascii(name)[:80], remedy=_REMEDY)
    return name
