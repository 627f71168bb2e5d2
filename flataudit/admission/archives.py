"""What a zip or tar archive says of itself, checked before a byte of it is inflated.

Names that leave a folder, links, members that lie over each other, two of one name and sizes out of all proportion are
how archives attack who unpacks them; no format that models are stored in has any of it.
"""

import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["ArchiveLimits", "leaves", "tar_faults", "zip_faults"]

_SHOWN = 80
_LOCAL_HEADER = 30
"""Bytes of a member's own header, before its name."""


@dataclass(frozen=True)
class ArchiveLimits:
    """The most that an archive may declare."""

    members: int = 100_000
    """Of one archive."""
    bytes: int = 64 * 2**30
    """Of all members together, inflated."""
    ratio: int = 100
    """Inflated to stored, of an archive that inflates to more than `always`."""
    always: int = 100 * 2**20
    """Bytes that any archive may inflate to, whatever the ratio: zeros compress a thousandfold."""


def leaves(name: str) -> str | None:
    r"""What is wrong with a relative path as its archive or setting gives it; None: it stays inside.

    >>> leaves("data/model.pth"), leaves("../x"), leaves("/etc/passwd"), leaves("a\\b")
    (None, 'a path that goes up', 'an absolute path', 'a backslash in a path')
    """
    parts = name.split("/")
    if name.startswith(("/", "~")) or (len(name) > 1 and name[1] == ":"):
        return "an absolute path"
    if ".." in parts:
        return "a path that goes up"
    if "\\" in name:
        return "a backslash in a path"
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 or ord(letter) == 127 for letter in name):
        return "a control character in a path"
    return None


def zip_faults(archive: zipfile.ZipFile, size: int, limits: ArchiveLimits) -> Iterator[tuple[str, str]]:
    """What no honest zip has, each as name of the member and words.

    Args:
        archive: opened, nothing of it read.
        size: bytes of the file that holds it.
        limits: the most that it may declare.
    """
    entries = archive.infolist()
    yield from _amounts(len(entries), sum(entry.file_size for entry in entries), size, limits)
    seen: set[str] = set()
    for entry in entries[: limits.members]:
        name = entry.filename
        if (wrong := leaves(entry.orig_filename)) is not None:  # Python ends a name at a NUL, other readers do not
            yield _shown(name), wrong
        if _alike(name) in seen:
            yield _shown(name), "two members of one name"
        seen.add(_alike(name))
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield _shown(name), "a link or a device"
        if entry.flag_bits & 1:
            yield _shown(name), "an encrypted member"
    yield from _overlaps(entries, archive.start_dir)


def _overlaps(entries: Sequence[zipfile.ZipInfo], end: int) -> Iterator[tuple[str, str]]:
    """Members that share bytes inflate again and again."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    for entry, following in zip(ordered, [*ordered[1:], None], strict=True):
        least = entry.header_offset + _LOCAL_HEADER + len(entry.orig_filename) + entry.compress_size
        if least > (end if following is None else following.header_offset):
            yield _shown(entry.filename), "a member that lies over another"
            return


def tar_faults(members: Sequence[tarfile.TarInfo], size: int, limits: ArchiveLimits) -> Iterator[tuple[str, str]]:
    """What no honest tar has, each as name of the member and words."""
    yield from _amounts(len(members), sum(max(0, member.size) for member in members), size, limits)
    for member in members[: limits.members]:
        if (wrong := leaves(member.name)) is not None:
            yield _shown(member.name), wrong
        if not (member.isreg() or member.isdir()):
            yield _shown(member.name), "a link or a device"


def _amounts(members: int, inflated: int, size: int, limits: ArchiveLimits) -> Iterator[tuple[str, str]]:
    if members > limits.members:
        yield "", f"more than {limits.members:,} members"
    if inflated > limits.bytes:
        yield "", f"{inflated:,} bytes when unpacked, where {limits.bytes:,} are admitted"
    elif inflated > max(limits.always, limits.ratio * size):
        yield "", f"{inflated:,} bytes when unpacked, out of {size:,}"


def _alike(name: str) -> str:
    """One form of the names that mean the same file."""
    return PurePosixPath(name).as_posix()


def _shown(name: str) -> str:
    return name[:_SHOWN].encode("utf-8", "backslashreplace").decode()
