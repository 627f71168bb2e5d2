"""How the loss and the outputs of each example react to its inputs.

An example's gradient is read off the gradient of a sum over its batch, which is right since no example's outputs
depend on another's: models are in evaluation mode, and loading them checks that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flataudit.contracts import AuditData, Differentiable
from flataudit.curvature.deadline import Deadline
from flataudit.curvature.randomness import generator, signs
from flataudit.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "JacobianNorms",
    "has_input_gradients",
    "jacobian_norms",
    "loss_gradient_norms",
    "passes_of_jacobian",
    "why_no_input_gradients",
]


@dataclass(frozen=True, eq=False)
class JacobianNorms:
    """Squared Frobenius norms of the Jacobians of all examples."""

    squares: "NDArray[np.float64]"
    """‖∂f/∂x‖²_F, ``(n,)``; unbiased estimates of it where not `exact`."""
    exact: bool
    columns: int
    """Outputs of an example: classes, or tokens × classes."""
    mean_square: float
    """Mean of f² over examples and outputs."""


def has_input_gradients(model: Differentiable, data: AuditData) -> bool:
    """Whether the model's inputs are real numbers; whole numbers (tokens) have no gradient."""
    return why_no_input_gradients(model, data) is None


def why_no_input_gradients(model: Differentiable, data: AuditData) -> str | None:
    """What keeps the outputs from having a gradient in the inputs; None: they have one.

    A model may say so itself (``no_input_gradients_because``), where what it takes was made of the inputs outside the
    graph: by the encoders of a pipeline.
    """
    because: str | None = getattr(model, "no_input_gradients_because", None)
    if because is not None:
        return because
    if data.movable is not None and not any(data.movable):
        return "no input is a number that could move"
    if _rounds(model, data):
        return "the model takes whole numbers, to which the inputs are rounded on the way"
    if not model.tensors(data.inputs[:1], None)[0].is_floating_point():
        return "the inputs are whole numbers (tokens), which have no gradient"
    return None


def _rounds(model: Differentiable, data: AuditData) -> bool:
    """Whether numbers that could move reach the model as whole ones: a gradient through rounding is 0, and wrong."""
    rounded: tuple[int, ...] | str = getattr(model, "rounded", ())
    if rounded == "all" or data.movable is None:
        return bool(rounded) and data.inputs.dtype.kind == "f"
    return any(data.movable[int(place)] for place in rounded)


def loss_gradient_norms(
    model: Differentiable, data: AuditData, *, deadline: Deadline | None = None
) -> "NDArray[np.float64]":
    """‖∇ₓ ℓᵢ‖₂ of each example, ``(n,)``; one forward and one backward pass.

    ℓᵢ = n Σ_t w ℓ / Σ w, the sum over the example's terms (its tokens, or itself alone) by their weight in the loss,
    and Σ w over all examples: the mean of the ℓᵢ is the loss. Without weights ℓᵢ is the plain loss of the example.
    Of inputs that name their fields, only the numbers count: categories cannot be moved.

    Raises:
        ModelError: no example counts in the loss, or a gradient is not finite.
        OutOfTime: the deadline came before all examples.
    """
    found, total, movable = [], 0.0, _movable(data)
    for x, y in (deadline or Deadline()).each(_leaves(model, data)):
        assert y is not None
        terms = model.loss_function.terms(model.raw_outputs(model.parameters, x), y)
        found.append(_gradient(model, terms.sum(), x).flatten(1)[:, movable].norm(dim=1).double().cpu().numpy())
        total += float(model.loss_function.weights(y).sum())
    if total <= 0:
        raise ModelError("an example that counts", got="targets that are all ignored", remedy="check ignore_index")
    return _finite(np.concatenate(found) * (len(data) / total), "gradient of the loss in the inputs")


def passes_of_jacobian(model: Differentiable, data: AuditData, *, exact_columns: int, probes: int) -> float:
    """What `jacobian_norms` takes, in forward-and-backward passes; itself one forward pass of one example."""
    with torch.no_grad():
        columns = model.raw_outputs(model.parameters, model.tensors(data.inputs[:1], None)[0]).numel()
    return (1 + (columns if columns <= exact_columns else probes)) / 2


def jacobian_norms(
    model: Differentiable,
    data: AuditData,
    seed: int,
    *,
    exact_columns: int,
    probes: int,
    deadline: Deadline | None = None,
) -> JacobianNorms:
    """‖∂f/∂x‖²_F of the raw outputs f of each example, ``(n,)``, in those of its inputs that are numbers.

    With at most ``exact_columns`` outputs Σ_c ‖∇ₓ f_c‖², a backward pass each. Beyond that the mean of ‖∇ₓ ⟨ε, f⟩‖²
    over ``probes`` sign vectors ε of each example's own, a backward pass each: E ‖Jᵀε‖² = ‖J‖²_F.

    Raises:
        ModelError: a derivative is not finite.
        OutOfTime: the deadline came before all examples.
    """
    found, power, columns, movable = [], 0.0, 0, _movable(data)
    end = deadline or Deadline()
    for start, (x, _) in end.each(zip(range(0, len(data), model.batch_size), _leaves(model, data), strict=True)):
        outputs = model.raw_outputs(model.parameters, x).reshape(len(x), -1)
        columns = outputs.shape[1]
        exact = columns <= exact_columns
        directions = _units(outputs) if exact else _random_signs(outputs, probes, seed, start)
        squares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for direction in end.each(directions):
            slopes = _gradient(model, (outputs * direction).sum(), x).flatten(1)[:, movable]
            squares += slopes.double().square().sum(dim=1)
        found.append((squares if exact else squares / probes).cpu().numpy())
        power += float(outputs.detach().double().square().sum())
    values = _finite(np.concatenate(found), "gradient of the outputs in the inputs")
    return JacobianNorms(values, columns <= exact_columns, columns, power / (len(data) * columns))


def _leaves(model: Differentiable, data: AuditData) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches whose inputs ask for a gradient."""
    for inputs, targets in data.batches(model.batch_size):
        x, y = model.tensors(inputs, targets)
        yield x.detach().requires_grad_(), y


def _movable(data: AuditData) -> list[int] | slice:
    """Places of the values of an example that may be moved; all of them without a copy."""
    return slice(None) if data.movable is None else [place for place, moves in enumerate(data.movable) if moves]


def _gradient(model: Differentiable, value: Tensor, x: Tensor) -> Tensor:
    """∂value/∂x, with the graph kept for the next direction; zero where the value does not depend on x."""
    model.meter.backward += len(x)
    if not value.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(value, x, retain_graph=True, materialize_grads=True)[0]


def _units(outputs: Tensor) -> Iterator[Tensor]:
    """The rows of the identity, ``(columns,)`` each."""
    return iter(torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device))


def _random_signs(outputs: Tensor, count: int, seed: int, start: int) -> Iterator[Tensor]:
    """Signs ``(n, columns)``, drawn for each example by its number, so that no batch size changes them."""
    sources = [generator(seed, f"geometric complexity {start + row}") for row in range(len(outputs))]
    for _ in range(count):
        yield torch.cat([signs(1, outputs[0], source) for source in sources])


def _finite(values: "NDArray[np.float64]", what: str) -> "NDArray[np.float64]":
    if not np.isfinite(values).all():
        got, remedy = "one that is not", "the model overflows: try dtype float64"
        raise ModelError(f"a finite {what} for every example", got=got, remedy=remedy)
    return values
