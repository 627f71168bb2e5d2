"""All data sets of an audit number columns, categories and classes alike, whatever each of them holds."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData
from flataudit.data.examples import checked
from flataudit.errors import DataError
from flataudit.specs import InputField, Role
from flataudit.vocabulary import aligned

SHAPES = ("cube", "ball", "cone")


def things(
    name: str, role: Role, colours: list[str], sizes: list[float], targets: list[str], *, reverse: bool = False
) -> AuditData:
    """Rows of a colour and a size, numbered by their own sorted names."""
    categories, classes = tuple(sorted(set(colours))), tuple(sorted(set(targets)))
    columns = [[categories.index(colour) for colour in colours], sizes]
    fields = [InputField(name="colour", kind="category", categories=categories), InputField(name="size")]
    packed: NDArray[np.float64] = np.array(columns[::-1] if reverse else columns, dtype=np.float64).T
    return checked(
        name,
        role,
        packed,
        [classes.index(target) for target in targets],
        source="test",
        fields=tuple(fields[::-1] if reverse else fields),
        class_names=classes,
    )


def told(data: AuditData) -> list[tuple[str, float, str]]:
    """The rows in words, from the set's own numbers alone."""
    places = {field.name: place for place, field in enumerate(data.fields)}
    colours = next(field.categories for field in data.fields if field.name == "colour")
    assert data.targets is not None
    return [
        (colours[int(row[places["colour"]])], float(row[places["size"]]), data.class_names[int(target)])
        for row, target in zip(data.inputs, data.targets, strict=True)
    ]


def test_a_shifted_set_with_other_categories_and_columns_says_the_same_in_the_first_sets_numbers() -> None:
    validation = things("val", "validation", ["red", "blue", "red"], [1, 2, 3], ["cube", "ball", "cone"])
    autumn = things("autumn", "shifted", ["ochre", "red", "amber"], [7, 8, 9], ["cone", "cone", "cube"], reverse=True)
    ours, theirs = aligned([validation, autumn])
    assert told(ours) == told(validation) and told(theirs) == told(autumn)
    assert ours.fields == theirs.fields and ours.class_names == theirs.class_names == ("ball", "cone", "cube")
    assert ours.fields[0].categories == ("amber", "blue", "ochre", "red")
    np.testing.assert_array_equal(ours.inputs[:, 1], validation.inputs[:, 1])
    assert theirs.digest == autumn.digest and theirs.inputs is not autumn.inputs
    np.testing.assert_array_equal(autumn.inputs[:, 0], [7, 8, 9])


def test_sets_that_agree_already_are_left_alone() -> None:
    one = things("val", "validation", ["red", "blue"], [1, 2], ["cube", "ball"])
    two = things("autumn", "shifted", ["blue", "red"], [1, 2], ["ball", "cube"])
    assert all(found is given for found, given in zip(aligned([one, two]), [one, two], strict=True))


def test_classes_are_numbered_by_all_sets_whatever_the_validation_set_holds() -> None:
    one = things("val", "validation", ["red", "red"], [1, 2], ["cone", "cube"])
    two = things("autumn", "shifted", ["red", "red"], [1, 2], ["ball", "cube"])
    ours, theirs = aligned([two, one])
    assert theirs.class_names == ours.class_names == ("ball", "cone", "cube")
    assert told(ours) == told(two) and told(theirs) == told(one)


def test_a_number_in_any_set_is_a_number_in_all() -> None:
    whole = checked("v", "validation", [[1.0]], [0], source="t", fields=(InputField(name="a", kind="integer"),))
    parts = checked("s", "shifted", [[1.5]], [0], source="t", fields=(InputField(name="a"),))
    assert [data.fields[0].kind for data in aligned([whole, parts])] == ["number", "number"]


def test_what_cannot_be_matched_is_named() -> None:
    one = things("val", "validation", ["red", "red"], [1, 2], ["cone", "cube"])
    lacking = checked(
        "autumn", "shifted", [[1.0]], [0], source="t", fields=(InputField(name="size"),), class_names=("x",)
    )
    with pytest.raises(DataError, match=r"the column 'colour' of 'val' in 'autumn', got only size"):
        aligned([one, lacking])
    numbers = tuple(InputField(name=name) for name in ("colour", "size"))
    other = checked("autumn", "shifted", [[1.0, 2.0]], [0], source="t", fields=numbers, class_names=("x",))
    with pytest.raises(DataError, match=r"column 'colour' of kind category in 'autumn'"):
        aligned([one, other])
    unnamed = checked("autumn", "shifted", one.inputs, [0, 1], source="t", fields=one.fields)
    with pytest.raises(DataError, match=r"names of classes in 'autumn', as in 'val'"):
        aligned([one, unnamed])


def test_unlabelled_sets_pass() -> None:
    one = things("val", "validation", ["red", "red"], [1, 2], ["cone", "cube"])
    recent = checked("recent", "unlabelled", one.inputs, source="t", fields=one.fields)
    assert [data.name for data in aligned([one, recent])] == ["val", "recent"]


def test_where_one_set_names_its_columns_all_do() -> None:
    """Two sets with the same columns in another order, one without names, would be measured as if they were alike."""
    named = things("val", "validation", ["red", "blue"], [1, 2], ["cube", "ball"])
    nameless = checked("autumn", "shifted", named.inputs, [0, 1], source="t", class_names=("ball", "cube"))
    told = r"names of the columns in 'autumn', as in 'val', got none.*`columns: \[colour, size\]`"
    with pytest.raises(DataError, match=told):
        aligned([named, nameless])
    first = replace(nameless, role="validation")
    with pytest.raises(DataError, match=told):
        aligned([first, replace(named, role="shifted")])
    assert len(aligned([first, nameless])) == 2


def test_declared_classes_keep_their_order_in_all_sets() -> None:
    """Sorted as text, 10 would stand between 1 and 2, and every model of numbered columns would look wrong."""
    listed = tuple(map(str, range(1, 11)))
    one = checked("val", "validation", np.zeros((2, 1)), [8, 9], source="t", class_names=listed)
    two = checked("autumn", "shifted", np.zeros((2, 1)), [0, 1], source="t", class_names=("10", "11"))
    ours, theirs = aligned([one, two])
    assert ours.class_names == theirs.class_names == (*listed, "11")
    assert ours.targets is not None and ours.targets.tolist() == [8, 9]
    assert theirs.targets is not None and theirs.targets.tolist() == [9, 10]


def test_whole_numbers_of_a_file_without_kinds_stay_whole_unless_there_are_fractions() -> None:
    kinds: dict[str, InputField] = {}
    for name, value in (("whole", 2.0), ("parts", 2.5)):
        one = checked("v", "validation", [[1.0]], [0], source="t", fields=(InputField(name="a", kind="integer"),))
        two = checked("s", "shifted", [[value]], [0], source="t", fields=(InputField(name="a"),))
        kinds[name] = aligned([one, two])[0].fields[0]
    assert (kinds["whole"].kind, kinds["parts"].kind) == ("integer", "number")
    assert (kinds["whole"].fractional, kinds["parts"].fractional) == (False, True)
