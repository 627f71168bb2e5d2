"""Products with the Hessian at one point, for those that want many: the graphs of the gradient are built once.

A product from nothing is a forward and a backward pass with their graph, and then a backward pass through both. Of
these the last alone depends on the vector. Where the graphs of all batches fit into memory together, they are kept,
which saves some two fifths of each product with one vector.
"""

import torch
from torch import Tensor

from flataudit.curvature.memory import free_bytes
from flataudit.curvature.objective import depends
from flataudit.curvature.surface import Surface
from flataudit.errors import ModelError

__all__ = ["Hessian"]

_GRAPHS = 6
"""Graphs of a loss that must fit for each example: those that are kept take two and a half, a product as many."""
_MOST_BYTES = 2**30
"""Memory that kept graphs may take: a large network must not cost many times the memory of a training step."""


class Hessian:
    """H v at the surface's own parameters. It holds memory: drop it when the products are done."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self._gradients: list[tuple[float, int, Tensor]] | None = None
        self._leaf = surface.origin.detach().requires_grad_()

    def __call__(self, directions: Tensor) -> Tensor:
        """H v for each row v of ``directions`` ``(k, parameters)``, in the same shape; counts k products.

        Raises:
            ModelError: one is not finite.
        """
        if self._gradients is None:
            needed = _GRAPHS * self.surface.example_bytes * len(self.surface.data)
            if needed > min(_MOST_BYTES, free_bytes(directions.device)):
                return self.surface.products(self.surface.origin, directions)
            self._gradients = self._built()
        total = torch.zeros_like(directions)
        for weight, size, gradient in self._gradients:
            self.surface.model.meter.matvecs += size * len(directions)
            if gradient.requires_grad:
                total += weight * torch.stack([self._through(gradient, direction) for direction in directions])
        if not bool(total.norm().isfinite()):
            got = str(total.norm().item())
            raise ModelError(
                "a finite Hessian-vector product", got=got, remedy="the model overflows: try dtype float64"
            )
        return total

    def _through(self, gradient: Tensor, direction: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(gradient, self._leaf, direction, retain_graph=True, materialize_grads=True)
        return found

    def _built(self) -> list[tuple[float, int, Tensor]]:
        """Weight, size and gradient, with its graph, of each batch."""
        meter = self.surface.model.meter
        self.surface.before_products()
        forward, built = meter.forward, []
        for batch in self.surface.batches(twice=True):
            (gradient,) = torch.autograd.grad(depends(batch.loss(self._leaf)), self._leaf, create_graph=True)
            built.append((batch.weight, batch.size, gradient))
        # A product is counted as one whole: the passes of its graph are a part of the first.
        meter.forward = forward
        return built
