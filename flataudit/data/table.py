"""Examples from tables: CSV and Parquet, one file or a folder of part files, read in batches with Arrow."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs
import pyarrow.types

from flataudit.contracts import AuditData
from flataudit.data.columns import column_field, holds_numbers, holds_strings, places_of
from flataudit.data.examples import checked
from flataudit.data.labels import numbered
from flataudit.data.texts import text_array
from flataudit.errors import DataError
from flataudit.evidence import Record
from flataudit.plugins import nearest
from flataudit.specs import DataKind, InputField, Role

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
    missing: Literal["refuse", "keep"] = "refuse"
    """Keep missing numbers as NaN, for models that take them; missing categories and targets are refused."""
    integers_move: bool = False
    """Whether columns of whole numbers may be moved a little by noise and attacks, as pixels may and counts may not."""
    classes: tuple[str | int, ...] | None = None
    """All classes, in the order of the models' columns; None: whole numbers count from 0, and strings are sorted."""

    def load(self, name: str, role: Role) -> AuditData:
        """All examples, checked; features become float64 unless all numbers are float32, strings categories or classes.

        Raises:
            DataError: the file or a column is missing, a feature is no number or string, or the examples cannot be
                used.
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
    missing: Literal["refuse", "keep"] = "refuse"
    """Keep missing numbers as NaN, for models that take them; missing categories and targets are refused."""
    integers_move: bool = False
    """Whether columns of whole numbers may be moved a little by noise and attacks, as pixels may and counts may not."""
    classes: tuple[str | int, ...] | None = None
    """All classes, in the order of the models' columns; None: whole numbers count from 0, and strings are sorted."""

    def load(self, name: str, role: Role) -> AuditData:
        """All examples, checked; features become float64 unless all numbers are float32, strings categories or classes.

        Raises:
            DataError: the file or a column is missing, a feature is no number or string, or the examples cannot be
                used.
        """
        return _load(self, "parquet", name, role)


def _load(spec: CsvFile | ParquetFile, form: Literal["csv", "parquet"], name: str, role: Role) -> AuditData:
    strings = _as_strings(spec.text) if form == "csv" and spec.text is not None else None
    dataset = _opened(spec.path, form, strings)
    types = dataset.schema
    features = _feature_columns(spec, types) if spec.text is None else [_text_column(spec, types)]
    if form == "csv" and spec.text is None:
        dataset = _opened(spec.path, form, _as_floats(types, features))
    labels = [spec.targets] if role != "unlabelled" else []
    grouped = [spec.groups] if spec.groups is not None else []
    for field, wanted in (("targets", labels), ("groups", grouped)):
        _refuse_unknown(wanted, types.names, field, spec.path)
    keep = {one for one in features if spec.missing == "keep" and holds_numbers(types.field(one).type)}
    columns = _read(dataset, list(dict.fromkeys([*features, *labels, *grouped])), spec.path, keep)
    named = [one for one in (*features, *labels) if spec.text is None and holds_strings(types.field(one).type)]
    if form == "csv":
        _refuse_empty_strings({one: columns[one] for one in named}, spec.path)
    fields, inputs = (
        _packed(columns, features, types, integers_move=spec.integers_move)
        if spec.text is None
        else ((), _texts(columns[spec.text], spec.path))
    )
    targets, class_names = _targets(spec, columns[spec.targets], types) if labels else (None, ())
    return checked(
        name,
        role,
        inputs,
        targets,
        columns[grouped[0]] if grouped else None,
        source=spec.path,
        kind=spec.kind,
        fields=fields,
        class_names=class_names,
        gaps=spec.missing == "keep",
    )


def _packed(
    columns: "Mapping[str, NDArray[np.generic]]", features: Sequence[str], types: pyarrow.Schema, *, integers_move: bool
) -> "tuple[tuple[InputField, ...], NDArray[np.generic]]":
    """The fields of the features, and their values ``(n, features)``."""
    made = [column_field(name, columns[name], types.field(name).type, integers_move=integers_move) for name in features]
    numbers = [values.dtype for field, values in made if field.kind in ("number", "integer")]
    single = bool(numbers) and all(dtype == np.float32 for dtype in numbers)
    packed = np.stack([values for _, values in made], axis=1, dtype=np.float32 if single else np.float64)
    return tuple(field for field, _ in made), packed


def _targets(
    spec: CsvFile | ParquetFile, column: "NDArray[np.generic]", types: pyarrow.Schema
) -> "tuple[NDArray[np.generic], tuple[str, ...]]":
    """Class numbers and names of strings, and of all that is listed; anything else as it is."""
    if spec.classes is not None:
        return numbered(column, spec.classes, spec.path)
    return places_of(column) if holds_strings(types.field(spec.targets).type) else (column, ())


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
        if not (holds_numbers(kind) or holds_strings(kind)):
            remedy = "encode it as numbers, or list the features with `inputs: [...]`"
            raise DataError(f"numbers or strings in column {name!r} of {spec.path}", got=str(kind), remedy=remedy)
    return features


def _refuse_unknown(wanted: Sequence[str], known: Sequence[str], field: str, path: str) -> None:
    for name in wanted:
        if name not in known:
            remedy = f"{nearest(name, known)} (set `{field}`)"
            raise DataError(f"a column {name!r} of {field} in {path}", got="no such column", remedy=remedy)


def _refuse_empty_strings(columns: "Mapping[str, NDArray[np.generic]]", path: str) -> None:
    """A CSV file has no other way to say that a category or class is missing."""
    for name, values in columns.items():
        empty = np.flatnonzero(values == "")
        if len(empty):
            raise _gaps(name, path, len(empty), int(empty[0]), numbers=False)


def _read(
    dataset: pyarrow.dataset.Dataset, names: Sequence[str], path: str, keep: Collection[str]
) -> "dict[str, NDArray[np.generic]]":
    """Whole columns by name, in the order of the files and rows; gaps are NaN in those to keep, else refused."""
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    rows = 0
    try:
        for batch in dataset.to_batches(columns=list(names), batch_size=_BATCH_ROWS):
            for name in names:
                parts[name].append(_values(batch.column(name), name, rows, path, gaps=name in keep))
            rows += batch.num_rows
    except (OSError, pyarrow.ArrowException) as error:
        remedy = "the parts must agree in columns and types, and be whole: write them again"
        raise DataError(f"readable rows in {path}", got=_first_line(error), remedy=remedy) from error
    if not rows:
        remedy = "check how the file was written"
        raise DataError(f"at least one example in {path}", got="no rows", remedy=remedy)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _values(column: pyarrow.Array, name: str, rows: int, path: str, *, gaps: bool) -> "NDArray[np.generic]":
    if column.null_count and not gaps:
        first = rows + column.is_null().index(True).as_py()
        raise _gaps(name, path, column.null_count, first, numbers=holds_numbers(column.type))
    if column.null_count and pyarrow.types.is_boolean(column.type):
        column = column.cast(pyarrow.float64())
    values: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return values


def _gaps(name: str, path: str, count: int, first: int, *, numbers: bool) -> DataError:
    kept = ", or keep missing numbers for models that take them (`missing: keep`)" if numbers else ""
    remedy = f"fill or remove these examples yourself{kept}: flataudit never fills gaps"
    got = f"{count} or more missing, the first in row {first} (counted from 0)"
    return DataError(f"no missing values in column {name!r} of {path}", got=got, remedy=remedy)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
