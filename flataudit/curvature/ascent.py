"""The worst rise of the loss within a radius, by a fixed-point ascent: a lower bound of the true maximum.

max L(θ + d) − L(θ) over ‖T⁻¹d‖₂ ≤ ρ, with T as in `flataudit.curvature.scales` (Foret et al. 2021, Kwon et al. 2021).
A maximum on the boundary satisfies d = ρ T²g / ‖Tg‖ at g = ∇L(θ + d); iterating that map rises monotonically where the
loss is convex and reaches nearly the best in a few passes elsewhere, where one step of it, as in training, may stop at
a quarter. Where a step falls, the next is damped. There are local maxima, hence two starts.

*When to stop.* A small last step proves little: the ascent slows down beside every saddle. What is left is judged
from g, which needs no further pass: ρ‖Tg‖ − g·d is 0 at a stationary point, and its rate of decline says how much the
rest of the way adds. Where the loss is nearly quadratic (the trapezoid rule reproduces the rises that were seen), the
gradients that were seen are also products with its Hessian, and the trust-region problem in their span, as in Gould et
al. 1999, shows a saddle for what it is; the ascent then goes on from there.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface
from flataudit.errors import ModelError
from flataudit.specs import Budget

__all__ = ["WorstRise", "sphere_maximum", "worst_rises"]

MOST_DAMPING = 64.0
"""Weight of the place against the direction of the gradient at which a fall counts as the end."""
PLACES = 4
"""Places kept for the trust-region problem, where there is memory to spare."""
TRUST = 0.1
"""Error of the trapezoid rule, as a share of the rise, up to which the loss counts as nearly quadratic."""


@dataclass(frozen=True)
class WorstRise:
    """The highest rise that was found within one radius."""

    radius: float
    rise: float | None
    """At least 0: d = 0 is within the radius. None: the loss overflows at a place within it."""
    gradients: int
    """Evaluated for this radius, the one at d = 0 not counted."""
    converged: bool
    """The ascent that found it had stopped rising."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where the loss was evaluated, in the ball's own coordinates u = T⁻¹d."""

    u: Tensor
    slope: Tensor
    """T∇L, the gradient in u."""
    rise: float

    def gap(self, rho: float) -> float:
        """ρ‖slope‖ − slope·u: what a loss of constant slope would gain; 0 within rounding is 0."""
        reach = rho * float(self.slope.norm())
        gap = reach - float(self.slope @ self.u)
        return gap if gap > 8 * torch.finfo(self.u.dtype).eps * reach else 0.0


def worst_rises(
    surface: Surface,
    seed: int,
    *,
    scale: Tensor,
    radii: Sequence[float],
    max_steps: int,
    relative_error: float,
    budget: Budget,
) -> list[WorstRise]:
    """The best iterate within each radius, in the order given; fewer where the budget ends.

    The first radius gets two ascents, from the gradient and from a random direction; each other radius one, from the
    best place of the former. What was found within a radius counts for the larger ones. On a quadratic whose largest
    curvature is positive, what has converged is within ``relative_error`` of the maximum, the hard case of the
    trust-region problem included, unless both starts miss a direction (0.5 % of adverse random quadratics).

    Args:
        surface: the loss; d = 0 are its own parameters.
        seed: of the random start.
        scale: T ``(parameters,)``, not negative; parameters of scale 0 stay.
        radii: ρ > 0, in units of T.
        max_steps: of each ascent; a step is one gradient.
        relative_error: an ascent ends when what is left of it is less than this share.
        budget: no step after its passes or seconds are spent.

    Raises:
        ModelError: the loss is not finite at the parameters themselves.
    """
    with surface.within(budget.seconds):
        try:
            climber = _Climber(surface, scale, max_steps, relative_error, budget.passes)
        except OutOfTime:
            return []
        found = _climbed(climber, _starts(climber.slope, scale, seed), radii)
    return [_at_least(one, found) for one in found]


def _climbed(climber: "_Climber", starts: list[Tensor], radii: Sequence[float]) -> list[WorstRise]:
    """The rises as each radius found them."""
    found: list[WorstRise] = []
    best: Tensor | None = None
    for radius in radii:
        before = climber.gradients
        try:
            place, converged = climber.highest([best] if best is not None else starts, radius)
        except ModelError:
            found.append(WorstRise(radius, None, climber.gradients - before, converged=False))
            continue
        if place is None:
            break
        best = place.u
        converged = converged and place.rise >= 0
        found.append(WorstRise(radius, max(0.0, place.rise), climber.gradients - before, converged))
    return found


