"""The mean loss over a data set as a function of one flat parameter vector, with its gradient and Hessian products.

Parameters travel as one vector ``(parameters,)``, so that Lanczos, ascent and noise are linear algebra and never
loop over layers. The mean is over examples, by their weight in the loss: the short last batch counts as what it is.
Products are reverse over reverse (Pearlmutter 1994), and one graph of a batch serves several vectors.

Batches follow the memory; *strata* do not. A stratum is a fixed run of examples that has random vectors of its own,
so that a seed gives the same numbers on a machine with more memory, up to rounding.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flataudit.contracts import AuditData, Differentiable
from flataudit.curvature.conditions import depends, finite
from flataudit.curvature.deadline import Deadline
from flataudit.curvature.grouped import Grouped
from flataudit.curvature.memory import free_bytes, graph_bytes
from flataudit.curvature.subsets import chosen
from flataudit.errors import ModelError

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

__all__ = ["Batch", "Objective", "Stratum"]

STRATUM = 256
"""Examples of a stratum at most: enough to keep a processor busy, few enough to make many."""
FEWEST_STRATA = 8
_GRAPHS = 16
"""Graphs of a loss that must fit into free memory for each example: a double backward pass keeps four at most."""
_LARGE = 2**21
"""Parameters from which on a vector of them takes 8 MiB or more."""
_VECTORISED_BYTES = 2**22
"""Graph memory up to which several vectors go through one call: small networks spend their time between kernels."""


class Batch:
    """Some examples of the data set: L_b(θ), the weighted mean loss over them."""

    def __init__(self, objective: "Objective", inputs: "NDArray[generic]", targets: "NDArray[generic] | None") -> None:
        self.objective = objective
        self.size = len(inputs)
        self.inputs, tensor = objective.model.tensors(inputs, targets)
        assert tensor is not None
        self.targets: Tensor = tensor
        self.weight = objective.model.loss_function.total(tensor) / objective.total
        """Its share of the examples' weight; L = Σ_b weight_b L_b."""

    def outputs(self, vector: Tensor) -> Tensor:
        """The model's outputs at a parameter vector; differentiable in the vector."""
        with Grouped():
            return self.objective.model.raw_outputs(self.objective.named(vector), self.inputs)

    def loss(self, vector: Tensor) -> Tensor:
        """L_b at a parameter vector, a scalar; differentiable in the vector."""
        return self.objective.model.loss_function.mean(self.outputs(vector), self.targets)

    def gradient(self, vector: Tensor) -> tuple[float, Tensor]:
        """L_b and ∇L_b ``(parameters,)``; one forward and one backward pass."""
        leaf = vector.detach().requires_grad_()
        loss = self.loss(leaf)
        (gradient,) = torch.autograd.grad(depends(loss), leaf)
        self.objective.model.meter.backward += self.size
        return loss.item(), gradient

    def products(self, vector: Tensor, directions: Tensor) -> Tensor:
        """H_b v for each row v of ``directions`` ``(k, parameters)``, in the same shape; counts k products.

        The graph of the gradient is built once and kept for all rows.
        """
        return self._products(self.loss, vector, directions)

    def residual_products(self, vector: Tensor, directions: Tensor) -> Tensor:
        """(H_b − G_b) v for each row v, where G is the generalised Gauss–Newton matrix; counts k products.

        H − G = ∇² ⟨r, f(θ)⟩ with the slope r = ∂ℓ/∂f held fixed, which costs what a product with H costs.
        """

        def linear(leaf: Tensor) -> Tensor:
            found, loss = self.outputs(leaf), self.objective.model.loss_function
            return (loss.slope(found, self.targets) * found).sum() / loss.total(self.targets)

        return self._products(linear, vector, directions)

    def _products(self, function: Callable[[Tensor], Tensor], vector: Tensor, directions: Tensor) -> Tensor:
        self.objective.before_products()
        meter = self.objective.model.meter
        forward = meter.forward
        leaf = vector.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(depends(function(leaf)), leaf, create_graph=True)
        # A product is counted as one whole: the forward pass of its graph is a part of it.
        meter.forward = forward
        meter.matvecs += self.size * len(directions)
        if not gradient.requires_grad:
            return torch.zeros_like(directions)
        if len(directions) > 1 and self.objective.vectorised(len(directions) * self.size):
            found = _together(gradient, leaf, directions)
            if found is not None:
                return found
            self.objective.unvectorised = True
        last = len(directions) - 1
        rows = [
            torch.autograd.grad(gradient, leaf, direction, retain_graph=row < last, materialize_grads=True)[0]
            for row, direction in enumerate(self.objective.deadline.each(directions))
        ]
        return rows[0][None] if last == 0 else torch.stack(rows)


