"""What a compressed stream without members unpacks to, as the readers of pickles and weights would take it.

A stream may hold several, one after the other, and all are read as one. A reader hands out what it has unpacked before
it finds damage behind it, and a pickle does its harm while it is read; so what comes before damage is looked at too.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

__all__ = ["Unpacked", "is_unreadable", "unpacked"]

_PIECE = 4096
_BLOCK = 1024
"""Compressed bytes at a time; other readers take multiples of it, and lose as much where it is damaged."""
_MEMORY = 256 * 2**20
_UNREADABLE = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")
"""How LZ4 and Zstandard begin, of which Python 3.11 has no reader."""
_FAULTS = (EOFError, OSError, ValueError, MemoryError, zlib.error, lzma.LZMAError)


class _Reader(Protocol):
    def read1(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Unpacked:
    """What a stream unpacks to."""

    content: bytes
    cut: bool
    """There is more than was asked for."""
    damaged: bool
    """It does not end as such a stream does, or takes more memory than one that anybody writes."""


class _Zlib:
    """A reader of zlib's streams, one after the other."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._machine = stream, zlib.decompressobj()

    def read1(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        while True:
            if self._machine.eof:
                rest, self._machine = self._machine.unused_data, zlib.decompressobj()
            else:
                rest = self._machine.unconsumed_tail
            raw = rest or self._stream.read(_BLOCK)
            found = self._machine.decompress(raw, size)
            if found or not raw:
                return found


class _Lzma:
    """A reader of xz's streams and of LZMA's older ones, within bounds on memory: a header may ask for 4 GiB."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._machine = stream, lzma.LZMADecompressor(memlimit=_MEMORY)
        self._later = False

    def read1(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        while True:
            raw = self._machine.unused_data if self._machine.eof else b""
            if self._machine.eof:
                self._machine, self._later = lzma.LZMADecompressor(memlimit=_MEMORY), True
            if not raw and self._machine.needs_input:
                raw = self._stream.read(_BLOCK)
                if not raw:
                    return b""
            try:
                found = self._machine.decompress(raw, size)
            except lzma.LZMAError:
                if self._later:  # what follows a stream and is none is passed over by all readers
                    return b""
                raise
            if found:
                return found


def is_unreadable(head: bytes) -> bool:
    """Whether a stream is compressed in a way that is not read here.

    >>> is_unreadable(bytes.fromhex("28b52ffd20")), is_unreadable(b"PK")
    (True, False)
    """
    return head.startswith(_UNREADABLE)


def unpacked(stream: BinaryIO, head: bytes, most: int) -> Unpacked | None:
    """The beginning of what a stream unpacks to; None: it is not compressed.

    Args:
        stream: from its start.
        head: its first bytes.
        most: bytes that are unpacked.

    >>> import io
    >>> twice = gzip.compress(b"a") + gzip.compress(b"b")
    >>> unpacked(io.BytesIO(twice), twice[:8], 10)
    Unpacked(content=b'ab', cut=False, damaged=False)
    """
    made, sure = _reader(head)
    if made is None:
        return None
    content, damaged = bytearray(), False
    try:
        reader = made(stream)
        while len(content) <= most and (piece := reader.read1(_PIECE)):
            content += piece
    except _FAULTS as error:
        damaged = True
        sure = sure or str(error) == "Memory usage limit exceeded"
    if damaged and not content and not sure:  # numbers that begin like one
        return None
    return Unpacked(bytes(content[:most]), len(content) > most, damaged and sure)


def _reader(head: bytes) -> tuple[Callable[[BinaryIO], _Reader] | None, bool]:
    """What reads a stream that begins so, and whether nothing else begins so by chance."""
    if head.startswith(b"\x1f\x8b\x08"):
        return lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"), True
    if head.startswith(b"BZh"):
        return bz2.BZ2File, True
    if head.startswith(b"\xfd7zXZ"):
        return _Lzma, True
    if head.startswith(b"\x5d\x00"):  # LZMA as it was before xz, which joblib writes
        return _Lzma, False
    if len(head) > 2 and head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0:
        return _Zlib, False
    return None, False
