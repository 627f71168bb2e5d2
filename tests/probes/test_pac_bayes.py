"""The largest noise against a closed form, and a bound that holds in simulation or is not given."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import Budget
from flataudit.curvature.pac_bayes import gaussian_kl, kl_upper, pac_bayes_kl
from flataudit.data.examples import checked
from flataudit.evidence import Outcome
from flataudit.probes.pac_bayes import PacBayes

PLENTY = Budget(passes=1e5)


def line(weight: float = 1.0, n: int = 2000) -> tuple[TorchModel, object]:
    """One weight w, classes by the sign of w x: noise σ|w|ε flips all answers with probability Φ(−1/σ)."""
    module = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(weight)
    x = np.random.default_rng(0).standard_normal((n, 1))
    return TorchModel(module, "binary"), checked("train", "train", x, (x[:, 0] * weight > 0).astype(int), source="t")


def test_the_largest_noise_of_a_single_weight() -> None:
    """The drop is Φ(−1/σ): 10 points at σ = −1/Φ⁻¹(0.1) = 0.78."""
    model, data = line()
    found = PacBayes(draws=400).measure(model, data, 0, PLENTY)[0].measurement
    truth = -1 / -1.2815515655446004
    assert float(ndtr(-1 / truth)) == pytest.approx(0.1)
    assert found.estimate == pytest.approx(truth, rel=0.15) and found.interval[0] < truth < found.interval[1]


def test_the_interval_of_the_largest_noise_covers_it() -> None:
    """400 seeds on a smooth drop: many independent weights, each with an example of its own."""
    n = 60
    module = nn.Linear(n, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(1.0)
    data = checked("train", "train", np.eye(n), np.ones(n, dtype=int), source="test")
    model = TorchModel(module, "binary")
    truth = 1 / 1.2815515655446004
    covered = []
    for seed in range(400):
        found = PacBayes(tolerance=0.02, drop=0.1).measure(model, data, seed, PLENTY)[0].measurement
        covered.append(found.interval[0] <= truth <= found.interval[1])
    assert 0.93 <= np.mean(covered) <= 0.975, np.mean(covered)


def test_noise_that_never_hurts_and_noise_that_always_does() -> None:
    """A constant answer is a lower bound; a model at the edge of everything has no σ."""
    module = nn.Linear(2, 1).double()
    with torch.no_grad():
        module.weight.zero_()
        module.bias.zero_()
    x = np.random.default_rng(0).standard_normal((50, 2))
    data = checked("train", "train", x, np.zeros(50, dtype=int), source="test")
    found = PacBayes().measure(TorchModel(module, "binary"), data, 0, PLENTY)[0].measurement
    assert found.bound == "lower" and found.estimate == 8.0
    found = PacBayes().measure(*line(), 0, Budget(passes=5))[0].measurement
    assert found.outcome is Outcome.OVER_BUDGET


def test_numbers_of_the_books() -> None:
    assert kl_upper(0.1, 0.02) == pytest.approx(0.1704, abs=2e-4)
    # KL(N(1, 1) ‖ N(0, 4)) = ln 2 + (1 + 1)/8 − 1/2.
    assert gaussian_kl(1.0, 1, sigma=1.0, scale=2.0) == pytest.approx(math.log(2) + 0.25 - 0.5)


def test_the_bound_holds_in_at_least_95_percent_of_training_sets() -> None:
    """Two Gaussian classes, a line fitted by their means: the true error of a noisy line is known by integration."""
    generator = np.random.default_rng(0)
    held, sigma, draws = [], 0.3, 30
    for _ in range(400):
        y = generator.integers(0, 2, 120)
        x = generator.standard_normal((120, 2)) + np.where(y[:, None] == 1, 1.0, -1.0)
        theta = (x * np.where(y[:, None] == 1, 1.0, -1.0)).mean(axis=0)
        lines = theta + sigma * generator.standard_normal((draws, 2))
        errors = float(np.mean((lines @ x.T > 0) != (y == 1)))
        bound, _, _ = pac_bayes_kl(float(theta @ theta), 2, sigma=sigma, errors=errors, draws=draws, n=120, delta=0.05)
        many = theta + sigma * generator.standard_normal((4000, 2))
        truth = float(ndtr(-many.sum(axis=1) / np.linalg.norm(many, axis=1)).mean())
        held.append(truth <= bound)
    assert np.mean(held) >= 0.95


def test_the_bound_is_not_given_where_its_conditions_do_not_hold() -> None:
    x = np.random.default_rng(0).standard_normal((60, 3))
    y = (x[:, 0] > 0).astype(int)
    data = checked("train", "train", x, y, source="test")
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    found = PacBayes().measure(TorchModel(plain, "multiclass"), data, 0, PLENTY)[1].measurement
    assert (
        found.outcome is Outcome.MEASURED and found.bound == "upper" and found.estimate > found.details["gibbs_error"]
    )
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    found = PacBayes().measure(TorchModel(normed, "multiclass"), data, 0, PLENTY)[1].measurement
    assert found.outcome is Outcome.NOT_APPLICABLE and "batch norm" in found.reason
