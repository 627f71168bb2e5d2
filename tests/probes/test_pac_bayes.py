"""The largest noise against a closed form, and a bound that holds in simulation or is not given."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import AuditData
from flataudit.curvature.noise import NoisyAnswers
from flataudit.curvature.pac_bayes import gaussian_kl, kl_upper
from flataudit.curvature.surface import Surface
from flataudit.data.examples import checked
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.pac_bayes import PacBayes
from flataudit.specs import Budget
from flataudit.statistics.correctness import correctness

PLENTY = Budget(passes=1e5)


class Line(TorchModel):
    """A linear classifier whose answers are as quick as the many draws of these tests need them."""

    def predict_at(
        self, weights: Mapping[str, NDArray[np.generic]], inputs: NDArray[np.generic]
    ) -> NDArray[np.float64]:
        self.meter.forward += len(inputs)
        found = {**self.weights(), **weights}
        odds = inputs @ found["weight"].T + found.get("bias", 0.0)
        return np.concatenate([-np.logaddexp(0, odds), -np.logaddexp(0, -odds)], axis=1)


def test_the_quick_classifier_answers_as_the_real_one() -> None:
    model, data = line()
    noisy = {"weight": np.array([[-0.7]])}
    real = TorchModel.predict_at(model, noisy, data.inputs)
    assert model.predict_at(noisy, data.inputs) == pytest.approx(real, abs=1e-12)


def line(weight: float = 1.0, n: int = 2000) -> tuple[TorchModel, AuditData]:
    """One weight w, classes by the sign of w x: noise σ|w|ε flips all answers with probability Φ(−1/σ)."""
    module = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(weight)
    x = np.random.default_rng(0).standard_normal((n, 1))
    return Line(module, "binary"), checked("train", "train", x, (x[:, 0] * weight > 0).astype(int), source="t")


def diagonal(n: int = 60) -> tuple[TorchModel, AuditData]:
    """One weight of 1 for each example: noise σε flips each answer with probability Φ(−1/σ), whatever the others do."""
    module = nn.Linear(n, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(1.0)
    return Line(module, "binary"), checked("train", "train", np.eye(n), np.ones(n, dtype=int), source="test")


def sigma(
    probe: PacBayes, subject: tuple[TorchModel, AuditData], seed: int = 0, budget: Budget = PLENTY
) -> Measurement:
    return probe.measure(*subject, seed, budget)[0].measurement


TRUTH = 1 / 1.2815515655446004
"""σ with Φ(−1/σ) = 0.1."""


def test_the_largest_noise_of_a_single_weight() -> None:
    """Relative noise does not see the weight's size; isotropic noise is in its unit."""
    assert float(ndtr(-1 / TRUTH)) == pytest.approx(0.1)
    found = sigma(PacBayes(draws=60, tolerance=0.01), line(weight=3.0, n=200))
    assert found.estimate == pytest.approx(TRUTH, rel=0.15) and found.interval[0] < TRUTH < found.interval[1]
    assert found.details["converged"] == "True" and found.details["sigma_isotropic_low"] < 3 * TRUTH
    assert found.details["sigma_isotropic_high"] > 3 * TRUTH
    other = sigma(PacBayes(draws=60, tolerance=0.01, scale="isotropic"), line(weight=3.0, n=200))
    assert other.estimate == pytest.approx(found.details["sigma_isotropic"], rel=1e-12)
    assert other.details["sigma_magnitude"] == pytest.approx(found.estimate, rel=1e-12)


def test_the_interval_of_the_largest_noise_covers_it() -> None:
    """400 seeds on a smooth drop, whose σ is the same for both kinds of noise: all weights are 1."""
    subject, covered = diagonal(), []
    for seed in range(400):
        found = sigma(PacBayes(tolerance=0.2), subject, seed)
        other = found.details["sigma_isotropic_low"], found.details["sigma_isotropic_high"]
        covered.append([low <= TRUTH <= high for low, high in (found.interval, other)])
    assert 0.93 <= np.mean(covered) <= 0.97, np.mean(covered, axis=0)


def test_the_search_spends_few_passes_and_gives_the_same_where_it_starts_elsewhere() -> None:
    """Another accepted drop moves σ as the closed form says."""
    model, data = diagonal(400)
    for drop, quantile in ((0.02, 2.0537489106318225), (0.3, 0.5244005127080409)):
        found = sigma(PacBayes(drop=drop, draws=8), (model, data))
        assert found.estimate == pytest.approx(1 / quantile, rel=0.1)
        assert found.details["evaluations"] <= 12


