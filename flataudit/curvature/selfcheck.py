"""Whether a model's second derivatives are what its loss says: one Hessian product against a second difference.

Automatic differentiation is exact where every operation's derivative is. A few are silently wrong the second time
(`torch._weight_norm` was), and a candidate may bring operations of its own. So the curvature vᵀHv along one random
direction is compared, in float64 and on a few examples, with (L(θ + hv) + L(θ − hv) − 2L(θ)) / h². A network with
kinks has none within a step that is short enough; where the differences of two steps disagree, a kink or rounding is
between them and another pair is tried. What cannot be decided is said to be unchecked, never to be right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape

import torch

from flataudit.contracts import AuditData, Differentiable
from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, normals
from flataudit.errors import ModelError

__all__ = ["SelfCheck", "self_check"]

EXAMPLES = 16
"""At most, and no more than a 64th of the data, or two: the check must not become the audit."""
STEPS = (5e-5, 2.5e-5, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3)
"""Lengths of a step in units of ‖θ‖; each is compared with the one before: short ones first, which few kinks are
within, and longer ones for a curvature that rounding hides."""
DIRECTIONS = 3
"""Random directions: an error in a small part of the network is a small part of any one curvature."""
_LARGE = 2**20
"""In larger networks one direction moves a random sample of the tensors, all of the small ones among them, and about
this many numbers: the check must not take more memory than what it checks."""
_SMALL = 2**13
AGREEMENT = 1e-3
"""Two differences that are as close as this share are taken for the curvature."""
TOLERANCE = 4e-3
"""A product that is farther from it is wrong."""


@dataclass(frozen=True)
class SelfCheck:
    """One curvature, measured twice."""

    product: float
    """vᵀHv by automatic differentiation, v of unit length."""
    difference: float | None
    """The same by differences of the loss; None: no two steps agreed."""
    told: str
    """What came of it, in words."""


def self_check(model: Differentiable, data: AuditData, names: Sequence[str] | None = None) -> SelfCheck:
    """Compare once, on the first examples and the model's own parameters.

    Args:
        model: to be checked.
        data: its examples.
        names: parameters that matter; None: all.

    Raises:
        ModelError: they differ: no curvature of this model can be trusted.
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
        found = _checked(objective, DIRECTIONS if moved == known else 1)
    except ModelError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        return SelfCheck(0.0, None, f"unchecked: {str(error).splitlines()[0][:120]}")
    decided = [one for one in found if one.difference is not None]
    return decided[0] if decided else found[0]


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


def _checked(objective: Objective, count: int) -> list[SelfCheck]:
    drawn = [normals(objective.origin, generator(index, "self-check")) for index in range(count)]
    directions = torch.stack([one / one.norm() for one in drawn])
    loss, found = objective.loss(objective.origin), []
    for direction, produced in zip(directions, objective.products(objective.origin, directions), strict=True):
        product = float(torch.dot(direction, produced))
        difference = _difference(objective, direction, loss)
        if difference is None:
            found.append(SelfCheck(product, None, "unchecked: kinks or rounding at every step"))
            continue
        if abs(product - difference) > TOLERANCE * max(abs(difference), abs(product)) + 1e-6 * float(produced.norm()):
            raise ModelError(
                f"second derivatives that agree with the loss ({difference:.4g} along a direction)",
                got=f"{product:.4g}",
                remedy="an operation of this model has a wrong second derivative: write it with plain ones",
            )
        found.append(SelfCheck(product, difference, "agrees"))
    return found


def _difference(objective: Objective, direction: torch.Tensor, loss: float) -> float | None:
    """The second difference that agrees with that of the step before; None: no two agree."""
    typical = max(float(objective.origin.norm()), 1e-3)
    before = math.inf
    for share in STEPS:
        step = share * typical
        found = _second_difference(objective, direction, step, loss)
        rounding = 8 * torch.finfo(torch.float64).eps * max(1.0, abs(loss)) / step**2
        if abs(found - before) <= AGREEMENT * abs(found) and rounding <= AGREEMENT * abs(found):
            return found
        before = found
    return None


def _second_difference(objective: Objective, direction: torch.Tensor, step: float, loss: float) -> float:
    ahead, behind = (objective.loss(objective.origin + sign * step * direction) for sign in (1, -1))
    return (ahead + behind - 2 * loss) / step**2
