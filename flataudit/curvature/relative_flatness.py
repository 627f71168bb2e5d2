"""Relative flatness of one layer (Petzka et al. 2021): curvature in proportion to the weights it is about.

κ(W) = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr(H_{s,s'}) over the rows w_s of the layer's weight ``(out, in)``, with H_{s,s'} the block
of second derivatives between two rows. It does not change when the layer is multiplied and what follows or precedes it
is divided. With a, g the layer's input and the gradient at its output, it is (1/n) Σ ‖a‖² ‖Wᵀg‖² over the columns
of the loss's factor wherever the outputs are affine in W; elsewhere E[vᵀHv], v = (Wε) δᵀ with random signs ε, δ.
"""

import torch
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.gauss_newton import MOST_COLUMNS
from flataudit.curvature.hutchinson import Quadratic, TraceEstimate, certain, estimate_trace
from flataudit.curvature.randomness import generator, signs
from flataudit.curvature.recording import Use
from flataudit.curvature.structure import Pass, structure
from flataudit.curvature.surface import Surface
from flataudit.errors import ConfigurationError
from flataudit.specs import Budget

__all__ = ["chosen_layer", "relative_flatness"]


def chosen_layer(surface: Surface, layer: str | None) -> str:
    """Name of the weight: the given layer's, or the last parameter with rows and columns.

    Raises:
        ConfigurationError: there is none of that name.
    """
    matrices = [name for name, part in surface.parts(surface.origin).items() if part.dim() > 1]
    found = [name for name in matrices if layer is None or layer in (name, name.rpartition(".")[0])]
    if not found:
        known = ", ".join(matrices[-5:]) or "none"
        raise ConfigurationError("the name of a layer with a weight matrix", got=repr(layer), remedy=f"one of {known}")
    return found[-1]


def relative_flatness(
    surface: Surface, seed: int, *, layer: str | None, relative_error: float, budget: Budget
) -> TraceEstimate | None:
    """κ of a layer; None where the budget has no room for it.

    Args:
        surface: the loss.
        seed: of the random vectors, where they are needed.
        layer: name of the layer or its weight; None: the last one.
        relative_error: of an estimate.
        budget: passes and seconds.

    Raises:
        ConfigurationError: no such layer.
    """
    name = chosen_layer(surface, layer)
    try:
        with surface.within(budget.seconds):
            found = structure(surface)
            if found.layouts is not None and name not in found.bent:
                exact = surface.remember(("relative flatness", name), lambda: _exact(surface, name))
                if exact is not None:
                    return certain({name: exact})
            weight = surface.parts(surface.origin)[name]
            form = Quadratic(draw=lambda count, source: _drawn(surface, name, weight, count, source))
            return estimate_trace(surface, seed, relative_error=relative_error, budget=budget, quadratic=form)
    except OutOfTime:
        return None


def _exact(surface: Surface, name: str) -> float | None:
    """By every column of the loss's factor, or, of a layer whose output is the network's, by all of them at once.

    None where the layer has several positions, or is an inner one and the loss has many columns.
    """
    total = 0.0
    for batch in surface.batches():
        seen = Pass(surface, batch)
        index = next(i for i, use in enumerate(seen.uses) if use.weight == name)
        use, loss = seen.uses[index], surface.model.loss_function
        single = use.kind == "linear" and use.input.dim() == 2 and len(use.input) == batch.size
        if not single or seen.outputs.dim() > 2:
            return None
        energy = use.input.double().square().sum(dim=1)
        if loss.columns(seen.outputs) > MOST_COLUMNS:
            if not _is_output(seen, use):
                return None
            weight = seen.fixed[name].double()
            total += float(energy @ loss.traces(seen.outputs.double(), batch.targets, weight @ weight.T))
            continue
        for cotangent in loss.factors(seen.outputs, batch.targets):
            (back,) = seen.back(cotangent, [use])
            total += float((energy * (back.double() @ seen.fixed[name].double()).square().sum(dim=1)).sum())
    return total / surface.total


def _is_output(seen: Pass, use: Use) -> bool:
    """Whether a layer's output is the network's, which a random gradient that comes back unchanged shows."""
    if use.shape != seen.outputs.shape:
        return False
    noise = signs(1, seen.outputs.detach().reshape(-1), generator(0, "output")).view_as(seen.outputs)
    return bool(torch.equal(seen.back(noise, [use])[0], noise))


def _drawn(surface: Surface, name: str, weight: Tensor, count: int, source: torch.Generator) -> Tensor:
    matrix = weight.reshape(len(weight), -1)
    rows = []
    for _ in range(count):
        mixture, pattern = signs(2, matrix[0], source)
        part = torch.outer(matrix @ mixture, pattern).view_as(weight)
        zeros = surface.parts(torch.zeros_like(surface.origin))
        rows.append(surface.flat({**zeros, name: part}))
    return torch.stack(rows)
