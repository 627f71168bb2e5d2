"""Code behind what readers of pickles and archives take in their stride, and files made to be slow to look at."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import artifacts as make
import joblib
import pytest

from flataudit.admission import contents, examining
from flataudit.admission.examining import admit
from flataudit.admission.pickles import walk
from flataudit.admission.pieces import Piece, Work
from flataudit.evidence import Admission

Found = TypeVar("Found")


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


CODE = pickle.dumps(Runs())


def put(folder: Path, content: bytes, name: str = "data/x") -> Admission:
    make.described(folder)
    (folder / name).write_bytes(content)
    return admit(folder)


def most_held(act: Callable[[], Found]) -> tuple[int, Found]:
    """Most bytes that were held at once while it acted, and what it gave."""
    tracemalloc.start()
    try:
        found = act()
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


def by_gzip(content: bytes) -> object:
    return pickle.load(gzip.open(io.BytesIO(content)))


def by_joblib(content: bytes) -> object:
    return joblib.load(io.BytesIO(content))


STREAMS: dict[str, tuple[Callable[[bytes], object], Callable[[bytes], bytes]]] = {
    "two gzip": (by_gzip, lambda code: gzip.compress(b"") + gzip.compress(code)),
    "two bz2": (by_joblib, lambda code: bz2.compress(b"") + bz2.compress(code)),
    "two xz": (by_joblib, lambda code: lzma.compress(b"") + lzma.compress(code)),
    "lzma as joblib writes it": (by_joblib, lambda code: lzma.compress(code, format=lzma.FORMAT_ALONE)),
    "gzip with damage": (by_gzip, lambda code: gzip.compress(code + bytes(9000))[:-8] + bytes(8)),
    "zlib with damage": (by_joblib, lambda code: zlib.compress(code + os.urandom(3_000_000), 0)[:-4] + bytes(4)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_what_a_reader_unpacks_is_looked_at(name: str, tmp_path: Path) -> None:
    """It runs what is in it."""

    class Marks:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "marker"),)

    read, packed = STREAMS[name]
    content = packed(pickle.dumps(Marks()))
    read(content)
    assert (tmp_path / "marker").exists()
    assert "a pickle" in put(tmp_path / "m", content).listed("code")


def test_a_stream_that_nobody_reads_here_is_not_passed_over(tmp_path: Path) -> None:
    for number, magic in enumerate((b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")):
        assert put(tmp_path / str(number), magic + CODE).verdict == "carries code"


def test_damaged_streams_are_refused_and_numbers_that_begin_alike_are_not(tmp_path: Path) -> None:
    assert put(tmp_path / "m", gzip.compress(bytes(9000))[:-8] + bytes(8)).verdict == "refused"
    for number, head in enumerate((b"\x1f\x8b\xff", b"\x5d\x00", b"\x78\x9c")):
        assert put(tmp_path / str(number), head + b"\x11" * 5000).verdict == "no code found", head


def test_a_stream_that_asks_for_two_gigabytes_is_refused(tmp_path: Path) -> None:
    greedy = lzma.compress(CODE, format=lzma.FORMAT_ALONE)
    assert put(tmp_path / "m", greedy[:1] + b"\0\0\0\x80" + greedy[5:]).verdict == "refused"


def test_a_pickle_whose_end_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"\x80\x05B" + struct.pack("<I", 300_000) + os.urandom(300_000) + b"0"
    monkeypatch.setattr(contents, "MOST_READ", 100_000)
    assert put(tmp_path / "m", gzip.compress(long + CODE[2:], 1)).verdict == "carries code"


def test_a_tar_of_old_has_no_magic(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("pickle")
        member.size = len(CODE)
        archive.addfile(member, io.BytesIO(CODE))
    old = bytearray(buffer.getvalue())
    old[257:265], old[148:156] = bytes(8), b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    with tarfile.open(fileobj=io.BytesIO(old), mode="r:") as archive:
        assert archive.getnames() == ["pickle"]
    assert put(tmp_path / "m", bytes(old)).verdict == "carries code"


@pytest.mark.parametrize("before", [b" " * 5000, b'{"x": "%s", ' % (b"a" * 5 * 2**20)], ids=["spaces", "megabytes"])
def test_a_configuration_is_read_to_its_end(before: bytes, tmp_path: Path) -> None:
    rest = b'"auto_map": {"AutoModel": "net.Net"}}'
    content = before + (rest if before.startswith(b"{") else b"{" + rest)
    assert put(tmp_path / "m", content, "data/config.json").verdict == "carries code"
    assert put(tmp_path / "n", b"{" + b" " * 17 * 2**20 + rest, "data/config.json").verdict == "refused"
    assert put(tmp_path / "o", b"{" + b" " * 17 * 2**20 + rest, "data/tokenizer.json").verdict == "no code found"


def test_names_are_those_of_other_readers_too(tmp_path: Path) -> None:
    """Python's ends at a NUL."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pklXx", b"numbers")
    assert put(tmp_path / "m", buffer.getvalue().replace(b"pklXx", b"pkl\0x")).verdict == "refused"


