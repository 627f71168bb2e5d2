"""The mean loss over a data set as a function of one flat parameter vector, with its gradient and Hessian products.

Parameters travel as one vector ``(parameters,)``, so that Lanczos, ascent and noise are linear algebra and never
loop over layers. The mean is over examples: a batch of b of n examples weighs b/n, the short last one too.
Products are reverse over reverse (Pearlmutter 1994), and one graph of a batch serves several vectors.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from flataudit.contracts import AuditData, Differentiable
from flataudit.errors import ModelError

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

__all__ = ["Batch", "Objective"]


class Batch:
    """Some examples of the data set: L_b(θ), the mean loss over them."""

    def __init__(
        self, objective: "Objective", inputs: "NDArray[generic]", targets: "NDArray[generic] | None", weight: float
    ) -> None:
        self.weight = weight
        """Its share of the examples; L = Σ_b weight_b L_b."""
        self._objective = objective
        self._size = len(inputs)
        self._inputs, tensor = objective.model.tensors(inputs, targets)
        assert tensor is not None
        self._targets = tensor

    def loss(self, vector: torch.Tensor) -> torch.Tensor:
        """L_b at a parameter vector, a scalar; differentiable in the vector."""
        return self._objective.model.loss(self._objective.named(vector), self._inputs, self._targets)

    def gradient(self, vector: torch.Tensor) -> tuple[float, torch.Tensor]:
        """L_b and ∇L_b ``(parameters,)``; one forward and one backward pass."""
        leaf = vector.detach().requires_grad_()
        loss = self.loss(leaf)
        (gradient,) = torch.autograd.grad(loss, leaf)
        self._objective.model.meter.backward += self._size
        return loss.item(), gradient

    def products(self, vector: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """H_b v for each row v of ``directions`` ``(k, parameters)``, in the same shape; counts k products.

        The graph of the gradient is built once and kept for all rows.
        """
        meter = self._objective.model.meter
        forward = meter.forward
        leaf = vector.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(leaf), leaf, create_graph=True)
        # A product is counted as one whole: the forward pass of its graph is a part of it.
        meter.forward = forward
        meter.matvecs += self._size * len(directions)
        if not gradient.requires_grad:
            return torch.zeros_like(directions)
        last = len(directions) - 1
        rows = [
            torch.autograd.grad(gradient, leaf, direction, retain_graph=row < last, materialize_grads=True)[0]
            for row, direction in enumerate(directions)
        ]
        return torch.stack(rows)


class Objective:
    """L(θ) = (1/n) Σᵢ ℓ(θ; xᵢ, yᵢ) over all examples of one data set."""

    def __init__(self, model: Differentiable, data: AuditData, *, batch_size: int | None = None) -> None:
        self.model, self.data = model, data
        self.batch_size = min(batch_size or model.batch_size, model.batch_size)
        self._shapes = {name: parameter.shape for name, parameter in model.parameters.items()}
        if not self._shapes:
            raise ModelError("trainable parameters", got="none", remedy="this model has no curvature to measure")
        self.origin = torch.cat([p.detach().reshape(-1) for p in model.parameters.values()])
        """The model's own parameters, ``(parameters,)``."""

    def named(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of a parameter vector by name, as views."""
        parts = torch.split(vector, [shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def batches(self) -> Iterator[Batch]:
        """All examples in order."""
        for inputs, targets in self.data.batches(self.batch_size):
            yield Batch(self, inputs, targets, len(inputs) / len(self.data))

    def loss(self, vector: torch.Tensor) -> float:
        """L at a parameter vector; one forward pass.

        Raises:
            ModelError: it is not finite.
        """
        with torch.no_grad():
            return _finite(sum(batch.weight * batch.loss(vector).item() for batch in self.batches()), "loss")

    def gradient(self, vector: torch.Tensor) -> tuple[float, torch.Tensor]:
        """L and ∇L ``(parameters,)``; one forward and one backward pass.

        Raises:
            ModelError: one of them is not finite.
        """
        loss, gradient = 0.0, torch.zeros_like(vector)
        for batch in self.batches():
            part, slope = batch.gradient(vector)
            loss += batch.weight * part
            gradient += batch.weight * slope
        _finite(gradient.norm().item(), "gradient")
        return _finite(loss, "loss"), gradient

    def product(self, vector: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        """H v over all examples, ``(parameters,)``; one product.

        Raises:
            ModelError: it is not finite.
        """
        total = torch.zeros_like(direction)
        for batch in self.batches():
            total += batch.weight * batch.products(vector, direction[None])[0]
        _finite(total.norm().item(), "Hessian-vector product")
        return total


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ModelError(f"a finite {what}", got=str(value), remedy="the model overflows: try dtype float64")
    return value
