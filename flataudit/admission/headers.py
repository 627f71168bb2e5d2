"""Whether a zip's directory and the headers before its members tell one story.

Python, libtorch (miniz) and onnxruntime read archives with code of their own, which believe different parts of a file
that contradicts itself: what one of them examines, another need not load. So a zip is refused unless its directory
lies where it says and ends the file, and every member's own header repeats the name, method, flags and sizes that the
directory gives (PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.14 and 4.3.16).
"""

import struct
import zipfile
from collections.abc import Iterator
from typing import IO

__all__ = ["directory_bytes", "header_faults"]

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64 = 1
"""Id of the extra field that holds sizes of eight bytes."""
_DESCRIBED = 8
"""Flag: checksum and sizes stand behind the member, and its header holds zeros."""
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF


def directory_bytes(stream: IO[bytes], size: int) -> int:
    """How many bytes of a file Python's reader would take for a zip's directory, which it reads whole; 0: none.

    >>> import io
    >>> archive = io.BytesIO()
    >>> with zipfile.ZipFile(archive, "w") as written:
    ...     written.writestr("a", b"")
    >>> directory_bytes(archive, 121), directory_bytes(io.BytesIO(b"numbers"), 7)
    (47, 0)
    """
    start = max(0, size - _END.size - _FULL_16 - _LOCATOR.size - _END_64.size)
    stream.seek(start)
    tail = stream.read(size - start)
    at = len(tail) - _END.size
    if tail[max(0, at) :][:4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + _END.size:
        return 0
    found = int(_END.unpack_from(tail, at)[5])
    before = at - _LOCATOR.size - _END_64.size
    if before >= 0 and tail[before : before + 4] == b"PK\6\6" and tail[before + _END_64.size :][:4] == b"PK\6\7":
        found = int(_END_64.unpack_from(tail, before)[8])
    return found if found <= start + at else 0


def header_faults(archive: zipfile.ZipFile, size: int) -> Iterator[tuple[str, str]]:
    """What two readers of one zip would read differently, each as name of the member and words.

    Args:
        archive: opened by Python's reader, which believes its directory.
        size: bytes of the file that holds it.
    """
    stream = archive.fp
    assert stream is not None
    entries = archive.infolist()
    wrong = _ending(stream, size, len(entries))
    if wrong is not None:
        yield "", wrong
        return
    for entry in entries:
        if (wrong := _header(stream, entry)) is not None:
            yield entry.filename[:80].encode("utf-8", "backslashreplace").decode(), wrong


def _ending(stream: IO[bytes], size: int, members: int) -> str | None:
    """What is wrong with the records behind the directory."""
    stream.seek(0)
    first = stream.read(2)
    start = max(0, size - _END.size - _LOCATOR.size - _END_64.size)
    stream.seek(start)
    tail = stream.read(size - start)
    mark, disk, its_disk, here, count, length, offset, comment = _END.unpack(tail[-_END.size :])
    if mark != b"PK\5\6" or comment:
        return "bytes behind its directory"
    said: tuple[int, ...] = (disk, its_disk, here, count, length, offset)
    end = size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator.startswith(b"PK\6\7"):
        end -= _LOCATOR.size + _END_64.size
        larger = _larger(locator, tail[: _END_64.size], end if first == b"PK" else None)
        if larger is None or not all(_agree(one, two) for one, two in zip(said, larger, strict=True)):
            return "two accounts of its directory"
        said = larger
    if said[0] or said[1] or said[2] != said[3]:
        return "a part of an archive on several disks"
    if said[3] != members:
        return f"a directory of {members:,} members that says {said[3]:,}"
    if first == b"PK" and said[4] + said[5] != end:
        return "a directory that is not where it says"
    return None


def _larger(locator: bytes, record: bytes, place: int | None) -> tuple[int, ...] | None:
    """The zip64 record's account, if it is where its locator says; ``place`` None: something stands before the zip."""
    _, disk, offset, disks = _LOCATOR.unpack(locator)
    if len(record) < _END_64.size or record[:4] != b"PK\6\6":
        return None
    _, length, _, _, this, its, here, count, directory, start = _END_64.unpack(record)
    there = place is None or offset == place
    if disk or disks > 1 or length != _END_64.size - 12 or not there:
        return None
    return this, its, here, count, directory, start


def _agree(small: int, large: int) -> bool:
    """A field of the old record is that of the new one, or says to look there."""
    return small == large or small in (_FULL_16, _FULL_32)


def _header(stream: IO[bytes], entry: zipfile.ZipInfo) -> str | None:
    """What a member's own header says otherwise than the directory."""
    stream.seek(entry.header_offset)
    raw = stream.read(_LOCAL.size)
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\3\4":
        return "a member without a header of its own"
    _, _, flags, method, _, _, checksum, packed, unpacked, name, extra = _LOCAL.unpack(raw)
    rest = stream.read(name + extra)
    if rest[:name] != entry.orig_filename.encode("utf-8" if flags & 0x800 else "cp437", "replace"):
        return "a member whose own header gives another name"
    if method != entry.compress_type or flags != entry.flag_bits:
        return "a member whose own header gives another method or other flags"
    if flags & _DESCRIBED and checksum == 0 and {packed, unpacked} <= {0, _FULL_32}:
        return None
    if _FULL_32 in (packed, unpacked):
        packed, unpacked = _sizes_64(rest[name:], packed, unpacked)
    mine = (entry.CRC, entry.compress_size, entry.file_size)
    return None if (checksum, packed, unpacked) == mine else "a member whose own header gives another size"


def _sizes_64(extra: bytes, packed: int, unpacked: int) -> tuple[int, int]:
    """Sizes of eight bytes in the place of those that say to look there; uncompressed first."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == _ZIP64:
            numbers = [value for (value,) in struct.iter_unpack("<Q", extra[4 : 4 + length - length % 8])]
            unpacked = numbers.pop(0) if unpacked == _FULL_32 and numbers else unpacked
            packed = numbers.pop(0) if packed == _FULL_32 and numbers else packed
            break
        extra = extra[4 + length :]
    return packed, unpacked
