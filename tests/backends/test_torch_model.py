"""The model as a function: its losses against sums by hand, its costs, and that nothing is ever written to it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from programs import CLASSES, DEVICES, FEATURES, examples, network, sample, seeded
from torch import Tensor, nn

from flataudit.backends.torch_model import TorchModel, evaluation_mode, plain_module
from flataudit.backends.verification import verify
from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.specs import OutputKind, Task

LABELS = np.arange(64) % CLASSES


def negative_log_probability(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.mean([np.log(row[label]) for row, label in zip(probabilities, labels, strict=True)]))


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    one = 1 / (1 + np.exp(-logits.reshape(-1)))
    return np.stack([1 - one, one], 1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("task", "outputs", "last", "columns", "probabilities"),
    [
        ("multiclass", None, (), 3, softmax),
        ("multiclass", "probabilities", (nn.Softmax(1),), 3, np.asarray),
        ("binary", None, (), 2, softmax),
        ("binary", None, (), 1, sigmoid),
        ("binary", None, (nn.Flatten(0),), 1, sigmoid),
        ("binary", "probabilities", (nn.Sigmoid(),), 1, lambda p: np.hstack([1 - p, p])),
    ],
)
def test_loss_and_log_probabilities_are_those_by_hand(
    task: Task,
    outputs: OutputKind | None,
    last: tuple[nn.Module, ...],
    columns: int,
    probabilities: Callable[[np.ndarray], np.ndarray],
    device: str,
) -> None:
    net = network(*last, outputs=columns).double().to(device)
    model = TorchModel(net, task, outputs=outputs)
    verify(model, examples())
    labels = LABELS % max(2, columns)
    expected = probabilities(net(torch.tensor(sample(), device=device).double()).detach().cpu().numpy())
    np.testing.assert_allclose(np.exp(model.predict(sample())), expected, atol=1e-12)
    x, y = model.tensors(sample(), labels)
    assert y is not None
    loss = model.loss(model.parameters, x, y)
    assert loss.item() == pytest.approx(negative_log_probability(expected, labels), abs=1e-12)
    assert (loss.dtype, loss.device.type, model.dtype) == (torch.float64, device, "float64")


@pytest.mark.parametrize("last", [(), (nn.Flatten(0),)])
def test_regression_is_the_mean_squared_error(last: tuple[nn.Module, ...]) -> None:
    net = network(*last, outputs=1).double()
    model, values = TorchModel(net, "regression"), np.linspace(-1, 1, 64)
    verify(model, examples())
    expected = net(torch.from_numpy(sample()).double()).detach().numpy().reshape(-1)
    np.testing.assert_allclose(model.predict(sample()), expected, atol=1e-12)
    x, y = model.tensors(sample(), values)
    assert y is not None
    assert model.loss(model.parameters, x, y).item() == pytest.approx(np.mean((expected - values) ** 2), abs=1e-12)


def test_predict_at_answers_as_if_and_leaves_the_weights() -> None:
    net, other = network(), seeded(network(), seed=1)
    model, elsewhere = TorchModel(net, "multiclass"), TorchModel(other, "multiclass")
    before = model.predict(sample())
    np.testing.assert_array_equal(model.predict_at(elsewhere.weights(), sample()), elsewhere.predict(sample()))
    np.testing.assert_array_equal(model.predict(sample()), before)
    model.weights()["0.weight"][:] = 0
    np.testing.assert_array_equal(model.predict(sample()), before)
    partly = model.predict_at({"0.bias": np.zeros(8)}, sample())  # float64, and the others stay
    with torch.no_grad():
        net[0].bias.zero_()  # type: ignore[union-attr]
    np.testing.assert_array_equal(partly, model.predict(sample()))


def test_the_cost_is_counted_in_examples_not_batches() -> None:
    model = TorchModel(network(), "multiclass", batch_size=10)
    model.predict(sample(64))
    assert (model.meter.forward, model.meter.backward, model.meter.matvecs) == (64, 0, 0)
    x, y = model.tensors(sample(5), LABELS[:5])
    assert y is not None
    model.loss(model.parameters, x, y)
    assert model.meter.forward == 69


def test_nothing_is_written_to_a_module_even_in_training_mode_and_through_second_derivatives() -> None:
    net = network(nn.BatchNorm1d(CLASSES), nn.Dropout(0.5)).train()
    net[1].eval()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    model = TorchModel(net, "multiclass")
    x, y = model.tensors(sample(), LABELS)
    assert y is not None
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in model.parameters.items()}
    slopes = torch.autograd.grad(model.loss(leaves, x, y), list(leaves.values()), create_graph=True)
    torch.autograd.grad(sum((slope**2).sum() for slope in slopes), list(leaves.values()))
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert [part.training for part in net.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_evaluation_mode_gives_each_part_its_own_mode_back_even_after_an_error() -> None:
    net = network(nn.Dropout(0.5)).train()
    net[0].eval()
    modes = [part.training for part in net.modules()]
    with pytest.raises(RuntimeError, match="stop"), evaluation_mode(net):
        assert not any(part.training for part in net.modules())
        raise RuntimeError("stop")
    assert [part.training for part in net.modules()] == modes


class Tied(nn.Module):
    """x → x W Wᵀ, with W under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(FEATURES, FEATURES, bias=False)
        self.outward = nn.Linear(FEATURES, FEATURES, bias=False)
        self.outward.weight = self.inward.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.outward(self.inward(x).T.T)


