import datetime
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from flataudit import plugins
from flataudit.data import table
from flataudit.data.table import CsvFile, ParquetFile
from flataudit.errors import DataError

WRITE = {"csv": pyarrow.csv.write_csv, "parquet": pyarrow.parquet.write_table}
READ = {"csv": CsvFile, "parquet": ParquetFile}


def columns(n=100, start=0):
    i = np.arange(start, start + n)
    return {"age": i, "income": i / 7, "region": [f"r{k % 3}" for k in i], "target": i % 4}


def write(path, values):
    WRITE[path.suffix[1:]](pyarrow.table(values), path)
    return str(path)


@pytest.fixture(params=["csv", "parquet"])
def form(request):
    return request.param


def test_one_file(tmp_path, form):
    path = write(tmp_path / f"day.{form}", columns())
    data = plugins.make("data", form, {"path": path, "groups": "region"}).load("val", "validation")
    expected = np.stack([columns()["age"], columns()["income"]], axis=1)
    np.testing.assert_allclose(data.inputs, expected, rtol=1e-14)
    assert data.kind == "table" and data.inputs.dtype == np.float64
    assert np.array_equal(data.targets, columns()["target"]) and data.group_names == ("r0", "r1", "r2")


def test_a_folder_of_parts_is_read_in_the_order_of_names_and_in_batches(tmp_path, form, monkeypatch):
    monkeypatch.setattr(table, "_BATCH_ROWS", 7)
    for k in (2, 0, 1):
        write(tmp_path / f"part-{k}.{form}", columns(50, 50 * k))
    (tmp_path / "_SUCCESS").write_text("")
    whole = write(tmp_path.parent / f"whole.{form}", columns(150))
    options = {"groups": "region"}
    parts = READ[form](path=str(tmp_path), **options).load("v", "validation")
    assert parts.digest == READ[form](path=whole, **options).load("v", "validation").digest and len(parts) == 150
    assert READ[form](path=f"file://{tmp_path}", **options).load("v", "validation").digest == parts.digest


def test_chosen_columns_in_the_chosen_order(tmp_path, form):
    path = write(tmp_path / f"day.{form}", columns())
    data = READ[form](path=path, inputs=("income", "age"), targets="target").load("v", "validation")
    np.testing.assert_array_equal(data.inputs[:, 1], columns()["age"])


def test_unlabelled_rows_need_no_target_and_never_have_it_as_a_feature(tmp_path, form):
    with_target = {name: values for name, values in columns().items() if name != "region"}
    without = {name: values for name, values in with_target.items() if name != "target"}
    data = [
        READ[form](path=write(tmp_path / f"{k}.{form}", values)).load("recent", "unlabelled")
        for k, values in enumerate((with_target, without))
    ]
    assert data[0].inputs.shape == (100, 2) and data[0].digest == data[1].digest


def test_csv_whole_numbers_first_and_fractions_later(tmp_path):
    rows = 400_000
    path = tmp_path / "late.csv"
    path.write_text("a,target\n" + "1,0\n" * rows + "2.5,1\n")
    data = CsvFile(path=str(path)).load("v", "validation")
    assert data.inputs[-1, 0] == 2.5 and len(data) == rows + 1


def test_single_precision_stays(tmp_path):
    values = {"a": np.float32([0.1, 0.2]), "b": np.float32([1, 2]), "target": [0, 1]}
    path = write(tmp_path / "single.parquet", values)
    assert ParquetFile(path=path).load("v", "validation").inputs.dtype == np.float32


def test_dictionary_groups_and_date_features(tmp_path):
    values = columns(4) | {"region": pyarrow.array(list("bbab")).dictionary_encode()}
    path = write(tmp_path / "d.parquet", values)
    assert ParquetFile(path=path, groups="region").load("v", "validation").group_names == ("a", "b")
    dated = values | {"day": [datetime.date(2024, 1, 1)] * 4}
    with pytest.raises(DataError, match=r"numbers or strings in column 'day'.*date32.*inputs"):
        ParquetFile(path=write(tmp_path / "dated.parquet", dated), groups="region").load("v", "validation")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"inputs": ("agee",)}, "'agee' of inputs.*did you mean age"),
        ({"inputs": ("age", "target")}, "must not see its target"),
        ({"inputs": ("age",), "targets": "label"}, "'label' of targets"),
        ({"inputs": ("age",), "groups": "regions"}, "did you mean region"),
    ],
)
def test_wrong_columns(tmp_path, form, params, words):
    path = write(tmp_path / f"day.{form}", columns())
    with pytest.raises(DataError, match=words):
        READ[form](path=path, **params).load("v", "validation")


