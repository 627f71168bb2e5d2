"""Gradients of losses and outputs in the inputs, against one example at a time."""

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, examples, relu_mlp, seeded, tanh_mlp
from torch import nn

from flataudit.contracts import AuditData
from flataudit.curvature.inputs import has_input_gradients, jacobian_norms, loss_gradient_norms, passes_of_jacobian
from flataudit.curvature.losses import BinaryCrossEntropy, CrossEntropy, Huber, Loss
from flataudit.data.examples import checked
from flataudit.errors import ModelError


class Tagger(nn.Module):
    """Inputs ``(n, tokens, 4)`` to logits ``(n, tokens, classes)``; a token's logits depend on all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(x + x.mean(dim=1, keepdim=True)))


def sequences(n: int = 7, tokens: int = 5) -> AuditData:
    """Sequences with ignored targets (−100)."""
    generator = np.random.default_rng(3)
    targets = generator.integers(3, size=(n, tokens))
    targets[:, -2:] = np.where(generator.random((n, 2)) < 0.5, -100, targets[:, -2:])
    return AuditData("train", "train", generator.standard_normal((n, tokens, 4)), targets, None, "sha256:0")


def one_by_one(network: Network, data: AuditData) -> np.ndarray:
    """‖∇ₓ n Σ w ℓ / Σ w‖ of each example, each on its own."""
    x, y = network.tensors(data.inputs, data.targets)
    assert y is not None
    total = float(network.loss_function.weights(y).sum())
    found = []
    for one, target in zip(x, y, strict=True):
        leaf = one[None].clone().requires_grad_()
        network.loss_function.terms(network.module(leaf), target[None]).sum().backward()
        assert leaf.grad is not None
        found.append(float(leaf.grad.norm()) * len(data) / total)
    return np.array(found)


LOSSES: list[Loss] = [
    CrossEntropy(),
    CrossEntropy(label_weights=(0.5, 2.0, 7.0), label_smoothing=0.1),
    CrossEntropy(ignore_index=1),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_gradient_of_each_example_by_its_weight(loss: Loss) -> None:
    network, data = Network(tanh_mlp(), loss=loss), examples(70)
    assert loss_gradient_norms(network, data) == pytest.approx(one_by_one(network, data), rel=1e-10)


def test_weights_of_another_scale_are_the_same_loss() -> None:
    data = examples(70)
    one, other = (Network(relu_mlp(), loss=CrossEntropy(label_weights=w)) for w in ((1.0, 2.0, 3.0), (5.0, 10.0, 15.0)))
    assert loss_gradient_norms(one, data) == pytest.approx(loss_gradient_norms(other, data), rel=1e-10)


def test_the_plain_number_is_that_of_the_mean_loss_of_a_batch() -> None:
    network, data = Network(relu_mlp()), examples(64)
    x, y = network.tensors(data.inputs, data.targets)
    assert y is not None
    leaf = x.requires_grad_()
    (gradient,) = torch.autograd.grad(network.loss(network.parameters, leaf, y) * len(data), leaf)
    assert loss_gradient_norms(network, data) == pytest.approx(gradient.norm(dim=1).numpy(), rel=1e-12)


def test_sequences_with_ignored_tokens() -> None:
    network, data = Network(seeded(Tagger())), sequences()
    network.batch_size = 3
    assert loss_gradient_norms(network, data) == pytest.approx(one_by_one(network, data), rel=1e-10)


def test_values_and_labels() -> None:
    data = examples(20, regression=True)
    network = Network(seeded(nn.Linear(4, 1)), "regression", loss=Huber(delta=0.3))
    slope = np.minimum(0.3, np.abs(network.predict(data.inputs) - data.targets))
    weight = float(network.parameters["weight"].norm())
    assert loss_gradient_norms(network, data) == pytest.approx(slope * weight, rel=1e-10)
    labels = AuditData("train", "train", data.inputs, np.ones((20, 2)), None, "sha256:0")
    several = Network(seeded(nn.Linear(4, 2)), "multilabel", loss=BinaryCrossEntropy(label_weights=(3.0, 1.0)))
    assert loss_gradient_norms(several, labels) == pytest.approx(one_by_one(several, labels), rel=1e-10)


def test_nothing_that_counts_and_an_overflow_are_errors() -> None:
    network = Network(relu_mlp(), loss=CrossEntropy(ignore_index=0))
    data = checked("train", "train", np.ones((3, 4)), np.zeros(3, dtype=np.int64), source="test")
    with pytest.raises(ModelError, match="an example that counts"):
        loss_gradient_norms(network, data)
    huge = Network(seeded(nn.Linear(4, 1), scale=1e200), "regression")
    with pytest.raises(ModelError, match="finite gradient of the loss"):
        loss_gradient_norms(huge, examples(5, regression=True))
    with pytest.raises(ModelError, match="finite gradient of the outputs"):
        jacobian_norms(huge, examples(5, regression=True), 0, exact_columns=5, probes=1)


@pytest.mark.parametrize("device", DEVICES)
def test_jacobians_against_reverse_mode_of_one_example(device: str) -> None:
    for module, data in ((tanh_mlp(), examples(70)), (seeded(Tagger()), sequences())):
        network = Network(module, device=device)
        network.batch_size = 32
        found = jacobian_norms(network, data, 0, exact_columns=50, probes=1)
        x, _ = network.tensors(data.inputs, None)
        naive = [float(torch.func.jacrev(network.module)(one[None]).detach().square().sum()) for one in x]
        assert found.exact and found.columns == network.module(x[:1]).numel()
        assert found.squares == pytest.approx(np.array(naive), rel=1e-8)
        assert found.mean_square == pytest.approx(float(network.module(x).detach().square().mean()))


def test_random_signs_are_unbiased_and_no_batch_size_changes_them() -> None:
    network, data = Network(seeded(Tagger())), sequences()
    exact = jacobian_norms(network, data, 0, exact_columns=50, probes=1).squares
    network.batch_size = 2
    first = jacobian_norms(network, data, 5, exact_columns=14, probes=3)
    network.batch_size = 7
    again = jacobian_norms(network, data, 5, exact_columns=14, probes=3)
    assert not first.exact and first.squares == pytest.approx(again.squares, rel=1e-12)
    many = np.array([jacobian_norms(network, data, seed, exact_columns=0, probes=8).squares for seed in range(60)])
    error = many.std(axis=0, ddof=1) / np.sqrt(len(many))
    assert (np.abs(many.mean(axis=0) - exact) < 4 * error).all() and (error < 0.1 * exact).all()


def test_what_it_takes_is_known_beforehand() -> None:
    network, data = Network(relu_mlp()), examples(10)
    for columns, probes, passes in ((3, 9, 2.0), (2, 9, 5.0)):
        assert passes_of_jacobian(network, data, exact_columns=columns, probes=probes) == passes
        network.meter.forward = network.meter.backward = 0
        jacobian_norms(network, data, 0, exact_columns=columns, probes=probes)
        assert (network.meter.forward + network.meter.backward) / 2 / len(data) == passes


class Constant(nn.Module):
    """Outputs that do not depend on the inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), 3, dtype=x.dtype)


def test_outputs_that_ignore_the_inputs_have_no_derivative() -> None:
    found = jacobian_norms(Network(Constant()), examples(4), 0, exact_columns=9, probes=1)
    assert found.squares.tolist() == [0.0] * 4 and has_input_gradients(Network(relu_mlp()), examples(2))
