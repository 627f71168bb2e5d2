"""Tr(H − G) where each curved layer meets an example once: random signs at its output instead of in its weights.

With a = W h + b and φ = ⟨r, f⟩ of one example, r held fixed, ∂²φ/∂W_ij² = h_j² ∂²φ/∂a_i² and ∂²φ/∂b_i² = ∂²φ/∂a_i².
So all that is needed is a diagonal of the size of the layer, and E[ε_i (∇²φ ε)_i] is that for signs ε (Bekas,
Kokiopoulou & Saad 2007). Every example has signs of its own at the price of one backward pass a layer, where random
weights are shared by hundreds; if only affine layers follow an element-wise activation, ∇²φ is diagonal and nothing is
random.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime, now
from flataudit.curvature.ghost import Layout
from flataudit.curvature.hutchinson import TraceEstimate, affordable_in, stratified, vectors_for
from flataudit.curvature.randomness import generator, signs
from flataudit.curvature.recording import Use
from flataudit.curvature.structure import Pass, Structure
from flataudit.curvature.surface import Surface
from flataudit.specs import Budget

__all__ = ["curved_layers", "residual_trace"]

FEWEST_DRAWS = 2
"""Of each example; more where there are fewer examples than `FEWEST_VALUES` draws in all."""
FEWEST_VALUES = 128
SURE = 100
"""Degrees of freedom from which an error is known so well that no luck can have made it look small."""


def curved_layers(surface: Surface, found: Structure) -> int:
    """How many layers the outputs are curved in; 0 where one of them is not of this kind, so that there is no way."""
    seen = Pass(surface, next(surface.batches(0, min(2, len(surface.data)))))
    curved = _curved(seen, found)
    known = {name for use in curved for name in (use.weight, use.bias)}
    plain = all(use.kind == "linear" and use.input.dim() == len(use.shape) == 2 for use in curved)
    laid = found.layouts is not None and all(layout == Layout() for layout in found.layouts)
    return len(curved) if plain and laid and found.bent <= known else 0


def residual_trace(
    surface: Surface,
    found: Structure,
    seed: int,
    *,
    relative_error: float,
    offset: float,
    weighted: bool,
    layers: int,
    budget: Budget,
) -> TraceEstimate | None:
    """Tr(H − G), or Σ θᵢ² (H − G)ᵢᵢ; None where the budget has no room for it.

    Args:
        surface: the loss.
        found: its structure.
        seed: of the signs.
        relative_error: of the sum with ``offset``; a pilot says how many draws that takes, and is thrown away unless
            it was precise enough itself and its own error is `SURE`.
        offset: what is known of the trace.
        weighted: whether the squares of the parameters count.
        layers: `curved_layers`, one at least.
        budget: passes and seconds; a draw takes a pass a layer.
    """
    fewest = max(FEWEST_DRAWS, math.ceil(FEWEST_VALUES / len(surface.data)))
    affordable = int(min(budget.passes - 2, 1e6) / layers)
    if affordable < 2 * fewest:
        return None
    pilot: TraceEstimate | None = None
    try:
        with surface.within(budget.seconds) as deadline:
            surface.before_products()
            began = now()
            pilot = _estimate(surface, found, seed, "pilot", fewest, weighted)
            wanted = vectors_for(pilot, relative_error, offset, otherwise=fewest)
            if wanted <= fewest and pilot.degrees_of_freedom >= SURE:
                return replace(pilot, stopped="precision")
            allowed = min(affordable - fewest, affordable_in(deadline, (now() - began) / fewest))
            if allowed < FEWEST_DRAWS:
                return pilot
            count = min(max(fewest, math.ceil(min(wanted, 1e6))), allowed)
            estimate = _estimate(surface, found, seed, "draw", count, weighted)
    except OutOfTime:
        return pilot
    return replace(estimate, stopped="precision" if wanted <= count else "budget")


def _curved(seen: Pass, found: Structure) -> list[Use]:
    return [use for use in seen.uses if {use.weight, use.bias} & found.bent]


def _estimate(surface: Surface, found: Structure, seed: int, purpose: str, count: int, weighted: bool) -> TraceEstimate:
    """Each example is a stratum; batches of another size draw the same signs."""
    sources: dict[tuple[int, int], torch.Generator] = {}
    rows: list[Tensor] = []
    shares = dict.fromkeys(surface.names, 0.0)
    for batch in surface.batches(twice=True):
        seen = Pass(surface, batch)
        curved = _curved(seen, found)
        values = torch.zeros(seen.size, count, dtype=torch.float64)
        for place, (use, slope) in enumerate(zip(curved, _slopes(seen, curved), strict=True)):
            parts = _squares(use, found.bent, seen.fixed if weighted else None)
            for draw in range(count):
                source = sources.setdefault((place, draw), generator(seed, f"{purpose} {place} {draw}"))
                diagonal = _diagonal(seen, use, slope, source)
                for name, squares in parts.items():
                    part = (diagonal * squares).sum(dim=1, dtype=torch.float64).cpu()
                    values[:, draw] += part
                    shares[name] += float(part.sum()) / (count * surface.total)
        rows.append(values)
    table = torch.cat(rows)
    rounding = torch.finfo(surface.origin.dtype).eps
    mean = stratified([1 / surface.total] * len(table), table.tolist(), rounding=rounding)
    return replace(mean, by_parameter=shares)


def _slopes(seen: Pass, curved: Sequence[Use]) -> Sequence[Tensor]:
    """∂φ/∂a ``(n, width)`` of each layer, with its graph."""
    slope = seen.batch.objective.model.loss_function.slope(seen.outputs, seen.batch.targets)
    return seen.slopes((slope * seen.outputs).sum(), curved, twice=True)


def _diagonal(seen: Pass, use: Use, slope: Tensor, source: torch.Generator) -> Tensor:
    """ε ∘ (∇²φ ε) ``(n, width)``, with signs ε of each example's own."""
    noise = signs(1, slope.detach().reshape(-1), source).view_as(slope)
    if not slope.requires_grad:
        return torch.zeros_like(slope)
    (product,) = seen.slopes((slope * noise).sum(), [use])
    return product * noise


def _squares(use: Use, bent: frozenset[str], weights: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """What ∂²φ/∂a_i² counts for in each parameter: Σ_j h_j² or Σ_j W_ij² h_j² in the weight, 1 or b_i² in the bias."""
    energy, found = use.input.square(), {}
    if use.weight in bent and use.weight is not None:
        found[use.weight] = energy.sum(dim=1, keepdim=True)
        if weights is not None:
            found[use.weight] = energy @ weights[use.weight].square().T
    if use.bias in bent and use.bias is not None:
        found[use.bias] = torch.ones_like(energy[:, :1])
        if weights is not None:
            found[use.bias] = weights[use.bias].square()[None]
    return found
