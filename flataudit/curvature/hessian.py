"""Products with the Hessian at one point, for those that want many: the graphs of the gradient are built once.

A product from nothing is a forward and a backward pass with their graph, and then a backward pass through both. Of
these the last alone depends on the vector. Where the graphs of all batches fit into memory together, they are kept,
which saves some two fifths of each product with one vector.
"""

import torch
from torch import Tensor

from flataudit.curvature.conditions import depends, finite
from flataudit.curvature.memory import free_bytes
from flataudit.curvature.surface import Surface

__all__ = ["Hessian"]

_GRAPHS = 6
"""Graphs of a loss that must fit for each example: those that are kept take two and a half, a product as many."""
_MOST_BYTES, _LARGE = 2 * 2**30, 2**21
"""Memory that kept graphs may take, and the parameters from which on a network must do with what is to spare: a large
one must not cost many times the memory of a training step."""


class Hessian:
    """H v at the surface's own parameters. It holds memory: drop it when the products are done."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self._gradients: list[tuple[float, int, Tensor]] | None = None
        self._leaf = surface.origin.detach().requires_grad_()

    def slope(self) -> Tensor:
        """∇L ``(parameters,)``: where graphs are kept, it comes with them. It must not be written to.

        Raises:
            ModelError: it is not finite.
        """
        if self._gradients is None and not self.surface.knows("gradient") and self._fits():
            return self._built()
        return self.surface.slope_here()[1]

    def __call__(self, directions: Tensor) -> Tensor:
        """H v for each row v of ``directions`` ``(k, parameters)``, in the same shape; counts k products.

        Raises:
            ModelError: one is not finite.
        """
        if self._gradients is None:
            if not self._fits():
                return self.surface.products(self.surface.origin, directions)
            self._built()
        assert self._gradients is not None
        total = torch.zeros_like(directions)
        for weight, size, gradient in self.surface.deadline.each(self._gradients):
            self.surface.model.meter.matvecs += size * len(directions)
            if gradient.requires_grad:
                total += weight * torch.stack(
                    [self._through(gradient, one) for one in self.surface.deadline.each(directions)]
                )
        finite(float(total.norm()), "Hessian-vector product")
        return total

    def _through(self, gradient: Tensor, direction: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(gradient, self._leaf, direction, retain_graph=True, materialize_grads=True)
        return found

    def _fits(self) -> bool:
        needed = _GRAPHS * self.surface.example_bytes * len(self.surface.data)
        most = _MOST_BYTES if self._leaf.numel() < _LARGE else self.surface.spare_bytes
        return needed <= min(most, free_bytes(self._leaf.device))

    def _built(self) -> Tensor:
        """Build the graph of each batch's gradient; ∇L comes with them, and is booked as if it were alone."""
        meter = self.surface.model.meter
        self.surface.before_products()
        forward, total, slope, built = meter.forward, 0.0, torch.zeros_like(self.surface.origin), []
        # All at once where that takes no memory to speak of: small networks spend their time between kernels.
        small = self.surface.vectorised(len(self.surface.data))
        for batch in self.surface.batches(twice=not small):
            loss = depends(batch.loss(self._leaf))
            (gradient,) = torch.autograd.grad(loss, self._leaf, create_graph=True)
            built.append((batch.weight, batch.size, gradient))
            total += batch.weight * loss.item()
            slope += batch.weight * gradient.detach()
        # A product is counted as one whole: the passes of its graph are a part of the first.
        meter.forward, self._gradients = forward, built
        finite(float(slope.norm()), "gradient")

        def booked() -> tuple[float, Tensor]:
            meter.forward += len(self.surface.data)
            meter.backward += len(self.surface.data)
            return finite(total, "loss"), slope

        return self.surface.slope_here(booked)[1]