def _starts(slope: Tensor, scale: Tensor, seed: int) -> list[Tensor]:
    """The gradient, or a random direction where it vanishes; a random direction."""
    source = generator(seed, "ascent")
    first = normals(scale, source).mul_(scale > 0)
    return [slope if float(slope.norm()) > 0 else normals(scale, source).mul_(scale > 0), first]


def _at_least(one: WorstRise, found: Sequence[WorstRise]) -> WorstRise:
    if one.rise is None:
        return one
    return replace(one, rise=max(f.rise for f in found if f.rise is not None and f.radius <= one.radius))


class _Climber:
    """The ascents of one scale; they share what they have seen."""

    def __init__(self, surface: Surface, scale: Tensor, max_steps: int, relative_error: float, passes: float) -> None:
        self.surface, self.scale = surface, scale
        self.max_steps, self.relative_error = max_steps, relative_error
        self.loss, slope = surface.slope_here()
        self.slope = scale * slope
        self.gradients, self._most = 0, passes
        pair = 2 * scale.numel() * scale.element_size()
        self._seen: deque[Place] = deque(maxlen=min(PLACES, surface.spare_bytes // pair))

    def highest(self, starts: Sequence[Tensor], rho: float) -> tuple[Place | None, bool]:
        """The best place of the ascents from these directions, and whether the one that found it had settled."""
        best: Place | None = None
        settled = False
        for start in starts:
            length = float(start.norm())
            place, done = self._climb(start * (rho / length) if length > 0 else start, rho)
            if place is not None and (best is None or place.rise > best.rise):
                best, settled = place, done
        if best is None or not settled or len(starts) == 1:
            return best, settled
        # The last ascent has seen more than the best one had: does what is known now promise more?
        promised = self._promise(best, rho)
        return (best, True) if promised is None else self._climb(promised, rho, best=best)

    def _look(self, u: Tensor) -> Place | None:
        """One gradient; None where the budget is spent."""
        if self.gradients + 1 > self._most:
            return None
        try:
            loss, slope = self.surface.gradient(torch.addcmul(self.surface.origin, self.scale, u))
        except OutOfTime:
            return None
        finally:
            self.gradients += 1
        return Place(u, slope.mul_(self.scale), loss - self.loss)

    def _climb(self, u: Tensor, rho: float, *, best: Place | None = None) -> tuple[Place | None, bool]:
        """The best place of an ascent from u, and whether it had stopped rising; ``best`` promised u."""
        bold, damping, gap = best is not None, 0.0, math.inf
        for _ in range(self.max_steps):
            place = self._look(u)
            if place is None:
                return best, False
            self._seen.append(place)
            if best is not None and place.rise <= best.rise:
                if bold or damping > MOST_DAMPING:
                    return best, True
                damping, gap = 2 * damping + 1, math.inf
                u = _towards(best.slope, best.u, rho, damping)
                continue
            before, gap, best = gap, place.gap(rho), place
            if _left(gap, before) > self.relative_error * place.rise:
                u, bold = _towards(place.slope, place.u, rho, damping), False
                continue
            promised = self._promise(place, rho)
            if promised is None:
                return best, True
            u, bold, gap = promised, True, math.inf
        return best, False

    def _promise(self, at: Place, rho: float) -> Tensor | None:
        """Where the quadratic through what was seen is higher by more than the error asked for; None: nowhere."""
        # A place beside this one says nothing but rounding.
        near = math.sqrt(torch.finfo(at.u.dtype).eps) * rho
        others = [Place(torch.zeros_like(at.u), self.slope, 0.0)]
        others += [p for p in self._seen if float((p.u - at.u).norm()) > near]
        for p in others:
            trapezoid = float((at.slope + p.slope) @ (p.u - at.u)) / 2
            if abs(p.rise - at.rise - trapezoid) > TRUST * abs(at.rise):
                return None
        span = _Span(at, others)
        gain, u, slope, room = span.maximum(rho)
        gap = Place(u, slope, at.rise + gain).gap(rho)
        if gain + room * gap <= self.relative_error * at.rise:
            return None
        return _towards(slope, u, rho, 0.0)


class _Span:
    """The quadratic q with q(at) = rise, ∇q(at) = slope and ∇q(p) = slope of p, on the span of all these places."""

    def __init__(self, at: Place, others: Sequence[Place]) -> None:
        self.at, self.others = at, others
        steps = [[float((p.u - at.u) @ (q.u - at.u)) for q in others] for p in others]
        bends = [[float((p.u - at.u) @ (q.slope - at.slope)) for q in others] for p in others]
        gram, bent = (torch.tensor(table, dtype=torch.float64) for table in (steps, bends))
        lengths = gram.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(gram / lengths / lengths[:, None])
        kept = values > math.sqrt(torch.finfo(at.u.dtype).eps) * values[-1]
        self.basis = vectors[:, kept] / values[kept].sqrt() / lengths[:, None]
        """``(others, dimensions)``: orthonormal combinations of the steps from ``at`` to the others."""
        matrix = self.basis.T @ bent @ self.basis
        self.matrix = (matrix + matrix.T) / 2
        # The first of the others is u = 0: the place itself is one step back from there.
        self.here = -(self.basis.T @ gram)[:, 0]
        slopes = torch.tensor([float((p.u - at.u) @ at.slope) for p in others], dtype=torch.float64)
        self.linear = self.basis.T @ slopes - self.matrix @ self.here

    def maximum(self, rho: float) -> tuple[float, Tensor, Tensor, float]:
        """Gain over ``at``, place and slope of the highest point of the span on the sphere, and how gaps count.

        A gap of q there is what one more step gains. The rest of the way gains μ / (μ − λ) as much, where μ is the
        multiplier and λ the second curvature of the span.
        """
        there = sphere_maximum(self.linear, self.matrix, rho)
        gain = self._value(there) - self._value(self.here)
        mix = self.basis @ (there - self.here)
        u, slope = self.at.u.clone(), self.at.slope.clone()
        for weight, p in zip(mix.tolist(), self.others, strict=True):
            u += weight * (p.u - self.at.u)
            slope += weight * (p.slope - self.at.slope)
        multiplier = float(self.linear @ there + there @ self.matrix @ there) / rho**2
        curvatures = torch.linalg.eigvalsh(self.matrix)
        apart = multiplier - (float(curvatures[-2]) if len(curvatures) > 1 else 0.0)
        room = max(1.0, min(50.0, multiplier / apart)) if 0 < apart else 50.0
        return gain, u, slope, room

    def _value(self, z: Tensor) -> float:
        return float(self.linear @ z + z @ self.matrix @ z / 2)


def sphere_maximum(linear: Tensor, matrix: Tensor, rho: float) -> Tensor:
    """The z with ‖z‖ = ρ that maximises b·z + zᵀM z / 2, ``(k,)``; for small k, by eigenvalues and bisection.

    (μI − M) z = b with μ at least the largest eigenvalue; in the *hard case*, where b has no part along its
    eigenvector and the others leave room, the rest of ρ goes along it (Moré & Sorensen 1983).

    >>> sphere_maximum(torch.tensor([0.0, 3.0]).double(), torch.diag(torch.tensor([4.0, 1.0])).double(), 2.0).round(
    ...     decimals=6
    ... ).abs().tolist()
    [1.732051, 1.0]
    """
    values, vectors = torch.linalg.eigh(matrix)
    turned = vectors.T @ linear
    top, length = float(values[-1]), float(turned.norm())
    tiny = 1e-13 * max(float(values.abs().max()), length / rho, math.ulp(0.0))
    low, high = top + tiny, top + length / rho + tiny
    z = turned / (low - values)
    if float(z.norm()) <= rho:
        z[-1] = 0.0
        z[-1] = math.copysign(math.sqrt(max(0.0, rho**2 - float(z @ z))), float(turned[-1]))
        found: Tensor = vectors @ z
        return found
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float((turned / (middle - values)).norm()) > rho else (low, middle)
    z = turned / (high - values)
    scaled: Tensor = vectors @ (z * (rho / float(z.norm())))
    return scaled


def _towards(slope: Tensor, u: Tensor, rho: float, damping: float) -> Tensor:
    """The fixed-point step ρ slope / ‖slope‖, drawn back to u by the damping; u itself where that is no direction."""
    length = float(slope.norm())
    aim = u * (damping / rho) + (slope / length if length > 0 else 0.0)
    reach = float(aim.norm())
    return aim * (rho / reach) if reach > 0 else u


def _left(gap: float, before: float) -> float:
    """What the rest of an ascent gains whose gaps decline as the last two did; the rise's error declines by √q a step.

    Near a maximum the distance to it shrinks by a factor √q a step and gap and rise by q; a step gains about a gap, and
    the rest 1 / (1 − √q) gaps.
    """
    if gap == 0:
        return 0.0
    return gap / (1 - math.sqrt(gap / before)) if gap < before < math.inf else math.inf
