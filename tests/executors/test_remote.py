"""What another process says is taken for answers of one form, and made into probabilities here."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from flataudit.contracts import Predictor
from flataudit.errors import ModelError
from flataudit.executors.frames import ArrayHeader, Failure, Frame, Ready
from flataudit.executors.remote import Conversation, EndedError, RemotePredictor
from flataudit.executors.shuffling import Order
from flataudit.specs import Task
from flataudit.statistics.steadiness import refuse_unsteady

NO_ORDER = Order()


class Talk:
    """A conversation with a function."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights
        self.asked: list[int] = []

    def answer(self, inputs: NDArray[np.float64], *, most: int) -> Frame:
        self.asked.append(len(inputs))
        found = np.ascontiguousarray(inputs.reshape(len(inputs), -1) @ self.weights)
        assert found.nbytes <= most
        return Frame(ArrayHeader(name="answer", format="d", shape=found.shape), found.tobytes())


def remote(talk: object, task: Task, batch_size: int = 32, order: Order = NO_ORDER) -> RemotePredictor:
    ready = Ready(batch_size=batch_size, dtype="float32")
    return RemotePredictor(cast("Conversation", talk), ready, task, device="cpu", order=order)


FINITE = arrays.arrays(np.float64, (5, 3), elements=st.floats(-700, 700))


@given(FINITE)
def test_classes_add_up_to_one_whatever_was_said(said: NDArray[np.float64]) -> None:
    found = remote(Talk(np.eye(3)), "multiclass").predict(said)
    # What misses 1 by less than a billionth may be rounding, and stays.
    assert np.exp(found).sum(axis=1) == pytest.approx(np.ones(5), abs=1.1e-9)
    assert found - found[:, :1] == pytest.approx(said - said[:, :1], abs=1e-9)


@given(FINITE)
def test_honest_logarithms_stay_as_they_are_bit_for_bit(said: NDArray[np.float64]) -> None:
    largest = said.max(axis=1, keepdims=True)
    honest = said - largest - np.log(np.exp(said - largest).sum(axis=1, keepdims=True))
    assert np.array_equal(remote(Talk(np.eye(3)), "multiclass").predict(honest), honest)


def test_labels_are_at_most_certain_and_values_are_values() -> None:
    said = np.array([[-1.0, 2.0], [0.0, -3.0]])
    assert remote(Talk(np.eye(2)), "multilabel").predict(said).tolist() == [[-1.0, 0.0], [0.0, -3.0]]
    assert remote(Talk(np.array([2.0, 0.0])), "regression").predict(said).tolist() == [-2.0, 0.0]


def test_batches_are_whole_and_all_examples_are_counted() -> None:
    """Of 4 MiB an example, four in a batch of the model's: two batches fill a question."""
    talk = Talk(np.ones((2**19, 2)))
    model = remote(talk, "binary", batch_size=4)
    model.predict(np.zeros((18, 2**19)))
    assert talk.asked == [8, 8, 2] and model.meter.forward == 18


@pytest.mark.parametrize(("task", "columns"), [("binary", 3), ("regression", 2), ("multilabel", None)])
def test_another_form_ends_it(task: Task, columns: int | None) -> None:
    weights = np.zeros(2) if columns is None else np.zeros((2, columns))
    with pytest.raises(EndedError) as caught:
        remote(Talk(weights), task).predict(np.zeros((3, 2)))
    assert "cannot be trusted" in str(caught.value.__cause__)


def test_a_stranger_says_how_many_columns_and_not_how_much_memory() -> None:
    class Wide(Talk):
        def answer(self, inputs: NDArray[np.float64], *, most: int) -> Frame:
            return super().answer(inputs[:, :1], most=most)

    talk = Wide(np.zeros((1, 1000)))
    ready = Ready(batch_size=1, dtype="float32")
    model = RemotePredictor(cast("Conversation", talk), ready, "multiclass", device="cpu", most=2**20)
    inputs = np.broadcast_to(0.0, (300, 2**16))  # 64 fill a question
    assert model.predict(inputs[:100]).shape == (100, 1000)
    with pytest.raises(EndedError) as caught:
        model.predict(inputs)
    assert "expected answers of at most 1,048,576 bytes, got 1000 numbers for each" in str(caught.value.__cause__)
    assert talk.asked == [64, 36, 64], "the first part tells"


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_logarithms_without_a_difference_are_no_answer(task: Task) -> None:
    with pytest.raises(ModelError, match="50% NaN or infinite"):
        remote(Talk(np.array([[1.7e308, -1.7e308]])), task).predict(np.ones((3, 1)))


def test_examples_go_in_an_order_of_their_own_and_answers_come_back_in_the_caller_s() -> None:
    inputs = np.arange(200.0).reshape(100, 2)
    seen: list[NDArray[np.float64]] = []

    class Sees(Talk):
        def answer(self, inputs: NDArray[np.float64], *, most: int) -> Frame:
            seen.append(inputs)
            return super().answer(inputs, most=most)

    model = remote(Sees(np.array([1.0, 1.0])), "regression", order=Order("labels"))
    assert model.predict(inputs).tolist() == inputs.sum(axis=1).tolist()
    assert not np.array_equal(seen[0], inputs) and np.array_equal(np.sort(seen[0], axis=0), inputs)
    model.predict(inputs)
    assert np.array_equal(seen[0], seen[1]), "the same numbers every time"


def test_a_failure_is_of_these_inputs_alone() -> None:
    class Fails(Talk):
        def answer(self, inputs: NDArray[np.float64], *, most: int) -> Frame:
            return (
                Frame(Failure(reason="ValueError: too warm"), b"")
                if inputs.max() > 1
                else super().answer(inputs, most=most)
            )

    model = remote(Fails(np.eye(2)), "binary")
    with pytest.raises(ModelError, match="too warm"):
        model.predict(np.full((3, 2), 2.0))
    assert isinstance(model, Predictor) and model.predict(np.zeros((3, 2))).shape == (3, 2)


def test_a_function_of_its_inputs_is_steady() -> None:
    inputs = np.random.default_rng(0).normal(size=(9, 3))
    refuse_unsteady(remote(Talk(np.eye(3)), "multiclass").predict, inputs, tolerance=1e-3)
    refuse_unsteady(remote(Talk(np.ones(3)), "regression").predict, inputs[:1], tolerance=1e-3)
