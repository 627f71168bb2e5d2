"""Inputs on their way to a model in another process: a JSON header, then raw numbers or the bytes of texts.

A question is two big-endian lengths (header 4 bytes, body 8 bytes), the header, and the body. Texts are each a length
of 4 bytes and UTF-8. Whoever reads a question believes it: it comes from the parent.
"""

import struct
from collections.abc import Iterator
from io import BufferedIOBase

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.errors import ConfigurationError
from flataudit.evidence import Record

__all__ = ["Question", "asked", "questions"]

_LENGTHS = struct.Struct(">IQ")
_TEXT = struct.Struct(">I")


class Question(Record):
    """What the body of a question is."""

    nonce: str
    """Of this question alone; its answer repeats it."""
    dtype: str
    """NumPy's short name with the byte order; ``texts``."""
    shape: tuple[int, ...]


def asked(nonce: str, inputs: NDArray[generic]) -> tuple[memoryview, memoryview]:
    """Head and body of one question, uncopied where the inputs lie in one piece.

    Args:
        nonce: that the answer must repeat.
        inputs: ``(n, …)`` numbers, or unicode ``(n,)``.

    Raises:
        ConfigurationError: inputs of another kind, which no data set holds.

    >>> import io
    >>> [found.tolist() for _, found in questions(io.BytesIO(b"".join(asked("a", np.array([[1, 2]])))))]
    [[[1, 2]]]
    """
    if inputs.dtype.kind == "U":
        body, dtype = memoryview(b"".join(_told(text) for text in inputs.reshape(-1).tolist())), "texts"
    elif inputs.dtype.kind in "biuf":
        body, dtype = np.ascontiguousarray(inputs).reshape(-1).view(np.uint8).data, inputs.dtype.str
    else:
        raise ConfigurationError("numbers or texts as inputs", got=f"dtype {inputs.dtype}", remedy="convert them")
    header = Question(nonce=nonce, dtype=dtype, shape=inputs.shape).model_dump_json().encode()
    return memoryview(_LENGTHS.pack(len(header), len(body)) + header), body


def questions(stream: BufferedIOBase) -> Iterator[tuple[str, NDArray[generic]]]:
    """Nonce and inputs of each question, until the stream ends."""
    while len(lengths := stream.read(_LENGTHS.size)) == _LENGTHS.size:
        header_bytes, body_bytes = _LENGTHS.unpack(lengths)
        question = Question.model_validate_json(stream.read(header_bytes))
        # Not bytes: some libraries take no array that cannot be written to.
        body = bytearray(body_bytes)
        if stream.readinto(body) < body_bytes:
            return
        yield question.nonce, _inputs(question, body)


def _inputs(question: Question, body: bytearray) -> NDArray[generic]:
    if question.dtype == "texts":
        found: NDArray[generic] = np.array(list(_texts(body)), dtype=np.str_)
    else:
        found = np.frombuffer(body, dtype=question.dtype)
    return found.reshape(question.shape)


def _told(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return _TEXT.pack(len(encoded)) + encoded


def _texts(body: bytearray) -> Iterator[str]:
    start = 0
    while start < len(body):
        (size,) = _TEXT.unpack_from(body, start)
        start += _TEXT.size
        yield body[start : start + size].decode("utf-8", "surrogatepass")
        start += size
