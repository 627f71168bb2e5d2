"""A worker's folder goes away, whatever is in it, and nothing outside of it does."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from flataudit.executors import scratch as module
from flataudit.executors.scratch import remove, scratch

DEPTH = 3000


def dig(folder: Path, depth: int = DEPTH) -> None:
    """Nest folders deeper than a path can name, or a recursion follow."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        deeper = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)


def test_it_is_private_and_goes_away_after_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), scratch() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "file").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_folders_nested_without_end_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    dig(folder)
    with pytest.raises(RecursionError):
        shutil.rmtree(folder)
    remove(folder)
    assert not folder.exists()


def test_what_links_point_to_stays(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (outside / "file").write_text("kept")
    outside.chmod(0o500)
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "folder").symlink_to(outside)
    (folder / "a" / "file").symlink_to(outside / "file")
    (folder / "broken").symlink_to("nowhere")
    os.mkfifo(folder / "a" / "pipe")
    (folder / "a" / "b").chmod(0)
    (folder / "a").chmod(0o400)
    folder.chmod(0)
    remove(folder)
    assert not folder.exists()
    assert (outside / "file").read_text() == "kept"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500


def test_the_removal_ends_in_time_and_its_failure_does_not_rise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(TimeoutError):
        remove(tmp_path, seconds=-1)
    assert (tmp_path / "inner").exists()

    def refused(folder: Path) -> None:
        raise PermissionError(folder)

    monkeypatch.setattr(module, "remove", refused)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as folder:
        pass
    assert folder.exists()
