"""What a worker says to its parent, and the request that it was started with: JSON, then length-prefixed frames.

A frame is two big-endian lengths (header 4 bytes, body 8 bytes), a JSON header and a raw body. The header carries
the nonce of its request and says what the body is, so that its length is known, and refused, before it is read.
Nothing is ever unpickled: the worker may hold a stranger's model.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, field_validator

from flataudit.errors import ModelError
from flataudit.evidence import Array, Record
from flataudit.sandbox.selftest import Grade
from flataudit.specs import DataKind, InputField, Job

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_FRAMES",
    "MAX_TOTAL_BYTES",
    "ArrayHeader",
    "Decoder",
    "EvidenceHeader",
    "Failure",
    "Frame",
    "Limits",
    "ProgressNote",
    "Reach",
    "Ready",
    "Request",
    "Sample",
    "SelfTest",
    "encode",
    "text_limit",
]

_LENGTHS = struct.Struct(">IQ")
_ITEM_BYTES = {"d": 8, "f": 4, "q": 8, "i": 4, "B": 1, "?": 1}
MAX_HEADER_BYTES = 64 * 2**10
MAX_EVIDENCE_BYTES = 16 * 2**20
MAX_BODY_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20
"""All frames of one request together; bounds what the parent keeps."""
MAX_FRAMES = 10_000
_MAX_TEXT = 4000


class Limits(Record):
    """What a worker lays upon itself before it loads anything."""

    address_space: PositiveInt | None
    """Bytes of virtual memory; None: the parent watches the resident memory instead."""
    cpu_seconds: PositiveInt
    """Of all its threads together; the parent's clock comes first, this holds if the parent dies."""
    file_bytes: PositiveInt = 2**30
    """Largest file that it may write."""
    open_files: PositiveInt = 512
    processes: PositiveInt = 512


class Reach(Record):
    """What a worker may reach, and what it tries to reach in order to see that it cannot."""

    scratch: str = "."
    """The folder that it may write to."""
    readable: tuple[str, ...] = ()
    """Files and folders that its job names."""
    code: tuple[str, ...] = ()
    """Folders of the user's own whose Python files the job needs."""
    graphics: bool = False
    canary: str = "/nonexistent"
    """A file that it must not be able to read."""
    user: NonNegativeInt = 0
    """The user that it must not be."""


class Sample(Record):
    """What a model that only answers is loaded with, beside a few inputs: of labels, how many classes they have."""

    kind: DataKind
    fields: tuple[InputField, ...] = ()
    class_names: tuple[str, ...] = ()
    declared: bool = False
    classes: PositiveInt | None = None
    """None: the targets are no class numbers, one an example."""


class Request(Record):
    """All that a worker is told, on its standard input."""

    nonce: str
    """Repeated in every answer."""
    answers: NonNegativeInt = 0
    """Descriptor to which it answers."""
    channel: NonNegativeInt = 0
    """Descriptor of a socket: the listener of refused calls goes out, the word to begin comes in."""
    parent: NonNegativeInt = 0
    """The process that started it, with which it dies."""
    reach: Reach = Reach()
    limits: Limits
    job: Job | None = None
    """None: only say what you are kept from."""
    sample: Sample | None = None
    """Examine nothing: load the model, and answer the questions that come over the channel. None: examine."""


Text = Annotated[str, Field(max_length=_MAX_TEXT)]


class ProgressNote(Record):
    """What the worker does now."""

    kind: Literal["progress"] = "progress"
    what: Text
    share: Annotated[float, Field(ge=0, le=1)]


class Ready(Record):
    """A model has been loaded and waits for questions."""

    kind: Literal["ready"] = "ready"
    batch_size: Annotated[int, Field(ge=1, le=2**20)]
    dtype: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,20}$")]
    """That it computes in."""
    notes: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=12)] = ()
    no_curvature_because: Annotated[str, Field(max_length=1000)] | None = None
    no_probabilities_because: Annotated[str, Field(max_length=1000)] | None = None
    no_distribution_because: Annotated[str, Field(max_length=1000)] | None = None


class ArrayHeader(Record):
    """The body is an `Array`'s bytes."""

    kind: Literal["array"] = "array"
    name: Annotated[str, Field(min_length=1, max_length=300)]
    format: Literal["d", "f", "q", "i", "B", "?"]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_BODY_BYTES)], ...], Field(max_length=8)]

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        """Archives keep arrays under their names: a name must not lead out of the folder."""
        if not name.isprintable() or "\\" in name or {"", ".", ".."} & set(name.split("/")):
            raise ValueError("not a relative name")
        return name


class EvidenceHeader(Record):
    """The body is the evidence as JSON: of one probe, or of all in the last frame of an answer."""

    kind: Literal["evidence"] = "evidence"
    last: bool = True


