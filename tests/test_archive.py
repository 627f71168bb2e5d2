"""Audits on disk: whole or not at all, and the same when read again."""

import errno
from pathlib import Path

import numpy as np
import pytest

from flataudit import archive
from flataudit.audit import AuditPlan, AuditRecord
from flataudit.errors import ReportError
from flataudit.evidence import Array

RECORD = AuditRecord(
    id="a",
    kind="gate",
    created="2026-01-01T00:00:00+00:00",
    actor="t",
    flataudit_version="0",
    plan=AuditPlan(model="m", data=(), probes=()),
    data=(),
    evidences=(),
)
VALUES = np.arange(6, dtype=np.int64).reshape(2, 3)
ARRAYS = {"v1": {"shift_accuracy/autumn": Array.of([0.5, 1.0]), "grid": Array.pack(VALUES)}}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    folder = archive.publish(RECORD, ARRAYS, tmp_path / "deep" / "audit", ())
    for where in (folder, folder / "audit.json"):
        assert archive.read(where) == (RECORD, ARRAYS)


def test_numpy_reads_the_arrays(tmp_path: Path) -> None:
    folder = archive.publish(RECORD, ARRAYS, tmp_path / "audit", ())
    with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
        assert np.array_equal(stored["v1/grid"], VALUES)
        assert stored["v1/shift_accuracy/autumn"].tolist() == [0.5, 1.0]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, arrays: archive.Arrays) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "write_arrays", full)
    with pytest.raises(ReportError, match="No space left on device"):
        archive.publish(RECORD, ARRAYS, tmp_path / "audit", ())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["audit.json", "arrays.npz"])
def test_a_damaged_archive_is_said_to_be_damaged(tmp_path: Path, damage: str) -> None:
    folder = archive.publish(RECORD, ARRAYS, tmp_path / "audit", ())
    content = (folder / damage).read_bytes()
    (folder / damage).write_bytes(content[: len(content) // 2])
    with pytest.raises(ReportError, match="a stored audit"):
        archive.read(folder)


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="a stored audit"):
        archive.read(tmp_path / "nothing")