@dataclass(frozen=True, eq=False)
class Stratum:
    """A fixed run of examples with random vectors of its own; its batches are as memory allows."""

    objective: "Objective"
    start: int
    stop: int

    @cached_property
    def weight(self) -> float:
        """Share of the examples' weight."""
        return sum(batch.weight for batch in self.batches())

    def batches(self) -> Iterator[Batch]:
        """Its examples in order."""
        return self.objective.batches(self.start, self.stop, twice=True)

    def forms(self, vector: Tensor, directions: Tensor, *, residual: bool = False) -> Tensor:
        """The stratum's weight × vᵀH v for each row v (``residual``: of H − G); weights sum to 1 over the strata.

        In float64 ``(k, parameters by name)``: the part of each parameter, which is as unbiased as the whole where
        the entries of v are independent.
        """
        total = torch.zeros(len(directions), len(self.objective.names), dtype=torch.float64)
        for batch in self.batches():
            products = (batch.residual_products if residual else batch.products)(vector, directions)
            forms = self.objective.sums(products.mul_(directions))
            total += batch.weight * forms.cpu()
        return total


class Objective:
    """L(θ) = Σᵢ wᵢ ℓ(θ; xᵢ, yᵢ) / Σᵢ wᵢ over all examples of one data set, as a function of chosen parameters.

    Args:
        model: its loss, parameters and batch size.
        data: labelled examples.
        batch_size: at most so many examples a pass; never more than the model's own.
        parameters: patterns of the parameters that move (`flataudit.curvature.subsets`); the others stay.

    Raises:
        ModelError: no parameter at all.
        ConfigurationError: no parameter of such a name.
    """

    def __init__(
        self,
        model: Differentiable,
        data: AuditData,
        *,
        batch_size: int | None = None,
        parameters: Sequence[str] = ("*",),
    ) -> None:
        self.model, self.data = model, data
        self._most = min(batch_size or model.batch_size, model.batch_size)
        self.deadline = Deadline()
        """No batch is begun after it, and no backward pass of one."""
        self.unvectorised = False
        """An operation of this model has no batched derivative."""
        self.names = chosen(model.parameters, parameters)
        self._shapes = [model.parameters[name].shape for name in self.names]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._whole = len(self.names) == len(model.parameters)
        self.origin = torch.cat([model.parameters[name].detach().reshape(-1) for name in self.names])
        """The model's own parameters, ``(parameters,)``."""

    @contextmanager
    def within(self, seconds: float) -> Iterator[Deadline]:
        """Inside, no pass is begun so many seconds from now; an end that is earlier stays.

        Passes raise `OutOfTime` there: whoever has a part that counts catches it.
        """
        before, self.deadline = self.deadline, self.deadline.sooner(seconds)
        try:
            yield self.deadline
        finally:
            self.deadline = before

    @cached_property
    def total(self) -> float:
        """Σ w over all examples."""
        _, targets = self.model.tensors(self.data.inputs[:1], self.data.targets)
        assert targets is not None
        if not bool((self.model.loss_function.weights(targets) > 0).any()):
            raise ModelError("an example that counts", got="targets that are all ignored", remedy="check ignore_index")
        return self.model.loss_function.total(targets)

    @cached_property
    def example_bytes(self) -> int:
        """Memory of one example in the graph of the loss."""
        meter = copy(self.model.meter)
        batch = self._cut(0, min(2, len(self.data)))
        leaf = self.origin.detach().requires_grad_()
        kept = graph_bytes(lambda: batch.loss(leaf)) - leaf.untyped_storage().nbytes()
        self.model.meter.forward = meter.forward  # not a part of any measurement
        return max(1, kept // batch.size)

    @cached_property
    def batch_size(self) -> int:
        """Examples of a pass: as many as memory allows for a graph that is differentiated twice."""
        allowed = free_bytes(self.origin.device) // (_GRAPHS * self.example_bytes)
        return max(1, min(self._most, allowed))

    @property
    def spare_bytes(self) -> int:
        """What may be held beside one graph: half of a training step's memory, or a quarter of a GiB if that is more.

        A step holds the graph of a batch, and of each parameter a gradient and AdamW's two moments.
        """
        graph = min(self.batch_size, len(self.data)) * self.example_bytes
        return max(2**28, (graph + 3 * self.origin.numel() * self.origin.element_size()) // 2)

    def vectorised(self, examples: int) -> bool:
        """Whether so many examples (times vectors) are few enough to be differentiated in one call."""
        return not self.unvectorised and examples * self.example_bytes <= _VECTORISED_BYTES

    def before_products(self) -> None:
        """Called before any second derivative is taken."""

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The model's parameters by name with those of a vector in place, as views."""
        moved = self.parts(vector)
        return moved if self._whole else {**self.model.parameters, **moved}

    def parts(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector ``(parameters,)`` cut into the chosen parameters by name, as views."""
        cut = torch.split(vector, self._sizes)
        return {n: part.view(shape) for n, part, shape in zip(self.names, cut, self._shapes, strict=True)}

    def sums(self, rows: Tensor) -> Tensor:
        """Sums ``(k, parameters by name)`` of rows ``(k, parameters)`` over each parameter's elements, in float64."""
        return torch.stack(
            [part.sum(dim=1, dtype=torch.float64) for part in torch.split(rows, self._sizes, dim=1)], dim=1
        )

    def flat(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The inverse of `parts`."""
        return torch.cat([parts[name].reshape(-1) for name in self.names])

    def batches(self, start: int = 0, stop: int | None = None, *, twice: bool = False) -> Iterator[Batch]:
        """All examples in order, or those from ``start`` to ``stop``.

        Args:
            start: the first example.
            stop: the one after the last.
            twice: a third as many to a batch, for what is differentiated twice: it keeps the graph of the gradient too,
                and then takes no more memory than a training step on the whole batch. A sixth, where vectors as long
                as the parameters weigh beside the graphs.

        Raises:
            OutOfTime: the deadline came before the next batch.
        """
        end = len(self.data) if stop is None else stop
        parts = 1 if not twice else 3 if self.origin.numel() < _LARGE else 6
        size = max(1, self.batch_size // parts)
        for first in self.deadline.each(range(start, end, size)):
            yield self._cut(first, min(first + size, end))

    def _cut(self, start: int, stop: int) -> Batch:
        targets = self.data.targets
        return Batch(self, self.data.inputs[start:stop], None if targets is None else targets[start:stop])

    def strata(self) -> list[Stratum]:
        """Fixed runs of at most 256 examples, eight of them or more where there are so many examples."""
        count = min(len(self.data), max(FEWEST_STRATA, math.ceil(len(self.data) / STRATUM)))
        edges = [round(i * len(self.data) / count) for i in range(count + 1)]
        return [Stratum(self, start, stop) for start, stop in pairwise(edges)]

    def loss(self, vector: Tensor) -> float:
        """L at a parameter vector; one forward pass.

        Raises:
            ModelError: it is not finite.
        """
        with torch.no_grad():
            return finite(sum(batch.weight * batch.loss(vector).item() for batch in self.batches()), "loss")

    def gradient(self, vector: Tensor) -> tuple[float, Tensor]:
        """L and ∇L ``(parameters,)``; one forward and one backward pass.

        Raises:
            ModelError: one of them is not finite.
        """
        loss, gradient = 0.0, torch.zeros_like(vector)
        for batch in self.batches():
            part, slope = batch.gradient(vector)
            loss += batch.weight * part
            gradient.add_(slope, alpha=batch.weight)
        finite(gradient.norm().item(), "gradient")
        return finite(loss, "loss"), gradient

    def products(self, vector: Tensor, directions: Tensor) -> Tensor:
        """H v over all examples for each row v of ``directions`` ``(k, parameters)``, in the same shape.

        Raises:
            ModelError: one is not finite.
        """
        total = torch.zeros_like(directions)
        for batch in self.batches(twice=True):
            total.add_(batch.products(vector, directions), alpha=batch.weight)
        finite(total.norm().item(), "Hessian-vector product")
        return total

    def product(self, vector: Tensor, direction: Tensor) -> Tensor:
        """H v over all examples, ``(parameters,)``; one product.

        Raises:
            ModelError: it is not finite.
        """
        return self.products(vector, direction[None])[0]


def _together(gradient: Tensor, leaf: Tensor, directions: Tensor) -> Tensor | None:
    """All products in one vectorised call; None where an operation has no batched derivative."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            (found,) = torch.autograd.grad(
                gradient, leaf, directions, is_grads_batched=True, retain_graph=True, materialize_grads=True
            )
        except (RuntimeError, UserWarning):
            return None
    return found
