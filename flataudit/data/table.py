"""Examples from tables: CSV and Parquet, one file or a folder of part files, read in batches with Arrow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs
import pyarrow.types

from flataudit.contracts import AuditData, DataKind, Role
from flataudit.data.examples import checked
from flataudit.data.texts import text_array
from flataudit.errors import DataError
from flataudit.evidence import Record
from flataudit.plugins import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CsvFile", "ParquetFile"]

_BATCH_ROWS = 2**16


class CsvFile(Record):
    """One data set from ``.csv`` files with a header line."""

    path: str
    """A file, or a folder whose ``.csv`` files are read in the order of their names; a URI works too."""
    targets: str = "target"
    """Column of the targets; not read for unlabelled data, and never a feature."""
    inputs: tuple[str, ...] | None = None
    """Columns of the features, in this order; None: all others, in the table's order."""
    groups: str | None = None
    """Column of the groups; not a feature unless `inputs` names it."""
    text: str | None = None
    """Column of texts, which then are the inputs, alone."""
    kind: DataKind | None = None
    """What the inputs are; None: a table, or texts."""

    def load(self, name: str, role: Role) -> AuditData:
        """All examples, checked; features become float64 unless all are float32.

        Raises:
            DataError: the file or a column is missing, a feature is not a number, or the examples cannot be used.
        """
        return _load(self, "csv", name, role)


class ParquetFile(Record):
    """One data set from ``.parquet`` files."""

    path: str
    """A file, or a folder whose ``.parquet`` files are read in the order of their names; a URI works too."""
    targets: str = "target"
    """Column of the targets; not read for unlabelled data, and never a feature."""
    inputs: tuple[str, ...] | None = None
    """Columns of the features, in this order; None: all others, in the table's order."""
    groups: str | None = None
    """Column of the groups; not a feature unless `inputs` names it."""
    text: str | None = None
    """Column of texts, which then are the inputs, alone."""
    kind: DataKind | None = None
    """What the inputs are; None: a table, or texts."""

    def load(self, name: str, role: Role) -> AuditData:
        """All examples, checked; features become float64 unless all are float32.

        Raises:
            DataError: the file or a column is missing, a feature is not a number, or the examples cannot be used.
        """
        return _load(self, "parquet", name, role)


def _load(spec: CsvFile | ParquetFile, form: Literal["csv", "parquet"], name: str, role: Role) -> AuditData:
    strings = _as_strings(spec.text) if form == "csv" and spec.text is not None else None
    dataset = _opened(spec.path, form, strings)
    features = _feature_columns(spec, dataset.schema) if spec.text is None else [_text_column(spec, dataset.schema)]
    if form == "csv" and spec.text is None:
        dataset = _opened(spec.path, form, _as_floats(dataset.schema, features))
    labels = [spec.targets] if role != "unlabelled" else []
    grouped = [spec.groups] if spec.groups is not None else []
    for field, wanted in (("targets", labels), ("groups", grouped)):
        _refuse_unknown(wanted, dataset.schema.names, field, spec.path)
    columns = _read(dataset, list(dict.fromkeys([*features, *labels, *grouped])), spec.path)
    return checked(
        name,
        role,
        _stacked([columns[name] for name in features]) if spec.text is None else _texts(columns[spec.text], spec.path),
        columns[spec.targets] if labels else None,
        columns[grouped[0]] if grouped else None,
        source=spec.path,
        kind=spec.kind,
    )


def _stacked(columns: "Sequence[NDArray[np.generic]]") -> "NDArray[np.generic]":
    single = all(column.dtype == np.float32 for column in columns)
    return np.stack(columns, axis=1, dtype=np.float32 if single else np.float64)


def _texts(column: "NDArray[np.generic]", path: str) -> "NDArray[np.generic]":
    return text_array([str(text) for text in column], path)


def _opened(
    path: str, form: Literal["csv", "parquet"], reader: pyarrow.dataset.FileFormat | None = None
) -> pyarrow.dataset.Dataset:
    remedy = f"name a .{form} file, or a folder that holds some; it is relative to the policy file's folder"
    try:
        filesystem, place = (
            pyarrow.fs.FileSystem.from_uri(path) if "://" in path else (pyarrow.fs.LocalFileSystem(), path)
        )
        (info,) = filesystem.get_file_info([place])
        files = [place]
        if info.type == pyarrow.fs.FileType.Directory:
            found = filesystem.get_file_info(pyarrow.fs.FileSelector(place, recursive=True))
            files = sorted(part.path for part in found if part.is_file and part.path.endswith(f".{form}"))
        if info.type == pyarrow.fs.FileType.NotFound or not files:
            raise DataError(f"{form} data at {path}", got="nothing", remedy=remedy)
        return pyarrow.dataset.dataset(files, format=reader or form, filesystem=filesystem)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"readable {form} data at {path}", got=_first_line(error), remedy=remedy) from error


