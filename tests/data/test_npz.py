from pathlib import Path

import numpy as np
import pytest

from flataudit import plugins
from flataudit.data.npz import NpzFile
from flataudit.errors import DataError, PluginError

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
Y = np.arange(6) % 3


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "data.npz"
    np.savez_compressed(file, x=X, y=Y, region=np.array(list("aabbcc")))
    return str(file)


def test_reads_what_was_written(path):
    data = plugins.make("data", "npz", {"path": path, "groups": "region"}).load("val", "validation")
    assert np.array_equal(data.inputs, X) and np.array_equal(data.targets, Y)
    assert (data.name, data.role, data.group_names) == ("val", "validation", ("a", "b", "c"))


def test_unlabelled_data_needs_no_targets(path):
    assert NpzFile(path=path, targets="absent").load("recent", "unlabelled").targets is None


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"inputs": "xx"}, "'xx' of inputs.*only region, x, y.*did you mean x"),
        ({"targets": "labels"}, "'labels' of targets.*set `targets`"),
        ({"groups": "regions"}, "did you mean region"),
    ],
)
def test_a_missing_array_names_the_nearest(path, params, words):
    with pytest.raises(DataError, match=words):
        NpzFile(path=path, **params).load("val", "validation")


def fails(path):
    with pytest.raises(DataError) as caught:
        NpzFile(path=str(path)).load("val", "validation")
    return str(caught.value)


def test_damaged_files(tmp_path, path):
    whole = Path(path).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[120] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "text.npz").write_text("x,y\n1,2\n")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "single.npy", X)
    for name in ("cut.npz", "flipped.npz", "text.npz", "empty.npz", "single.npy"):
        assert name in fails(tmp_path / name)
    assert "No such file" in fails(tmp_path / "absent.npz")
    assert "directory" in fails(tmp_path)


def test_python_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(tmp_path / "bomb.npz", x=np.array([Bomb()], dtype=object), y=Y)
    assert "Python objects" in fails(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_a_declared_kind_and_texts(tmp_path):
    path = tmp_path / "day.npz"
    np.savez(path, x=np.zeros((3, 2, 5)), words=np.array(["a", "", "bc"]), y=[0, 1, 0], bad=np.array(["a", 1, 2], "O"))
    data = plugins.make("data", "npz", {"path": str(path), "kind": "series"}).load("v", "validation")
    assert data.kind == "series" and data.declared
    words = NpzFile(path=str(path), inputs="words").load("v", "validation")
    assert words.kind == "text" and not words.declared and words.inputs.tolist() == ["a", "", "bc"]
    with pytest.raises(DataError, match="not Python objects"):
        NpzFile(path=str(path), inputs="bad").load("v", "validation")
    with pytest.raises(PluginError, match="image"):
        plugins.make("data", "npz", {"path": str(path), "kind": "picture"})


def test_columns_and_classes_may_be_named(path, tmp_path):
    data = NpzFile(path=path, columns=("age", "height"), classes=(2, 0, 1)).load("val", "validation")
    assert [(field.name, field.kind, field.fractional) for field in data.fields] == [
        ("age", "number", True),
        ("height", "number", True),
    ]
    assert data.class_names == ("2", "0", "1") and data.targets.tolist() == [1, 2, 0, 1, 2, 0]
    assert data.digest != NpzFile(path=path).load("val", "validation").digest
    for columns in (("age",), ("age", "age")):
        with pytest.raises(DataError, match=r"different names of `columns`, got shape \(6, 2\)"):
            NpzFile(path=path, columns=columns).load("val", "validation")
    words = tmp_path / "words.npz"
    np.savez(words, x=X, y=np.array(list("abcabc")))
    with pytest.raises(DataError, match=r"or list their classes with `classes`"):
        NpzFile(path=str(words)).load("val", "validation")
    listed = NpzFile(path=str(words), classes=("c", "b", "a")).load("val", "validation")
    assert listed.targets.tolist() == [2, 1, 0, 2, 1, 0] and listed.class_names == ("c", "b", "a")
    assert NpzFile(path=str(words), classes=("c", "b", "a")).load("recent", "unlabelled").class_names == ()
    for classes, told in ((("a", "b"), "got 'c' in example 2"), (("a", "a", "b", "c"), "got 'a' twice")):
        with pytest.raises(DataError, match=told):
            NpzFile(path=str(words), classes=classes).load("val", "validation")
