"""The loss as a function of a vector: gradients and products by hand, batches by memory, numbers by neither."""

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, dense_hessian, examples, relu_mlp, seeded, softmax_regression, tanh_mlp
from torch import nn

from flataudit.curvature import objective as module
from flataudit.curvature.gauss_newton import gauss_newton
from flataudit.curvature.memory import free_bytes, graph_bytes
from flataudit.curvature.objective import Objective
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import hessian_trace
from flataudit.errors import ConfigurationError, ModelError
from flataudit.specs import Budget


@pytest.mark.parametrize("device", DEVICES)
def test_softmax_regression_has_the_hessian_of_the_books(device: str) -> None:
    """(1/N) Σ (diag p − ppᵀ) ⊗ xxᵀ, the bias being a feature of 1."""
    network, data = Network(softmax_regression(), device=device), examples()
    p = np.exp(network.predict(data.inputs))
    x = np.hstack([data.inputs, np.ones((len(data), 1))])
    inner = np.einsum("nc,cd->ncd", p, np.eye(3)) - np.einsum("nc,nd->ncd", p, p)
    whole = np.einsum("ncd,ni,nj->cidj", inner, x, x) / len(data)
    weights, biases = whole[:, :4, :, :4].reshape(12, 12), whole[:, 4, :, 4]
    surface = Surface.of(network, data)
    products = surface.products(surface.origin, torch.eye(15, dtype=torch.float64, device=device)).cpu().numpy()
    np.testing.assert_allclose(products[:12, :12], weights, atol=1e-12)
    np.testing.assert_allclose(products[12:, 12:], biases, atol=1e-12)


def test_squared_error_and_logistic_regression() -> None:
    """(2/N) XᵀX and (1/N) Xᵀ diag(σ(1 − σ)) X."""
    data = examples(regression=True)
    linear = Network(seeded(nn.Linear(4, 1, bias=False)), "regression")
    surface = Surface.of(linear, data)
    np.testing.assert_allclose(
        surface.products(surface.origin, torch.eye(4, dtype=torch.float64)).numpy(),
        2 / len(data) * data.inputs.T @ data.inputs,
        atol=1e-12,
    )


@pytest.mark.parametrize("size", [100, 33, 1])
def test_any_batch_size_gives_the_same_numbers(size: int) -> None:
    network, data = Network(tanh_mlp()), examples()
    network.batch_size = size
    objective = Objective(network, data)
    hessian = dense_hessian(network, data)
    direction = torch.arange(objective.origin.numel(), dtype=torch.float64)
    np.testing.assert_allclose(objective.product(objective.origin, direction), hessian @ direction.numpy(), atol=1e-9)
    assert sum(batch.weight for batch in objective.batches()) == pytest.approx(1.0)
    assert sum(stratum.weight for stratum in objective.strata()) == pytest.approx(1.0)


def test_batches_follow_the_memory_and_the_numbers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for free in (2**40, 2**17):
        monkeypatch.setattr(module, "free_bytes", lambda device, free=free: free)
        network = Network(relu_mlp())
        network.batch_size = 100
        surface = Surface.of(network, examples())
        found.append((surface.batch_size, hessian_trace(surface, 0, relative_error=0.01, budget=Budget())))
    (large, one), (small, other) = found
    assert large == 100 and 1 <= small < 100
    assert one.trace.estimate == pytest.approx(other.trace.estimate, rel=1e-12)


def test_memory_is_known() -> None:
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50
    x = torch.ones(100, 10, requires_grad=True)
    # exp keeps its output, sum nothing: 4000 bytes.
    assert graph_bytes(lambda: x.exp().sum()) == 4000


def test_several_vectors_are_what_one_after_the_other_is() -> None:
    network, data = Network(tanh_mlp()), examples()
    together, apart = Objective(network, data), Objective(network, data)
    apart.unvectorised = True
    rows = torch.eye(together.origin.numel(), dtype=torch.float64)[:7]
    torch.testing.assert_close(together.products(together.origin, rows), apart.products(apart.origin, rows))
    assert not together.unvectorised


def test_what_has_no_batched_derivative_goes_one_by_one() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.LSTM(1, 3, batch_first=True), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x[..., None])[0][:, -1])

    network, data = Network(seeded(Recurrent())), examples(20)
    objective = Objective(network, data)
    hessian = dense_hessian(network, data, reverse=True)
    rows = torch.eye(len(hessian), dtype=torch.float64)[:5]
    np.testing.assert_allclose(objective.products(objective.origin, rows), hessian[:5], atol=1e-10)


def test_subsets_by_pattern_and_by_layer() -> None:
    network, data = Network(tanh_mlp()), examples()
    hessian = dense_hessian(network, data)
    for patterns, rows in ((("2.*",), slice(40, 67)), (("last:1",), slice(40, 67)), (("*.bias",), None)):
        objective = Objective(network, data, parameters=patterns)
        if rows is not None:
            block = hessian[rows, rows]
            eye = torch.eye(len(block), dtype=torch.float64)
            np.testing.assert_allclose(objective.products(objective.origin, eye), block, atol=1e-10)
        assert objective.origin.numel() == sum(network.parameters[n].numel() for n in objective.names)
    with pytest.raises(ConfigurationError, match="parameters like 'nothing'"):
        Objective(network, data, parameters=("nothing",))
    with pytest.raises(ConfigurationError, match="last:k"):
        Objective(network, data, parameters=("last:x",))


def test_a_loss_that_is_not_finite_is_said() -> None:
    network = Network(nn.Sequential(nn.Linear(4, 3)))
    network.parameters = {k: v * float("inf") for k, v in network.parameters.items()}
    with pytest.raises(ModelError, match="finite"):
        Objective(network, examples()).loss(Objective(network, examples()).origin)


def test_a_seed_gives_the_same_trace_whatever_ran_before() -> None:
    network, data = Network(tanh_mlp()), examples(40)
    alone = hessian_trace(Surface(network, data), 5, relative_error=0.1, budget=Budget()).trace.estimate
    surface = Surface.of(network, data)
    gauss_newton(surface, 1, relative_error=0.1, budget=Budget(), weighted=True)
    surface.slope_here()
    assert hessian_trace(surface, 5, relative_error=0.1, budget=Budget()).trace.estimate == alone
