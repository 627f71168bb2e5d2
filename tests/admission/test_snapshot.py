"""A copy of regular files by their bytes, and of nothing else."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flataudit.admission.snapshot import SnapshotLimits, snapshot
from flataudit.errors import ModelError
from flataudit.manifest import manifest_digest


def tree(folder: Path) -> Path:
    (folder / "data/deep").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}")
    (folder / "data/a b").write_bytes(bytes(range(256)) * 5000)
    (folder / "data/deep/ü").write_bytes(b"")
    (folder / "data-x").write_bytes(b"1")
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_digest_is_that_of_the_manifest_of_both(tmp_path: Path) -> None:
    source, into = tree(tmp_path / "s"), empty(tmp_path / "t")
    digest = snapshot(source, into)
    assert digest == manifest_digest(source) == manifest_digest(into)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (into, *into.rglob("*"))}
    assert modes == {0o700, 0o600}
    assert {path.stat().st_ino for path in into.rglob("*")}.isdisjoint(path.stat().st_ino for path in source.rglob("*"))


def test_what_was_consumed_is_gone(tmp_path: Path) -> None:
    source = tree(tmp_path / "s")
    snapshot(source, empty(tmp_path / "t"), consume=True)
    assert [path for path in source.rglob("*") if path.is_file()] == []


def test_one_file_alone(tmp_path: Path) -> None:
    snapshot(tree(tmp_path / "s"), empty(tmp_path / "t"), only="MLmodel")
    assert os.listdir(tmp_path / "t") == ["MLmodel"]


@pytest.mark.parametrize("kind", ["link", "folder link", "dead link", "pipe"])
def test_no_link_no_pipe(kind: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "s")
    place = source / "data/x"
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to({"link": "/etc/passwd", "folder link": "/etc", "dead link": "/absent"}[kind])
    with pytest.raises(ModelError, match="data/x"):
        snapshot(source, empty(tmp_path / "t"))
    assert not (tmp_path / "t/data/x").exists()


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (SnapshotLimits(files=3), "at most 3 files"),
        (SnapshotLimits(bytes=1000), "at most 1,000 bytes"),
        (SnapshotLimits(file_bytes=1000), "at most 1,000 bytes a file"),
        (SnapshotLimits(depth=1), "at most 1 folders"),
    ],
)
def test_more_than_is_allowed(limits: SnapshotLimits, told: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=told):
        snapshot(tree(tmp_path / "s"), empty(tmp_path / "t"), limits=limits)


def test_just_enough(tmp_path: Path) -> None:
    size = 256 * 5000
    limits = SnapshotLimits(files=4, bytes=size + 12, file_bytes=size, depth=2)
    snapshot(tree(tmp_path / "s"), empty(tmp_path / "t"), limits=limits)


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"\x1b[31m"])
def test_names_that_no_record_can_hold(name: bytes, tmp_path: Path) -> None:
    source = tree(tmp_path / "s")
    Path(os.fsdecode(os.fsencode(source) + b"/" + name)).touch()
    with pytest.raises(ModelError, match="file names of text"):
        snapshot(source, empty(tmp_path / "t"))
    if name == b"\xff":
        with pytest.raises(ModelError, match="file names of text"):
            manifest_digest(source)


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file in 's'"):
        snapshot(empty(tmp_path / "s"), empty(tmp_path / "t"))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(st.from_regex(r"([a-c]/){0,2}[x-z]{1,2}", fullmatch=True), st.binary(max_size=9)))
def test_any_tree(tmp_path: Path, files: dict[str, bytes]) -> None:
    place = tmp_path / str(len(os.listdir(tmp_path)))
    source, into = place / "s", place / "t"
    source.mkdir(parents=True)
    into.mkdir()
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    if files:
        assert snapshot(source, into) == manifest_digest(source) == manifest_digest(into)
        assert {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()} == files
