"""From an audit's one array to the inputs that a model names, and what is said where they do not meet."""

import numpy as np
import pytest

from flataudit.backends.feeding import feed
from flataudit.contracts import AuditData
from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.mlmodel import Signature, SignatureField
from flataudit.specs import InputField

FIELDS = (
    InputField(name="age"),
    InputField(name="children", kind="integer"),
    InputField(name="member", kind="boolean"),
    InputField(name="city", kind="category", categories=("Bonn", "Köln", "Trier")),
)
TABLE = np.array([[31.5, 2, 1, 0], [44.0, 0, 0, 2]])


def data(inputs: np.ndarray, fields: tuple[InputField, ...] = ()) -> AuditData:
    return AuditData("v", "validation", inputs, np.zeros(len(inputs), np.int64), None, "sha256:d", fields=fields)


def columns(**types: str) -> Signature:
    return Signature(inputs=tuple(SignatureField(name=name, dtype=dtype) for name, dtype in types.items()))


def tensors(**declared: tuple[str, tuple[int, ...]]) -> Signature:
    return Signature(
        inputs=tuple(SignatureField(name=name, dtype=d, shape=shape) for name, (d, shape) in declared.items())
    )


def test_names_decide_in_any_order_and_types_are_the_models() -> None:
    fed = feed(data(TABLE, FIELDS), columns(city="string", children="long", age="float"))
    frame = fed.frame(TABLE)
    assert list(frame.columns) == ["city", "children", "age"]
    assert frame["city"].tolist() == ["Bonn", "Trier"]
    assert (frame["children"].dtype, frame["age"].dtype) == (np.int64, np.float32)
    assert "left out: member" in fed.notes[0]


def test_without_a_signature_the_data_decide() -> None:
    frame = feed(data(TABLE, FIELDS), None).frame(TABLE)
    assert list(frame.columns) == ["age", "children", "member", "city"]
    assert frame["children"].dtype == np.int64 and frame["member"].dtype == bool
    fed = feed(data(TABLE), None)
    assert fed.whole and fed.arrays(TABLE)[0] is TABLE


def test_without_names_places_decide_and_that_is_said() -> None:
    fed = feed(data(TABLE), columns(a="double", b="long", c="double", d="double"))
    assert fed.frame(TABLE)["b"].tolist() == [2, 0]
    assert "matched by their place" in fed.notes[0]


@pytest.mark.parametrize(
    ("given", "signature", "told"),
    [
        (data(TABLE, FIELDS), columns(agee="double"), r"the columns 'agee'.* did you mean 'age'\?"),
        (data(TABLE), columns(a="double", b="double"), r"the 2 columns a, b.* got examples of shape \(4,\)"),
        (data(TABLE, FIELDS), columns(age="long"), r"whole numbers of 'age' \(long\), got fractions"),
        (data(TABLE, FIELDS), columns(age="string"), "text as values of 'age', got numbers"),
        (data(TABLE, FIELDS), columns(city="double"), "values of 'city' that are double, got text"),
        (data(TABLE), columns(when="datetime"), r"the 1 columns"),
        (data(TABLE[:, :1]), columns(when="datetime"), "numbers, text or booleans as input of 'when', got datetime"),
        (data(TABLE), tensors(x=("float32", (-1, 5))), r"inputs of shape \(n, 5\) for 'x', got \(n, 4\)"),
        (data(TABLE), tensors(x=("float32", (-1, 4, 1))), r"inputs of shape \(n, 4, 1\)"),
        (data(TABLE), tensors(x=("int64", (-1, 4))), r"whole numbers of 'x' \(int64\), got fractions"),
        (data(TABLE), tensors(ids=("int64", (-1, 2)), mask=("int64", (-1, 2))), "the tensors 'ids', 'mask'"),
    ],
)
def test_what_does_not_meet_is_named(given: AuditData, signature: Signature, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        feed(given, signature)


def test_several_tensors_are_cut_from_one_array() -> None:
    fields = (
        InputField(name="mask", shape=(2,), kind="integer"),
        InputField(name="image", shape=(2, 3)),
    )
    packed = np.arange(16.0).reshape(2, 8)
    fed = feed(data(packed, fields), tensors(image=("float32", (-1, 2, -1)), mask=("int64", (-1, 2))))
    image, mask = fed.arrays(packed)
    np.testing.assert_array_equal(image, packed[:, 2:].reshape(2, 2, 3))
    np.testing.assert_array_equal(mask, packed[:, :2])
    assert (image.dtype, mask.dtype) == (np.float32, np.int64)


def test_an_optional_column_may_lack() -> None:
    signature = Signature(
        inputs=(SignatureField(name="age", dtype="double"), SignatureField(name="x", dtype="double", required=False))
    )
    assert [part.name for part in feed(data(TABLE, FIELDS), signature).parts] == ["age"]


def test_a_fraction_anywhere_in_the_data_makes_a_column_one_of_fractions() -> None:
    """A backend sees 64 examples; later fractions were rounded in silence."""
    inputs = np.arange(200.0).reshape(100, 2)
    inputs[90, 1] = 0.5
    fields = (InputField(name="rooms"), InputField(name="baths"))
    few = checked("v", "validation", inputs, [0, 1] * 50, source="test", fields=fields).head(64)
    with pytest.raises(ModelError, match=r"whole numbers of 'baths' \(long\), got fractions"):
        feed(few, columns(rooms="long", baths="long"))
    assert feed(few, columns(rooms="long", baths="double")).arrays(few.inputs)[0].dtype == np.int64
    with pytest.raises(ModelError, match="got fractions"):
        feed(few, tensors(x=("int64", (-1, 2))))
    nameless = feed(data(inputs[:64]), columns(rooms="long", baths="long"))
    assert nameless.notes[1].startswith("the model takes whole numbers: fractions, of which 64 examples have none")
    assert len(feed(data(inputs[:64]), tensors(x=("int64", (-1, 2)))).notes) == 1
    assert len(feed(data(inputs[:64].astype(np.int32)), columns(rooms="long", baths="long")).notes) == 1
