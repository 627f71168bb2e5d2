"""Average rises against the closed form on a quadratic; the interval covers it."""

import numpy as np
import pytest
import torch
from networks import Network, dense_hessian, examples, seeded, tanh_mlp
from torch import nn

from flataudit.curvature.noise import average_rises
from flataudit.curvature.scales import scale_of
from flataudit.curvature.surface import Surface
from flataudit.specs import Budget

PLENTY = Budget(passes=1e5)


def quadratic() -> tuple[Surface, np.ndarray]:
    network, data = Network(seeded(nn.Linear(4, 1)), "regression"), examples(60, regression=True)
    return Surface.of(network, data), dense_hessian(network, data)


@pytest.mark.parametrize("kind", ["unit", "element", "filter"])
def test_on_a_quadratic_it_is_half_the_weighted_trace(kind: str) -> None:
    """σ² Σ Tᵢ² Hᵢᵢ / 2."""
    surface, hessian = quadratic()
    scale = scale_of(surface, kind)
    for one in average_rises(surface, 0, scale=scale, sigmas=[0.1, 0.3], draws=200, budget=PLENTY):
        truth = one.sigma**2 * float((scale.numpy() ** 2 * np.diag(hessian)).sum()) / 2
        assert one.standard_error is not None
        assert abs(one.estimate - truth) < 4 * one.standard_error < 0.5 * truth


def test_the_95_percent_interval_covers_the_truth() -> None:
    """400 seeds, half on a quadratic, whose truth is known, half on a network, whose truth is a long run."""
    surface, hessian = quadratic()
    network = Surface.of(Network(tanh_mlp()), examples(40))
    scales = [scale_of(surface, "element"), scale_of(network, "element")]
    truths = [0.1**2 * float((scales[0].numpy() ** 2 * np.diag(hessian)).sum()) / 2]
    long = average_rises(network, 10_000, scale=scales[1], sigmas=[0.1], draws=600, budget=PLENTY)[0]
    truths.append(long.estimate)
    shares = []
    for one, scale, truth in zip((surface, network), scales, truths, strict=True):
        covered = []
        for seed in range(200):
            found = average_rises(one, seed, scale=scale, sigmas=[0.1], draws=4, budget=PLENTY)[0]
            covered.append(found.interval[0] <= truth <= found.interval[1])
        shares.append(np.mean(covered))
    assert 0.93 <= np.mean(shares) <= 0.97, shares
    assert all(abs(share - 0.95) < 3.3 * (0.95 * 0.05 / 200) ** 0.5 for share in shares), shares


def test_fresh_noise_for_each_stratum_is_worth_as_many_draws() -> None:
    """Against the naive twin, whose noise all examples share: the same expectation, a fraction of the error."""
    surface = Surface.of(Network(tanh_mlp()), examples(400))
    scale, loss, source = scale_of(surface, "element"), surface.loss_here(), torch.Generator().manual_seed(0)
    shared = []
    for _ in range(150):
        step = 0.1 * scale * torch.randn(scale.shape, generator=source, dtype=torch.float64)
        shared.append((surface.loss(surface.origin + step) + surface.loss(surface.origin - step)) / 2 - loss)
    found = average_rises(surface, 0, scale=scale, sigmas=[0.1], draws=50, budget=PLENTY)[0]
    naive = float(np.std(shared, ddof=1))
    assert abs(found.estimate - np.mean(shared)) < 4 * naive / 150**0.5
    assert found.standard_error * 50**0.5 < naive / 2


def test_a_budget_that_ends_leaves_what_was_measured() -> None:
    surface, _ = quadratic()
    scale = scale_of(surface, "unit")
    found = average_rises(surface, 0, scale=scale, sigmas=[0.1, 0.2], draws=4, budget=Budget(passes=5))
    assert [one.sigma for one in found] == [0.1]
    assert not average_rises(surface, 0, scale=scale, sigmas=[0.1], draws=4, budget=Budget(passes=1))


def test_an_overflow_under_the_noise_is_said() -> None:
    surface = Surface.of(Network(nn.Sequential(nn.Linear(4, 3), Exponential())), examples())
    scale = scale_of(surface, "unit")
    assert average_rises(surface, 0, scale=scale, sigmas=[1e4], draws=4, budget=PLENTY)[0].estimate is None


class Exponential(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 50).exp()
