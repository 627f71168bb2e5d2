"""Tr(G) of the generalised Gauss–Newton matrix G = (1/n) Σ Jᵀ(∂²ℓ/∂f²)J (Schraudolph 2002), parameter by parameter.

With ∂²ℓ/∂f² = S Sᵀ it is (1/n) Σ_examples Σ_c ‖Jᵀ s_c‖²: one forward pass and a cheap backward pass a column, exact.
A loss of many outputs has many columns; then a few that carry most are taken so, and random mixtures S ε of the others,
with signs ε of each example's own (`flataudit.curvature.turning`): unbiased, and the errors of the examples average
out. Where the layers' gradient norms have no closed form, a
stratum is mixed into one gradient, whose squared norm is as unbiased and less precise.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime, now
from flataudit.curvature.ghost import norms_of
from flataudit.curvature.hutchinson import (
    TraceEstimate,
    affordable_in,
    certain,
    combined,
    stratified,
    vectors_for,
)
from flataudit.curvature.objective import Stratum
from flataudit.curvature.randomness import generator, signs
from flataudit.curvature.structure import Pass, Structure, structure
from flataudit.curvature.surface import Surface
from flataudit.curvature.turning import TURNED, turning
from flataudit.specs import Budget

__all__ = ["GaussNewton", "gauss_newton"]

MOST_COLUMNS = 50
"""Columns up to which the exact trace is cheaper than a few random mixtures are worth."""
FEWEST_PROBES = 4
PILOT_PROBES = 2
KNOWN_COLUMNS = 8
"""Of each example, turned to where they carry most: each is a backward pass that no mixture needs to find by chance."""
_FLOATS = 2**24
"""Numbers that the unfolded inputs of a pass may take, beside the graph."""


@dataclass(frozen=True)
class GaussNewton:
    """The trace, and what it is made of."""

    trace: TraceEstimate
    """Of G; exact: standard error 0."""
    weighted: TraceEstimate | None
    """Σ θᵢ² Gᵢᵢ; None where it was not asked for."""
    exact: bool
    method: str
    """How, in words."""
    passes: int
    """Backward passes over the data."""


def gauss_newton(
    surface: Surface, seed: int, *, relative_error: float, budget: Budget, weighted: bool = False
) -> GaussNewton | None:
    """Tr(G) at the model's own parameters; None where the budget has no room for it.

    Where time ends, random mixtures are those of the pilot; what would be exact is then not known at all.

    Args:
        surface: the loss.
        seed: of the mixtures, where the trace is not exact.
        relative_error: of the estimate, where it is not exact.
        budget: passes and seconds that it may take.
        weighted: whether Σ θᵢ² Gᵢᵢ is wanted too, which costs a little more.
    """
    try:
        with surface.within(budget.seconds):
            return _found(surface, seed, relative_error, budget, weighted)
    except OutOfTime:
        return None


def _found(surface: Surface, seed: int, relative_error: float, budget: Budget, weighted: bool) -> GaussNewton | None:
    found = structure(surface)
    seen = Pass(surface, next(surface.batches(0, 1)))
    columns = surface.model.loss_function.columns(seen.outputs)
    if found.layouts is None:
        make = partial(_mixed_gradients, surface, seed, relative_error, budget)
        return surface.remember(("gauss newton", "gradients", seed, relative_error), make)
    if columns <= MOST_COLUMNS and seen.outputs.dim() <= 2 and (1 + columns) / 2 <= budget.passes:
        return surface.remember(("gauss newton", weighted), lambda: _exact(surface, found, weighted))
    # Many examples average the chance out by themselves; turning would cost more than it saves.
    few = len(surface.data) * relative_error**2 * 4 * KNOWN_COLUMNS < 1
    known = min(KNOWN_COLUMNS, seen.outputs.numel()) if few and seen.outputs.dim() == 2 else 0
    make = partial(_mixtures, surface, found, seed, relative_error, budget, weighted, known)
    return surface.remember(("gauss newton", "mixtures", weighted, seed, relative_error), make)


class _LayerNorms:
    """Squared gradient norms of each parameter and example, summed over cotangents of one watched pass."""

    def __init__(self, seen: Pass, found: Structure, weighted: bool) -> None:
        assert found.layouts is not None
        self._seen = seen
        weights = seen.fixed if weighted else None
        pairs = zip(seen.uses, found.layouts, strict=True)
        self._layers = [norms_of(use, layout, seen.size, weights=weights) for use, layout in pairs]

    def __call__(self, cotangents: Iterable[Tensor]) -> dict[str, Tensor]:
        """``(kinds, n)`` in float64 by parameter."""
        for cotangent in cotangents:
            for layer, back in zip(self._layers, self._seen.back(cotangent), strict=True):
                layer.add(back)
        return {name: part.double().T.cpu() for layer in self._layers for name, part in layer.take().items()}


def _passes(surface: Surface, found: Structure, *, beside: int = 0) -> Iterator[Pass]:
    """The whole data set, in batches whose unfolded inputs fit, with so many vectors of the outputs beside them."""
    outputs = Pass(surface, next(surface.batches(0, 1))).outputs.numel() if beside else 0
    size = max(1, min(surface.batch_size // 2, _FLOATS // max(1, found.floats + beside * outputs)))
    for start in range(0, len(surface.data), size):
        for batch in surface.batches(start, min(start + size, len(surface.data))):
            yield Pass(surface, batch)


def _exact(surface: Surface, found: Structure, weighted: bool) -> GaussNewton:
    totals: dict[str, Tensor] = {}
    columns = 0
    for seen in _passes(surface, found):
        factors = surface.model.loss_function.factors(seen.outputs, seen.batch.targets)
        columns = len(factors)
        for name, part in _LayerNorms(seen, found, weighted)(factors).items():
            totals[name] = totals.get(name, 0.0) + part.sum(dim=1)
    shares = [{n: float(part[kind]) / surface.total for n, part in totals.items()} for kind in range(1 + weighted)]
    whole = [certain(_complete(surface, share)) for share in shares]
    method = f"exact: {columns} columns of the loss's factor, by ghost norms"
    return GaussNewton(whole[0], whole[-1] if weighted else None, True, method, columns)


def _mixtures(
    surface: Surface, found: Structure, seed: int, relative_error: float, budget: Budget, weighted: bool, known: int
) -> GaussNewton | None:
    """Some columns one by one and random mixtures of the rest; a pilot says how many, and is thrown away."""
    affordable = int(min(2 * budget.passes, 1e6)) - 2
    if affordable < known + PILOT_PROBES:
        known = 0
    if affordable < PILOT_PROBES:
        return None
    # Plain and weighted together: whoever asks for the other finds it ready.
    both = surface.remember(("gauss newton", "leading", known), lambda: _leading(surface, found, known))
    leading = both[: 1 + weighted]
    began = now()
    pilot = _mixed(surface, found, seed, "pilot", PILOT_PROBES, weighted, known)
    in_time = affordable_in(surface.deadline, (now() - began) / PILOT_PROBES)
    allowed = min(affordable - known - PILOT_PROBES - 1, in_time)
    wanted = vectors_for(pilot[-1], relative_error, leading[-1].estimate, otherwise=FEWEST_PROBES)
    count, rest = PILOT_PROBES, pilot
    if allowed >= 2:
        planned = min(max(FEWEST_PROBES, math.ceil(min(wanted, 1e6))), allowed)
        with suppress(OutOfTime):
            count, rest = planned, _mixed(surface, found, seed, "mixture", planned, weighted, known)
    stopped: Literal["precision", "budget"] = "precision" if wanted <= count and rest is not pilot else "budget"
    whole = [replace(combined(one, two), stopped=stopped) for one, two in zip(leading, rest, strict=True)]
    method = f"{known} columns of the loss's factor an example, {count} random mixtures of the others, by ghost norms"
    return GaussNewton(whole[0], whole[-1] if weighted else None, False, method, known + count)


def _leading(surface: Surface, found: Structure, known: int) -> list[TraceEstimate]:
    """What the first ``known`` axes of each example's `turning` add, plain and weighted; exact."""
    shares: list[dict[str, float]] = [{}, {}]
    for seen in _passes(surface, found, beside=TURNED) if known else ():
        norms, axes, loss = _LayerNorms(seen, found, weighted=True), turning(seen), surface.model.loss_function
        cotangents = (loss.mixed(seen.outputs, seen.batch.targets, axes.axis(index)) for index in range(known))
        for name, part in norms(cotangents).items():
            for share, one in zip(shares, part.sum(dim=1).tolist(), strict=True):
                share[name] = share.get(name, 0.0) + one / surface.total
    return [certain(_complete(surface, share)) for share in shares]


