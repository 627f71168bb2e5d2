"""Local entropies against closed forms of quadratics, integrals on a grid and brute force, and their intervals."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, examples, relu_mlp, tanh_mlp
from numpy.typing import NDArray
from torch import Tensor, nn

from flataudit.curvature.entropy import (
    LocalEntropy,
    Neighbourhood,
    entropy_from_log_determinant,
    local_entropy,
    log_mean_exponential,
    quadratic_entropy,
    reference,
)
from flataudit.curvature.surface import Surface
from flataudit.data.examples import checked

OUTLIERS = np.concatenate([np.logspace(0, 3, 20), np.logspace(-3, -1, 180)])
"""A few large eigenvalues over many small ones, with a condition number of a million, as networks have them."""


def least_squares(spectrum: NDArray[np.float64], *, slope: float = 0.0, device: str = "cpu") -> Surface:
    """Linear regression whose Hessian (2/n) XᵀX has this spectrum; ``slope`` moves it off its minimum."""
    d = len(spectrum)
    generator, n = np.random.default_rng(d), 2 * d
    left, _ = np.linalg.qr(generator.standard_normal((n, d)))
    right, _ = np.linalg.qr(generator.standard_normal((d, d)))
    inputs = left * np.sqrt(spectrum * n / 2) @ right.T
    weights = generator.standard_normal(d)
    targets = inputs @ (weights + slope * generator.standard_normal(d))
    module = nn.Linear(d, 1, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weights)[None])
    network = Network(module, "regression", device=device)
    network.batch_size = 1000
    return Surface(network, checked("train", "train", inputs, targets, source="test"))


def closed_form(surface: Surface, area: Neighbourhood) -> float:
    """−½ log det(I + M) + β² gᵀS (γI + βSHS)⁻¹ S g / 2 with M = βSHS/γ, by dense linear algebra."""
    inputs = np.asarray(surface.data.inputs)
    weights, scale = surface.origin.cpu().numpy(), area.scale.cpu().numpy()
    hessian = 2 / len(inputs) * inputs.T @ inputs
    slope = 2 / len(inputs) * inputs.T @ (inputs @ weights - np.asarray(surface.data.targets))
    beta, gamma = area.inverse_temperature, area.gamma
    matrix = np.eye(len(weights)) + beta / gamma * scale[:, None] * hessian * scale
    moved = beta * scale * slope
    return float(-np.linalg.slogdet(matrix)[1] / 2 + moved @ np.linalg.solve(gamma * matrix, moved) / 2)


def measured(
    surface: Surface, area: Neighbourhood, seed: int = 0, *, matvecs: int = 4, chains: int = 16, rungs: int = 3
) -> LocalEntropy:
    start = reference(surface, seed, area=area, num_matvecs=matvecs)
    found = local_entropy(surface, seed, start=start, chains=chains, rungs=rungs)
    assert found is not None
    return found


CASES = [
    (np.array([10.0, 0.1]), 0, 32, 16, 0.4),
    (np.logspace(-2, 0.5, 20), 4, 16, 8, 0.3),
    (np.logspace(-3, 3, 20), 16, 16, 8, 0.1),
    (OUTLIERS, 30, 16, 8, 0.2),
    (np.full(200, 0.1), 4, 16, 32, 0.2),
]
"""Spectrum, products, chains, rungs, and the largest error that this much work may leave."""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("spectrum", "matvecs", "chains", "rungs", "error"), CASES)
def test_a_quadratic_in_2_20_and_200_dimensions(
    spectrum: NDArray[np.float64], matvecs: int, chains: int, rungs: int, error: float, device: str
) -> None:
    for relative, slope, beta in ((False, 0.05, 1.0), (True, 0.0, 1.0), (False, 0.0, 2.0)):
        surface = least_squares(spectrum, slope=slope, device=device)
        scale = surface.origin.abs() if relative else torch.ones_like(surface.origin)
        area = Neighbourhood(scale, 2.0, beta)
        found = measured(surface, area, matvecs=matvecs, chains=chains, rungs=rungs)
        assert found.standard_error < error and found.effective_share > 0.5
        assert abs(found.estimate - closed_form(surface, area)) < 4 * found.standard_error


@pytest.mark.parametrize("spectrum", [np.array([3.0, 0.2]), np.logspace(-3, 3, 20)])
def test_with_a_whole_basis_a_quadratic_is_exact(spectrum: NDArray[np.float64]) -> None:
    surface = least_squares(spectrum, slope=0.3)
    area = Neighbourhood(torch.ones_like(surface.origin), 1.0, 1.0)
    found = measured(surface, area, matvecs=len(spectrum) + 1)
    assert found.estimate == pytest.approx(closed_form(surface, area), rel=1e-8)
    assert found.quadratic == pytest.approx(found.estimate, rel=1e-8)
    assert 0 < found.standard_error < 1e-8 * abs(found.estimate)


def test_the_closed_forms() -> None:
    eigenvalues = np.array([5.0, 0.5, -0.3])
    dense = -np.linalg.slogdet(np.eye(3) + np.diag(eigenvalues) / 2)[1] / 2
    assert quadratic_entropy(torch.tensor(eigenvalues), 2.0) == pytest.approx(dense, rel=1e-12)
    log_determinant = float(np.log1p(eigenvalues / 2).sum())
    assert entropy_from_log_determinant(log_determinant) == pytest.approx(dense, rel=1e-12)
    with pytest.raises(ValueError, match="raise gamma"):
        quadratic_entropy(torch.tensor([-2.0]), 2.0)


class Product(nn.Module):
    """Outputs a·b: with the target 1 the loss (ab − 1)² has a saddle at the origin."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([0.1, -0.2]))

    def forward(self, x: Tensor) -> Tensor:
        return self.factors.prod() * x


