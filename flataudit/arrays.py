"""Arrays on disk: plain NumPy files in a zip (`numpy.load` reads them), without numpy, which the core does not need."""

import ast
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from flataudit.evidence import Array

__all__ = ["DAMAGED", "Arrays", "read_arrays", "write_arrays"]

_MAGIC = b"\x93NUMPY\x01\x00"
_DESCR = {"d": "<f8", "f": "<f4", "q": "<i8", "i": "<i4", "B": "|u1", "?": "|b1"}
_FORMAT = {descr: letter for letter, descr in _DESCR.items()}
Arrays = Mapping[str, Mapping[str, Array]]
"""By candidate label, then by array name."""
DAMAGED = (OSError, ValueError, SyntaxError, KeyError, struct.error, zipfile.BadZipFile)
"""What reading a damaged file may raise."""


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write them as ``label/name.npy``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for label, named in sorted(arrays.items()):
            for name, array in sorted(named.items()):
                header = repr({"descr": _DESCR[array.format], "fortran_order": False, "shape": array.shape})
                padded = header.encode().ljust(-(-(len(header) + 11) // 64) * 64 - 11) + b"\n"
                archive.writestr(f"{label}/{name}.npy", _MAGIC + struct.pack("<H", len(padded)) + padded + array.data)


def read_arrays(path: Path) -> Arrays:
    """All arrays of the file; raises one of `DAMAGED` where it is not what was written."""
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
