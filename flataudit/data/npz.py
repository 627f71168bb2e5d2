"""Examples from a NumPy ``.npz`` file; nothing in it is ever unpickled."""

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile as Archive

from flataudit.contracts import AuditData
from flataudit.data.examples import checked
from flataudit.data.labels import numbered
from flataudit.errors import DataError
from flataudit.evidence import Record
from flataudit.plugins import nearest
from flataudit.specs import DataKind, InputField, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NpzFile"]


class NpzFile(Record):
    """One data set from the arrays of an ``.npz`` file, as `numpy.savez` writes it."""

    path: str
    """The file."""
    inputs: str = "x"
    """Name of the array of inputs, ``(n, …)`` numbers or ``(n,)`` unicode strings."""
    targets: str = "y"
    """Name of the array of targets, ``(n,)``; not read for unlabelled data."""
    groups: str | None = None
    """Name of the array of groups, ``(n,)``."""
    kind: DataKind | None = None
    """What the inputs are; None: as shape and dtype tell, which know images, tables and texts."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of inputs ``(n, columns)``, in their order; None: they have none, and match by place."""
    classes: tuple[str | int, ...] | None = None
    """All classes, in the order of the models' columns, where targets are not numbers from 0: strings, or 1, 2, 3."""

    def load(self, name: str, role: Role) -> AuditData:
        """All examples, checked.

        Raises:
            DataError: the file or an array is missing or damaged, or the examples cannot be used.
        """
        with _opened(self.path) as file, _archive(file, self.path) as archive:
            inputs = _array(archive, self.inputs, "inputs", self.path)
            targets = None if role == "unlabelled" else _array(archive, self.targets, "targets", self.path)
            groups = None if self.groups is None else _array(archive, self.groups, "groups", self.path)
        names: tuple[str, ...] = ()
        if self.classes is not None and targets is not None:
            targets, names = numbered(targets, self.classes, self.path)
        fields = _fields(self.columns, inputs, self.path)
        return checked(
            name, role, inputs, targets, groups, source=self.path, kind=self.kind, fields=fields, class_names=names
        )


def _fields(columns: tuple[str, ...] | None, inputs: "NDArray[np.generic]", path: str) -> tuple[InputField, ...]:
    """The columns by name; what they hold is numbers, as arrays have no other kinds."""
    if columns is None:
        return ()
    if inputs.ndim != 2 or inputs.shape[1] != len(columns) or len(set(columns)) != len(columns):
        expected = f"inputs (n, {len(columns)}) in {path}, with {len(columns)} different names of `columns`"
        remedy = "name each column once, in the order of the array"
        raise DataError(expected, got=f"shape {inputs.shape}", remedy=remedy)
    return tuple(InputField(name=one) for one in columns)


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        remedy = "check the path; it is relative to the policy file's folder"
        raise DataError(f"a readable file {path}", got=error.strerror or str(error), remedy=remedy) from error


def _archive(file: BinaryIO, path: str) -> Archive:
    try:
        found: object = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _not_npz(path, str(error)) from error
    if not isinstance(found, Archive):
        raise _not_npz(path, "a single .npy array")
    return found


def _not_npz(path: str, got: str) -> DataError:
    return DataError(f"a whole .npz file at {path}", got=got, remedy="write it again with numpy.savez(path, x=…, y=…)")


def _array(archive: "Archive", key: str, field: str, path: str) -> "NDArray[np.generic]":
    if key not in archive.files:
        got = f"only {', '.join(sorted(archive.files)) or 'an empty file'}"
        remedy = f"{nearest(key, archive.files)} (set `{field}`)"
        raise DataError(f"an array {key!r} of {field} in {path}", got=got, remedy=remedy)
    try:
        array: NDArray[np.generic] = archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        remedy = (
            "save numbers, not Python objects: convert it with .astype(...) first"
            if "allow_pickle" in str(error)
            else "the file is damaged: write or copy it again"
        )
        raise DataError(f"a whole array {key!r} in {path}", got=str(error).splitlines()[0], remedy=remedy) from error
    return array
