"""Protocol buffers as they lie in a file, read field by field without a schema and without copying.

A message is a sequence of fields, each a number with a kind, and then a varint, eight bytes, four bytes, or a length
with so many bytes (https://protobuf.dev/programming-guides/encoding). What a field means is for the caller to know;
nothing is decoded that was not asked for, so that a tensor of a gigabyte costs the reading of its length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Span", "WireError", "fields", "numbers"]

_LONGEST_VARINT = 10
_FIXED = {1: 8, 5: 4}
_HIGHEST = 2**29 - 1
"""Of a field's number."""


class WireError(ValueError):
    """The bytes are no message."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the file's bytes: a message, a text, or numbers side by side."""

    content: memoryview
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def text(self, most: int = 4096) -> str:
        """It as UTF-8, with what is none escaped; of what is longer, the beginning."""
        return bytes(self.content[self.start : min(self.end, self.start + most)]).decode("utf-8", "backslashreplace")


def fields(span: Span) -> Iterator[tuple[int, "int | Span"]]:
    """Number and value of every field in order: an integer for a varint, else its bytes.

    >>> list(fields(Span(memoryview(bytes([8, 150, 1])), 0, 3)))
    [(1, 150)]

    Raises:
        WireError: it breaks off, or holds what no current writer writes (groups, field 0).
    """
    at, content = span.start, span.content
    while at < span.end:
        tag, at = _varint(content, at, span.end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _HIGHEST:
            raise WireError(f"a field of number {number}")
        if kind == 0:
            value, at = _varint(content, at, span.end)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(content, at, span.end)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise WireError(f"a field of kind {kind}")
        if length > span.end - at:
            raise WireError(f"a field of {length:,} bytes, where {span.end - at:,} are left")
        yield number, Span(content, at, at + length)
        at += length


def numbers(value: "int | Span") -> Iterator[int]:
    """The integers of a repeated field, of which a writer may put many into one; signed, of 64 bits."""
    if isinstance(value, int):
        yield _signed(value)
        return
    at = value.start
    while at < value.end:
        one, at = _varint(value.content, at, value.end)
        yield _signed(one)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _varint(content: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= end:
            raise WireError("a number that breaks off")
        byte = content[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & (2**64 - 1), at + place + 1
    raise WireError("a number without end")
