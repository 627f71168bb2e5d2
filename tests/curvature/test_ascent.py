"""Rises of the loss against closed forms on a quadratic."""

import numpy as np
import pytest
import torch
from networks import Network, dense_hessian, examples, relu_mlp, seeded
from scipy.optimize import brentq
from torch import nn

from flataudit.contracts import Budget
from flataudit.curvature.ascent import Ball, worst_rise
from flataudit.curvature.noise import average_rise
from flataudit.curvature.objective import Objective


def quadratic() -> tuple[Objective, np.ndarray, np.ndarray]:
    """Linear regression: the loss is a quadratic, with its Hessian and gradient."""
    network, data = Network(seeded(nn.Linear(4, 1)), "regression"), examples(60, regression=True)
    objective = Objective(network, data, batch_size=7)
    _, gradient = objective.gradient(objective.origin)
    return objective, dense_hessian(network, data), gradient.numpy()


def trust_region_maximum(hessian: np.ndarray, gradient: np.ndarray, rho: float) -> float:
    """max g'd + d'Hd/2 on ‖d‖ = ρ: (λI − H) d = g with λ above the largest eigenvalue."""
    values, vectors = np.linalg.eigh(hessian)
    rotated = vectors.T @ gradient

    def length(multiplier: float) -> float:
        return float(np.linalg.norm(rotated / (multiplier - values)) - rho)

    multiplier = brentq(length, values[-1] + 1e-9, values[-1] + 1e6)
    step = vectors @ (rotated / (multiplier - values))
    return float(gradient @ step + step @ hessian @ step / 2)


@pytest.mark.parametrize("rho", [0.05, 1.0])
def test_the_worst_rise_of_a_quadratic_is_the_trust_region_solution(rho: float) -> None:
    objective, hessian, gradient = quadratic()
    ball = Ball(torch.ones_like(objective.origin), rho)
    found = worst_rise(objective, 0, ball=ball, max_steps=200, relative_error=1e-9, budget=Budget(passes=1e4))
    truth = trust_region_maximum(hessian, gradient, rho)
    assert found.rise == pytest.approx(truth, rel=1e-3) and found.rise <= truth + 1e-9 and found.converged


def test_the_average_rise_of_a_quadratic() -> None:
    objective, hessian, _ = quadratic()
    sigma = 0.1
    truth = sigma**2 * float((objective.origin.numpy() ** 2 * np.diag(hessian)).sum()) / 2
    found = average_rise(objective, 0, sigma=sigma, draws=400)
    assert found.standard_error is not None
    assert abs(found.estimate - truth) < 4 * found.standard_error < truth


def test_adaptive_sharpness_and_weight_noise_ignore_rescaling_and_plain_sharpness_does_not() -> None:
    """Dinh et al. 2017: (αW₁, αb₁, W₂/α) is the same ReLU function; α a power of two keeps it exact."""
    data, plain, scaled = examples(), relu_mlp(), relu_mlp()
    with torch.no_grad():
        scaled[0].weight *= 8
        scaled[0].bias *= 8
        scaled[2].weight /= 8
    objectives = [Objective(Network(net), data) for net in (plain, scaled)]

    def rise(objective: Objective, *, adaptive: bool) -> float:
        scale = objective.origin.abs() if adaptive else torch.ones_like(objective.origin)
        ball = Ball(scale, 0.3)
        return worst_rise(objective, 1, ball=ball, max_steps=6, relative_error=0.0, budget=Budget()).rise

    assert rise(objectives[0], adaptive=True) == pytest.approx(rise(objectives[1], adaptive=True), rel=1e-9)
    assert rise(objectives[1], adaptive=False) > 2 * rise(objectives[0], adaptive=False)
    noisy = [average_rise(o, 2, sigma=0.1, draws=5).estimate for o in objectives]
    assert noisy[0] == pytest.approx(noisy[1], rel=1e-9)


def test_a_budget_ends_the_ascent() -> None:
    objective, _, _ = quadratic()
    ball = Ball(torch.ones_like(objective.origin), 0.5)
    found = worst_rise(objective, 0, ball=ball, max_steps=50, relative_error=0.0, budget=Budget(passes=5))
    assert found.gradients <= 5 and not found.converged