def test_the_bounded_skill_of_a_regression_is_its_accuracy() -> None:
    """y = x with one weight: the mean skill under relative noise is E clip(1 − σ²ε²x² / Var x)."""
    module = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(1.0)
    x = np.random.default_rng(0).standard_normal((300, 1))
    found = sigma(
        PacBayes(draws=80),
        (TorchModel(module, "regression"), checked("train", "train", x, x[:, 0], source="test")),
    )
    noise = np.random.default_rng(1).standard_normal((4000, 1))
    skill = np.clip(1 - (found.estimate * noise * x[:, 0]) ** 2 / np.var(x), 0, 1).mean()
    assert skill == pytest.approx(0.9, abs=0.015)


def test_noise_that_never_hurts_noise_that_always_does_and_nothing_to_lose() -> None:
    module = nn.Linear(2, 1).double()
    with torch.no_grad():
        module.weight.zero_()
        module.bias.zero_()
    x = np.random.default_rng(0).standard_normal((50, 2))
    model, right, wrong = (
        TorchModel(module, "binary"),
        checked("train", "train", x, np.zeros(50, dtype=int), source="test"),
        checked("train", "train", x, np.ones(50, dtype=int), source="test"),
    )
    found = sigma(PacBayes(), (model, right))
    assert found.bound == "lower" and found.estimate == 8.0
    found = sigma(PacBayes(), (model, wrong))
    assert found.outcome is Outcome.NOT_APPLICABLE and "to lose" in found.reason
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1e9, -1e9]]))
    edge = checked("train", "train", 1 + 1e-9 * np.abs(x), np.ones(50, dtype=int), source="test")
    edge = edge.replace_inputs(edge.inputs + np.array([1e-6, 0.0]))
    found = sigma(PacBayes(), (model, edge))
    assert found.outcome is Outcome.NOT_CONVERGED and "already under noise" in found.reason


def test_an_answer_that_is_not_a_number_is_a_wrong_one() -> None:
    """Noise overflows float32 and the outputs become inf − inf."""
    module = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1e18)
        module[1].bias.copy_(torch.tensor([1e37, 0.0]))
    x = np.random.default_rng(0).random((40, 2))
    data = checked("train", "train", x.astype(np.float32), np.zeros(40, dtype=int), source="test")
    found = sigma(PacBayes(), (TorchModel(module, "multiclass"), data))
    assert found.outcome is Outcome.MEASURED and found.estimate < 8.0


def test_a_budget_that_ends_is_said_and_widens_the_interval() -> None:
    assert sigma(PacBayes(), diagonal(), budget=Budget(passes=1)).outcome is Outcome.OVER_BUDGET
    known, cut = sigma(PacBayes(), diagonal()), sigma(PacBayes(), diagonal(), budget=Budget(passes=11))
    assert cut.details["converged"] == "False" and cut.details["sigma_isotropic"] is not None
    assert cut.interval[0] <= known.estimate <= cut.interval[1]
    model, data = diagonal()
    PacBayes().measure(model, data, 0, Budget(passes=11))
    assert model.meter.cost(type(model.meter)(), len(data)).passes <= 11.1


def test_only_chosen_parameters_are_disturbed() -> None:
    """A bias of 0 cannot move in units of itself."""
    module = nn.Linear(60, 1).double()
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.zero_()
    model, data = Line(module, "binary"), diagonal()[1]
    weight, bias = (sigma(PacBayes(parameters=(name,)), (model, data)) for name in ("weight", "bias"))
    assert weight.estimate == pytest.approx(TRUTH, rel=0.3) and weight.bound == "estimate"
    assert bias.bound == "lower" and bias.details["sigma_isotropic"] < 8.0
    bound = PacBayes(parameters=("weight",)).measure(model, data, 0, PLENTY)[1].measurement
    assert bound.outcome is Outcome.NOT_APPLICABLE and "no prior" in bound.reason


def test_numbers_of_the_books() -> None:
    assert kl_upper(0.1, 0.02) == pytest.approx(0.1704, abs=2e-4)
    # KL(N(1, 1) ‖ N(0, 4)) = ln 2 + (1 + 1)/8 − 1/2.
    assert gaussian_kl(1.0, 1, sigma=1.0, scale=2.0) == pytest.approx(math.log(2) + 0.25 - 0.5)


