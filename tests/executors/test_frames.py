"""Frames survive any way of being cut, and nothing else is taken for one."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flataudit.errors import ModelError
from flataudit.evidence import Array
from flataudit.executors import frames
from flataudit.executors.frames import ArrayHeader, Decoder, EvidenceHeader, Failure, ProgressNote, encode

NONCE = "n" * 32
STREAM = [
    (ProgressNote(what="loading", share=0.0), b""),
    (ArrayHeader(name="shift_accuracy/autumn", format="d", shape=(2, 3)), bytes(range(48))),
    (ArrayHeader(name="flags", format="?", shape=(3,)), b"\x01\x00\x01"),
    (EvidenceHeader(), b'{"any": "json"}'),
    (Failure(reason="ünlucky", advice=None), b""),
]


@given(st.lists(st.integers(1, 60), min_size=1))
def test_any_cut_of_the_stream_gives_the_same_frames(sizes: list[int]) -> None:
    raw = b"".join(encode(NONCE, content, body) for content, body in STREAM)
    decoder, found, at = Decoder(NONCE), [], 0
    while at < len(raw):
        size = sizes[len(found) % len(sizes)]
        found += [(frame.content, frame.body) for frame in decoder.feed(raw[at : at + size])]
        at += size
    assert found == STREAM


def test_an_array_frame_is_the_array() -> None:
    array = Array.of([1.0, -2.5])
    header = ArrayHeader(name="a", format="d", shape=(2,))
    (frame,) = Decoder(NONCE).feed(encode(NONCE, header, array.data))
    assert frame.array == array


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_noise_is_never_a_frame(noise: bytes) -> None:
    try:
        assert list(Decoder(NONCE).feed(noise)) == []
    except ModelError:
        pass


@given(st.data())
def test_a_flipped_byte_in_the_header_never_passes_as_another_body(data: st.DataObject) -> None:
    raw = bytearray(encode(NONCE, STREAM[1][0], STREAM[1][1]))
    at = data.draw(st.integers(0, len(raw) - 49))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        found = list(Decoder(NONCE).feed(bytes(raw)))
    except ModelError:
        return
    assert all(len(frame.array.data) == 48 and frame.body == STREAM[1][1] for frame in found)


def raw_frame(header: bytes, body_bytes: int, body: bytes = b"") -> bytes:
    return struct.pack(">IQ", len(header), body_bytes) + header + body


def header(content: str, nonce: str = NONCE) -> bytes:
    return f'{{"nonce": "{nonce}", "content": {content}}}'.encode()


ARRAY = '{"kind": "array", "name": "a", "format": "d", "shape": %s}'


@pytest.mark.parametrize(
    ("raw", "got"),
    [
        (raw_frame(header('{"kind": "evidence"}', nonce="m" * 32), 0), "got another"),
        (raw_frame(header('{"kind": "pickle"}'), 0), "content"),
        (raw_frame(header('{"kind": "evidence", "extra": 1}'), 0), "extra"),
        (raw_frame(b"[" * 60_000, 0), "recursion limit"),
        (raw_frame(b"\xff\xfe", 0), "bytes"),
        (raw_frame(b"", 0), "bytes"),
        (struct.pack(">IQ", 2**20, 0), "1048576"),
        (raw_frame(header('{"kind": "evidence"}'), 2**40), "1099511627776"),
        (raw_frame(header('{"kind": "progress", "what": "x", "share": 0.5}'), 1), "1 bytes"),
        (raw_frame(header('{"kind": "progress", "what": "x", "share": NaN}'), 0), "share"),
        (raw_frame(header(ARRAY % "[3]"), 16), "16 for shape"),
        (raw_frame(header(ARRAY % "[67108864]"), 2**29), "536870912 for shape"),
        (raw_frame(header(ARRAY % "[-1]"), 8), "shape"),
        (raw_frame(header(ARRAY % "[0]"), 0), "shape"),
        (raw_frame(header(ARRAY % ("[1" + "0" * 5000 + "]")), 8), "out of range"),
        (raw_frame(header(ARRAY % "[1]").replace(b'"d"', b'"O"'), 8), "format"),
        (raw_frame(header(ARRAY % "[1]").replace(b'"a"', b'"../../a"'), 8), "name"),
        (raw_frame(header(ARRAY % "[1]").replace(b'"a"', b'"/a"'), 8), "name"),
    ],
)
def test_what_is_no_frame_is_refused_before_its_body_is_read(raw: bytes, got: str) -> None:
    with pytest.raises(ModelError) as caught:
        list(Decoder(NONCE).feed(raw))
    assert got in str(caught.value)


def test_the_number_and_the_sum_of_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    note = encode(NONCE, ProgressNote(what="x", share=0))
    decoder = Decoder(NONCE)
    with pytest.raises(ModelError, match="10000 answers"):
        list(decoder.feed(note * 10_001))
    monkeypatch.setattr(frames, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(ModelError, match="1000 bytes"):
        list(Decoder(NONCE).feed(bytes(1001)))
