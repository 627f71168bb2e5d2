"""The probe of description lengths on weights whose shortest code is known."""

import networks
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from flataudit.contracts import AuditData, Reading
from flataudit.data.examples import checked
from flataudit.evidence import Outcome
from flataudit.probes.description_length import DescriptionLength
from flataudit.specs import Budget
from flataudit.testing import check_probe


def linear(weights: list[list[float]]) -> tuple[object, AuditData]:
    """A regression at its minimum, of loss 0, with these weights; one column of outputs a row."""
    table = torch.tensor(weights, dtype=torch.float64)
    module = nn.Linear(table.shape[1], len(table), bias=False).double()
    with torch.no_grad():
        module.weight.copy_(table)
    inputs = np.random.default_rng(0).standard_normal((60, table.shape[1]))
    targets = inputs @ table.numpy().T
    data = AuditData("train", "train", inputs, targets[:, 0] if len(table) == 1 else targets, None, "sha256:0")
    return networks.Network(module, "regression"), data


def measured(probe: DescriptionLength, network: object, data: AuditData, **budget: float) -> list[Reading]:
    return list(probe.measure(network, data, 0, Budget(**budget)))  # type: ignore[arg-type]


def test_it_conforms() -> None:
    check_probe(DescriptionLength(per_filter=True, parameters=("last:1",), vectors=2, most_bits=16))


def test_weights_on_a_grid_of_three_bits_take_three() -> None:
    network, data = linear([[3.0, -1.0, 2.0, 0.0, 1.0]])
    first, _ = measured(DescriptionLength(tolerance=1e-9, most_bits=3), network, data)
    found = first.measurement
    assert found.estimate == 3 * 5 and found.standard_error == 0.0 and found.bound == "estimate"
    assert found.details["bits_per_parameter"] == 3.0
    assert first.arrays["description_length/bits"].values() == [3, 2]
    losses = first.arrays["description_length/losses"].values()
    assert losses[0] == pytest.approx(0.0, abs=1e-20)
    x = np.asarray(data.inputs)
    assert losses[1] == pytest.approx(np.square(x @ np.array([0.0, -1.0, -1.0, 0.0, 1.0])).mean(), rel=1e-8)


def test_fewer_bits_that_are_right_by_chance_do_not_count() -> None:
    """On this grid 3 and 2 bits are exact and 4 are not."""
    network, data = linear([[1.0, -1.0, 0.0]])
    wide = measured(DescriptionLength(tolerance=1e-9), network, data)[0].measurement
    assert wide.estimate == 2 * 3 and wide.bound == "upper"
    network, data = linear([[3.0, 1.0, -2.0]])
    first = measured(DescriptionLength(tolerance=1e-4), network, data)[0]
    losses = dict(zip(*(first.arrays[f"description_length/{key}"].values() for key in ("bits", "losses")), strict=True))
    assert losses[3] < 1e-9 < 1e-4 < losses[4]
    assert first.measurement.details["bits_per_parameter"] > 4


def test_a_scale_for_each_filter() -> None:
    """Rows of very different size: with one scale the small one is lost."""
    module = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[100.0, -100.0, 0.0, 100.0], [0.1, 0.0, -0.1, 0.1]]))
        module[1].weight.copy_(torch.tensor([[0.01, 10.0]]))
    data = networks.examples(40)
    network = networks.Network(module, "regression")
    targets = network.predict(data.inputs)
    data = checked("train", "train", data.inputs, targets, source="test")
    probe = DescriptionLength(tolerance=1e-6, parameters=("0.weight",))
    one = measured(probe, network, data)[0].measurement
    each = measured(probe.model_copy(update={"per_filter": True}), network, data)[0].measurement
    assert each.estimate == 2 * 8 and (one.outcome is Outcome.NOT_CONVERGED or one.estimate > each.estimate)


def test_too_few_bits_to_begin_with_is_an_outcome_with_advice() -> None:
    network, data = linear([[3.0, -1.1, 2.3, 0.7]])
    first, second = measured(DescriptionLength(tolerance=1e-9, most_bits=4), network, data)
    assert first.measurement.outcome is Outcome.NOT_CONVERGED and "raise most_bits" in (first.measurement.advice or "")
    assert len(first.arrays["description_length/losses"].values()) == 3
    assert second.measurement.outcome is Outcome.MEASURED


def test_the_flat_code_of_a_regression() -> None:
    """One output, one example a stratum: the diagonal is exact, and so is ½ Σ log₂(Hᵢᵢ rᵢ² p / 24ε)."""
    generator = np.random.default_rng(3)
    inputs, weights = generator.standard_normal((8, 3)), np.array([[1.0, -2.0, 0.5]])
    network, _ = linear(weights.tolist())
    data = checked("train", "train", inputs, (inputs @ weights.T)[:, 0], source="test")
    found = measured(DescriptionLength(tolerance=1e-4), network, data)[1].measurement
    diagonal = 2 / 8 * np.square(inputs).sum(axis=0)
    assert found.estimate == pytest.approx(np.log2(diagonal * 4.0**2 * 3 / (24 * 1e-4)).sum() / 2, rel=1e-8)
    assert found.standard_error is None or found.standard_error < 1e-8
    assert abs(float(found.details["rise"] or 0) - 1e-4) < 5 * float(found.details["rise_standard_error"] or 0)


def test_neither_sees_a_rescaled_pair_of_layers() -> None:
    data = networks.examples(50)
    network = networks.Network(networks.relu_mlp())
    moved = networks.Network(networks.relu_mlp())
    factors = {"0.weight": 8.0, "0.bias": 8.0, "2.weight": 0.125}
    moved.parameters = {name: tensor * factors.get(name, 1.0) for name, tensor in network.parameters.items()}
    one, other = (measured(DescriptionLength(), model, data) for model in (network, moved))
    for first, second in zip(one, other, strict=True):
        assert first.measurement.estimate == pytest.approx(second.measurement.estimate, rel=1e-9)


def test_the_budget_is_kept() -> None:
    network, data = networks.Network(networks.relu_mlp()), networks.examples(50)
    none = measured(DescriptionLength(), network, data, passes=1)
    assert [r.measurement.outcome for r in none] == [Outcome.OVER_BUDGET] * 2 and network.meter.forward == 0
    one = measured(DescriptionLength(), network, data, passes=7)
    assert [r.measurement.outcome for r in one] == [Outcome.MEASURED, Outcome.OVER_BUDGET]
    network = networks.Network(networks.relu_mlp())
    both = measured(DescriptionLength(), network, data, passes=14)
    assert [r.measurement.outcome for r in both] == [Outcome.MEASURED] * 2
    assert (network.meter.forward + network.meter.backward) / 2 / 50 <= 14 and network.meter.matvecs == 0


def test_weights_of_zero_and_a_single_example() -> None:
    module = networks.relu_mlp()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    found = measured(DescriptionLength(), networks.Network(module), networks.examples(1))
    assert found[0].measurement.estimate == 2 * 67 and found[1].measurement.estimate == 0.0


def test_a_sweep_has_a_direction() -> None:
    with pytest.raises(ValidationError, match="fewest_bits of at most 4"):
        DescriptionLength(most_bits=4, fewest_bits=5)
