"""What kind of function a network is of its parameters: decided by looking and by measuring, never by a name alone.

Looking is one watched forward pass (`flataudit.curvature.recording`). Measuring, on a handful of examples: whether the
closed forms of the layers' gradient norms give what backpropagation gives, where in each layer's output the examples
are, and whether vᵀ(H − G)v vanishes for random v that move one parameter at a time, as it must where the outputs are
affine in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flataudit.curvature.conditions import depends
from flataudit.curvature.ghost import Layout, layouts, norms_of
from flataudit.curvature.grouped import Grouped
from flataudit.curvature.objective import Batch
from flataudit.curvature.randomness import generator, signs
from flataudit.curvature.recording import Recorder, Use
from flataudit.curvature.surface import Surface

__all__ = ["Pass", "Structure", "structure"]

EXAMPLES = 5
"""Examples that are enough to see a structure; few, odd, and seldom the size of anything else."""
FEW_EXAMPLES = 2
"""Of a large network, for what takes two derivatives: what is affine in a parameter is so on every example."""
_LARGE = 2**27
"""Bytes of the graph of `EXAMPLES` from which a network is large."""
RESIDUAL_PROBES = 8
"""Parameters that are tried for curvature of the outputs."""


@dataclass(frozen=True)
class Structure:
    """How a surface may be measured."""

    affine: bool
    """All outputs are piecewise affine in each single parameter: Tr(H) = Tr(GGN)."""
    curved: str
    """Why not: the first operation or parameter that is not; empty where `affine`."""
    bent: frozenset[str]
    """Parameters in which the outputs may be curved; in all others they are affine."""
    layouts: tuple[Layout, ...] | None
    """Where the examples are in each layer's output; None: some gradient norms have no closed form."""
    opaque: str
    """Why not."""
    floats: int = 0
    """Numbers that the closed forms keep for an example."""


class Pass:
    """A watched forward pass of a batch at the model's own parameters."""

    def __init__(self, surface: Surface, batch: Batch) -> None:
        self.batch, self.size = batch, batch.size
        moved = surface.parts(surface.origin)
        self.leaves: dict[str, Tensor] = {name: part.detach().requires_grad_() for name, part in moved.items()}
        self.fixed = {name: part.detach() for name, part in moved.items()}
        self.recorder = Recorder(self.leaves, batch.size)
        with Grouped(), self.recorder:
            self.outputs = surface.model.raw_outputs({**surface.model.parameters, **self.leaves}, batch.inputs)
        self._meter = surface.model.meter

    @property
    def uses(self) -> Sequence[Use]:
        """Layers that use parameters directly."""
        return self.recorder.uses

    def back(self, cotangent: Tensor, uses: Sequence[Use] | None = None) -> list[Tensor]:
        """Gradients of ⟨cotangent, outputs⟩ at the output of each use; one backward pass, without weight gradients."""
        return self.slopes(self.outputs, self.uses if uses is None else uses, cotangent)

    def slopes(
        self, of: Tensor, uses: Sequence[Use], cotangent: Tensor | None = None, *, twice: bool = False
    ) -> list[Tensor]:
        """Gradients of anything that this pass has led to; with ``twice`` they have a graph of their own.

        Raises:
            OutOfTime: the deadline came before.
        """
        self.batch.objective.deadline.check()
        self._meter.backward += self.size
        edges = [use.edge for use in uses]
        return list(
            torch.autograd.grad(
                of, edges, cotangent, retain_graph=True, create_graph=twice, allow_unused=True, materialize_grads=True
            )
        )


def structure(surface: Surface) -> Structure:
    """The structure of a surface, found once."""
    return surface.remember("structure", lambda: _found(surface))


def _found(surface: Surface) -> Structure:
    batch = next(surface.batches(0, min(EXAMPLES, len(surface.data))))
    seen = Pass(surface, batch)
    recorder = seen.recorder
    depends(seen.outputs)
    curved = recorder.curved[0] if recorder.curved else ""
    if recorder.repeated:
        curved = curved or f"{min(recorder.repeated)} is used more than once"
    placed, opaque = _closed_forms(surface, seen)
    bent = frozenset(recorder.bent | recorder.repeated)
    large = EXAMPLES * surface.example_bytes > _LARGE and seen.size > FEW_EXAMPLES
    few = Pass(surface, next(surface.batches(0, FEW_EXAMPLES))) if large else seen
    found = _curvature(surface, few, bent)
    if found:
        # The look at the operations missed something: trust none of it.
        curved, bent = curved or f"the outputs are not affine in {found}", frozenset(seen.leaves)
    floats = sum(_kept(use) for use in seen.uses) // seen.size
    return Structure(not curved, curved, bent, placed, opaque, floats)


def _kept(use: Use) -> int:
    """Numbers that a layer's closed form keeps for the whole batch."""
    if use.kind == "conv":
        places = use.shape[2:].numel()
        return int(use.input.shape[0] * use.input.shape[1] * math.prod(use.options["kernel"]) * places)
    return use.input.numel()


