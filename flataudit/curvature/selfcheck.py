"""Whether a model's second derivatives are what its loss says: one Hessian product against differences.

Automatic differentiation is exact where every operation's derivative is. A few are silently wrong the second time
(`torch._weight_norm` was), and a candidate may bring operations of its own. So, in float64 and on a few examples, along
one random direction v, the loss is compared with the gradient, (L(θ + hv) − L(θ − hv)) / 2h with ⟨∇L, v⟩, and the
gradient with the product, (∇L(θ + hv) − ∇L(θ − hv)) / 2h with Hv: a whole vector, so that an error in a small part of
the network is seen in the rows of its own parameters. A network with kinks seldom has one within so short a step;
where a difference does not agree, another step is tried. A model is refused where two steps agree with each other and
not with the product. What cannot be decided is said to be unchecked, never to be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape

import torch
from torch import Tensor

from flataudit.contracts import AuditData, Differentiable
from flataudit.curvature.deadline import Deadline
from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, normals
from flataudit.errors import ModelError

__all__ = ["SelfCheck", "self_check"]

EXAMPLES = 16
"""At most, and no more than a 64th of the data, or two: the check must not become the audit."""
STEPS = (1e-6, 2e-7, 1e-5, 1e-4, 1e-3)
"""Lengths of a step in units of ‖θ‖: short ones first, which few kinks are within, and longer ones for a curvature that
rounding hides."""
_LARGE = 2**20
"""In larger networks the direction moves a random sample of the tensors, all of the small ones among them, and about
this many numbers: the check must not take more memory than what it checks."""
_SMALL = 2**13
TOLERANCE = 4e-3
"""Share by which a derivative may differ from a difference, and two differences from each other."""


@dataclass(frozen=True)
class SelfCheck:
    """One curvature, measured twice."""

    product: float
    """vᵀHv by automatic differentiation, v of unit length."""
    difference: float | None
    """The same by differences of the gradient; None: none could be trusted."""
    told: str
    """What came of it, in words."""


def self_check(
    model: Differentiable, data: AuditData, names: Sequence[str] | None = None, *, deadline: Deadline | None = None
) -> SelfCheck:
    """Compare once, on the first examples and the model's own parameters.

    Args:
        model: to be checked.
        data: its examples.
        names: parameters that matter; None: all.
        deadline: no pass is begun after it.

    Raises:
        ModelError: they differ: no curvature of this model can be trusted.
        OutOfTime: the deadline came first.
    """
    exact = model.precise()
    if exact is None:
        return SelfCheck(0.0, None, "unchecked: the model cannot be had in float64")
    n = min(EXAMPLES, max(2, len(data) // 64))
    targets = None if data.targets is None else data.targets[:n]
    few = AuditData(data.name, data.role, data.inputs[:n], targets, None, "")
    try:
        known = tuple(names or exact.parameters)
        moved = _moved(exact, known)
        objective = Objective(exact, few, parameters=[escape(name) for name in moved])
        objective.deadline = deadline or Deadline()
        return _checked(objective)
    except ModelError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        return SelfCheck(0.0, None, f"unchecked: {str(error).splitlines()[0][:120]}")


def _moved(model: Differentiable, names: Sequence[str]) -> tuple[str, ...]:
    """The tensors that the directions move."""
    sizes = {name: model.parameters[name].numel() for name in names}
    if sum(sizes.values()) < _LARGE:
        return tuple(names)
    order = torch.randperm(len(names), generator=generator(0, "self-check tensors")).tolist()
    chosen, room = {name for name, size in sizes.items() if size <= _SMALL}, _LARGE
    for name in (names[place] for place in order):
        if name not in chosen and (sizes[name] <= room or room == _LARGE):
            chosen.add(name)
            room -= sizes[name]
    return tuple(name for name in names if name in chosen)


@dataclass(frozen=True, eq=False)
class _Difference:
    """What the loss says along v, from two places beside θ."""

    slope: float
    """(L₊ − L₋) / 2h."""
    gradient: float
    """⟨∇L₊ + ∇L₋, v⟩ / 2, which is to be the same."""
    product: Tensor
    """(∇L₊ − ∇L₋) / 2h ``(parameters,)``, which is to be Hv."""
    rounding: float
    """Of the slope."""


def _checked(objective: Objective) -> SelfCheck:
    direction = normals(objective.origin, generator(0, "self-check"))
    direction /= direction.norm()
    product = objective.product(objective.origin, direction)
    curvature = float(direction @ product)
    before: _Difference | None = None
    for share in STEPS:
        found = _difference(objective, direction, share * max(float(objective.origin.norm()), 1e-3))
        if _slopes_agree(found) and _agree(objective, found.product, product):
            return SelfCheck(curvature, float(direction @ found.product), "agrees")
        if before is not None and _alike(objective, before, found):
            _refuse(found, direction, curvature)
        before = found
    return SelfCheck(curvature, None, "unchecked: kinks or rounding at every step")


def _difference(objective: Objective, direction: Tensor, step: float) -> _Difference:
    (ahead, up), (behind, down) = (objective.gradient(objective.origin + sign * step * direction) for sign in (1, -1))
    rounding = 8 * torch.finfo(torch.float64).eps * max(1.0, abs(ahead)) / step
    return _Difference(
        (ahead - behind) / (2 * step), float((up + down) @ direction) / 2, (up - down) / (2 * step), rounding
    )


def _slopes_agree(found: _Difference) -> bool:
    size = max(abs(found.slope), abs(found.gradient))
    return abs(found.slope - found.gradient) <= TOLERANCE * size + found.rounding


def _agree(objective: Objective, one: Tensor, other: Tensor) -> bool:
    """Whether two vectors are the same but for a small share of each parameter's own part."""
    apart, first, second = (_norms(objective, rows) for rows in (one - other, one, other))
    return bool((apart <= TOLERANCE * first.maximum(second) + 1e-6 * second.norm()).all())


def _norms(objective: Objective, vector: Tensor) -> Tensor:
    return objective.sums(vector.square()[None])[0].sqrt()


def _alike(objective: Objective, one: _Difference, other: _Difference) -> bool:
    """Whether two steps say the same, so that neither kinks nor rounding have a part in it.

    A loss that does not move at all (rounded weights, whose gradient is another function's) says nothing.
    """
    size, rounding = max(abs(one.slope), abs(other.slope)), max(one.rounding, other.rounding)
    if size <= rounding and not _slopes_agree(other):
        return False
    return abs(one.slope - other.slope) <= TOLERANCE * size + rounding and _agree(objective, one.product, other.product)


def _refuse(found: _Difference, direction: Tensor, curvature: float) -> None:
    remedy = "an operation of this model has a wrong {} derivative: write it with plain ones"
    if not _slopes_agree(found):
        raise ModelError(
            f"derivatives that agree with the loss ({found.slope:.4g} along a direction)",
            got=f"{found.gradient:.4g}",
            remedy=remedy.format("first"),
        )
    difference = float(direction @ found.product)
    raise ModelError(
        f"second derivatives that agree with the loss ({difference:.4g} along a direction)",
        got=f"{curvature:.4g}",
        remedy=remedy.format("second"),
    )