def _mixed(
    surface: Surface, found: Structure, seed: int, purpose: str, count: int, weighted: bool, known: int = 0
) -> list[TraceEstimate]:
    """Means over random mixtures, without the first ``known`` axes of each example's `turning`."""
    # A generator a probe, each used in the order of the examples: batches of another size draw the same signs.
    sources = [generator(seed, f"{purpose} {probe}") for probe in range(count)]
    rows: list[Tensor] = []
    shares: list[dict[str, float]] = [{} for _ in range(1 + weighted)]
    for seen in _passes(surface, found, beside=TURNED if known else 0):
        norms = _LayerNorms(seen, found, weighted)
        axes = turning(seen) if known else None
        drawn = torch.zeros(1 + weighted, seen.size, count, dtype=torch.float64)
        for probe, source in enumerate(sources):
            noise = signs(1, seen.outputs.detach().reshape(-1), source).view_as(seen.outputs)
            noise = noise if axes is None else axes.rest(noise, known)
            cotangent = surface.model.loss_function.mixed(seen.outputs, seen.batch.targets, noise)
            for name, part in norms([cotangent]).items():
                drawn[:, :, probe] += part
                for share, one in zip(shares, part.sum(dim=1).tolist(), strict=True):
                    share[name] = share.get(name, 0.0) + one / (count * surface.total)
        rows.append(drawn)
    table = torch.cat(rows, dim=1)
    weights = [1 / surface.total] * table.shape[1]
    kinds = [stratified(weights, kind.tolist()) for kind in table]
    return [replace(one, by_parameter=_complete(surface, share)) for one, share in zip(kinds, shares, strict=True)]