def gaussians(n: int, source: np.random.Generator, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes around ±(apart, apart)."""
    y = source.integers(0, 2, n)
    return source.standard_normal((n, 2)) + np.where(y[:, None] == 1, apart, -apart), y


def fitted(x: np.ndarray, y: np.ndarray, size: float = 1.0) -> TorchModel:
    """The line between the means of the classes."""
    module = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor((x * np.where(y[:, None] == 1, size, -size)).mean(axis=0)[None]))
    return Line(module, "binary")


QUICK = PacBayes(drop=0.9, draws=2, tolerance=10.0)
"""Hardly any search for σ: the tests of the bound do not need it."""


def test_the_bound_holds_in_at_least_95_percent_of_training_sets() -> None:
    """The whole probe on 200 training sets; the true error of a noisy line is Φ(−⟨v, μ⟩ / ‖v‖)."""
    source, held, bounds = np.random.default_rng(0), [], []
    for seed in range(200):
        x, y = gaussians(100, source)
        model = fitted(x, y)
        found = QUICK.measure(model, checked("train", "train", x, y, source="test"), seed, PLENTY)[1].measurement
        theta = model.weights()["weight"][0]
        many = theta + found.details["sigma"] * source.standard_normal((2000, 2))
        truth = float(ndtr(-many.sum(axis=1) / np.linalg.norm(many, axis=1)).mean())
        held.append(truth <= found.estimate)
        bounds.append(found.estimate)
        assert found.bound == "upper" and found.estimate > found.details["gibbs_error_limit"]
    assert np.mean(held) >= 0.95 and np.mean(bounds) < 0.45


def test_memorised_noise_proves_nothing_and_would_without_the_divergence() -> None:
    """Random labels have a true error of 1/2; a network that knows them by heart must not be promised less."""
    source, held, naive = np.random.default_rng(0), [], []
    for seed in range(200):
        x, y = np.eye(30), source.integers(0, 2, 30)
        module = nn.Linear(30, 1, bias=False).double()
        with torch.no_grad():
            module.weight.copy_(torch.tensor(np.where(y == 1, 3.0, -3.0))[None])
        data = checked("train", "train", x, y, source="test")
        found = QUICK.measure(Line(module, "binary"), data, seed, PLENTY)[1].measurement
        held.append(found.estimate >= 0.5)
        naive.append(kl_upper(found.details["gibbs_error"], math.log(2 * math.sqrt(30) / 0.05) / 30) >= 0.5)
    assert np.mean(held) >= 0.95 and np.mean(naive) < 0.5
    assert found.details["vacuous"] == "True"


def test_the_limit_of_the_noisy_error_holds_for_its_draws() -> None:
    """Ten runs' unequal shares included: the true noisy error of the diagonal network is Φ(−1/σ)."""
    model, data = diagonal(61)
    truth, held = float(ndtr(-1 / 0.6)), []
    for seed in range(400):
        noisy = NoisyAnswers(Surface.of(model, data), seed, partial(correctness, model.task))
        errors = 1 - noisy.right(0.6, 2, "prove").estimate
        held.append(PacBayes(delta=0.4)._proved(noisy, 0.6, errors, 2)[2] >= truth)
    assert np.mean(held) >= 0.9


def test_draws_that_prove_are_not_those_that_choose() -> None:
    noisy = NoisyAnswers(Surface.of(*diagonal()), 0, partial(correctness, "binary"))
    one, other = (noisy.right(1.0, 4, purpose).estimate for purpose in ("choose", "prove"))
    assert one != other and one == noisy.right(1.0, 4, "choose").estimate


def test_the_bound_is_not_given_where_its_conditions_do_not_hold() -> None:
    x = np.random.default_rng(0).standard_normal((60, 3))
    y = (x[:, 0] > 0).astype(int)
    data = checked("train", "train", x, y, source="test")
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    found = PacBayes().measure(TorchModel(plain, "multiclass"), data, 0, PLENTY)[1].measurement
    assert (
        found.outcome is Outcome.MEASURED and found.bound == "upper" and found.estimate > found.details["gibbs_error"]
    )
    for affine in (True, False):
        normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=affine), nn.ReLU(), nn.Linear(4, 2)).double()
        found = PacBayes().measure(TorchModel(normed.eval(), "multiclass"), data, 0, PLENTY)[1].measurement
        assert found.outcome is Outcome.NOT_APPLICABLE and "batch norm" in found.reason
    unseen = checked("validation", "validation", x, y, source="test")
    found = PacBayes().measure(TorchModel(plain, "multiclass"), unseen, 0, PLENTY)[1].measurement
    assert found.outcome is Outcome.NOT_APPLICABLE and "validation_accuracy" in found.reason
    values = checked("train", "train", x, x[:, 0], source="test")
    line = nn.Linear(3, 1).double()
    found = PacBayes().measure(TorchModel(line, "regression"), values, 0, PLENTY)[1].measurement
    assert found.outcome is Outcome.NOT_APPLICABLE
