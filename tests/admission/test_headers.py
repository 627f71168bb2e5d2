"""Zips whose directory and headers tell two stories: each contradiction is refused, and what libraries write is not."""

import io
import struct
import zipfile
from pathlib import Path

import artifacts as make
import numpy as np
import pytest
import torch

from flataudit.admission.examining import admit
from flataudit.admission.headers import header_faults
from flataudit.evidence import Admission

END, LOCATOR, END_64 = 22, 20, 56


def zipped(way: int = zipfile.ZIP_STORED) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", way) as archive:
        archive.writestr(zipfile.ZipInfo("a/data.json"), b"[1, 2, 3]" * 20, compress_type=way)
        archive.writestr(zipfile.ZipInfo("a/other"), b"numbers")
    return bytearray(buffer.getvalue())


def patched(raw: bytearray, at: int, code: str, value: int | bytes) -> bytes:
    struct.pack_into(code, raw, at, value)
    return bytes(raw)


def with_zip64(change: int = 0, *, members: int = 2) -> bytes:
    """With the larger record behind the directory, and a locator that points beside it by `change`."""
    raw = zipped()
    _, _, _, _, _, length, offset, _ = struct.unpack("<4s4H2LH", raw[-END:])
    place = len(raw) - END
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, members, members, length, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, place + change, 1)
    return bytes(raw[:-END] + record + locator + raw[-END:])


def lying() -> dict[str, bytes]:
    end = len(zipped()) - END
    return {
        "a member whose own header gives another method": patched(zipped(), 8, "<H", 8),
        "a member whose own header gives another size": patched(zipped(), 22, "<L", 7),
        "other flags": patched(zipped(), 6, "<H", 2),
        "a member whose own header gives another name": patched(zipped(), 30, "<1s", b"b"),
        "bytes behind its directory": patched(zipped(), end + 20, "<H", 3) + b"abc",
        "a directory of 2 members that says 1": patched(
            bytearray(patched(zipped(), end + 8, "<H", 1)), end + 10, "<H", 1
        ),
        "on several disks": patched(zipped(), end + 4, "<H", 1),
        "two accounts of its directory": with_zip64(members=3),
    }


def put(folder: Path, content: bytes) -> Admission:
    make.described(folder)
    (folder / "data/x").write_bytes(content)
    return admit(folder)


@pytest.mark.parametrize(("told", "content"), lying().items(), ids=lying())
def test_two_stories_are_refused(told: str, content: bytes, tmp_path: Path) -> None:
    found = put(tmp_path / "m", content)
    assert found.verdict == "refused" and told in found.listed("refusal"), found


def test_a_locator_that_points_elsewhere(tmp_path: Path) -> None:
    """Python reads the record before the locator, miniz the one that the locator names."""
    found = put(tmp_path / "m", with_zip64(-8))
    assert found.verdict == "refused"


def test_a_directory_that_is_not_where_it_says() -> None:
    """Python moves all members by the difference."""
    raw = zipped()
    assert faults(patched(raw, len(raw) - END + 16, "<L", raw.index(b"PK\1\2") - 8)) == [
        ("", "a directory that is not where it says")
    ]


def test_a_member_s_larger_sizes_are_read_where_its_header_says() -> None:
    """NumPy writes ``.npz`` members so; the eight-byte sizes must agree as well."""
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(5.0))
    raw = bytearray(buffer.getvalue())
    assert faults(bytes(raw)) == []
    at = 30 + len("x.npy") + 4
    raw[at] ^= 1
    assert faults(bytes(raw)) == [("x.npy", "a member whose own header gives another size")]


def faults(raw: bytes) -> list[tuple[str, str]]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return list(header_faults(archive, len(raw)))


def test_what_libraries_write_tells_one_story() -> None:
    state, large = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.arange(3.0)}, state)
    with zipfile.ZipFile(large, "w") as archive, archive.open("big", "w", force_zip64=True) as member:
        member.write(b"numbers")
    streamed = io.BytesIO()
    streamed.seekable = lambda: False  # type: ignore[method-assign]
    with zipfile.ZipFile(streamed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"described behind itself")
    for one in (state, large, streamed, io.BytesIO(bytes(zipped(zipfile.ZIP_DEFLATED))), io.BytesIO(with_zip64())):
        assert faults(one.getvalue()) == []