def test_missing_values_are_named_by_column_and_row(tmp_path, form):
    values = columns() | {"income": pyarrow.array([1.5] * 60 + [None] + [2.5] * 39)}
    with pytest.raises(DataError, match=r"column 'income'.*1 or more missing, the first in row 60.*never fills"):
        READ[form](path=write(tmp_path / f"g.{form}", values), groups="region").load("v", "validation")


def test_unreadable(tmp_path, form):
    def told(path):
        with pytest.raises(DataError) as caught:
            READ[form](path=str(path)).load("v", "validation")
        return str(caught.value)

    assert "nothing" in told(tmp_path / f"absent.{form}") and "nothing" in told(tmp_path)
    assert "readable" in told("nowhere://bucket/x")
    (tmp_path / f"junk.{form}").write_bytes(b"\x00\xff" * 50)
    assert f"junk.{form}" in told(tmp_path / f"junk.{form}")
    write(tmp_path / f"none.{form}", {"a": np.zeros(0), "target": np.zeros(0, int)})
    assert f"none.{form}" in told(tmp_path / f"none.{form}")
    (tmp_path / f"void.{form}").write_bytes(b"")
    assert f"void.{form}" in told(tmp_path / f"void.{form}")


def test_damaged_parquet(tmp_path):
    path = write(tmp_path / "whole.parquet", columns(5000))
    raw = bytearray(Path(path).read_bytes())
    raw[200:2000] = bytes(1800)
    (tmp_path / "cut.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"cut.parquet"):
        ParquetFile(path=str(tmp_path / "cut.parquet"), inputs=("age",)).load("v", "validation")


TEXTS = {"text": ["plain", "", 'two\nlines, and a "quote"', "17", "NA"], "target": [0, 1, 0, 1, 0], "age": range(5)}


def test_a_column_of_texts_is_the_input(tmp_path, form):
    path = write(tmp_path / f"day.{form}", TEXTS)
    data = plugins.make("data", form, {"path": path, "text": "text"}).load("v", "validation")
    assert data.kind == "text" and data.inputs.tolist() == TEXTS["text"] and data.targets.tolist() == TEXTS["target"]
    numbers = write(tmp_path / f"numbers.{form}", {"text": ["1", "02"], "target": [0, 1]})
    assert READ[form](path=numbers, text="text").load("v", "validation").inputs.tolist() == ["1", "02"]


def test_texts_in_many_batches(tmp_path, form, monkeypatch):
    monkeypatch.setattr(table, "_BATCH_ROWS", 7)
    values = {"text": ["x" * k for k in range(40)], "target": [0] * 40}
    data = READ[form](path=write(tmp_path / f"day.{form}", values), text="text").load("v", "validation")
    assert data.inputs.tolist() == values["text"]


def test_what_is_no_column_of_texts_is_refused(tmp_path, form):
    path = write(tmp_path / f"day.{form}", TEXTS)
    with pytest.raises(DataError, match=r"'txt' of text .*did you mean text"):
        READ[form](path=path, text="txt").load("v", "validation")
    with pytest.raises(DataError, match="texts or features"):
        READ[form](path=path, text="text", inputs=("age",)).load("v", "validation")
    with pytest.raises(DataError, match="numbers as inputs"):
        READ[form](path=path, text="text", kind="table").load("v", "validation")
    if form == "parquet":
        with pytest.raises(DataError, match="texts in column 'age'"):
            ParquetFile(path=path, text="age").load("v", "validation")
        gap = write(tmp_path / "gap.parquet", {"text": ["a", None], "target": [0, 1]})
        with pytest.raises(DataError, match="no missing values in column 'text'"):
            ParquetFile(path=gap, text="text").load("v", "validation")


def test_a_declared_kind_of_columns(tmp_path, form):
    path = write(tmp_path / f"day.{form}", columns())
    data = READ[form](path=path, inputs=("age",), kind="other").load("v", "validation")
    assert data.kind == "other" and data.declared


MIXED = {
    "colour": ["red", "blue", "green", "red"],
    "rooms": [3, 1, 2, 2],
    "area": [51.5, 20.0, 30.25, 44.0],
    "lift": [True, False, False, True],
    "target": ["sold", "let", "sold", "kept"],
}


def test_named_columns_of_every_kind(tmp_path, form):
    data = READ[form](path=write(tmp_path / f"day.{form}", MIXED)).load("v", "validation")
    told = [(field.name, field.kind, field.categories) for field in data.fields]
    assert told == [
        ("colour", "category", ("blue", "green", "red")),
        ("rooms", "integer", ()),
        ("area", "number", ()),
        ("lift", "boolean", ()),
    ]
    np.testing.assert_array_equal(data.inputs, [[2, 3, 51.5, 1], [0, 1, 20, 0], [1, 2, 30.25, 0], [2, 2, 44, 1]])
    assert data.class_names == ("kept", "let", "sold") and data.targets.tolist() == [2, 1, 2, 0]
    assert data.movable == (False, False, True, False) and data.head(2).fields == data.fields


def test_whole_numbers_move_where_the_policy_says_so(tmp_path, form):
    path = write(tmp_path / f"day.{form}", MIXED)
    data = READ[form](path=path, inputs=("rooms", "area"), integers_move=True).load("v", "validation")
    assert [field.kind for field in data.fields] == ["number", "number"] and data.movable is None


def test_names_of_columns_categories_and_classes_are_in_the_digest(tmp_path, form):
    others = [
        MIXED,
        {("flat" if name == "area" else name): values for name, values in MIXED.items()},
        MIXED | {"colour": ["red", "azure", "green", "red"]},
        MIXED | {"target": ["sold", "lent", "sold", "kept"]},
    ]
    paths = [write(tmp_path / f"{k}.{form}", values) for k, values in enumerate(others)]
    loaded = [READ[form](path=path).load("v", "validation") for path in paths]
    for other in loaded[1:]:
        np.testing.assert_array_equal(other.inputs, loaded[0].inputs)
    assert len({data.digest for data in loaded}) == 4


def test_listed_classes_are_numbered_in_that_order(tmp_path, form):
    path = write(tmp_path / f"day.{form}", MIXED)
    data = READ[form](path=path, classes=("sold", "kept", "let")).load("v", "validation")
    assert data.class_names == ("sold", "kept", "let") and data.targets.tolist() == [0, 2, 0, 1]
    path = write(tmp_path / f"numbers.{form}", MIXED | {"target": [3, 1, 3, 2]})
    data = READ[form](path=path, classes=(1, 2, 3)).load("v", "validation")
    assert data.class_names == ("1", "2", "3") and data.targets.tolist() == [2, 0, 2, 1]
    with pytest.raises(DataError, match=r"one of the classes 1, 2, got '3' in example 0"):
        READ[form](path=path, classes=(1, 2)).load("v", "validation")


def test_a_fraction_in_any_row_is_known_of_the_column(tmp_path, form):
    values = {"rooms": [3.0] * 70 + [2.5], "baths": [1.0] * 71, "target": [0, 1] * 35 + [0]}
    data = READ[form](path=write(tmp_path / f"day.{form}", values)).load("v", "validation")
    assert [field.fractional for field in data.head(64).fields] == [True, False]


def test_missing_numbers_are_kept_where_the_source_says_so(tmp_path, form):
    values = MIXED | {"area": pyarrow.array([51.5, None, 30.25, 44.0]), "rooms": pyarrow.array([3, 1, None, 2])}
    path = write(tmp_path / f"day.{form}", values)
    with pytest.raises(DataError, match=r"missing: keep"):
        READ[form](path=path).load("v", "validation")
    data = READ[form](path=path, missing="keep").load("v", "validation")
    assert np.argwhere(np.isnan(data.inputs)).tolist() == [[1, 2], [2, 1]]
    assert data.inputs[0].tolist() == [2, 3, 51.5, 1]


@pytest.mark.parametrize("column", ["colour", "target"])
def test_missing_categories_and_classes_are_refused_all_the_same(tmp_path, form, column):
    values = MIXED | {column: pyarrow.array(["a", None, "b", "a"])}
    with pytest.raises(DataError, match=f"'{column}'.*missing, the first in row 1"):
        READ[form](path=write(tmp_path / f"day.{form}", values), missing="keep").load("v", "validation")


def test_categories_of_many_batches_are_numbered_together(tmp_path, form, monkeypatch):
    monkeypatch.setattr(table, "_BATCH_ROWS", 3)
    values = {"letter": list("zyxwvutsrqponmlkjihgfedcba"), "target": [0] * 26}
    data = READ[form](path=write(tmp_path / f"day.{form}", values)).load("v", "validation")
    assert data.inputs[:, 0].tolist() == list(range(25, -1, -1)) and len(data.fields[0].categories) == 26
