"""The trace against dense Hessians, and whether its interval keeps its word."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, dense_hessian, examples, relu_mlp, softmax_regression, tanh_mlp
from torch import nn

from flataudit.curvature.hutchinson import TraceEstimate, estimate_trace, shared_vector_trace
from flataudit.curvature.objective import Objective
from flataudit.specs import Budget

NETWORKS = [softmax_regression, relu_mlp, tanh_mlp]


def traced(objective: Objective, seed: int = 0, *, relative_error: float = 0.02, passes: float = 1e4) -> TraceEstimate:
    found = estimate_trace(objective, seed, relative_error=relative_error, budget=Budget(passes=passes))
    assert found is not None
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", NETWORKS)
def test_the_estimate_agrees_within_its_error(make: Callable[[], nn.Module], device: str) -> None:
    network, data = Network(make(), device=device), examples()
    truth = float(np.trace(dense_hessian(network, data)))
    found = traced(Objective(network, data, batch_size=13))
    assert found.standard_error is not None and found.stopped == "precision"
    assert found.standard_error < 0.05 * abs(truth)
    assert abs(found.estimate - truth) < 4 * found.standard_error


def test_the_95_percent_interval_covers_the_truth() -> None:
    """134 seeds a network: 93 to 97 % over the three, and each within three standard errors of 95 %."""
    shares = {}
    for make in NETWORKS:
        network, data = Network(make()), examples(24)
        truth = float(np.trace(dense_hessian(network, data)))
        objective = Objective(network, data, batch_size=8)
        covered = []
        for seed in range(134):
            low, high = traced(objective, seed, relative_error=0.15, passes=60).interval or (0.0, 0.0)
            covered.append(low <= truth <= high)
        shares[make.__name__] = float(np.mean(covered))
    assert 0.93 <= np.mean(list(shares.values())) <= 0.97, shares
    assert all(abs(share - 0.95) < 3 * (0.95 * 0.05 / 134) ** 0.5 for share in shares.values()), shares


def test_fresh_vectors_beat_one_shared_vector() -> None:
    network, data = Network(softmax_regression()), examples(64)
    objective = Objective(network, data, batch_size=4)
    fresh = [traced(objective, seed, passes=4).estimate for seed in range(40)]
    shared = [shared_vector_trace(objective, seed, vectors=2).estimate for seed in range(40)]
    assert np.var(fresh) < 0.5 * np.var(shared)
    assert np.mean(fresh) == pytest.approx(np.mean(shared), rel=0.1)


def test_a_spent_budget_is_said() -> None:
    objective = Objective(Network(relu_mlp()), examples())
    assert traced(objective, relative_error=1e-6, passes=40).stopped == "budget"
    assert estimate_trace(objective, 0, relative_error=0.1, budget=Budget(passes=3)) is None


def test_the_same_seed_gives_the_same_number() -> None:
    objective = Objective(Network(tanh_mlp()), examples(20))
    first = traced(objective, 3, passes=30)
    torch.rand(5)
    assert traced(objective, 3, passes=30) == first != traced(objective, 4, passes=30)


class Ignored(nn.Module):
    """A network whose parameter does nothing to its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3] + 0 * self.unused


def test_a_loss_without_curvature_has_trace_zero_and_no_pretended_error() -> None:
    found = traced(Objective(Network(Ignored()), examples()))
    assert found.estimate == 0.0 and found.standard_error is None
