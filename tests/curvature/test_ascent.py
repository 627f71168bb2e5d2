"""Rises of the loss against closed forms on a quadratic."""

import numpy as np
import pytest
import torch
from networks import Network, dense_hessian, examples, relu_mlp, seeded
from scipy.optimize import brentq
from torch import nn

from flataudit.contracts import Budget
from flataudit.curvature.ascent import WorstRise, worst_rises
from flataudit.curvature.noise import average_rises
from flataudit.curvature.scales import scale_of
from flataudit.curvature.surface import Surface


def quadratic(features: int = 4) -> tuple[Surface, np.ndarray, np.ndarray]:
    """Linear regression: the loss is a quadratic, with its Hessian and gradient."""
    network, data = Network(seeded(nn.Linear(features, 1)), "regression"), examples(60, regression=True)
    surface = Surface.of(network, data)
    return surface, dense_hessian(network, data), surface.slope_here()[1].numpy()


def worst(
    surface: Surface,
    rho: float,
    *,
    kind: str = "unit",
    seed: int = 0,
    steps: int = 200,
    error: float = 1e-4,
    passes: float = 1e4,
) -> WorstRise:
    scale = scale_of(surface, kind)
    return worst_rises(
        surface, seed, scale=scale, radii=[rho], max_steps=steps, relative_error=error, budget=Budget(passes=passes)
    )[0]


def trust_region_maximum(hessian: np.ndarray, gradient: np.ndarray, rho: float) -> float:
    """max g'd + d'Hd/2 on ‖d‖ = ρ: (λI − H) d = g with λ above the largest eigenvalue."""
    values, vectors = np.linalg.eigh(hessian)
    rotated = vectors.T @ gradient

    def length(multiplier: float) -> float:
        return float(np.linalg.norm(rotated / (multiplier - values)) - rho)

    multiplier = brentq(length, values[-1] + 1e-9, values[-1] + 1e6)
    step = vectors @ (rotated / (multiplier - values))
    return float(gradient @ step + step @ hessian @ step / 2)


@pytest.mark.parametrize("rho", [0.05, 1.0, 5.0])
def test_the_worst_rise_of_a_quadratic_is_the_trust_region_solution(rho: float) -> None:
    surface, hessian, gradient = quadratic()
    found = worst(surface, rho)
    truth = trust_region_maximum(hessian, gradient, rho)
    assert found.rise == pytest.approx(truth, rel=1e-3) and found.rise <= truth + 1e-9 and found.converged


def test_at_a_minimum_the_worst_rise_is_that_along_the_largest_curvature() -> None:
    """The hard case: no gradient at all. λ_max ρ² / 2."""
    surface, hessian, gradient = quadratic()
    step = torch.tensor(np.linalg.solve(hessian, gradient))
    minimum = surface.parts(surface.origin - step)
    surface.model.parameters = {name: part.clone() for name, part in minimum.items()}
    at = Surface(surface.model, surface.data)
    truth = np.linalg.eigvalsh(hessian)[-1] * 0.5**2 / 2
    found = worst(at, 0.5)
    assert truth * 0.98 < found.rise <= truth * (1 + 1e-9)


def test_several_radii_continue_from_each_other_and_never_fall() -> None:
    surface, hessian, gradient = quadratic()
    radii = [0.05, 0.2, 1.0, 0.5]
    found = worst_rises(
        surface,
        0,
        scale=scale_of(surface, "unit"),
        radii=radii,
        max_steps=100,
        relative_error=1e-4,
        budget=Budget(passes=1e4),
    )
    for one in found:
        assert one.rise == pytest.approx(trust_region_maximum(hessian, gradient, one.radius), rel=1e-3)


def rescaled() -> list[Surface]:
    """Dinh et al. 2017: (αW₁, αb₁, W₂/α) is the same ReLU function; α a power of two keeps it exact."""
    plain, scaled = relu_mlp(), relu_mlp()
    with torch.no_grad():
        scaled[0].weight *= 8
        scaled[0].bias *= 8
        scaled[2].weight /= 8
    return [Surface.of(Network(net), examples()) for net in (plain, scaled)]


@pytest.mark.parametrize(("kind", "still"), [("unit", False), ("element", True), ("filter", True)])
def test_what_a_rescaled_pair_of_layers_moves(kind: str, still: bool) -> None:
    one, other = (worst(surface, 0.3, kind=kind, seed=1, steps=8).rise for surface in rescaled())
    assert (other == pytest.approx(one, rel=1e-9)) == still
    noise = [
        average_rises(s, 2, scale=scale_of(s, kind), sigmas=[0.1], draws=5, budget=Budget())[0].estimate
        for s in rescaled()
    ]
    assert (noise[0] == pytest.approx(noise[1], rel=1e-9)) == still


def test_a_budget_ends_the_ascent() -> None:
    surface, _, _ = quadratic()
    found = worst(surface, 0.5, steps=50, error=1e-12, passes=3)
    assert found.gradients <= 5 and not found.converged


def test_an_overflow_within_the_radius_is_said() -> None:
    network = Network(nn.Sequential(nn.Linear(4, 3), Exponential()))
    surface = Surface.of(network, examples())
    assert worst(surface, 1e4).rise is None


class Exponential(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 50).exp()
