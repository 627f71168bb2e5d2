"""What any function returns, as log-probabilities or values."""

import numpy as np
import pytest
from scipy.special import log_softmax

from flataudit.backends.answers import Answering, log_answers
from flataudit.errors import ConfigurationError, ModelError

SCORES = np.random.default_rng(0).normal(size=(6, 3))
PROBABILITIES = np.exp(log_softmax(SCORES, axis=1))


@pytest.mark.parametrize(
    ("found", "kind"),
    [(SCORES, "logits"), (PROBABILITIES, "probabilities"), (np.log(PROBABILITIES), "log_probabilities")],
)
def test_three_kinds_of_outputs_of_one_model_are_one_answer(found: np.ndarray, kind: str) -> None:
    np.testing.assert_allclose(log_answers(found, "multiclass", kind), np.log(PROBABILITIES), atol=1e-12)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_one_column_of_a_binary_classifier_is_two(kind: str) -> None:
    p = np.array([0.1, 0.5, 0.999])
    one = {"logits": np.log(p / (1 - p)), "probabilities": p, "log_probabilities": np.log(p)}[kind]
    found = log_answers(one[:, None], "binary", kind)
    np.testing.assert_allclose(np.exp(found), np.stack([1 - p, p], axis=1), atol=1e-12)


def test_a_probability_of_nothing_costs_much_and_not_everything() -> None:
    found = log_answers(np.array([[0.0, 1.0]]), "multiclass", "probabilities")
    np.testing.assert_allclose(found, [[np.log(1e-30), 0.0]])
    assert np.isfinite(log_answers(np.array([[-np.inf, 0.0]]), "multiclass", "log_probabilities")).all()


@pytest.mark.parametrize(
    ("shape", "task", "told"),
    [
        ((4,), "multiclass", "a column for every class"),
        ((4, 3), "binary", "one or two columns"),
        ((4, 2), "regression", r"values \(4,\) or \(4, 1\)"),
        ((4, 2, 2, 2), "multiclass", r"outputs \(4, classes\)"),
        ((4,), "multilabel", r"outputs \(4, classes\)"),
    ],
)
def test_shapes_that_no_such_model_returns(shape: tuple[int, ...], task: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        log_answers(np.zeros(shape), task, "values" if task == "regression" else "logits")


def test_batches_are_counted_and_put_together() -> None:
    sizes = []

    def answer(inputs: np.ndarray) -> np.ndarray:
        sizes.append(len(inputs))
        return inputs * 2

    model = Answering(answer, "multiclass", batch_size=4)
    np.testing.assert_array_equal(model.raw(SCORES), SCORES * 2)
    assert (sizes, model.meter.forward) == ([4, 2], 6)


@pytest.mark.parametrize("found", [np.array(["a", "b"]), np.zeros(3), np.float64(1.0), np.array([None, None])])
def test_what_is_no_row_of_numbers_an_example(found: object) -> None:
    with pytest.raises(ModelError, match=r"numbers of shape \(2, …\)"):
        Answering(lambda inputs: found, "multiclass").raw(np.zeros((2, 1)))


def test_outputs_must_fit_the_task() -> None:
    with pytest.raises(ConfigurationError, match="outputs of a regression model: values"):
        Answering(lambda inputs: inputs, "regression", outputs="logits")