def test_tied_parameters_are_one_and_move_together() -> None:
    model = TorchModel(seeded(Tied()), "multiclass")
    assert list(model.parameters) == ["inward.weight"]
    doubled = {name: 2 * tensor for name, tensor in model.parameters.items()}
    x, _ = model.tensors(sample(), None)
    torch.testing.assert_close(model.raw_outputs(doubled, x), 4 * model.raw_outputs(model.parameters, x))


def test_frozen_parameters_count_and_stay_frozen() -> None:
    net = network().requires_grad_(False)
    model = TorchModel(net, "multiclass")
    assert len(model.parameters) == 4 and not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float64", "float32"), ("float16", "float32"), ("uint8", "float32"), ("bool", "float32"), ("int32", "int64")],
)
def test_inputs_take_the_models_dtype_but_tokens_stay_whole(dtype: str, expected: str) -> None:
    x, _ = TorchModel(network(), "multiclass").tensors(np.ones((2, FEATURES), dtype=dtype), None)
    assert str(x.dtype) == f"torch.{expected}"


def test_a_token_model_answers() -> None:
    net = seeded(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, CLASSES)))
    tokens = np.random.default_rng(0).integers(0, 9, (20, 3))
    model = TorchModel(net, "multiclass")
    verify(model, checked("validation", "validation", tokens, np.arange(len(tokens)) % 3, source="test"))
    np.testing.assert_allclose(np.exp(model.predict(tokens)).sum(1), 1)


def test_attention_has_second_derivatives() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model = TorchModel(seeded(nn.Sequential(layer, nn.Flatten(), nn.Linear(12, CLASSES))).eval(), "multiclass")
    x, y = model.tensors(sample(3 * 20).reshape(20, 3, 4), LABELS[:20])
    assert y is not None
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in model.parameters.items()}
    slopes = torch.autograd.grad(model.loss(leaves, x, y), list(leaves.values()), create_graph=True)
    seconds = torch.autograd.grad(sum((slope**2).sum() for slope in slopes), list(leaves.values()))
    assert all(torch.isfinite(second).all() for second in seconds)


class Returns(nn.Module):
    """Whatever a function makes of the inputs."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x, x), "got a tuple of 2.*declare `output:`, where the scores are, for example `output: 0`"),
        (lambda x: {"logits": x}, "got a dict"),
        (lambda x: x.argmax(1), "scores or values, got torch.int64"),
        (lambda x: x.sum(), r"got shape \(\)"),
        (lambda x: x[:, :, None], r"got shape \(64, 4, 1\)"),
        (lambda x: x[:-1], r"got shape \(63, 4\)"),
        (lambda x: x / 0, "NaN or infinite"),
        (lambda x: x - x.mean(0), "do not depend on the other examples"),
        (lambda x: x.reshape(-1, 7), r"RuntimeError: shape '\[-1, 7\]'"),
    ],
)
def test_odd_outputs_are_the_models_error(function: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        verify(TorchModel(Returns(function), "multiclass"), examples())


def test_rounding_is_not_dependence_on_the_batch() -> None:
    saturated = Returns(lambda x: 1 - 6e-8 * (len(x) > 40) - 0 * x[:, 0])  # 1 - p is 0 or an ulp
    verify(TorchModel(saturated, "binary", outputs="probabilities"), examples())
    verify(TorchModel(network().bfloat16(), "multiclass"), examples())


def test_one_example_is_a_sample_too() -> None:
    verify(TorchModel(network(), "multiclass"), examples(1))


def test_a_compiled_module_is_its_original_and_a_script_a_module() -> None:
    net = network()
    assert plain_module(net) is net
    assert plain_module(torch.compile(net, backend="eager")) is net
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.trace(net, torch.zeros(2, FEATURES))
    assert plain_module(scripted) is scripted
    assert plain_module("net") is None
