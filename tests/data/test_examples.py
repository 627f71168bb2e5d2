import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flataudit.data import texts
from flataudit.data.examples import checked
from flataudit.errors import DataError

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 2, 0])


def load(inputs=X, targets=Y, groups=None, role="validation", kind=None):
    return checked("v", role, inputs, targets, groups, source="v.npz", kind=kind)


def test_keeps_the_numbers_and_their_dtype():
    data = load(X.astype(np.float32), Y.astype(np.uint8))
    assert np.array_equal(data.inputs, X) and data.inputs.dtype == np.float32
    assert np.array_equal(data.targets, Y) and data.targets.dtype == np.int64


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((4, 1, 8, 8), "f4", "image"),
        ((4, 3, 8, 9), "u1", "image"),
        ((4, 8, 8, 3), "f4", "other"),
        ((4, 3), "f8", "table"),
        ((4, 3), "i8", "other"),
        ((4, 5, 3), "f4", "other"),
        ((4,), "f4", "other"),
    ],
)
def test_kind(shape, dtype, kind):
    assert load(np.zeros(shape, dtype)).kind == kind


def test_floating_point_targets_stay_values_even_where_whole():
    assert load(targets=Y.astype(np.float32)).targets.dtype == np.float64


def test_groups_become_numbers():
    data = load(groups=np.array(["b", "a", "b", "c"], dtype=object))
    assert data.groups.tolist() == [1, 0, 1, 2] and data.group_names == ("a", "b", "c")
    assert load(groups=[30, 4, 4, 30]).group_names == ("4", "30")


def test_unlabelled_data_needs_and_keeps_no_targets():
    assert load(targets=None, role="unlabelled").targets is None
    assert load(role="unlabelled").digest == load(targets=None, role="unlabelled").digest


def with_value(value, at):
    inputs = X.copy()
    inputs[at] = value
    return inputs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"inputs": with_value(np.nan, (2, 1))}, "1 of 12 values missing.*first in example 2"),
        ({"inputs": with_value(-np.inf, (3, 0))}, "1 of 12 values infinite.*first in example 3"),
        ({"inputs": np.ma.masked_equal(X, 5.0)}, "1 of 12 values masked"),
        ({"inputs": X[:0], "targets": Y[:0]}, r"at least one example.*\(0, 3\)"),
        ({"inputs": X[:, :0]}, "at least one example"),
        ({"inputs": np.float64(3)}, "at least one example"),
        ({"inputs": X.astype(object)}, "numbers as inputs.*object"),
        ({"inputs": X.astype(str)}, "numbers as inputs"),
        ({"inputs": X + 1j}, "complex128.*floating point"),
        ({"inputs": [[1.0, 2.0], [1.0]]}, "same shape"),
        ({"targets": None}, "targets for the validation data.*declare the data as unlabelled"),
        ({"targets": Y[:3]}, r"shape \(4,\).*shape \(3,\)"),
        ({"targets": Y[:, None]}, "flatten"),
        ({"targets": np.eye(4)}, "one-hot"),
        ({"targets": np.array([0, 1, -1, 2])}, "-1 in example 2.*floating point"),
        ({"targets": np.array(["cat", "dog", "cat", "cow"])}, "class numbers or values.*numbers from 0"),
        ({"targets": np.array([0.5, np.nan, 1.0, 2.0])}, "finite targets.*example 1"),
        ({"groups": ["a", "b"]}, r"groups of shape \(4,\)"),
        ({"groups": np.array(["a", None, "b", "c"], dtype=object)}, "None in example 1"),
        ({"groups": [0.0, np.nan, 1.0, 1.0]}, "finite groups"),
    ],
)
def test_refuses_what_cannot_be_used_and_says_what_to_do(arguments, words):
    with pytest.raises(DataError, match=words) as caught:
        load(**arguments)
    assert "v.npz" in str(caught.value) and caught.value.remedy and caught.value.exit_code == 2


def test_digest_tells_apart_what_differs_anywhere():
    big = np.zeros((20_000, 4))
    last = big.copy()
    last[-1, -1] = 1e-300
    labels = np.zeros(20_000, int)
    later = labels.copy()
    later[-1] = 1
    digests = [
        load(big, labels).digest,
        load(last, labels).digest,
        load(big, later).digest,
        load(big.astype("f4"), labels).digest,
        load(big.reshape(20_000, 2, 2), labels).digest,
        load(big, labels.astype(float)).digest,
        load(big, labels, labels).digest,
        load(big, labels, later).digest,
        load(big, labels, labels + 5).digest,
    ]
    assert len(set(digests)) == len(digests) and all(d.startswith("sha256:") and len(d) == 71 for d in digests)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4), elements=st.floats(-5, 5, width=32)))