def test_a_saddle_against_an_integral_on_a_grid() -> None:
    network = Network(Product(), "regression")
    surface = Surface(network, checked("train", "train", np.ones((3, 1)), np.ones(3), source="test"))
    area = Neighbourhood(torch.ones(2, dtype=torch.float64), 1.5, 2.0)
    axis = np.linspace(-6, 6, 1201)
    a, b = np.meshgrid(axis, axis)
    theta = surface.origin.numpy()
    rise = ((theta[0] + a) * (theta[1] + b) - 1) ** 2 - (theta.prod() - 1) ** 2
    density = np.exp(-1.5 * (a**2 + b**2) / 2)
    truth = math.log((density * np.exp(-2.0 * rise)).sum() / density.sum())
    found = measured(surface, area, matvecs=3, chains=200, rungs=8)
    assert found.standard_error < 0.1 and abs(found.estimate - truth) < 4 * found.standard_error


def brute_force(surface: Surface, area: Neighbourhood, draws: int = 100_000) -> float:
    """The plain mean of exp(−βΔL) over very many draws."""
    x, y = surface.model.tensors(surface.data.inputs, surface.data.targets)
    assert y is not None
    targets = y
    source, here = torch.Generator().manual_seed(99), surface.loss_here()

    def loss(theta: Tensor) -> Tensor:
        return surface.model.loss_function.mean(surface.model.raw_outputs(surface.named(theta), x), targets)

    values = []
    with torch.no_grad():
        for _ in range(draws // 2000):
            z = torch.randn(2000, len(surface.origin), generator=source, dtype=torch.float64) / math.sqrt(area.gamma)
            values.append(-area.inverse_temperature * (torch.vmap(loss)(surface.origin + area.scale * z) - here))
    table = torch.cat(values)
    return float(table.logsumexp(0)) - math.log(len(table))


def test_the_95_percent_interval_covers_the_truth() -> None:
    """160 seeds of each of three cases: 93 to 97 % over all."""
    network = Surface(Network(relu_mlp()), examples(24))
    smooth = Surface(Network(tanh_mlp()), examples(24))
    quadratic = least_squares(np.logspace(-1, 1.3, 12))
    cases = [
        (network, Neighbourhood(network.origin.abs(), 10.0, 1.0)),
        (smooth, Neighbourhood(smooth.origin.abs(), 3.0, 1.0)),
        (quadratic, Neighbourhood(torch.ones_like(quadratic.origin), 10.0, 1.0)),
    ]
    shares = []
    for surface, area in cases:
        truth = closed_form(surface, area) if surface is quadratic else brute_force(surface, area)
        intervals = [measured(surface, area, seed).interval for seed in range(160)]
        shares.append(float(np.mean([low <= truth <= high for low, high in intervals])))
    assert 0.93 <= np.mean(shares) <= 0.97, shares
    assert all(abs(share - 0.95) < 3 * (0.95 * 0.05 / 160) ** 0.5 for share in shares), shares


def test_chains_that_cannot_mix_are_seen() -> None:
    surface = least_squares(np.logspace(-4, 2, 200))
    found = measured(surface, Neighbourhood(torch.ones_like(surface.origin), 0.1, 1.0))
    assert found.effective_share < 0.3


def test_more_rungs_bring_chains_together() -> None:
    surface = least_squares(np.full(200, 0.3))
    area = Neighbourhood(torch.ones_like(surface.origin), 1.0, 1.0)
    few, many = ([measured(surface, area, seed, matvecs=0, rungs=rungs) for seed in range(5)] for rungs in (1, 128))
    shares = [np.mean([one.effective_share for one in found]) for found in (few, many)]
    assert shares[1] > 2 * shares[0]
    truth = closed_form(surface, area)
    assert abs(np.mean([one.estimate for one in many]) - truth) < 0.5


def test_relative_noise_does_not_see_rescaled_units() -> None:
    module = relu_mlp()
    data = examples(30)
    first = Surface(Network(module), data)
    factors = torch.linspace(0.2, 5.0, 8, dtype=torch.float64)
    moved = {name: tensor.clone() for name, tensor in first.model.parameters.items()}
    moved["0.weight"] *= factors[:, None]
    moved["0.bias"] *= factors
    moved["2.weight"] /= factors
    network = Network(module)
    network.parameters = moved
    second = Surface(network, data)
    found = [measured(s, Neighbourhood(s.origin.abs(), 10.0, 1.0)).estimate for s in (first, second)]
    assert found[0] == pytest.approx(found[1], rel=1e-8)
    plain = [measured(s, Neighbourhood(torch.ones_like(s.origin), 100.0, 1.0)).estimate for s in (first, second)]
    assert abs(plain[0] - plain[1]) > 0.1 * abs(plain[0])


def test_one_seed_one_answer_whatever_the_batch_size() -> None:
    found = []
    for size in (7, 64):
        network = Network(tanh_mlp())
        network.batch_size = size
        surface = Surface(network, examples(40))
        found.append(measured(surface, Neighbourhood(surface.origin.abs(), 10.0, 1.0), 3))
    assert found[0].estimate == pytest.approx(found[1].estimate, rel=1e-8)
    other = measured(surface, Neighbourhood(surface.origin.abs(), 10.0, 1.0), 4)
    assert found[1] != other


def test_no_noise_no_rise_and_no_time_no_answer() -> None:
    surface = Surface(Network(relu_mlp()), examples(10))
    area = Neighbourhood(torch.zeros_like(surface.origin), 1.0, 1.0)
    found = measured(surface, area)
    assert found.estimate == pytest.approx(0.0, abs=1e-12) and found.standard_error > 0
    start = reference(surface, 0, area=replace(area, scale=surface.origin.abs()), num_matvecs=2)
    assert local_entropy(surface, 0, start=start, chains=8, rungs=2, seconds=0.0) is None


def test_the_log_of_a_mean_against_the_jackknife_by_hand() -> None:
    values = np.random.default_rng(0).normal(size=9)
    whole = math.log(np.exp(values).mean())
    without = [math.log(np.exp(np.delete(values, i)).mean()) for i in range(9)]
    estimate, error, share = log_mean_exponential(values.tolist())
    assert estimate == pytest.approx(9 * whole - 8 * np.mean(without), rel=1e-12)
    assert error == pytest.approx(math.sqrt(8 / 9 * np.sum((without - np.mean(without)) ** 2)), rel=1e-12)
    weights = np.exp(values)
    assert share == pytest.approx(weights.sum() ** 2 / (weights**2).sum() / 9, rel=1e-12)
