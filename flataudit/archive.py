"""Audits on disk: ``audit.json`` with all records, ``arrays.npz`` beside it, and the rendered reports.

The folder appears whole or not at all. Arrays are plain NumPy files (`numpy.load` reads them), written and read
here with the standard library, so that the core needs no numpy.
"""

import ast
import os
import shutil
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from flataudit import plugins
from flataudit.audit import AuditRecord
from flataudit.contracts import Renderer
from flataudit.errors import ReportError
from flataudit.evidence import Array

__all__ = ["publish", "read", "render"]

_MAGIC = b"\x93NUMPY\x01\x00"
_DESCR = {"d": "<f8", "f": "<f4", "q": "<i8", "i": "<i4", "B": "|u1", "?": "|b1"}
_FORMAT = {descr: letter for letter, descr in _DESCR.items()}
Arrays = Mapping[str, Mapping[str, Array]]


def publish(record: AuditRecord, arrays: Arrays, directory: Path, formats: Sequence[str]) -> Path:
    """Write the audit's folder: records, arrays and a report in each format.

    Raises:
        ReportError: the folder could not be written (a full disk); nothing of it remains.
    """
    staging = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        (staging / "audit.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
        _write_arrays(staging / "arrays.npz", arrays)
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
        return record, _read_arrays(folder / "arrays.npz")
    except (OSError, ValueError, SyntaxError, KeyError, struct.error, zipfile.BadZipFile) as error:
        told = f"{error.error_count()} invalid fields" if isinstance(error, ValidationError) else str(error)
        raise ReportError(
            f"a stored audit at {path}", got=told, remedy="name the folder that a gate printed, with its audit.json"
        ) from error


def _write_arrays(path: Path, arrays: Arrays) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for label, named in sorted(arrays.items()):
            for name, array in sorted(named.items()):
                header = repr({"descr": _DESCR[array.format], "fortran_order": False, "shape": array.shape})
                padded = header.encode().ljust(-(-(len(header) + 11) // 64) * 64 - 11) + b"\n"
                archive.writestr(f"{label}/{name}.npy", _MAGIC + struct.pack("<H", len(padded)) + padded + array.data)


def _read_arrays(path: Path) -> Arrays:
    arrays: dict[str, dict[str, Array]] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            raw = archive.read(entry)
            (length,) = struct.unpack("<H", raw[8:10])
            header = ast.literal_eval(raw[10 : 10 + length].decode())
            label, _, name = entry.removesuffix(".npy").partition("/")
            array = Array(_FORMAT[header["descr"]], tuple(header["shape"]), raw[10 + length :])
            arrays.setdefault(label, {})[name] = array
    return arrays