def test_digest_depends_on_the_numbers_not_on_how_they_lie_in_memory(inputs):
    labels = np.zeros(len(inputs), int)
    forms = [inputs, np.asfortranarray(inputs), inputs.astype(">f4"), inputs[::-1][::-1], inputs.tolist()]
    digests = [load(np.asarray(form, "f4") if form is forms[-1] else form, labels).digest for form in forms]
    assert len(set(digests)) == 1


def test_leaves_the_arguments_alone():
    inputs, labels = X.copy(), Y.copy()
    load(inputs, labels)
    assert np.array_equal(inputs, X) and np.array_equal(labels, Y)


# ── Kinds that are declared, and texts ──


TEXTS = ["", "a", "naïve café", "日本", "😀"]


def test_a_declared_kind_is_kept_and_said():
    series = load(np.zeros((4, 2, 9)), kind="series")
    assert series.kind == "series" and series.declared and not load().declared
    assert load(np.zeros((4, 3), int), kind="table").kind == "table"
    assert load(np.zeros((4, 9, 9)), kind="image").kind == load(np.zeros((4, 9, 9, 3)), kind="image").kind == "image"
    assert load(kind="other").kind == "other"


def test_the_declared_kind_is_in_the_digest_where_it_changes_numbers():
    assert load(kind="table").digest == load().digest != load(kind="other").digest
    assert load(np.zeros((4, 2, 9)), kind="series").digest != load(np.zeros((4, 2, 9))).digest


@pytest.mark.parametrize(
    ("inputs", "kind", "words"),
    [
        (X, "image", r"kind image \(n, channels.*shape \(4, 3\).*correct `kind`"),
        (np.zeros((4, 2, 9, 9)), "image", "1 or 3 channels"),
        (np.zeros((4, 2, 9)), "table", r"\(n, features\)"),
        (X, "series", r"\(n, channels, time\)"),
        (X, "text", r"texts \(n,\).*float64"),
        (X.astype(str), "text", r"texts \(n,\).*\(4, 3\)"),
        (np.array(["a"] * 4), "table", "numbers as inputs"),
        (np.array(["a"] * 4, dtype=object), None, r"numbers as inputs.*object.*\.astype\(str\)"),
        (np.array(["a"] * 4, dtype=object), "text", r"texts \(n,\).*object"),
        (np.array([b"a"] * 4), "text", r"decoded from bytes"),
        (["a", "b\0c", "d", "e"], None, "NUL in example 1"),
        (["a", "b", "\ud800", "e"], None, "lone surrogate in example 2"),
    ],
)
def test_what_is_not_of_the_declared_kind_is_refused(inputs, kind, words):
    with pytest.raises(DataError, match=words):
        load(inputs, kind=kind)


def test_texts_are_kept_as_they_are():
    for form in (TEXTS, np.array(TEXTS), np.array(TEXTS, "U50").astype(">U50")):
        data = load(form, np.zeros(5, int))
        assert data.kind == "text" and data.inputs.tolist() == TEXTS and data.inputs.shape == (5,)
    assert load(["", ""], [0, 1]).inputs.tolist() == ["", ""]


def test_the_digest_of_texts_is_that_of_their_bytes_alone():
    wide, big = np.array(TEXTS, "U50"), np.array(TEXTS).astype(">U10")
    assert len({load(form, np.zeros(5, int)).digest for form in (TEXTS, wide, big)}) == 1
    # Unicode's two ways to write é are two texts, as they are for the model.
    other = [["ab", "c"], ["a", "bc"], ["abc", ""], ["caf\u00e9", ""], ["cafe\u0301", ""], ["1:a", ""]]
    assert len({load(form, [0, 1]).digest for form in other}) == 6


def test_texts_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(texts, "_MOST_BYTES", 4 * 2 * 10)
    assert texts.text_array(["a" * 10, ""], "t").shape == (2,)
    with pytest.raises(DataError, match=r"2 texts, the longest of 11 characters.*cut"):
        texts.text_array(["a" * 11, ""], "t")
