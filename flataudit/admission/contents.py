"""What one file of an artifact is by its bytes, whatever it is called, and what in it is code.

A file may be several things at once (a zip with a script before it), so that every reading is tried. Archives are
checked before anything of them is inflated and then read member by member; pickles are walked, never loaded.
"""

import io
import lzma
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from flataudit.admission.archives import tar_faults, zip_faults
from flataudit.admission.headers import directory_bytes, header_faults
from flataudit.admission.pickles import STARTS, Walk, is_old_pickle, looks_like_pickle, walk
from flataudit.admission.pieces import MOST_DOCUMENT, MOST_NAMED, MOST_READ, Piece
from flataudit.admission.programs import is_source, meant
from flataudit.admission.schemas import brings_code
from flataudit.admission.streams import is_unreadable, unpacked
from flataudit.evidence import Finding

__all__ = ["found_in"]

_HEAD = 4096
_NESTED = 3
"""Archives in archives."""
_DIRECTORY = 16 * 2**20
"""Bytes of a zip's directory; Python reads it whole, and makes ten times as many of it."""
_CONFIGURATION = re.compile(r"(.*[/!])?\w*config\.json", re.IGNORECASE)
"""Where a class that a hub's code defines is looked for."""
_RAW = re.compile(r"([^/]+/)?(data/\d+|data/(weights|constants)/(weight|tensor|constant)_\d+)|.*\.npy")
"""Members that are numbers and nothing else: any bytes may begin them."""
_NATIVE = (
    b"\x7fELF",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
)
_LIBRARY = re.compile(r".*\.(so(\.\d+)*|dll|dylib|pyd|cubin|fatbin|hsaco|ptx)", re.IGNORECASE)
"""What loaders go by; its bytes may be of a machine that is not known here."""
_PYTHON = re.compile(rb"(import\s+[\w.]+|from\s+[\w.]+\s+import\s|(async\s+)?def\s+\w+\s*\(|class\s+\w+.*:|@\w)")
_OBJECTS = re.compile(rb"['\"][|<>=]?O\d*['\"]")
"""In the header of an array of NumPy's."""
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, NotImplementedError, RuntimeError, IndexError, KeyError, struct.error, OverflowError),
)
"""What Python's readers of archives raise on damaged ones."""


def found_in(piece: Piece) -> Iterator[Finding]:
    """All findings of one file, those of its members included."""
    head = piece.stream.read(_HEAD)
    native = _native(piece, head)
    if native is not None:
        yield piece.code(native)
        return
    yield from _pickled(piece, head)
    if piece.raw:
        return
    yield from _compressed(piece, head)
    if _is_tar(head):
        yield from _guarded(piece, _in_tar, "a tar archive")
    if head[:2] == b"PK":
        yield from _guarded(piece, _in_zip, "a zip archive")
    elif piece.depth == 0 and _ends_as_zip(piece):
        yield from _guarded(piece, _in_zip, "a zip archive behind something else")
    elif _is_script(piece.path, head):
        yield piece.code("a Python source")
    else:
        yield from _configured(piece, head)


def _native(piece: Piece, head: bytes) -> str | None:
    """What machines run, Python's own bytecode included."""
    if head.startswith(_NATIVE) or _LIBRARY.fullmatch(piece.path):
        return "a shared library or program"
    if head[:2] == b"MZ" and len(head) >= 64:
        at = int.from_bytes(head[60:64], "little")
        if head[at : at + 4] == b"PE\0\0":
            return "a shared library or program"
    if head[:4] == b"\0asm":
        return "a WebAssembly program"
    return "Python bytecode" if head[2:4] == b"\r\n" and head[16:17] in (b"\xe3", b"c") and not piece.raw else None


def _pickled(piece: Piece, head: bytes) -> Iterator[Finding]:
    """A pickle, or one after another as old torch files have them."""
    new = looks_like_pickle(head)
    if head[:6] == b"\x93NUMPY":
        yield from _numpy(piece, head)
        return
    if head[:1] not in STARTS:
        return
    piece.stream.seek(0)
    found = walk(piece.stream)
    piece.work.spend(steps=found.operations)
    if not new and not is_old_pickle(found):
        return
    yield from _judged(piece, found)
    while found.whole and looks_like_pickle(_peek(piece.stream)):
        found = walk(piece.stream)
        piece.work.spend(steps=found.operations)
        yield from _judged(piece, found)


def _judged(piece: Piece, found: Walk) -> Iterator[Finding]:
    names = found.foreign
    if names:
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        yield piece.code("a pickle", f"names {', '.join(name[:80] for name in names[:MOST_NAMED])}{more}")
    elif found.doubtful_at_a_name or (found.doubtful and not piece.raw) or (piece.cut and not found.whole):
        yield piece.code("a pickle", "which cannot be followed to its end")


def _numpy(piece: Piece, head: bytes) -> Iterator[Finding]:
    """Arrays of objects are pickles behind a header."""
    if _OBJECTS.search(head.partition(b"}")[0]):
        yield piece.code("an array of Python objects")


