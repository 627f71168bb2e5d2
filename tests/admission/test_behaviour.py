"""Models whose answers depend on more than their inputs."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.backends.answers import Answering
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData
from flataudit.errors import ModelError

INPUTS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
SAMPLE = AuditData("validation", "validation", INPUTS, np.arange(64) % 3, None, "sha256:0")
DRAWS = np.random.default_rng(1)
Function = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def honest(x: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.asarray(x, dtype=np.float64) * 3


class CountsCalls:
    """Changes its mind after some calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        self.left -= 1
        return honest(x) if self.left > 0 else honest(x)[:, ::-1]


def by_place(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """The second half of a batch gets other answers: so do the halves of its even and its odd places."""
    return honest(x) * (1 + np.arange(len(x))[:, None] // (len(x) / 2))


def checked(function: Function) -> None:
    verify(Answering(function, "multiclass", outputs="logits", batch_size=64, dtype="float64"), SAMPLE)


def test_an_honest_model_passes() -> None:
    checked(honest)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (by_place, "with the order of a batch"),
        (CountsCalls(20), "after 24 other calls"),
        (lambda x: honest(x) * np.nan, "100% NaN or infinite"),
        (lambda x: honest(x) - honest(x).mean(axis=0) * 2, "with the batch"),
        (lambda x: honest(x) + DRAWS.normal(size=x.shape), "the same answer twice"),
    ],
    ids=["order", "calls", "nan", "neighbours", "chance"],
)
def test_each_has_its_own_outcome(function: Function, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        checked(function)


def test_later_than_the_trial_is_found_after_the_last_probe() -> None:
    from flataudit.examination import _moved, _told_by

    model = Answering(CountsCalls(3), "multiclass", outputs="logits", batch_size=64, dtype="float64")
    before = _told_by(model, SAMPLE)
    assert _moved(before, _told_by(model, SAMPLE)) is None
    moved = _moved(before, _told_by(model, SAMPLE))
    assert moved is not None and moved > 0.1
