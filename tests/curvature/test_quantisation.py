"""Rounded parameters and flat codes against loops, bisection and simulated rounding; intervals by their coverage."""

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, dense_hessian, examples, relu_mlp, seeded, softmax_regression, tanh_mlp
from torch import nn

from flataudit.contracts import AuditData
from flataudit.curvature.losses import BinaryCrossEntropy, CrossEntropy
from flataudit.curvature.objective import Objective
from flataudit.curvature.quantisation import (
    FlatCode,
    Sweep,
    code_length,
    flat_code,
    gauss_newton_diagonals,
    natural_unit,
    quantised,
    ranges,
    rise_of,
    sweep,
)
from flataudit.curvature.surface import Surface
from flataudit.data.examples import checked
from flataudit.errors import ModelError


def test_rounding_against_a_loop_over_tensors_and_filters() -> None:
    objective = Objective(Network(relu_mlp()), examples())
    for per_filter in (False, True):
        largest = ranges(objective, per_filter=per_filter)
        for bits in (2, 5):
            found = objective.parts(quantised(objective.origin, largest, bits))
            for name, tensor in objective.model.parameters.items():
                rows = tensor.numpy().reshape(len(tensor) if per_filter and tensor.dim() > 1 else 1, -1)
                for row, rounded in zip(rows, found[name].numpy().reshape(rows.shape), strict=True):
                    grid = np.linspace(-1, 1, 2**bits - 1) * np.abs(row).max()
                    nearest = grid[np.abs(row[:, None] - grid).argmin(axis=1)]
                    assert rounded == pytest.approx(nearest, abs=1e-12)


def test_a_tensor_of_zeros_stays() -> None:
    module = relu_mlp()
    with torch.no_grad():
        module[0].bias.zero_()
    objective = Objective(Network(module), examples())
    found = objective.parts(quantised(objective.origin, ranges(objective), 3))
    assert found["0.bias"].tolist() == [0.0] * 8 and bool(objective.origin.isfinite().all())
    assert flat_code(torch.ones(3), torch.zeros(3), 0.1).bits == 0.0


def test_the_fewest_bits_are_those_after_which_nothing_is_lost() -> None:
    found = Sweep((6, 5, 4, 3, 2), (0.1, 0.2, 0.5, 0.15, 0.9))
    assert [found.fewest(limit) for limit in (0.05, 0.1, 0.2, 0.5, 1.0)] == [None, 6, 5, 3, 2]


