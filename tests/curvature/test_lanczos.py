"""Extreme eigenvalues against dense Hessians and known spectra."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import Network, dense_hessian, examples, relu_mlp, softmax_regression, tanh_mlp
from torch import nn

from flataudit.curvature.lanczos import extreme_eigenvalues
from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, normals


@pytest.mark.parametrize("make", [softmax_regression, relu_mlp, tanh_mlp])
def test_both_ends_agree_with_the_dense_hessian(make: Callable[[], nn.Module]) -> None:
    network, data = Network(make()), examples()
    values = np.linalg.eigvalsh(dense_hessian(network, data))
    objective = Objective(network, data, batch_size=17)
    found = extreme_eigenvalues(
        lambda v: objective.product(objective.origin, v),
        normals(objective.origin, generator(0, "test")),
        max_steps=60,
        relative_error=1e-3,
    )
    assert found.largest.value == pytest.approx(values[-1], rel=1e-3)
    assert found.smallest.value == pytest.approx(values[0], abs=1e-3 * values[-1])
    assert found.largest.value <= values[-1] + 1e-9 and found.smallest.value >= values[0] - 1e-9


def test_the_interval_holds_the_eigenvalue_over_random_starts() -> None:
    values = torch.linspace(-1.0, 2.0, 200, dtype=torch.float64)
    held = []
    for seed in range(400):
        found = extreme_eigenvalues(
            lambda v: values * v, normals(values, generator(seed, "test")), max_steps=25, relative_error=1e-9
        )
        low, high = found.largest.interval or (0.0, 0.0)
        held.append(low <= 2.0 <= high)
    assert np.mean(held) >= 0.95


def test_too_few_steps_have_not_converged() -> None:
    values = torch.linspace(0.0, 1.0, 500, dtype=torch.float64)
    start = normals(values, generator(0, "test"))
    found = extreme_eigenvalues(lambda v: values * v, start, max_steps=3, relative_error=1e-3)
    assert not found.largest.converged and found.largest.residual > 0.05


def test_a_spectrum_of_both_signs_keeps_its_ends_apart() -> None:
    values = torch.tensor([-99.0, 98.0, 1.0, 0.0], dtype=torch.float64)
    start = normals(values, generator(0, "test"))
    found = extreme_eigenvalues(lambda v: values * v, start, max_steps=10, relative_error=1e-6)
    assert found.exhausted
    assert (found.smallest.value, found.largest.value) == (pytest.approx(-99.0), pytest.approx(98.0))
