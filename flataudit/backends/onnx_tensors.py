"""Whether one tensor of an ONNX file holds as many bytes as it declares, wherever they are kept."""

import errno
import math
import os
import stat
from pathlib import Path
from typing import BinaryIO

import onnx

__all__ = ["TensorError", "check_tensor", "fill_in", "open_regular"]

_Type = onnx.TensorProto
_BITS = {
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT8", "UINT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 8),
    **dict.fromkeys(("INT4", "UINT4"), 4),
    "COMPLEX128": 128,
}
"""Of one number, by the type's name; strings have no fixed size."""
_LISTS = {
    **dict.fromkeys(("FLOAT", "COMPLEX64"), "float_data"),
    **dict.fromkeys(("DOUBLE", "COMPLEX128"), "double_data"),
    **dict.fromkeys(("UINT32", "UINT64"), "uint64_data"),
    "INT64": "int64_data",
}
"""Where the numbers are that are not raw bytes; all other types are in ``int32_data``."""


class TensorError(Exception):
    """A tensor that is not what it says; the caller adds which one."""

    def __init__(self, expected: str, *, got: str, remedy: str = "the file is damaged") -> None:
        self.expected, self.got, self.remedy = expected, got, remedy
        super().__init__(expected)


def check_tensor(tensor: _Type, most: int) -> int:
    """The bytes of a tensor whose numbers are all there.

    Args:
        tensor: with its data inside.
        most: bytes that it may have.

    Raises:
        TensorError: an unknown type, a dimension below 0, too many numbers, or others than it holds.

    >>> check_tensor(onnx.helper.make_tensor("w", _Type.FLOAT, [2, 3], [1.0] * 6), 100)
    24
    """
    known = {number: name for name, number in _Type.DataType.items()}
    kind = known.get(tensor.data_type, "UNDEFINED")
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > 64:
        raise TensorError("dimensions of 0 and more, 64 at most", got=str(list(tensor.dims)[:8]))
    count = math.prod(int(size) for size in tensor.dims)
    if kind == "STRING":
        if len(tensor.string_data) != count:
            raise TensorError(f"{count} texts", got=f"{len(tensor.string_data)}")
        return int(sum(len(text) for text in tensor.string_data))
    if kind not in _BITS:
        raise TensorError("a type of numbers that is known", got=f"type {tensor.data_type}", remedy="another opset")
    size = (count * _BITS[kind] + 7) // 8
    if size > most:
        raise TensorError(f"at most {most:,} bytes", got=f"dimensions {list(tensor.dims)[:8]}: {size:,} bytes")
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size:
            raise TensorError(f"{size:,} bytes ({kind} {list(tensor.dims)})", got=f"{len(tensor.raw_data):,}")
        return size
    held = len(getattr(tensor, _LISTS.get(kind, "int32_data")))
    wanted = {"COMPLEX64": 2 * count, "COMPLEX128": 2 * count, "INT4": size, "UINT4": size}.get(kind, count)
    if held != wanted:
        raise TensorError(f"{wanted:,} numbers ({kind} {list(tensor.dims)})", got=f"{held:,}")
    return size


def fill_in(tensor: _Type, folder: Path | None, most: int) -> None:
    """Read a tensor's external data into it; one without stays as it is.

    Raises:
        TensorError: outside the folder, behind a link, no regular file, or a part that the file does not have.
    """
    if tensor.data_location != _Type.EXTERNAL:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _inside(entries.get("location", ""), folder)
    try:
        opened, size = open_regular(file)
    except OSError as error:
        got = f"{file.name[:80]}: {error.strerror}"
        raise TensorError(
            "external data in a regular file", got=got, remedy="keep the data beside the model"
        ) from error
    with opened:
        offset = _whole(entries.get("offset", "0"))
        length = _whole(entries.get("length", str(max(0, size - offset))))
        if offset + length > size or length > most:
            raise TensorError("external data that the file has", got=f"{length:,} bytes from {offset:,} of {size:,}")
        opened.seek(offset)
        content = opened.read(length)
    if len(content) != length:
        raise TensorError(f"{length:,} bytes of external data", got=f"{len(content):,}")
    tensor.raw_data = content
    del tensor.external_data[:]
    tensor.data_location = _Type.DEFAULT


def open_regular(file: Path) -> tuple[BinaryIO, int]:
    """A regular file and its size; links are not followed, and pipes do not hang.

    Raises:
        OSError: it is something else, or cannot be opened.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file")
    return os.fdopen(descriptor, "rb"), found.st_size


def _inside(location: str, folder: Path | None) -> Path:
    remedy = "keep the data beside the model"
    if folder is None:
        raise TensorError("a model with its data inside", got="external data of bytes in memory", remedy="give a path")
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or location.startswith("/") or ".." in parts or ":" in parts[0]:
        raise TensorError("external data inside the model's folder", got=repr(location[:80]), remedy=remedy)
    base = folder.resolve()
    file = base.joinpath(*[part for part in parts if part not in ("", ".")])
    if file == base or file.resolve() != file:
        raise TensorError("external data inside the folder, not behind links", got=repr(location[:80]), remedy=remedy)
    return file


def _whole(text: str) -> int:
    """A whole number of 0 and more, of a length that a file may have."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise TensorError("offset and length in bytes", got=repr(text[:40]))
    return int(text)
