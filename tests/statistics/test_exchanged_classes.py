"""Exchanged classes are told from answers that only happen to fit under some order."""

import numpy as np
import pytest

from flataudit.errors import ModelError
from flataudit.statistics.exchanged_classes import refuse_exchanged_classes


@pytest.mark.parametrize("classes", [10, 100, 200, 1000])
def test_a_model_that_has_learned_nothing_passes(classes: int) -> None:
    """With more classes than examples some order fits whatever is answered."""
    draws = np.random.default_rng(classes)
    for _ in range(30):
        refuse_exchanged_classes(draws.normal(size=(64, classes)), draws.integers(0, classes, 64))


def test_one_answer_for_all_is_no_exchange() -> None:
    always = np.eye(10)[np.full(64, 5)]
    refuse_exchanged_classes(always, np.full(64, 3))
    refuse_exchanged_classes(always, np.repeat([0, 1], [60, 4]))


def test_coarse_knowledge_is_no_exchange() -> None:
    """It knows which twentieth of a hundred classes it is, and not which of the five."""
    draws = np.random.default_rng(0)
    for _ in range(50):
        truth = draws.integers(0, 100, 64)
        refuse_exchanged_classes(np.eye(100)[truth // 5 * 5 + draws.integers(0, 5, 64)], truth)


@pytest.mark.parametrize("classes", [2, 10, 30])
def test_exchanged_classes_are_found(classes: int) -> None:
    truth = np.random.default_rng(classes).integers(0, classes, 64)
    with pytest.raises(ModelError, match="class 0 in column 1"):
        refuse_exchanged_classes(np.eye(classes)[(truth + 1) % classes], truth)


def test_columns_that_no_example_has_take_no_memory() -> None:
    answers = np.zeros((20, 400_000))
    answers[:, 399_999] = 1
    refuse_exchanged_classes(answers, np.arange(20) % 2)
