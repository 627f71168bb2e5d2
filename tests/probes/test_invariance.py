"""The self-test of a candidate: raw measures move, relative ones stand still, and what cannot be tried says so."""

import networks
import torch
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.evidence import Outcome
from flataudit.probes.invariance import Invariance
from flataudit.specs import Budget


def readings(model) -> dict:
    return {r.measurement.metric: r.measurement for r in Invariance().measure(model, networks.examples(), 0, Budget())}


def test_rescaling_moves_the_raw_measures_and_not_the_relative_ones() -> None:
    found = readings(networks.Network(networks.relu_mlp()))["invariance_rescaling"]
    assert found.details["what"] == "0.weight, 2.weight" and found.estimate < 1e-8
    assert abs(found.details["hessian_trace"]) > 0.5 and abs(found.details["sharpness_l2"]) > 0.5


def test_weights_before_a_batch_norm_of_a_real_model() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, eps=1e-12), nn.ReLU(), nn.Linear(6, 3)).double()
    source = torch.Generator().manual_seed(0)
    module.train()(torch.randn(50, 4, dtype=torch.float64, generator=source))
    model = TorchModel(module.eval(), "multiclass")
    found = readings(model)
    assert found["invariance_batch_norm"].estimate < 1e-6
    assert abs(found["invariance_batch_norm"].details["hessian_trace"]) > 0.01
    assert model.meter.backward > 0


def test_a_temperature_moves_everything_and_a_smooth_network_has_no_pair() -> None:
    found = readings(networks.Network(networks.tanh_mlp()))
    assert found["invariance_temperature"].estimate > 0.1
    for name in ("invariance_rescaling", "invariance_batch_norm"):
        assert found[name].outcome is Outcome.NOT_APPLICABLE and found[name].reason
