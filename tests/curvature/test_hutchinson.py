"""The trace against dense Hessians, and whether its interval keeps its word."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, dense_hessian, examples, relu_mlp, softmax_regression, tanh_mlp
from torch import nn

from flataudit.curvature.hutchinson import hutchinson_trace, naive_trace
from flataudit.curvature.objective import Objective

NETWORKS = [softmax_regression, relu_mlp, tanh_mlp]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", NETWORKS)
def test_the_naive_twin_is_the_dense_trace(make: Callable[[], nn.Module], device: str) -> None:
    network, data = Network(make(), device=device), examples()
    assert naive_trace(Objective(network, data)) == pytest.approx(np.trace(dense_hessian(network, data)), rel=1e-8)


@pytest.mark.parametrize("make", NETWORKS)
def test_the_estimate_agrees_within_its_error(make: Callable[[], nn.Module]) -> None:
    network, data = Network(make()), examples()
    truth = float(np.trace(dense_hessian(network, data)))
    found = hutchinson_trace(Objective(network, data, batch_size=13), seed=0, relative_error=0.01, max_matvecs=400)
    assert found.standard_error <= 0.01 * abs(found.trace) or found.stopped == "budget"
    assert abs(found.trace - truth) < 4 * found.standard_error


@pytest.mark.parametrize("make", NETWORKS)
def test_the_95_percent_interval_covers_the_truth(make: Callable[[], nn.Module]) -> None:
    network, data = Network(make()), examples(48)
    truth = float(np.trace(dense_hessian(network, data)))
    objective = Objective(network, data, batch_size=8)
    covered = []
    for seed in range(200):
        found = hutchinson_trace(objective, seed=seed, relative_error=0.08, max_matvecs=64)
        low, high = found.interval()
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97, np.mean(covered)


def test_fresh_vectors_beat_one_shared_vector() -> None:
    """The same products with one vector for all batches have the greater variance, which is why it is not done."""
    network, data = Network(softmax_regression()), examples(128)
    hessians = [dense_hessian(network, data.replace_inputs(data.inputs)) for _ in range(1)]
    objective = Objective(network, data, batch_size=4)
    fresh = [
        hutchinson_trace(objective, seed=s, relative_error=1e9, max_matvecs=2, round_size=2).trace for s in range(60)
    ]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(60, 2, hessians[0].shape[0]))
    shared = np.einsum("rvi,ij,rvj->rv", signs, hessians[0], signs).mean(axis=1)
    assert np.var(fresh) < 0.5 * np.var(shared)


class Ignored(nn.Module):
    """A network whose parameter does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3]


def test_a_loss_without_curvature_has_trace_zero() -> None:
    objective = Objective(Network(Ignored()), examples())
    found = hutchinson_trace(objective, seed=0, relative_error=0.1, max_matvecs=8, round_size=2)
    assert found.trace == 0.0 and found.standard_error == 0.0
