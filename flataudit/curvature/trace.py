"""Tr(H) by the cheapest way that is right for the network at hand.

*Piecewise affine in each parameter* (ReLU networks): Tr(H) = Tr(G), which needs no random vector at all. *Smooth, with
closed forms*: Tr(G) is known, and random vectors are left with the small rest vᵀ(H − G)v, a control variate that saves
most of them on a trained network. *Anything else*: fresh random vectors on H itself (`flataudit.curvature.hutchinson`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.gauss_newton import GaussNewton, gauss_newton
from flataudit.curvature.hutchinson import Quadratic, TraceEstimate, combined, estimate_trace
from flataudit.curvature.preactivations import curved_layers, residual_trace
from flataudit.curvature.structure import Structure, structure
from flataudit.curvature.surface import Surface
from flataudit.specs import Budget

__all__ = ["HessianTraces", "hessian_trace", "weighted_trace"]


@dataclass(frozen=True)
class HessianTraces:
    """A trace of H and how it was come by."""

    trace: TraceEstimate
    """Of H, or Σ θᵢ² Hᵢᵢ; exact: standard error 0."""
    gauss_newton: GaussNewton | None
    """What is shared with Tr(G); None where only H was measured."""
    method: str
    """How, in words."""


def hessian_trace(surface: Surface, seed: int, *, relative_error: float, budget: Budget) -> HessianTraces | None:
    """Tr(H) at the model's own parameters to a relative standard error; None where the budget has no room for it."""
    return _measured(surface, seed, relative_error, budget, None)


def weighted_trace(surface: Surface, seed: int, *, relative_error: float, budget: Budget) -> HessianTraces | None:
    """Σ θᵢ² Hᵢᵢ likewise: unchanged when ReLU units are rescaled (Tsuzuku et al. 2020)."""
    return _measured(surface, seed, relative_error, budget, surface.origin)


def _measured(
    surface: Surface, seed: int, relative_error: float, budget: Budget, scale: Tensor | None
) -> HessianTraces | None:
    try:
        with surface.within(budget.seconds):
            return _by_structure(surface, seed, relative_error, budget, scale)
    except OutOfTime:
        return None


def _by_structure(
    surface: Surface, seed: int, relative_error: float, budget: Budget, scale: Tensor | None
) -> HessianTraces | None:
    found = structure(surface)
    if found.layouts is None:
        return _generic(surface, seed, relative_error, budget, scale, found.opaque)
    # Half of the allowed variance for each part, where both are estimated.
    share = relative_error if found.affine else relative_error / 2**0.5
    known = gauss_newton(surface, seed, relative_error=share, budget=budget, weighted=scale is not None)
    if known is None:
        return _generic(surface, seed, relative_error, budget, scale, "the budget has no room for Tr(G)")
    part = known.trace if known.weighted is None else known.weighted
    if found.affine:
        return HessianTraces(part, known, f"Tr(H) = Tr(G), piecewise affine; {known.method}")
    left = budget.model_copy(update={"passes": max(budget.passes - known.passes / 2 - 0.5, 1e-9)})
    aim = relative_error if known.exact else share
    rest = _rest(surface, seed, found, aim, left, part.estimate, scale)
    if rest is None:
        return None
    if rest.standard_error is None:
        # Every form was exactly zero, which random vectors can suggest and not prove.
        rest = replace(rest, standard_error=torch.finfo(surface.origin.dtype).eps * abs(part.estimate))
    total = combined(part, rest)
    return HessianTraces(total, known, f"Tr(G) + random vectors on H − G ({found.curved}); {known.method}")


def _rest(
    surface: Surface,
    seed: int,
    found: Structure,
    relative_error: float,
    budget: Budget,
    offset: float,
    scale: Tensor | None,
) -> TraceEstimate | None:
    """Tr(H − G), or Σ θᵢ² (H − G)ᵢᵢ: from the outputs of the curved layers, or by random directions of the weights."""
    layers = curved_layers(surface, found)
    if layers:
        weighted = scale is not None
        return residual_trace(
            surface,
            found,
            seed,
            relative_error=relative_error,
            offset=offset,
            weighted=weighted,
            layers=layers,
            budget=budget,
        )
    # Where the outputs are affine in a parameter, H − G has no diagonal: moving it would add noise alone.
    bent = surface.flat({n: torch.full_like(p, n in found.bent) for n, p in surface.parts(surface.origin).items()})
    form = Quadratic(residual=True, scale=bent if scale is None else bent * scale, offset=offset)
    return estimate_trace(surface, seed, relative_error=relative_error, budget=budget, quadratic=form)


def _generic(
    surface: Surface, seed: int, relative_error: float, budget: Budget, scale: Tensor | None, why: str
) -> HessianTraces | None:
    form = Quadratic(scale=scale)
    found = estimate_trace(surface, seed, relative_error=relative_error, budget=budget, quadratic=form)
    return None if found is None else HessianTraces(found, None, f"random vectors on H ({why})")
