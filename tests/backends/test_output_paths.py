"""Where the scores are in what a module returns, and what is said when they are not there."""

import dataclasses
from collections import namedtuple
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from programs import CLASSES, FEATURES, examples, network, sample
from torch import Tensor, nn

from flataudit.backends.scores import pick
from flataudit.backends.torch_model import TorchModel
from flataudit.backends.verification import verify
from flataudit.errors import ModelError


@dataclasses.dataclass
class Out:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()

    @property
    def trap(self) -> Tensor:
        raise AssertionError("an attribute that is no field was looked at")


class Named(NamedTuple):
    hidden: Tensor
    logits: Tensor


SCORES, OTHER = torch.randn(2, 3), torch.zeros(5)
Old = namedtuple("Old", "logits")


@pytest.mark.parametrize(
    ("returned", "path"),
    [
        (SCORES, None),
        (SCORES, "logits"),
        ((OTHER, SCORES), "1"),
        ([OTHER, SCORES], "1"),
        ({"logits": SCORES, "hidden": OTHER}, "logits"),
        ({"hidden": OTHER, "logits": SCORES}, "1"),
        ({1: SCORES}, "1"),
        (Out(SCORES), "logits"),
        (Out(SCORES), "0"),
        (Named(OTHER, SCORES), "logits"),
        (Named(OTHER, SCORES), "1"),
        (Old(SCORES), "logits"),
        ({"out": (OTHER, SCORES)}, "out.1"),
        ({"out": {"heads": [Out(SCORES)]}}, "out.heads.0.logits"),
    ],
)
def test_it_is_found(returned: object, path: str | None) -> None:
    assert pick(returned, path) is SCORES


@pytest.mark.parametrize(
    ("returned", "path", "message"),
    [
        (
            {"logits": SCORES, "hidden_states": OTHER},
            None,
            r"got a dict of 2: logits \(tensor \(2, 3\)\), hidden_states \(tensor \(5,\)\); .*`output: logits`",
        ),
        ((OTHER, SCORES), None, r"got a tuple of 2: .*`output: 0`"),
        ({"out": (SCORES,)}, None, r"`output: out\.0`"),
        ({"logits": SCORES}, "scores", r"'scores' in the outputs, got a dict of 1: logits"),
        ((SCORES,), "1", r"'1' in the outputs, got a tuple of 1"),
        ((SCORES,), "-1", r"'-1' in the outputs"),
        ({"out": (SCORES,)}, "out", r"a tensor at 'out' in the outputs, got a tuple of 1"),
        ({"out": (SCORES,)}, "out.logits", r"'logits' in 'out' in the outputs"),
        (Out(SCORES), "__class__", "'__class__' in the outputs"),
        (Out(SCORES), "trap", "'trap' in the outputs"),
        (Out(SCORES), "hidden.0", "'0' in 'hidden' in the outputs, got a tuple"),
        ("text", None, "got a str; return a tensor of scores"),
        (None, "logits", "got None"),
    ],
)
def test_what_is_there_instead_is_told(returned: object, path: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        pick(returned, path)


@given(st.lists(st.sampled_from(["tuple", "list", "dict", "data class"]), max_size=5))
def test_any_nesting(kinds: list[str]) -> None:
    wraps = {
        "tuple": (lambda x: (OTHER, x), "1"),
        "list": (lambda x: [x], "0"),
        "dict": (lambda x: {"a": OTHER, "b": x}, "b"),
        "data class": (Out, "logits"),
    }
    returned: object = SCORES
    path: list[str] = []
    for kind in kinds:
        wrap, step = wraps[kind]
        returned, path = wrap(returned), [step, *path]
    assert pick(returned, ".".join(path) or None) is SCORES


class Several(nn.Module):
    """A net that returns its scores among other things."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> dict[str, object]:
        return {"loss": None, "out": (x, self.net(x))}


def test_a_model_is_measured_at_its_path() -> None:
    model, plain = TorchModel(Several(), "multiclass", output="out.1"), TorchModel(network(), "multiclass")
    verify(model, examples())
    np.testing.assert_array_equal(model.predict(sample()), plain.predict(sample()))
    exact = model.precise()
    assert exact is not None and exact.predict(sample(4)).shape == (4, CLASSES)
    with pytest.raises(ModelError, match=r"values \(64,\) or \(64, 1\), got shape \(64, 4\)"):
        verify(TorchModel(Several(), "regression", output="out.0"), examples())


def test_a_program_of_one_batch_size_may_return_several_things() -> None:
    program = torch.export.export(Several().eval(), (torch.zeros(5, FEATURES),)).module()
    model = TorchModel(program, "multiclass", output="out.1", fixed_batch=5)
    expected = TorchModel(network(), "multiclass").predict(sample(12))
    np.testing.assert_allclose(model.predict(sample(12)), expected, atol=1e-6)
