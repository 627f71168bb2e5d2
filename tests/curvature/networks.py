"""Small networks as `Differentiable`s, and their dense Hessians made another way than the code under test."""

import warnings
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flataudit.contracts import AuditData, Meter
from flataudit.curvature.losses import Loss, default_loss
from flataudit.data.examples import checked
from flataudit.specs import Task

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Network:
    """A module behind the protocol, in float64, functional as the real backend is."""

    def __init__(
        self, module: nn.Module, task: Task = "multiclass", device: str = "cpu", loss: Loss | None = None
    ) -> None:
        self.module = module.double().to(device).eval()
        self.task, self.meter, self.batch_size, self.dtype, self.device = task, Meter(), 64, "float64", device
        self.loss_function: Loss = loss or default_loss(task)
        self.parameters: Mapping[str, Tensor] = {k: v.detach() for k, v in self.module.named_parameters()}

    def raw_outputs(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        self.meter.forward += len(inputs)
        with sdpa_kernel(SDPBackend.MATH):
            out = torch.func.functional_call(self.module, dict(parameters), (inputs,))
        return out.squeeze(-1) if self.task == "regression" else out

    def loss(self, parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss_function.mean(self.raw_outputs(parameters, inputs), targets)

    def tensors(self, inputs: NDArray[np.generic], targets: NDArray[np.generic] | None) -> tuple[Tensor, Tensor | None]:
        y = None if targets is None else torch.as_tensor(targets, device=self.device)
        return torch.as_tensor(inputs, device=self.device, dtype=torch.float64), y

    def precise(self) -> "Network":
        return self

    def weights(self) -> dict[str, NDArray[np.generic]]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.parameters.items()}

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.float64]:
        return self.predict_at(self.weights(), inputs)

    def predict_at(
        self, weights: Mapping[str, NDArray[np.generic]], inputs: NDArray[np.generic]
    ) -> NDArray[np.float64]:
        parameters = {name: torch.as_tensor(value, device=self.device) for name, value in weights.items()}
        with torch.no_grad():
            out = self.raw_outputs(parameters, self.tensors(inputs, None)[0])
            out = out if self.task == "regression" else out.log_softmax(-1)
        return cast("NDArray[np.float64]", out.cpu().numpy())


def seeded(module: nn.Module, seed: int = 0, scale: float = 0.6) -> nn.Module:
    """The module with weights from a seeded generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return module


def softmax_regression() -> nn.Module:
    return seeded(nn.Linear(4, 3))


def relu_mlp() -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))


def tanh_mlp() -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))


def deep_mlp() -> nn.Module:
    """Smooth, and with two hidden layers: not diagonal in the first one's output."""
    return seeded(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)))


def examples(n: int = 100, *, regression: bool = False, seed: int = 1) -> AuditData:
    """Classes from a noisy linear rule, or values."""
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((n, 4))
    scores = inputs @ generator.standard_normal((4, 3)) + generator.standard_normal((n, 3))
    targets = scores[:, 0] if regression else scores.argmax(axis=1)
    return checked("train", "train", inputs, targets, source="test")


def dense_hessian(network: Network, data: AuditData, *, reverse: bool = False) -> NDArray[np.float64]:
    """The whole Hessian of the loss on all data at once, by forward over reverse mode; ``reverse``: twice reverse.

    Forward mode does not know every operation, is wrong on LayerNorm, and takes long to prepare on GroupNorm.
    """
    x, y = network.tensors(data.inputs, data.targets)
    assert y is not None
    names, shapes = list(network.parameters), [p.shape for p in network.parameters.values()]
    flat = torch.cat([p.reshape(-1) for p in network.parameters.values()])

    def loss(theta: Tensor) -> Tensor:
        pieces = theta.split([s.numel() for s in shapes])
        return network.loss({k: p.view(s) for k, p, s in zip(names, pieces, shapes, strict=True)}, x, y)

    if reverse:
        return cast("NDArray[np.float64]", torch.autograd.functional.hessian(loss, flat).cpu().numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's forward mode compiles a decomposition
        return cast("NDArray[np.float64]", torch.func.hessian(loss)(flat).detach().cpu().numpy())


def dense_gauss_newton(network: Network, data: AuditData) -> NDArray[np.float64]:
    """Σ Jᵀ (∂²ℓ/∂f²) J with Jacobian and output Hessian by `torch.autograd.functional`, all data at once."""
    x, y = network.tensors(data.inputs, data.targets)
    assert y is not None
    targets = y
    names, shapes = list(network.parameters), [p.shape for p in network.parameters.values()]
    flat = torch.cat([p.reshape(-1) for p in network.parameters.values()])

    def outputs(theta: Tensor) -> Tensor:
        pieces = theta.split([s.numel() for s in shapes])
        return network.raw_outputs({k: p.view(s) for k, p, s in zip(names, pieces, shapes, strict=True)}, x)

    found = outputs(flat).detach()
    jacobian = torch.autograd.functional.jacobian(outputs, flat).reshape(found.numel(), -1)
    curvature = torch.autograd.functional.hessian(lambda f: network.loss_function.mean(f, targets), found)
    curvature = curvature.reshape(found.numel(), found.numel())
    return cast("NDArray[np.float64]", (jacobian.T @ curvature @ jacobian).cpu().numpy())