def _as_floats(schema: pyarrow.Schema, features: Sequence[str]) -> pyarrow.dataset.CsvFileFormat:
    """Whole numbers as floats: CSV types are inferred from the first rows, and a later row may have a point."""
    whole = [name for name in features if pyarrow.types.is_integer(schema.field(name).type)]
    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(whole, pyarrow.float64()))
    return pyarrow.dataset.CsvFileFormat(convert_options=options)


def _as_strings(column: str) -> pyarrow.dataset.CsvFileFormat:
    """Texts as they stand, also those that look like numbers or hold line breaks; an empty one is no missing value."""
    types = pyarrow.csv.ConvertOptions(column_types={column: pyarrow.string()}, strings_can_be_null=False)
    return pyarrow.dataset.CsvFileFormat(
        convert_options=types, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    )


def _text_column(spec: CsvFile | ParquetFile, schema: pyarrow.Schema) -> str:
    assert spec.text is not None
    _refuse_unknown([spec.text], schema.names, "text", spec.path)
    if spec.inputs is not None:
        remedy = "keep `text`, or list features with `inputs`; a model of both is not yet audited"
        raise DataError(f"texts or features in {spec.path}", got="both", remedy=remedy)
    found = schema.field(spec.text).type
    if isinstance(spec, ParquetFile) and not (pyarrow.types.is_string(found) or pyarrow.types.is_large_string(found)):
        remedy = "name a column of strings"
        raise DataError(f"texts in column {spec.text!r} of {spec.path}", got=str(found), remedy=remedy)
    return spec.text


def _feature_columns(spec: CsvFile | ParquetFile, schema: pyarrow.Schema) -> Sequence[str]:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        remedy = "rename one of them"
        raise DataError(f"different column names in {spec.path}", got=f"{twice[0]!r} twice", remedy=remedy)
    others = [name for name in schema.names if name not in {spec.targets, spec.groups}]
    features = others if spec.inputs is None else list(spec.inputs)
    _refuse_unknown(features, schema.names, "inputs", spec.path)
    if spec.targets in features:
        remedy = "remove it from `inputs`: a model must not see its target"
        raise DataError(f"features without the target in {spec.path}", got=repr(spec.targets), remedy=remedy)
    if not features:
        remedy = "add the columns of the features"
        raise DataError(f"at least one feature in {spec.path}", got="none", remedy=remedy)
    for name in features:
        kind = schema.field(name).type
        if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)):
            remedy = "encode it as numbers, or list the features with `inputs: [...]`"
            raise DataError(f"numbers in column {name!r} of {spec.path}", got=str(kind), remedy=remedy)
    return features


def _refuse_unknown(wanted: Sequence[str], known: Sequence[str], field: str, path: str) -> None:
    for name in wanted:
        if name not in known:
            remedy = f"{nearest(name, known)} (set `{field}`)"
            raise DataError(f"a column {name!r} of {field} in {path}", got="no such column", remedy=remedy)


def _read(dataset: pyarrow.dataset.Dataset, names: Sequence[str], path: str) -> "dict[str, NDArray[np.generic]]":
    """Whole columns by name, in the order of the files and rows."""
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    rows = 0
    try:
        for batch in dataset.to_batches(columns=list(names), batch_size=_BATCH_ROWS):
            for name in names:
                parts[name].append(_values(batch.column(name), name, rows, path))
            rows += batch.num_rows
    except (OSError, pyarrow.ArrowException) as error:
        remedy = "the parts must agree in columns and types, and be whole: write them again"
        raise DataError(f"readable rows in {path}", got=_first_line(error), remedy=remedy) from error
    if not rows:
        remedy = "check how the file was written"
        raise DataError(f"at least one example in {path}", got="no rows", remedy=remedy)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _values(column: pyarrow.Array, name: str, rows: int, path: str) -> "NDArray[np.generic]":
    if column.null_count:
        first = rows + column.is_null().index(True).as_py()
        remedy = "fill or remove these examples yourself: flataudit never fills gaps"
        got = f"{column.null_count} or more missing, the first in row {first} (counted from 0)"
        raise DataError(f"no missing values in column {name!r} of {path}", got=got, remedy=remedy)
    values: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return values


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
