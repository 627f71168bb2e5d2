"""What a worker holds on disk is counted, also where it hides it."""

import os
from pathlib import Path

import pytest

from flataudit.executors import usage
from flataudit.executors.usage import resident, written

MEBIBYTE = 2**20


def test_bytes_on_disk_are_counted_at_any_depth_and_links_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.write_bytes(b"x" * 8 * MEBIBYTE)
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_bytes(b"x" * MEBIBYTE)
    (folder / "link").symlink_to(outside)
    (folder / "up").symlink_to(folder)
    assert MEBIBYTE <= written(folder, os.getpid()) < 2 * MEBIBYTE


def test_holes_are_not_counted(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    assert written(tmp_path, os.getpid()) < MEBIBYTE


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_files_without_a_name_are_counted_while_they_are_open(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = written(tmp_path / "folder", os.getpid())
    with (tmp_path / "nameless").open("wb") as file:
        (tmp_path / "nameless").unlink()
        file.write(b"x" * MEBIBYTE)
        file.flush()
        assert written(tmp_path / "folder", os.getpid()) - before >= MEBIBYTE
    assert written(tmp_path / "folder", os.getpid()) == before


def test_too_many_files_are_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MOST_FILES", 10)
    for number in range(9):
        (tmp_path / str(number)).touch()
    assert written(tmp_path, -1) == 0
    for number in range(9, 12):
        (tmp_path / str(number)).touch()
    assert written(tmp_path, -1) > 2**50


def test_what_has_gone_holds_nothing(tmp_path: Path) -> None:
    assert written(tmp_path / "gone", -1) == 0
    assert resident(-1) == 0
    assert resident(os.getpid()) > MEBIBYTE
