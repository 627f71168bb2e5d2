"""The rotation of a loss's factor: all axes are the whole trace, a rest is what they leave, and chance does less."""

from collections.abc import Callable

import networks
import numpy as np
import pytest
import torch
from torch import nn

from flataudit.contracts import AuditData
from flataudit.curvature.gauss_newton import gauss_newton
from flataudit.curvature.losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError
from flataudit.curvature.structure import Pass
from flataudit.curvature.surface import Surface
from flataudit.curvature.turning import Turning, turning
from flataudit.data.examples import checked
from flataudit.specs import Budget

CLASSES = 60


class Cosines(nn.Module):
    """Its last layer is followed by something with a weight of its own: no rotation is known."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, CLASSES), nn.Parameter(torch.ones(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x)) * self.scale


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES))


def many(n: int = 24) -> AuditData:
    source = np.random.default_rng(4)
    return checked("train", "train", source.standard_normal((n, 4)), source.integers(0, CLASSES, n), source="test")


def turned(make: Callable[[], nn.Module]) -> tuple[Pass, Turning]:
    surface = Surface.of(networks.Network(networks.seeded(make())), many())
    seen = Pass(surface, next(surface.batches()))
    return seen, turning(seen)


@pytest.mark.parametrize("make", [mlp, Cosines])
def test_all_axes_are_a_rotation_and_a_rest_is_what_the_first_ones_leave(make: Callable[[], nn.Module]) -> None:
    seen, axes = turned(make)
    whole = torch.stack([axes.axis(index) for index in range(CLASSES)], dim=2)
    unit = torch.eye(CLASSES, dtype=torch.float64).expand(seen.size, -1, -1)
    assert torch.allclose(whole @ whole.mT, unit, atol=1e-12)
    rest = torch.stack([axes.rest(row.expand(seen.size, -1), 8) for row in unit[0]], dim=2)
    assert torch.allclose(rest @ rest.mT, unit - whole[:, :, :8] @ whole[:, :, :8].mT, atol=1e-12)


def test_the_axes_have_no_cross_terms_in_the_last_layer_and_fall_in_weight() -> None:
    seen, axes = turned(mlp)
    loss, weight = seen.batch.objective.model.loss_function, seen.fixed["2.weight"]
    columns = [loss.mixed(seen.outputs, seen.batch.targets, axes.axis(index)) @ weight for index in range(CLASSES)]
    gram = torch.einsum("ink,jnk->nij", torch.stack(columns), torch.stack(columns))
    weights = gram.diagonal(dim1=1, dim2=2)
    assert float((gram - torch.diag_embed(weights)).abs().max()) < 1e-12 * float(weights.max())
    assert bool((weights.diff(dim=1) <= 1e-12).all())


@pytest.mark.parametrize("loss", [CrossEntropy(label_smoothing=0.1), BinaryCrossEntropy(), SquaredError()])
def test_sizes_and_traces_are_those_of_the_columns(loss: Loss) -> None:
    outputs, values = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(5) if isinstance(loss, CrossEntropy) else values
    units = torch.eye(7, dtype=torch.float64)[:, None, :].expand(7, 5, 7)
    columns = loss.mixed(outputs, targets, units)
    assert torch.allclose(loss.sizes(outputs, targets).T, columns.square().sum(dim=2), atol=1e-14)
    gram = values.T @ values
    traces = torch.einsum("kno,op,knp->n", columns, gram, columns)
    assert torch.allclose(loss.traces(outputs, targets, gram), traces, atol=1e-13)


def test_fewer_mixtures_are_as_precise() -> None:
    """To 1 % an unturned factor takes about 140 mixtures here."""
    network, data = networks.Network(networks.seeded(mlp())), many()
    truth = float(np.trace(networks.dense_gauss_newton(network, data)))
    found = gauss_newton(Surface.of(network, data), 0, relative_error=0.01, budget=Budget(passes=1000))
    assert found is not None and found.trace.standard_error is not None
    assert found.passes <= 16 and found.trace.standard_error <= 0.012 * truth
    assert abs(found.trace.estimate - truth) < 4 * found.trace.standard_error


def test_the_intervals_cover_the_truth() -> None:
    """Student's over what is left to chance, 400 seeds."""
    network, data = networks.Network(networks.seeded(mlp())), many()
    truth, surface = float(np.trace(networks.dense_gauss_newton(network, data))), Surface.of(network, data)
    held = 0
    for seed in range(400):
        found = gauss_newton(surface, seed, relative_error=0.02, budget=Budget(passes=20))
        assert found is not None and found.trace.interval is not None and "8 columns" in found.method
        held += found.trace.interval[0] <= truth <= found.trace.interval[1]
    assert 366 <= held <= 394, held
