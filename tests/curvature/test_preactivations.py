"""Tr(H − G) by signs at the outputs of layers: exact where it must be, the same in every batch, honest of budgets."""

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, deep_mlp, dense_hessian, examples, seeded
from torch import nn

from flataudit.curvature.preactivations import curved_layers, residual_trace
from flataudit.curvature.structure import structure
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import hessian_trace, weighted_trace
from flataudit.specs import Budget


@pytest.mark.parametrize("device", DEVICES)
def test_one_hidden_layer_leaves_nothing_to_chance(device: str) -> None:
    """∇² is diagonal in what the only curved layer gives, so that the first signs give it, parameter by parameter."""
    data = examples(400)
    network = Network(seeded(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))), device=device)
    hessian = dense_hessian(network, data)
    surface = Surface.of(network, data)
    for measure, squares in ((hessian_trace, 1.0), (weighted_trace, surface.origin.cpu().numpy() ** 2)):
        found = measure(surface, 0, relative_error=0.01, budget=Budget(passes=10))
        assert found is not None and found.trace.standard_error > 0 and found.trace.vectors == 2
        diagonal = np.diag(hessian) * squares
        assert found.trace.estimate == pytest.approx(diagonal.sum(), rel=1e-10)
        for name, part in surface.parts(torch.tensor(diagonal)).items():
            assert found.trace.by_parameter[name] == pytest.approx(float(part.sum()), rel=1e-9, abs=1e-12)


def test_signs_at_the_outputs_do_not_depend_on_the_batch() -> None:
    found = []
    for size in (64, 7):
        network = Network(deep_mlp())
        network.batch_size = size
        found.append(hessian_trace(Surface.of(network, examples()), 3, relative_error=0.02, budget=Budget(passes=4000)))
    assert found[0].trace.estimate == pytest.approx(found[1].trace.estimate, rel=1e-10)
    assert found[0].trace.standard_error == pytest.approx(found[1].trace.standard_error, rel=1e-6)


def test_convolutions_and_tokens_have_no_such_way_and_subsets_do() -> None:
    filters = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3))
    surface = Surface.of(Network(seeded(filters)), examples())
    assert curved_layers(surface, structure(surface)) == 0
    data, network = examples(400), Network(deep_mlp())
    part = Surface.of(network, data, ("2.*", "4.*"))
    assert curved_layers(part, structure(part)) == 1
    truth = np.trace(dense_hessian(network, data)[30:, 30:])
    found = hessian_trace(part, 0, relative_error=0.01, budget=Budget(passes=12))
    assert found is not None and found.trace.estimate == pytest.approx(truth, rel=1e-9)


def test_a_budget_without_room_and_one_that_ends_it() -> None:
    surface = Surface.of(Network(deep_mlp()), examples(100))
    found = structure(surface)
    given = {"relative_error": 1e-4, "offset": 0.0, "weighted": False, "layers": 2}
    assert residual_trace(surface, found, 0, budget=Budget(passes=5), **given) is None  # type: ignore[arg-type]
    short = residual_trace(surface, found, 0, budget=Budget(passes=20), **given)  # type: ignore[arg-type]
    assert short is not None and short.stopped == "budget" and short.vectors == 7
