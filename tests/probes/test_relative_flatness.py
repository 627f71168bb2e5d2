"""Relative measures against dense Hessians, and standing still where the plain trace does not."""

import networks
import numpy as np
import pytest
import torch
from torch import nn

from flataudit.curvature.relative_flatness import relative_flatness
from flataudit.curvature.reparametrisation import Reparametrised, before_batch_norm, rescaled_pair
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import hessian_trace
from flataudit.data.examples import checked
from flataudit.evidence import Outcome
from flataudit.probes.relative_flatness import RelativeFlatness
from flataudit.specs import Budget


def dense_relative(hessian: np.ndarray, weight: np.ndarray, start: int) -> float:
    """Σ ⟨w_s, w_s'⟩ Tr(H_{s,s'}) from the blocks of a dense Hessian."""
    rows, width = weight.shape
    block = hessian[start : start + weight.size, start : start + weight.size].reshape(rows, width, rows, width)
    return float(np.einsum("st,skuk,ut->", weight, block, weight))


@pytest.mark.parametrize("make", [networks.relu_mlp, networks.tanh_mlp])
@pytest.mark.parametrize(("layer", "start"), [(None, 40), ("0", 0)])
def test_relative_flatness_of_a_layer(make, layer: str | None, start: int) -> None:
    network, data = networks.Network(make()), networks.examples()
    weight = list(network.parameters.values())[0 if layer else 2].numpy()
    truth = dense_relative(networks.dense_hessian(network, data), weight, start)
    surface = Surface.of(network, data)
    found = relative_flatness(surface, 0, layer=layer, relative_error=0.02, budget=Budget(passes=2000))
    if make.__name__ == "tanh_mlp" and layer:
        assert found.standard_error > 0 and abs(found.estimate - truth) < 4 * found.standard_error
    else:
        assert found.standard_error == 0 and found.estimate == pytest.approx(truth, rel=1e-8)


def test_many_classes_are_exact_in_the_last_layer() -> None:
    source = np.random.default_rng(4)
    data = checked("train", "train", source.standard_normal((20, 4)), source.integers(0, 60, 20), source="test")
    network = networks.Network(networks.seeded(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 60))))
    truth = dense_relative(networks.dense_hessian(network, data), network.parameters["2.weight"].numpy(), 25)
    surface = Surface.of(network, data)
    found = relative_flatness(surface, 0, layer=None, relative_error=0.02, budget=Budget())
    assert found is not None and found.standard_error == 0 and found.estimate == pytest.approx(truth, rel=1e-8)
    inner = relative_flatness(surface, 0, layer="0", relative_error=0.02, budget=Budget())
    assert inner is not None and inner.standard_error


def test_a_rescaled_pair_moves_the_trace_and_not_the_relative_measures() -> None:
    """Dinh: block traces t₁, t₂ become t₁/α², α²t₂."""
    network, data = networks.Network(networks.relu_mlp()), networks.examples()
    surface = Surface.of(network, data)
    moved, names = rescaled_pair(surface, 3.0) or (None, "")
    assert moved is not None and names == "0.weight, 2.weight"
    other = Surface.of(moved, data)
    before, after = (
        hessian_trace(s, 0, relative_error=0.01, budget=Budget()).trace.by_parameter for s in (surface, other)
    )
    assert after["0.weight"] == pytest.approx(before["0.weight"] / 9, rel=1e-8)
    assert after["2.weight"] == pytest.approx(before["2.weight"] * 9, rel=1e-8)
    values = []
    for model in (network, moved, Reparametrised(network, factor=5.0)):
        readings = RelativeFlatness().measure(model, data, 0, Budget())
        values.append([r.measurement.estimate for r in readings])
    assert values[0] == pytest.approx(values[1], rel=1e-8)
    assert values[0][2] == pytest.approx(values[2][2], rel=1e-8) and values[0][0] != pytest.approx(values[2][0])


def test_weights_before_a_batch_norm() -> None:
    from flataudit.backends.torch_model import TorchModel

    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, eps=1e-12), nn.ReLU(), nn.Linear(6, 3)).double()
    module.train()(torch.randn(50, 4, dtype=torch.float64))
    data = networks.examples()
    surface = Surface.of(TorchModel(module.eval(), "multiclass"), data)
    moved, names = before_batch_norm(surface, 2.0) or (None, "")
    assert moved is not None and names == "0.weight, 1"
    other = Surface.of(moved, data)
    before, after = (
        hessian_trace(s, 0, relative_error=0.01, budget=Budget()).trace.by_parameter for s in (surface, other)
    )
    assert after["0.weight"] == pytest.approx(before["0.weight"] / 4, rel=1e-6)
    assert after["3.weight"] == pytest.approx(before["3.weight"], rel=1e-6)


def test_a_regression_has_no_logits_to_normalise() -> None:
    module = networks.seeded(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)))
    network = networks.Network(module, "regression")
    readings = RelativeFlatness().measure(network, networks.examples(regression=True), 0, Budget())
    outcomes = [r.measurement.outcome for r in readings]
    assert outcomes == [Outcome.MEASURED, Outcome.MEASURED, Outcome.NOT_APPLICABLE]
