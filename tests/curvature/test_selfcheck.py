"""Second derivatives against differences of the loss: right ones pass, wrong ones are refused, kinks are no excuse."""

import pytest
import torch
from networks import Network, examples, relu_mlp, seeded, tanh_mlp
from torch import Tensor, nn

from flataudit.curvature import selfcheck
from flataudit.curvature.selfcheck import self_check
from flataudit.curvature.surface import Surface
from flataudit.errors import ModelError


@pytest.mark.parametrize("make", [tanh_mlp, relu_mlp])
def test_right_derivatives_agree(make) -> None:
    found = self_check(Network(make()), examples())
    assert found.told == "agrees"
    assert found.product == pytest.approx(found.difference, rel=4e-3)


class Wrong(torch.autograd.Function):
    """Its first derivative is right, its second is twice what it should be."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x**3 / 3

    @staticmethod
    def backward(context: object, slope: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return slope * (x.detach() ** 2 + 2 * (x**2 - x.detach() ** 2))


class Model(nn.Module):
    def __init__(self, cube: object) -> None:
        super().__init__()
        self.first, self.last, self.cube = nn.Linear(4, 6), nn.Linear(6, 3), cube

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cube(self.first(x)))


def test_a_wrong_second_derivative_is_refused_before_any_number() -> None:
    surface = Surface.of(Network(seeded(Model(Wrong.apply))), examples())
    with pytest.raises(ModelError, match="second derivatives that agree"):
        surface.product(surface.origin, torch.ones_like(surface.origin))
    right = Surface.of(Network(seeded(Model(lambda x: x**3 / 3))), examples())
    assert right.self_check().told == "agrees"


def test_the_wrong_weight_norm_of_torch_is_caught() -> None:
    """Behind the backend it is rewritten; here the module is called as it is."""
    module = nn.Sequential(
        nn.utils.parametrizations.weight_norm(seeded(nn.Linear(4, 6))), nn.Tanh(), seeded(nn.Linear(6, 3))
    )
    with pytest.raises(ModelError, match="second derivatives that agree"):
        self_check(Network(module), examples())


def test_a_model_without_a_float64_twin_is_unchecked_and_not_refused() -> None:
    network = Network(tanh_mlp())
    network.precise = lambda: None  # type: ignore[method-assign]
    assert self_check(network, examples()).told.startswith("unchecked")


def test_a_large_network_is_checked_on_some_of_its_tensors_and_all_of_its_small_ones(monkeypatch) -> None:
    monkeypatch.setattr(selfcheck, "_LARGE", 64)
    monkeypatch.setattr(selfcheck, "_SMALL", 8)
    network = Network(
        seeded(nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3)))
    )
    moved = selfcheck._moved(network, tuple(network.parameters))
    sizes = {name: p.numel() for name, p in network.parameters.items()}
    assert "4.bias" in moved and 8 < sum(sizes[name] for name in moved) < sum(sizes.values())
    assert self_check(network, examples()).told == "agrees"
    with pytest.raises(ModelError, match="second derivatives that agree"):
        self_check(Network(seeded(Model(Wrong.apply))), examples())


def test_only_the_parameters_that_matter_are_moved() -> None:
    wrong = Network(seeded(Model(Wrong.apply)))
    assert self_check(wrong, examples(), ["last.weight", "last.bias"]).told == "agrees"
    with pytest.raises(ModelError, match="second derivatives that agree"):
        self_check(wrong, examples(), ["first.weight"])
