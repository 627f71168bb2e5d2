"""The probe of local entropy: a number with its error, its direction, and what it says when chains do not mix."""

import networks
import numpy as np
import pytest
import torch
from torch import nn

from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.local_entropy import LocalEntropy
from flataudit.specs import Budget
from flataudit.testing import check_probe


def measured(probe: LocalEntropy, network: object, seed: int = 0, **budget: float) -> Measurement:
    data = networks.examples(40)
    return probe.measure(network, data, seed, Budget(**budget))[0].measurement  # type: ignore[arg-type]


def test_it_conforms() -> None:
    check_probe(LocalEntropy(scale="unit", gamma=1000.0, parameters=("last:1",), num_matvecs=0, rungs=1))


def test_a_regression_against_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((30, 3))
    weights = np.array([1.0, -2.0, 0.5])
    module = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weights)[None])
    data = checked("train", "train", inputs, inputs @ weights, source="test")
    network = networks.Network(module, "regression")
    hessian = 2 / 30 * inputs.T @ inputs
    for scale, spans in (("element", np.abs(weights)), ("unit", np.ones(3)), ("filter", np.full(3, 5.25**0.5))):
        found = LocalEntropy(scale=scale, gamma=0.5, inverse_temperature=3.0).measure(network, data, 0, Budget())
        matrix = np.eye(3) + 3.0 / 0.5 * spans[:, None] * hessian * spans
        assert found[0].measurement.estimate == pytest.approx(-np.linalg.slogdet(matrix)[1] / 2, rel=1e-8)
        assert found[0].measurement.details["quadratic"] == pytest.approx(found[0].measurement.estimate, rel=1e-8)


def test_higher_is_flatter() -> None:
    """A smaller neighbourhood, and a loss that counts less, have an entropy nearer to 0."""
    network = networks.Network(networks.relu_mlp())
    wide = measured(LocalEntropy(gamma=3.0), network)
    assert wide.better == "higher" and wide.unit == "nat"
    for flatter in (LocalEntropy(gamma=300.0), LocalEntropy(gamma=3.0, inverse_temperature=0.1)):
        found = measured(flatter, network)
        assert wide.interval is not None and found.interval is not None
        assert wide.interval[1] < found.interval[0]


def test_chains_that_do_not_mix_are_an_outcome_with_advice() -> None:
    found = measured(LocalEntropy(gamma=0.1, inverse_temperature=1000.0), networks.Network(networks.tanh_mlp()))
    assert found.outcome is Outcome.NOT_CONVERGED and found.estimate is None
    assert found.advice is not None and "raise rungs" in found.advice
    assert float(found.details["effective_chains"] or 0) < 8


def test_the_budget_is_kept() -> None:
    network = networks.Network(networks.relu_mlp())
    probe = LocalEntropy()
    assert measured(probe, network, passes=10).outcome is Outcome.OVER_BUDGET
    assert network.meter.forward == 0
    assert measured(probe, network, seconds=1e-9).outcome is Outcome.OVER_BUDGET
    network = networks.Network(networks.relu_mlp())
    LocalEntropy(num_matvecs=0).measure(network, networks.examples(40), 0, Budget(passes=25))
    assert (network.meter.forward + network.meter.backward) / 2 / 40 <= 25
    check = networks.Network(networks.relu_mlp())
    measured(probe, check)
    spent = (check.meter.forward + check.meter.backward) / 2 + 2 * check.meter.matvecs
    assert spent / 40 < 40


def test_only_the_chosen_parameters_move() -> None:
    network = networks.Network(networks.relu_mlp())
    last, whole = (measured(LocalEntropy(parameters=p), network) for p in (("last:1",), ("*",)))
    assert last.details["parameters"] == 27.0 and whole.details["parameters"] == 67.0
    assert last.estimate != whole.estimate


def test_a_loss_that_overflows_nearby_is_an_error() -> None:
    network = networks.Network(networks.seeded(nn.Linear(4, 1), scale=1e153), "regression")
    data = networks.examples(5, regression=True)
    with pytest.raises(ModelError, match="finite"):
        LocalEntropy(gamma=1e-6, num_matvecs=0).measure(network, data, 0, Budget())