class Failure(Record):
    """There is no evidence, and why; the last frame of an answer."""

    kind: Literal["failure"] = "failure"
    reason: Text
    advice: Text | None = None


class SelfTest(Record):
    """What a worker finds itself kept from."""

    kind: Literal["self_test"] = "self_test"
    environment: tuple[str, ...]
    """Names of all its variables."""
    found: Mapping[Literal["fs", "net", "proc", "mem", "uid"], Grade]
    """What became of its attempts on each."""
    tripwire: bool
    """Whether refused calls are told to its parent."""


Content = Annotated[
    ProgressNote | ArrayHeader | EvidenceHeader | Failure | Ready | SelfTest,
    Field(discriminator="kind"),
]


class _Header(Record):
    nonce: str
    content: Content


@dataclass(frozen=True)
class Frame:
    """One answer, whole."""

    content: ProgressNote | ArrayHeader | EvidenceHeader | Failure | Ready | SelfTest
    body: bytes

    @property
    def array(self) -> Array:
        """The body of an array frame."""
        assert isinstance(self.content, ArrayHeader)
        return Array(self.content.format, self.content.shape, self.body)


def text_limit(text: str) -> str:
    """The text, cut to what a header may hold.

    >>> len(text_limit("x" * 9999))
    4000
    """
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def encode(nonce: str, content: Content, body: bytes = b"") -> bytes:
    """A frame's bytes."""
    header = _Header(nonce=nonce, content=content).model_dump_json().encode()
    return _LENGTHS.pack(len(header), len(body)) + header + body


class Decoder:
    """Frames from whatever pieces their bytes arrive in; anything else is refused, and so are more bytes than ``most``.

    >>> decoder = Decoder("n")
    >>> [frame.content.what for frame in decoder.feed(encode("n", ProgressNote(what="accuracy", share=0.5)))]
    ['accuracy']
    >>> list(decoder.feed(b"GET / HTTP/1.1"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
      ...
    flataudit.errors.ModelError: expected a header of at most 65536 bytes, got 1195725856; ...
    """

    def __init__(self, nonce: str, *, most: int | None = None) -> None:
        self._nonce, self._most = nonce, MAX_TOTAL_BYTES if most is None else most
        self._buffer = bytearray()
        self._content: Content | None = None
        self._total = self._frames = 0

    @property
    def unfinished(self) -> bool:
        """Whether bytes of an incomplete frame are left."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete.

        Raises:
            ModelError: they are no frames of this request, or are larger than allowed.
        """
        self._total += len(chunk)
        if self._total > self._most:
            raise _malformed(f"at most {self._most} bytes of answers", "more")
        self._buffer += chunk
        while (frame := self._next()) is not None:
            self._frames += 1
            if self._frames > MAX_FRAMES:
                raise _malformed(f"at most {MAX_FRAMES} answers", "more")
            yield frame

    def _next(self) -> Frame | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        header_bytes, body_bytes = _LENGTHS.unpack_from(self._buffer)
        start = _LENGTHS.size + header_bytes
        if header_bytes > MAX_HEADER_BYTES:
            raise _malformed(f"a header of at most {MAX_HEADER_BYTES} bytes", str(header_bytes))
        if len(self._buffer) < start:
            return None
        if self._content is None:
            self._content = self._checked(bytes(self._buffer[_LENGTHS.size : start]), body_bytes)
        if len(self._buffer) < start + body_bytes:
            return None
        frame = Frame(self._content, bytes(memoryview(self._buffer)[start : start + body_bytes]))
        del self._buffer[: start + body_bytes]
        self._content = None
        return frame

    def _checked(self, raw: bytes, body_bytes: int) -> Content:
        try:
            header = _Header.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            got = f"{'.'.join(map(str, first['loc'])) or 'bytes'}: {first['msg'].lower()}"
            raise _malformed("a known header", got) from error
        if header.nonce != self._nonce:
            raise _malformed("the nonce of the request", "another")
        content = header.content
        if isinstance(content, ArrayHeader):
            size = math.prod(content.shape) * _ITEM_BYTES[content.format]
            most = min(MAX_BODY_BYTES, self._most)
            if size != body_bytes or size > most:
                got = f"{body_bytes} for shape {content.shape} of {content.format!r}"
                raise _malformed(f"as many bytes as values, at most {most}", got)
        elif body_bytes > (MAX_EVIDENCE_BYTES if isinstance(content, EvidenceHeader) else 0):
            raise _malformed(f"a {content.kind} frame within its size", f"{body_bytes} bytes")
        return content


def _malformed(expected: str, got: str) -> ModelError:
    remedy = "the worker's answer cannot be trusted: look for a native library or model that writes to descriptors"
    return ModelError(expected, got=got, remedy=remedy)
