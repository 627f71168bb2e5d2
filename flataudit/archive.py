"""Audits on disk: ``audit.json`` with all records, ``arrays.npz`` beside it, and the rendered reports.

The folder appears whole or not at all.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from flataudit import plugins
from flataudit.arrays import DAMAGED, Arrays, read_arrays, write_arrays
from flataudit.audit import AuditRecord
from flataudit.contracts import Renderer
from flataudit.errors import ReportError

__all__ = ["Arrays", "publish", "read", "render"]


def publish(record: AuditRecord, arrays: Arrays, directory: Path, formats: Sequence[str]) -> Path:
    """Write the audit's folder: records, arrays and a report in each format.

    Raises:
        ReportError: the folder could not be written (a full disk); nothing of it remains.
    """
    staging = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        (staging / "audit.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
        write_arrays(staging / "arrays.npz", arrays)
        for name in formats:
            suffix, text = render(record, arrays, name)
            (staging / f"report.{suffix}").write_text(text, encoding="utf-8")
        staging.rename(directory)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise ReportError(
            f"to write the report to {directory}",
            got=f"{type(error).__name__}: {error.strerror or error}",
            remedy="free some space or choose another folder with --out; the registry was not touched",
        ) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return directory


def render(record: AuditRecord, arrays: Arrays, name: str) -> tuple[str, str]:
    """A file suffix and the document in one format."""
    renderer = cast("Renderer", plugins.make("reports", name))
    return renderer.suffix, renderer.render(record, arrays)


def read(path: Path) -> tuple[AuditRecord, Arrays]:
    """An audit from its folder or its ``audit.json``.

    Raises:
        ReportError: there is none, or it is damaged.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / "audit.json"
    try:
        record = AuditRecord.model_validate_json(file.read_bytes())
        return record, read_arrays(folder / "arrays.npz")
    except DAMAGED as error:
        told = f"{error.error_count()} invalid fields" if isinstance(error, ValidationError) else str(error)
        raise ReportError(
            f"a stored audit at {path}", got=told, remedy="name the folder that a gate printed, with its audit.json"
        ) from error
