"""The level of the training loss against the naive mean, and how a network normalises."""

import networks
import numpy as np
import pytest
import torch
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.data.examples import checked
from flataudit.evidence import Measurement
from flataudit.probes.training_loss import TrainingLoss
from flataudit.specs import Budget
from flataudit.testing import check_probe


def test_it_conforms() -> None:
    check_probe(TrainingLoss())


def test_it_is_the_mean_loss() -> None:
    network, data = networks.Network(networks.tanh_mlp()), networks.examples()
    (reading,) = TrainingLoss().measure(network, data, 0, Budget())
    loss = nn.functional.cross_entropy(network.module(torch.as_tensor(data.inputs)), torch.as_tensor(data.targets))
    assert reading.measurement.estimate == pytest.approx(loss.item(), rel=1e-12)
    assert reading.measurement.standard_error == 0.0


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.Identity(), "none gathered"),
        (nn.LayerNorm(4), "none gathered"),
        (nn.BatchNorm1d(4), "gathered statistics"),
        (nn.BatchNorm1d(4, affine=False), "gathered statistics"),
    ],
)
def test_it_says_how_the_network_normalises(layer: nn.Module, word: str) -> None:
    x = np.random.default_rng(0).standard_normal((20, 3))
    data = checked("train", "train", x, (x[:, 0] > 0).astype(int), source="test")
    module = nn.Sequential(nn.Linear(3, 4), layer, nn.ReLU(), nn.Linear(4, 2)).double().eval()
    (reading,) = TrainingLoss().measure(TorchModel(module, "multiclass"), data, 0, Budget())
    found: Measurement = reading.measurement
    assert found.details["normalisation"] == word
    assert found.details["parameters"] == sum(p.numel() for p in module.parameters())