def _compressed(piece: Piece, head: bytes) -> Iterator[Finding]:
    """What joblib and others write: a stream without members."""
    if is_unreadable(head):
        yield piece.code("a compressed stream", "of a kind that is not read here")
        return
    piece.stream.seek(0)
    found = unpacked(piece.stream, head, MOST_READ)
    if found is None:
        return
    size = len(found.content)
    piece.work.spend(unpacked=size)
    if size >= min(MOST_READ, piece.limits.always) and size > piece.limits.ratio * piece.size:
        yield piece.refusal(f"more than {size:,} bytes when unpacked, out of {piece.size:,}")
    if found.damaged:
        yield piece.refusal("a compressed stream that is damaged")
    if piece.depth < _NESTED:
        yield from found_in(piece.inner("unpacked", io.BytesIO(found.content), size, cut=found.cut))
    else:
        yield piece.refusal("archives in archives")


def _is_tar(head: bytes) -> bool:
    """By its first header's checksum; those of old have no other sign."""
    try:
        return bool(tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape").name)
    except tarfile.HeaderError:
        return False


def _in_tar(piece: Piece) -> Iterator[Finding]:
    with tarfile.open(fileobj=piece.stream, mode="r:") as archive:
        members: list[tarfile.TarInfo] = []
        for member in archive:
            members.append(member)
            if len(members) > piece.limits.members:
                break
        faults = list(tar_faults(members, piece.size, piece.limits))
        yield from (piece.refusal(what, name) for name, what in faults)
        for member in members if not faults else ():
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None:
                yield from _member(piece, member.name, stream, member.size)  # type: ignore[arg-type]


def _in_zip(piece: Piece) -> Iterator[Finding]:
    if directory_bytes(piece.stream, piece.size) > _DIRECTORY:
        yield piece.refusal("a zip whose directory is too large to read")
        return
    with zipfile.ZipFile(piece.stream) as archive:
        faults = list(zip_faults(archive, piece.size, piece.limits)) or list(header_faults(archive, piece.size))
        yield from (piece.refusal(what, name) for name, what in faults)
        if faults:
            return
        yield from meant(piece, archive)
        for name in archive.namelist():
            if not name.endswith("/") and not is_source(name):
                told = archive.getinfo(name)
                piece.work.spend(steps=1, unpacked=told.file_size * (told.compress_type != zipfile.ZIP_STORED))
                with archive.open(name) as stream:
                    yield from _member(piece, name, stream, told.file_size)  # type: ignore[arg-type]


def _member(piece: Piece, name: str, stream: BinaryIO, size: int) -> Iterator[Finding]:
    inner = piece.inner(name, stream, size, raw=bool(_RAW.fullmatch(name)))
    head = stream.read(4)
    stream.seek(0)
    if head[:2] == b"PK" and not inner.raw:  # a zip is read from its end, which a compressed stream reaches slowly
        if inner.depth > _NESTED or size > MOST_READ * 16:
            yield inner.refusal("archives in archives" if inner.depth > _NESTED else "an archive too large in another")
            return
        with tempfile.SpooledTemporaryFile(MOST_READ) as copy:
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            yield from found_in(piece.inner(name, copy, size))  # type: ignore[arg-type]
        return
    yield from found_in(inner)


def _guarded(piece: Piece, read: Callable[[Piece], Iterator[Finding]], what: str) -> Iterator[Finding]:
    """What a damaged archive shows before it breaks off, and that it does."""
    piece.stream.seek(0)
    try:
        yield from read(piece)
    except _DAMAGED as error:
        yield piece.refusal(f"{what} that is damaged", f"{type(error).__name__}: {error}")


def _ends_as_zip(piece: Piece) -> bool:
    """Whether a zip lies behind something else; any numbers may end as one, so that it must also open."""
    if directory_bytes(piece.stream, piece.size) > _DIRECTORY:
        return True
    piece.stream.seek(0)
    try:
        with zipfile.ZipFile(piece.stream) as archive:
            return bool(archive.infolist())
    except _DAMAGED:
        return False


def _is_script(path: str, head: bytes) -> bool:
    """By its name, by the line that says who runs it, or by what it begins with beside comments."""
    if path.endswith((".py", ".pyx", ".pyw", ".ipynb", ".sh")) or head.startswith(b"#!"):
        return True
    lines = (line for line in head.splitlines() if line.strip() and not line.startswith(b"#"))
    return bool(_PYTHON.match(next(lines, b"")))


def _configured(piece: Piece, head: bytes) -> Iterator[Finding]:
    """A JSON document that names code of its own."""
    if not head.lstrip().startswith(b"{") and not piece.path.lower().endswith(".json"):
        return
    if piece.size > MOST_DOCUMENT:
        if _CONFIGURATION.fullmatch(piece.path):
            yield piece.refusal("a configuration too large to read")
        return
    piece.stream.seek(0)
    document = piece.stream.read()
    piece.work.spend(steps=len(document) // 8)
    if brings_code(document):
        yield piece.code("a configuration that brings code of its own", "auto_map")


def _peek(stream: BinaryIO) -> bytes:
    at = stream.tell()
    head = stream.read(4)
    stream.seek(at)
    return head