def test_a_sweep_ends_where_the_loss_is_not_finite() -> None:
    class Fragile(nn.Module):
        """Its outputs are infinite where its smaller weight is 0, as it is after rounding to few bits."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 0.1]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1] * self.weight[0] / self.weight[1].abs()

    objective = Objective(Network(Fragile(), "regression"), examples(8, regression=True))
    found = sweep(objective, most_bits=6, fewest_bits=2)
    assert found.bits == (6, 5, 4) and len(found.losses) == 3


def test_the_unit_of_a_tolerance() -> None:
    assert natural_unit(Objective(Network(relu_mlp()), examples())) == 1.0
    data = examples(30, regression=True)
    objective = Objective(Network(seeded(nn.Linear(4, 1)), "regression"), data)
    assert natural_unit(objective) == pytest.approx(np.var(data.targets), rel=1e-12)
    same = checked("train", "train", np.ones((3, 4)), np.full(3, 2.5), source="test")
    assert natural_unit(Objective(Network(seeded(nn.Linear(4, 1)), "regression"), same)) == 1.0


def bisected(diagonal: np.ndarray, spans: np.ndarray, tolerance: float) -> tuple[float, np.ndarray]:
    """Bits and widths from the level τ that bisection finds for Σ min(τ, c) = ε."""
    costs = np.maximum(diagonal, 0) * spans**2 / 24
    low, high = 0.0, float(costs.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle, costs).sum() < tolerance else (low, middle)
    widths = np.where(costs > high, spans * np.sqrt(high / np.maximum(costs, 1e-300)), spans)
    return float(np.log2(spans / widths).sum()), widths


def test_the_flat_code_against_bisection() -> None:
    generator = np.random.default_rng(0)
    for tolerance in (1e-6, 1e-3, 0.1):
        diagonal = np.exp(3 * generator.standard_normal(50)) * np.where(generator.random(50) < 0.1, -1, 1)
        spans = np.exp(generator.standard_normal(50))
        found = flat_code(torch.tensor(diagonal), torch.tensor(spans), tolerance)
        bits, widths = bisected(diagonal, spans, tolerance)
        assert found.bits == pytest.approx(bits, rel=1e-8)
        assert found.widths.numpy() == pytest.approx(widths, rel=1e-8)


def test_no_other_precisions_with_the_same_rise_are_shorter() -> None:
    generator = np.random.default_rng(1)
    diagonal, spans = np.exp(generator.standard_normal(6)), np.ones(6)
    best = flat_code(torch.tensor(diagonal), torch.tensor(spans), 0.01).bits
    for _ in range(200):
        widths = np.exp(0.3 * generator.standard_normal(6))
        widths *= np.sqrt(0.01 * 24 / (diagonal * widths**2).sum())
        assert np.log2(spans / widths).sum() > best - 1e-9


def test_the_mean_rise_of_a_quadratic_under_such_rounding_is_the_tolerance() -> None:
    """Real rounding: to a grid of width δ with a uniformly random offset, on a regression with correlated inputs."""
    generator = np.random.default_rng(2)
    inputs = generator.standard_normal((40, 6)) @ generator.standard_normal((6, 6))
    targets = inputs @ generator.standard_normal(6) + generator.standard_normal(40)
    weights = np.linalg.lstsq(inputs, targets, rcond=None)[0] + 0.1
    diagonal = 2 / 40 * np.square(inputs).sum(axis=0)
    spans = np.full(6, 2 * np.abs(weights).max())
    found = flat_code(torch.tensor(diagonal), torch.tensor(spans), 0.05)
    widths = found.widths.numpy()
    offsets = generator.random((200_000, 6))
    rounded = (np.round(weights / widths - offsets) + offsets) * widths
    rises = np.square(rounded @ inputs.T - targets).mean(axis=1) - np.square(inputs @ weights - targets).mean()
    assert (diagonal * widths**2).sum() / 24 == pytest.approx(0.05, rel=1e-10)
    assert abs(rises.mean() - 0.05) < 4 * rises.std() / np.sqrt(len(rises))
    assert found.bits == pytest.approx(np.log2(spans / widths).sum(), rel=1e-12)


def test_one_value_of_one_example_a_stratum_is_exact() -> None:
    """With one output and one example a stratum a squared sign is 1: Gᵢᵢ = (2/n) Σ (∂f/∂θᵢ)² from every vector."""
    module = seeded(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)))
    data = examples(8, regression=True)
    network = Network(module, "regression")
    objective = Objective(network, data)
    x, _ = network.tensors(data.inputs, None)
    squares = torch.zeros_like(objective.origin)
    for one in x:
        slopes = torch.autograd.grad(module(one[None]).sum(), list(module.parameters()))
        squares += torch.cat([slope.reshape(-1) for slope in slopes]) ** 2
    found = gauss_newton_diagonals(objective, 0, vectors=2)
    assert found.numpy() == pytest.approx((2 / 8 * squares).expand(2, -1).numpy(), rel=1e-10)


def subjects() -> list[tuple[Network, AuditData]]:
    """Networks whose Gauss–Newton diagonal is that of the Hessian, with weights and several kinds of loss."""
    data = examples(30)
    labels = (np.random.default_rng(0).random((30, 2)) < 0.5).astype(np.float64)
    several = seeded(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))
    return [
        (Network(softmax_regression()), data),
        (Network(relu_mlp(), loss=CrossEntropy(label_weights=(0.2, 1.0, 3.0), label_smoothing=0.1)), data),
        (Network(relu_mlp(), loss=CrossEntropy(ignore_index=1)), data),
        (
            Network(several, "multilabel", loss=BinaryCrossEntropy(label_weights=(2.0, 1.0))),
            AuditData("train", "train", data.inputs, labels, None, "sha256:0"),
        ),
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("number", range(4))
def test_the_diagonal_is_unbiased(number: int, device: str) -> None:
    network, data = subjects()[number]
    network = Network(network.module, network.task, device, network.loss_function)
    found = gauss_newton_diagonals(Objective(network, data), 0, vectors=300).cpu().numpy()
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    truth = np.diag(dense_hessian(network, data))
    assert (found >= 0).all() and (np.abs(found.mean(axis=0) - truth) <= 4.5 * error + 1e-12).all()


def test_no_batch_size_changes_the_signs() -> None:
    network, data = Network(tanh_mlp()), examples(100)
    one, other = (gauss_newton_diagonals(Objective(network, data, batch_size=size), 3, vectors=2) for size in (5, 64))
    assert one.numpy() == pytest.approx(other.numpy(), rel=1e-10)
    assert not torch.equal(one, gauss_newton_diagonals(Objective(network, data, batch_size=5), 4, vectors=2))


def test_the_95_percent_interval_of_the_code_length() -> None:
    """200 seeds of a regression and of a network: 93 to 97 % over both, each within three standard errors of 95 %."""
    shares = []
    for make in (softmax_regression, relu_mlp):
        network, data = Network(make()), examples(60)
        objective = Objective(network, data)
        spans = 2 * ranges(objective)
        truth = flat_code(torch.tensor(np.diag(dense_hessian(network, data))), spans, 0.01).bits
        found = [code_length(gauss_newton_diagonals(objective, s, vectors=8), spans, 0.01) for s in range(200)]
        assert abs(np.mean([one.bits for one in found]) - truth) < 0.01 * truth
        intervals = [one.interval or (0.0, 0.0) for one in found]
        shares.append(float(np.mean([low <= truth <= high for low, high in intervals])))
    assert 0.93 <= np.mean(shares) <= 0.97, shares
    assert all(abs(share - 0.95) < 3 * (0.95 * 0.05 / 200) ** 0.5 for share in shares), shares


def test_errors_and_what_is_not_known() -> None:
    assert code_length(torch.ones(1, 3), torch.ones(3), 1e-3).standard_error is None
    assert code_length(torch.ones(4, 3), torch.ones(3), 1e-3).interval is None
    huge = Network(seeded(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), scale=1e200), "regression")
    with pytest.raises(ModelError, match="finite Gauss–Newton diagonal"):
        gauss_newton_diagonals(Objective(huge, examples(5, regression=True)), 0, vectors=2)


def test_reading_a_code_costs_what_it_says() -> None:
    """On a quadratic ε is the mean rise; a parameter without curvature is read as 0."""
    module = seeded(nn.Linear(4, 1, bias=False))
    data = examples(60, regression=True)
    inputs = data.inputs * np.array([1.0, 1.0, 1.0, 0.0])
    surface = Surface(Network(module, "regression"), data.replace_inputs(inputs))
    diagonal = torch.tensor(2 / 60 * np.square(inputs).sum(axis=0))
    code = flat_code(diagonal, 2 * ranges(surface), 1e-3)
    mean, error = rise_of(surface, code, 0, draws=400) or (0.0, 0.0)
    assert code.silent.tolist() == [False, False, False, True]
    assert abs(mean - 1e-3) < 4 * error and error < 3e-4
    huge = Surface(Network(seeded(nn.Linear(4, 1), scale=1e153), "regression"), examples(5, regression=True))
    wide = FlatCode(0.0, huge.origin.abs() * 1e10, torch.zeros(5, dtype=torch.bool))
    assert rise_of(huge, wide, 0, draws=2) is None


class Ignored(nn.Module):
    """A network whose parameter has no way to its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3]


def test_parameters_that_do_nothing_take_no_bits() -> None:
    found = gauss_newton_diagonals(Objective(Network(Ignored()), examples(9)), 0, vectors=2)
    assert code_length(found, torch.ones(3), 0.01).bits == 0.0
