"""The probe of geometric complexity: linear maps, tokens, temperatures, and its interval."""

import networks
import numpy as np
import pytest
import torch
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import AuditData
from flataudit.curvature.losses import CrossEntropy
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.geometric_complexity import GeometricComplexity
from flataudit.probes.input_gradient import InputGradient
from flataudit.specs import Budget
from flataudit.testing import check_probe


def measured(probe: GeometricComplexity, network: object, data: AuditData, seed: int = 0) -> Measurement:
    return probe.measure(network, data, seed, Budget())[0].measurement  # type: ignore[arg-type]


def test_they_conform() -> None:
    check_probe(GeometricComplexity())
    check_probe(GeometricComplexity(exact_columns=0, probes=3))
    check_probe(InputGradient())


def test_a_linear_map_has_the_squared_norm_of_its_matrix() -> None:
    for outputs, task in ((3, "multiclass"), (2, "binary"), (1, "regression"), (1, "multilabel"), (4, "multilabel")):
        module = networks.seeded(nn.Linear(4, outputs))
        data = networks.examples(30, regression=outputs == 1)
        found = measured(GeometricComplexity(), networks.Network(module, task), data)
        assert found.estimate == pytest.approx(float(module.weight.detach().square().sum()), rel=1e-8)
        assert found.details["method"] == "exact" and found.details["columns"] == outputs


def test_a_temperature_moves_the_raw_number_only() -> None:
    module, data = networks.tanh_mlp(), networks.examples(30)
    plain = measured(GeometricComplexity(), networks.Network(module), data)
    with torch.no_grad():
        module[2].weight *= 20
        module[2].bias *= 20
    hot = measured(GeometricComplexity(), networks.Network(module), data)
    assert hot.estimate == pytest.approx(400 * plain.estimate, rel=1e-8)
    assert hot.details["at_unit_rms"] == pytest.approx(plain.details["at_unit_rms"], rel=1e-8)


def test_rescaled_layers_leave_it_alone() -> None:
    network, data = networks.Network(networks.relu_mlp()), networks.examples(30)
    before = measured(GeometricComplexity(), network, data).estimate
    factors = {"0.weight": 8.0, "0.bias": 8.0, "2.weight": 0.125}
    network.parameters = {name: tensor * factors.get(name, 1.0) for name, tensor in network.parameters.items()}
    assert measured(GeometricComplexity(), network, data).estimate == pytest.approx(before, rel=1e-9)


class Tagger(nn.Module):
    """Logits ``(n, tokens, classes)`` of inputs ``(n, tokens, 2)``, a token at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def test_sequences_count_every_token() -> None:
    module = networks.seeded(Tagger())
    inputs = np.random.default_rng(0).standard_normal((6, 4, 2))
    data = AuditData("train", "train", inputs, np.zeros((6, 4), dtype=np.int64), None, "sha256:0")
    found = measured(GeometricComplexity(), networks.Network(module, loss=CrossEntropy()), data)
    assert found.details["columns"] == 12.0
    assert found.estimate == pytest.approx(4 * float(module.head.weight.detach().square().sum()), rel=1e-8)


class Embedded(nn.Module):
    """Logits of tokens ``(n, length)``."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embedding(x).mean(dim=1)


def test_tokens_have_no_derivative() -> None:
    model = TorchModel(networks.seeded(Embedded()).eval(), "multiclass", outputs="logits")
    data = AuditData("train", "train", np.ones((6, 4), dtype=np.int64), np.zeros(6, dtype=np.int64), None, "sha256:0")
    for probe in (GeometricComplexity(), InputGradient()):
        found = probe.measure(model, data, 0, Budget())[0].measurement
        assert found.outcome is Outcome.NOT_APPLICABLE and found.reason is not None and "tokens" in found.reason


def test_no_budget_and_a_single_example() -> None:
    network, data = networks.Network(networks.relu_mlp()), networks.examples(10)
    found = GeometricComplexity().measure(network, data, 0, Budget(passes=1.9))[0].measurement
    assert found.outcome is Outcome.OVER_BUDGET and network.meter.backward == 0
    one = measured(GeometricComplexity(), network, networks.examples(1))
    assert one.outcome is Outcome.MEASURED and one.standard_error is None and one.interval is None


class Zero(nn.Module):
    """Outputs that are all 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * x[:, :3]


def test_outputs_of_zero_have_no_unit() -> None:
    found = measured(GeometricComplexity(), networks.Network(Zero()), networks.examples(4))
    assert found.estimate == 0.0 and found.details["at_unit_rms"] is None


def test_the_95_percent_interval_holds_examples_and_signs_together() -> None:
    """400 samples of 30 examples, half of them with random signs: it covers the mean over very many examples."""
    network = networks.Network(networks.tanh_mlp())
    truth = measured(GeometricComplexity(), network, networks.examples(20_000, seed=12345)).estimate
    covered = []
    for seed in range(400):
        probe = GeometricComplexity(exact_columns=50 * (seed % 2), probes=2)
        interval = measured(probe, network, networks.examples(30, seed=seed), seed).interval
        assert interval is not None
        covered.append(interval[0] <= truth <= interval[1])
    assert 0.93 <= np.mean(covered) <= 0.97
