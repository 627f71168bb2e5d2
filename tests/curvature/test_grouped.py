"""Grouped convolutions differentiated twice: what PyTorch's loop over the groups gives, without the loop."""

import networks
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from flataudit.curvature.grouped import Grouped
from flataudit.curvature.surface import Surface

CASES = {
    "strided": (nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=3), (2, 6, 9, 8)),
    "depthwise": (nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8), (2, 8, 5, 6)),
    "dilated": (nn.Conv1d(4, 4, 3, dilation=2, groups=4, bias=False), (2, 4, 11)),
    "space": (nn.Conv3d(4, 4, (2, 1, 3), padding=(0, 0, 1), groups=2), (2, 4, 3, 3, 4)),
    "same": (nn.Conv2d(4, 4, 3, padding="same", groups=2), (2, 4, 4, 4)),
}


class Depthwise(nn.Module):
    """A depthwise layer between two others, on images of four pixels."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, channels, 3, padding=1), nn.Linear(channels, 3)
        self.middle = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.middle(torch.tanh(self.first(x.reshape(-1, 1, 2, 2)))))
        return self.last(h.mean(dim=(2, 3)))


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives_in_weights_and_inputs(case: str) -> None:
    module, shape = CASES[case]
    module = networks.seeded(module).double()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    named = {name: part.detach() for name, part in module.named_parameters()}

    def energy(weight: Tensor, inputs: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(module, {**named, "weight": weight}, (inputs,))
        return found.tanh().square().sum()

    theirs = torch.autograd.functional.hessian(energy, (named["weight"], x))
    with Grouped():
        ours = torch.autograd.functional.hessian(energy, (named["weight"], x))
    for row, other in zip(theirs, ours, strict=True):
        for one, two in zip(row, other, strict=True):
            assert torch.allclose(one, two, atol=1e-12)


def test_products_are_those_of_a_dense_hessian_and_take_no_convolution_a_group() -> None:
    network, data = networks.Network(networks.seeded(Depthwise(16))), networks.examples(10)
    surface = Surface.of(network, data)
    surface.before_products()
    surface.unvectorised = True
    directions = torch.randn(2, len(surface.origin), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        found = surface.products(surface.origin, directions)
    dense = torch.as_tensor(networks.dense_hessian(network, data))
    assert torch.allclose(found, directions @ dense, atol=1e-12)
    called = sum(one.count for one in seen.key_averages() if one.key == "aten::convolution")
    assert called < 16 * len(list(surface.batches(twice=True))), called
    assert np.isfinite(float(found.norm()))