def _closed_forms(surface: Surface, seen: Pass) -> tuple[tuple[Layout, ...] | None, str]:
    recorder = seen.recorder
    known = {name for use in seen.uses for name in (use.weight, use.bias) if name is not None}
    unused = [name for name in seen.leaves if name not in known and name not in recorder.opaque]
    if recorder.opaque:
        return None, f"{min(recorder.opaque)} enters through an operation without a closed form"
    if recorder.repeated:
        return None, f"{min(recorder.repeated)} is used more than once"
    cotangent = _cotangent(surface, seen)
    slopes = _gradients(seen.outputs, [seen.leaves[n] for n in unused], cotangent) if unused else ()
    if any(bool(slope.any()) for slope in slopes):
        return None, f"{unused[0]} enters through an operation that was not seen"
    placed = _placed(seen, cotangent)
    if placed is None:
        return None, "a layer mixes the examples of a batch, or arranges them in an unknown way"
    wrong = _checked(seen, placed, cotangent)
    return (None, f"the closed form for {wrong} does not give its gradient") if wrong else (placed, "")


def _gradients(
    outputs: Tensor, leaves: Sequence[Tensor], cotangent: Tensor | None = None, *, twice: bool = False
) -> Sequence[Tensor]:
    """Zero where nothing depends on a leaf; the graph stays, and with ``twice`` the gradients have one too."""
    return torch.autograd.grad(
        outputs, leaves, cotangent, retain_graph=True, create_graph=twice, allow_unused=True, materialize_grads=True
    )


def _cotangent(surface: Surface, seen: Pass) -> Tensor:
    drawn = signs(1, seen.outputs.detach().reshape(-1), generator(0, "structure")).view_as(seen.outputs)
    # In proportion to the factor of the loss, but never all zero: a saturated loss has the same structure.
    return drawn + surface.model.loss_function.mixed(seen.outputs, seen.batch.targets, drawn)


def _placed(seen: Pass, cotangent: Tensor) -> tuple[Layout, ...] | None:
    """Scaling each example's cotangent by a number of its own scales its part of every gradient, and shows it."""
    marks = torch.arange(1, seen.size + 1, device=cotangent.device, dtype=cotangent.dtype)
    plain = seen.back(cotangent)
    marked = seen.back(cotangent * marks.view(-1, *(1,) * (cotangent.dim() - 1)))
    found = []
    for use, one, other in zip(seen.uses, plain, marked, strict=True):
        fits = [layout for layout in layouts(use, seen.size) if _fits(layout, one, other, marks)]
        if not fits:
            return None
        found.append(fits[0])
    return tuple(found)


def _fits(layout: Layout, plain: Tensor, marked: Tensor, marks: Tensor) -> bool:
    rows, others = layout.rows(plain, len(marks)), layout.rows(marked, len(marks))
    expected = rows * marks.view(-1, *(1,) * (rows.dim() - 1))
    return bool((others - expected).norm() <= 1e-3 * expected.norm())


def _checked(seen: Pass, placed: Sequence[Layout], cotangent: Tensor) -> str:
    """Name of a parameter whose closed form is not the squared norm of its gradient on the first examples; or none."""
    backs = seen.back(cotangent)
    closed: dict[str, Tensor] = {}
    for use, layout, back in zip(seen.uses, placed, backs, strict=True):
        for weights in (seen.fixed, None):  # None last: the plain norms may have another formula
            norms = norms_of(use, layout, seen.size, weights=weights)
            norms.add(back)
            for name, part in norms.take().items():
                closed[name] = (
                    torch.cat([part.double(), closed[name][:, 1:]], dim=1) if weights is None else part.double()
                )
    for example in seen.batch.objective.deadline.each(range(min(2, seen.size))):
        alone = torch.zeros_like(cotangent)
        alone[example] = cotangent[example]
        gradients = _gradients(seen.outputs, list(seen.leaves.values()), alone)
        # Some gradients are zero but for rounding: that of the bias of an attention's keys.
        rounding = 1e-9 * torch.stack([part[example] for part in closed.values()]).amax(dim=0)
        for (name, leaf), gradient in zip(seen.leaves.items(), gradients, strict=True):
            if name not in closed:
                continue
            fixed = leaf.detach()
            true = torch.stack([gradient.double().square().sum(), (gradient * fixed).double().square().sum()])
            largest = closed[name].max(dim=0).values.maximum(true)
            if bool(((closed[name][example] - true).abs() > 1e-3 * largest + rounding).any()):
                return name
    return ""


def _curvature(surface: Surface, seen: Pass, bent: frozenset[str]) -> str:
    """Name of a parameter outside ``bent`` in which the outputs are curved, by vᵀ(H − G)v; or none."""
    loss, meter = surface.model.loss_function, surface.model.meter
    linear = (loss.slope(seen.outputs, seen.batch.targets) * seen.outputs).sum()
    if not linear.requires_grad:
        return ""
    leaves = [(name, leaf) for name, leaf in seen.leaves.items() if name not in bent]
    if not leaves:
        return ""
    gradients = _gradients(linear, [leaf for _, leaf in leaves], twice=True)
    meter.backward += seen.size
    step = max(1, len(leaves) // RESIDUAL_PROBES)
    source = generator(0, "residual")
    for (name, leaf), gradient in surface.deadline.each(list(zip(leaves, gradients, strict=True))[::step]):
        if not gradient.requires_grad:
            continue
        direction = signs(1, leaf.detach().reshape(-1), source).view_as(leaf)
        (product,) = _gradients((gradient * direction).sum(), [leaf])
        meter.backward += seen.size
        form = abs(float((product * direction).sum()))
        reach = float(gradient.detach().abs().sum()) + float(leaf.detach().abs().max()) * 1e-3
        if form > 1e-3 * reach:
            return name
    return ""