def test_a_name_is_not_unescaped() -> None:
    r"""``_\x6f`` is no ``_o`` to an unpickler."""
    assert walk(io.BytesIO(b"c_\\x63odecs\nencode\n.")).names == ("_\\x63odecs.encode",)


# ── What it takes ──


def test_a_directory_is_not_read_before_its_size_is_known(tmp_path: Path) -> None:
    directory = (b"PK\1\2" + bytes(42)) * 400_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(directory), 30, 0)
    for number, head in enumerate((b"PK\3\4" + bytes(26), b"numbers" + bytes(23))):
        content, folder = head + directory + end, make.described(tmp_path / str(number))
        (folder / "data/x").write_bytes(content)
        most, found = most_held(lambda folder=folder: admit(folder))
        assert most < len(directory) / 2
        assert "directory is too large" in found.listed("refusal")


def test_small_pickles_of_much_work_are_not_walked_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Work] = []
    monkeypatch.setattr(examining, "Work", lambda: made.append(Work(most_steps=100_000)) or made[-1])
    folder = make.described(tmp_path / "m")
    for number in range(20):
        (folder / f"data/{number}.gz").write_bytes(gzip.compress(b"\x80\x04" + b"N0" * 10_000 + b"N."))
    assert "more to look at than any honest model has" in admit(folder).listed("refusal")
    assert made[0].steps < 130_000


def test_what_members_unpack_to_is_counted_over_all_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Work] = []
    monkeypatch.setattr(examining, "Work", lambda: made.append(Work(most_unpacked=5_000_000)) or made[-1])
    folder = make.described(tmp_path / "m")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1_000_000))
    for number in range(10):
        (folder / f"data/{number}.npz").write_bytes(buffer.getvalue())
    assert "more to look at than any honest model has" in admit(folder).listed("refusal")
    assert made[0].unpacked == 6_000_000


def test_long_texts_of_a_pickle_are_not_kept() -> None:
    content = b"\x80\x04" + (b"X" + struct.pack("<I", 500_000) + bytes(500_000)) * 40 + b"."
    stream = io.BytesIO(content)
    most, found = most_held(lambda: walk(stream))
    assert found.whole and most < 5_000_000


def test_a_schema_is_read_within_bounds(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"[" + b"{}," * (6 * 2**20) + b"0]")
    assert "schema is too large" in put(tmp_path / "m", buffer.getvalue()).listed("refusal")


def test_findings_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "_MOST_COLLECTED", 50)
    folder = make.described(tmp_path / "m")
    for number in range(60):
        (folder / f"data/{number}").write_bytes(CODE)
    assert "more to look at" in admit(folder).listed("refusal")


def test_archives_in_archives_are_kept_on_disk(tmp_path: Path) -> None:
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("data.pkl", CODE)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.pt", inside.getvalue())
    assert put(tmp_path / "m", buffer.getvalue()).verdict == "carries code"
    assert Piece("x", buffer, 0).inner("y", buffer, 0).work.steps == 0