def _mixed_gradients(surface: Surface, seed: int, relative_error: float, budget: Budget) -> GaussNewton | None:
    """Any differentiable model: a mixture over all examples of a stratum gives one gradient, and its squared norm."""
    affordable = int(min(budget.passes, 1e6))
    if affordable < PILOT_PROBES:
        return None
    began, fewest = now(), min(FEWEST_PROBES, affordable)
    count, both = fewest, _gradient_norms(surface, seed, "pilot", fewest)
    in_time = affordable_in(surface.deadline, (now() - began) / fewest)
    allowed = min(affordable - fewest, in_time)
    wanted, pilot = vectors_for(both[0], relative_error, 0.0, otherwise=FEWEST_PROBES), both
    if allowed >= 2:
        planned = min(max(FEWEST_PROBES, math.ceil(min(wanted, 1e6))), allowed)
        with suppress(OutOfTime):
            count, both = planned, _gradient_norms(surface, seed, "mixture", planned)
    plain, weighted = both
    plain = replace(plain, stopped="precision" if wanted <= count and both is not pilot else "budget")
    method = f"{count} random mixtures of the loss's factor a stratum, by gradients"
    return GaussNewton(plain, weighted, False, method, count)


def _gradient_norms(surface: Surface, seed: int, purpose: str, count: int) -> list[TraceEstimate]:
    tables: list[list[list[float]]] = [[], []]
    shares = torch.zeros(2, len(surface.names), dtype=torch.float64)
    sources = [generator(seed, f"{purpose} {probe}") for probe in range(count)]
    together = max(1, _FLOATS // surface.origin.numel())
    for stratum in surface.strata():
        chunks = [sources[start : start + together] for start in range(0, count, together)]
        # ``(kinds, probes, parameters by name)``
        norms = torch.cat([_squares(surface, stratum, some) for some in chunks], dim=1)
        for kind in range(2):
            tables[kind].append(norms[kind].sum(dim=1).tolist())
        shares += norms.mean(dim=1) / surface.total
    return [
        replace(
            stratified([1 / surface.total] * len(table), table),
            by_parameter=dict(zip(surface.names, share.tolist(), strict=True)),
        )
        for table, share in zip(tables, shares, strict=True)
    ]


def _squares(surface: Surface, stratum: Stratum, sources: Sequence[torch.Generator]) -> Tensor:
    """‖g‖² and Σ θᵢ² gᵢ² of each source's mixture of one stratum, by parameter."""
    loss = surface.model.loss_function
    sums = torch.zeros(len(sources), surface.origin.numel(), dtype=surface.origin.dtype, device=surface.origin.device)
    for batch in stratum.batches():
        leaf = surface.origin.detach().requires_grad_()
        outputs = batch.outputs(leaf)
        for probe, source in enumerate(surface.deadline.each(sources)):
            noise = signs(1, outputs.detach().reshape(-1), source).view_as(outputs)
            cotangent = loss.mixed(outputs, batch.targets, noise)
            sums[probe] += torch.autograd.grad(outputs, leaf, cotangent, retain_graph=probe < len(sources) - 1)[0]
            surface.model.meter.backward += batch.size
    plain = surface.sums(sums.square_())
    return torch.stack([plain, surface.sums(sums.mul_(surface.origin.square()))]).cpu()


def _complete(surface: Surface, shares: Mapping[str, float]) -> Mapping[str, float]:
    """In the model's order, with 0 for what no output depends on."""
    return {name: shares.get(name, 0.0) for name in surface.names}
