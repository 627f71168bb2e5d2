"""What one example contributes."""

import numpy as np
import pytest

from flataudit.errors import ModelError
from flataudit.statistics.correctness import correctness, losses

LOG = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2]]))


def test_classification() -> None:
    assert correctness("multiclass", LOG, np.array([0, 1, 0])).tolist() == [1.0, 0.0, 1.0]
    assert losses("multiclass", LOG, np.array([0, 1, 2])) == pytest.approx(-np.log([0.7, 0.3, 0.2]))


def test_regression_skill_is_bounded() -> None:
    targets = np.array([0.0, 2.0, 4.0, 6.0])
    skill = correctness("regression", np.array([0.0, 3.0, 100.0, 6.0]), targets)
    assert skill.tolist() == [1.0, 0.8, 0.0, 1.0]
    assert correctness("regression", np.full(3, 7.0), np.full(3, 7.0)).tolist() == [1.0] * 3
    assert correctness("regression", np.full(3, 8.0), np.full(3, 7.0)).tolist() == [0.0] * 3


@pytest.mark.parametrize("label", [3, -1])
@pytest.mark.parametrize("function", [correctness, losses])
def test_label_outside_the_classes(function: object, label: int) -> None:
    with pytest.raises(ModelError, match=f"labels from 0 to 2.*got label {label}"):
        function("multiclass", LOG, np.array([0, 1, label]))  # type: ignore[operator]


def test_nan_is_an_error_of_the_model() -> None:
    broken = LOG.copy()
    broken[1, 1] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        correctness("multiclass", broken, np.array([0, 1, 0]))
    with pytest.raises(ModelError, match="NaN or infinity"):
        losses("regression", np.array([np.inf]), np.array([1.0]))


def test_shapes_and_tasks() -> None:
    with pytest.raises(ModelError, match="shape"):
        correctness("multiclass", LOG[:2], np.array([0, 1, 0]))
    with pytest.raises(ModelError, match="shape"):
        losses("regression", np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ModelError, match="targets of 0 and 1"):
        correctness("multilabel", LOG, np.array([0, 1, 0]))
