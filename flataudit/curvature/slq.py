"""Sums Σ f(λ) over all eigenvalues, and their density, by stochastic Lanczos quadrature with the outliers taken out.

For v uniform on the sphere, n E[vᵀ f(H) v] = Tr f(H), and k Lanczos steps from v give a k-point Gauss rule for what
is in the brackets (Golub & Meurant 1994; Ubaru, Chen & Saad 2017; for networks Ghorbani et al. 2019, Yao et al. 2020).
Two things are done differently here; on trained networks 88 products are then more accurate than 300 of the plain kind:

*Deflation.* The run that found λ_max goes on until some ten to twenty outliers have converged. They are counted
exactly, and the random vectors, drawn afresh and orthogonal to them, measure only what is left (Lin, Saad & Yang 2016;
Meyer et al. 2021 for traces). Outliers make most of the variance, and would take up most of the nodes.

*Two rules instead of one.* Networks have most of their eigenvalues next to zero, on both sides, and f = λ⁺/(λ⁺ + α) has
its kink right there. A Gauss rule puts them all on a node that lies on one side or the other. From the same steps come
an averaged Gauss rule (Spalević 2007), which spreads them over two, and a Gauss–Radau rule (Golub 1973), which has a
node at zero; on such f the one errs upwards and the other downwards, and their mean is several times better than
either. Half of their difference says how far off it may be.

The error between vectors does not see the bias of the quadrature, which may be ten times as large. It is judged by the
larger of that half difference and the change from half of the steps to all of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.special import stdtrit
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.lanczos import LanczosRun, SharedRun, Tridiagonal, basis_bytes
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface
from flataudit.specs import Budget

__all__ = [
    "Functional",
    "Plan",
    "Quadrature",
    "averaged_rule",
    "density",
    "effective_dimension",
    "gauss_rule",
    "log_determinant",
    "mean_rule",
    "quadrature",
    "radau_rule",
]

SETTLED = 1e-3
"""Residual of an outlier that counts exactly, as a share of the largest |θ|: its own error is of second order."""
OUTLYING = 1e-2
"""Its least magnitude, likewise."""

Rule = Callable[[Tridiagonal], tuple[Tensor, Tensor]]


def gauss_rule(found: Tridiagonal) -> tuple[Tensor, Tensor]:
    """Nodes and weights ``(k,)`` of k steps; exact for polynomials of degree 2k − 1."""
    values, vectors = found.ritz
    return values, vectors[0].square()


def averaged_rule(found: Tridiagonal) -> tuple[Tensor, Tensor]:
    """Nodes and weights ``(2k − 1,)`` of k steps; exact for degree 2k, and mostly far better than Gauss beyond it.

    T_k is continued by its own mirror image. The outermost nodes may lie a little outside of the spectrum. A Krylov
    space that is whole has an exact Gauss rule.
    """
    steps = len(found)
    if found.exhausted or steps < 2:
        return gauss_rule(found)
    diagonal, off = found.diagonal, found.off_diagonal
    return gauss_rule(
        replace(
            found,
            diagonal=torch.cat([diagonal, diagonal[:-1].flip(0)]),
            off_diagonal=torch.cat([off, off[:-2].flip(0), off.new_zeros(1)]),
        )
    )


def radau_rule(found: Tridiagonal) -> tuple[Tensor, Tensor]:
    """Nodes and weights ``(k + 1,)`` of k steps, with a node at zero; exact for degree 2k.

    T_{k+1} with the last α such that it is singular. Where T_k nearly is, that α lies far outside of the spectrum, and
    the Gauss rule has its node at zero already.
    """
    if found.exhausted:
        return gauss_rule(found)
    values, vectors = found.ritz
    # The last component of T_k⁻¹ e_k, from its eigenvectors.
    centre = found.off_diagonal[-1] ** 2 * (vectors[-1].square() / values).sum()
    if not bool(centre.abs() <= 2 * values.abs().max()):
        return gauss_rule(found)
    off = torch.cat([found.off_diagonal, values.new_zeros(1)])
    return gauss_rule(replace(found, diagonal=torch.cat([found.diagonal, centre[None]]), off_diagonal=off))


def mean_rule(found: Tridiagonal) -> tuple[Tensor, Tensor]:
    """Nodes and weights ``(m,)`` of the averaged and the Radau rule together, half of the weight each."""
    rules = averaged_rule(found), radau_rule(found)
    return torch.cat([nodes for nodes, _ in rules]), torch.cat([weights / 2 for _, weights in rules])


@dataclass(frozen=True)
class Functional:
    """An estimate of Σ f(λ)."""

    estimate: float
    standard_error: float
    """Between the vectors; that of the rule is not in it. 0: nothing was left to chance."""
    interval: tuple[float, float]
    """Student's with 95 %, and wider by the quadrature error on either side."""
    half_steps_change: float
    """Estimate of all steps − estimate of half of them, with the same vectors and outliers."""
    quadrature_error: float
    """The larger of |half_steps_change| and half of |averaged rule − Radau rule|."""


@dataclass(frozen=True, eq=False)
class Quadrature:
    """A measure on the real line whose integrals are sums over the spectrum."""

    dimension: int
    """n: number of eigenvalues."""
    outliers: Tensor
    """Eigenvalues ``(d,)`` that count one each, float64."""
    rest: tuple[Tridiagonal, ...]
    """Of P H P, one for each vector; together they count n − d."""

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Nodes and weights ``(m,)``; the weights add up to n."""
        rules = [(self.outliers, torch.ones_like(self.outliers))]
        for found in self.rest:
            nodes, weights = mean_rule(found)
            rules.append((nodes, weights * (self._left / len(self.rest))))
        return torch.cat([nodes for nodes, _ in rules]), torch.cat([weights for _, weights in rules])

    def total(self, function: Callable[[Tensor], Tensor], *, confidence: float = 0.95) -> Functional:
        """Σ f(λ); ``function`` maps eigenvalues ``(m,)`` to values ``(m,)``."""
        exact = float(function(self.outliers).sum())
        if not self.rest:
            return Functional(exact, 0.0, (exact, exact), 0.0, 0.0)
        values = self._values(function, self.rest, mean_rule)
        count, mean = len(values), float(values.mean())
        halves = [found if found.exhausted else found.cut(max(1, len(found) // 2)) for found in self.rest]
        change = mean - float(self._values(function, halves, mean_rule).mean())
        apart = abs(mean - float(self._values(function, self.rest, averaged_rule).mean()))
        off = max(abs(change), apart)
        error = float(values.std(correction=1)) / math.sqrt(count)
        error = max(error, max(t.precision for t in self.rest) * abs(exact + mean))
        half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error + off
        estimate = exact + mean
        return Functional(estimate, error, (estimate - half, estimate + half), change, off)

    @property
    def _left(self) -> int:
        return self.dimension - len(self.outliers)

    def _values(self, function: Callable[[Tensor], Tensor], of: Sequence[Tridiagonal], rule: Rule) -> Tensor:
        """(n − d) vᵀ f(P H P) v of each vector."""
        rules = [rule(found) for found in of]
        return torch.stack([self._left * (weights * function(nodes)).sum() for nodes, weights in rules])


def effective_dimension(alpha: float) -> Callable[[Tensor], Tensor]:
    """λ / (λ + α) for λ > 0; what is not positive counts nothing (MacKay 1992; Maddox et al. 2020).

    >>> effective_dimension(1.0)(torch.tensor([-2.0, 0.0, 1.0, 3.0])).tolist()
    [0.0, 0.0, 0.5, 0.75]
    """
    return lambda values: values.clamp_min(0) / (values.clamp_min(0) + alpha)


def log_determinant(alpha: float) -> Callable[[Tensor], Tensor]:
    """log(1 + λ/α) for λ > 0; what is not positive counts nothing: below −α there is no such number.

    >>> [round(value, 4) for value in log_determinant(1.0)(torch.tensor([-2.0, 0.0, 1.0])).tolist()]
    [0.0, 0.0, 0.6931]
    """
    return lambda values: torch.log1p(values.clamp_min(0) / alpha)


def density(nodes: Tensor, weights: Tensor, *, points: int, width: float) -> tuple[Tensor, Tensor]:
    """Grid and density ``(points,)`` of the measure, each node spread to a Gaussian; it integrates to 1.

    The grid reaches four standard deviations beyond the outermost nodes; ``width`` is one standard deviation as a
    share of the range of the nodes (an absolute one where they are all equal).
    """
    low, high = float(nodes.min()), float(nodes.max())
    sigma = width * (high - low) or width
    edges = torch.linspace(low - 4 * sigma, high + 4 * sigma, points + 1, dtype=torch.float64)
    # Differences of the distribution function: no bell falls between two points, and nothing is lost.
    below = torch.special.ndtr((edges[:, None] - nodes) / sigma) @ (weights / weights.sum())
    return (edges[1:] + edges[:-1]) / 2, below.diff() / edges.diff()


@dataclass(frozen=True)
class Plan:
    """How many products a quadrature takes, and for what: ``outlier_steps + vectors × steps``."""

    outlier_steps: int
    """Steps of the first run, whose converged eigenvalues are the outliers."""
    vectors: int
    """Random vectors for the rest, two at least."""
    steps: int
    """Of each."""

    @property
    def products(self) -> int:
        """Over all the data."""
        return self.outlier_steps + self.vectors * self.steps

    def together(self, like: Tensor, memory_bytes: float) -> int:
        """Vectors that can advance together in so much memory beside the first run and the outliers; 0: none."""
        left = (
            memory_bytes - basis_bytes(like, self.outlier_steps) - self.outlier_steps * like.untyped_storage().nbytes()
        )
        return max(0, min(self.vectors, int(left / basis_bytes(like, self.steps))))

    def refusal(self, surface: Surface, run: SharedRun, budget: Budget) -> tuple[str, str] | None:
        """Why the budget has no room for it, and what would help; None if it has."""
        needed = 2.0 * (self.products - min(run.ready, self.outlier_steps))
        if needed > budget.passes:
            return (
                f"{needed:g} passes needed, {budget.passes:g} left",
                "raise budget.passes, or take fewer steps or vectors",
            )
        if self.together(surface.origin, budget.memory_bytes / 2) < 1:
            reason = f"the bases of {surface.origin.numel()} parameters take more than half of budget.memory_bytes"
            return reason, "raise budget.memory_bytes, take fewer steps, or choose parameters (last:2)"
        return None


def quadrature(surface: Surface, seed: int, *, plan: Plan, run: SharedRun, budget: Budget) -> Quadrature | None:
    """The measure of the Hessian at the surface's own parameters; None: out of time. Done once for each plan.

    ``run`` is that of the seed, which λ_max is also read from; the plan must fit into the budget.
    """
    try:
        with surface.within(budget.seconds):
            run.to(plan.outlier_steps)
            memory = budget.memory_bytes / 2
            return surface.remember(("quadrature", seed, plan), lambda: _measured(surface, seed, plan, run, memory))
    except OutOfTime:
        return None


def _measured(surface: Surface, seed: int, plan: Plan, run: SharedRun, memory: float) -> Quadrature:
    outliers, locked = _outliers(run.to(plan.outlier_steps), run.run)
    origin, source = surface.origin, generator(seed, "quadrature")
    rest: list[Tridiagonal] = []
    if len(locked) < len(origin):
        together = max(1, plan.together(origin, memory))
        for done in range(0, plan.vectors, together):
            count = min(together, plan.vectors - done)
            starts = torch.stack([normals(origin, source) for _ in range(count)])
            group = LanczosRun(starts, locked=locked)
            group.extend(run.products, plan.steps)
            rest += [group.tridiagonal(plan.steps, row) for row in range(count)]
    return Quadrature(len(origin), outliers, tuple(rest))


def _outliers(found: Tridiagonal, run: LanczosRun) -> tuple[Tensor, Tensor]:
    """Ritz values ``(d,)`` that count exactly, and their vectors ``(d, n)``; all of a Krylov space that is whole."""
    values, vectors = found.ritz
    scale = float(values.abs().max())
    kept = (found.residuals <= max(SETTLED * scale, found.rounding)) & (values.abs() > OUTLYING * scale)
    kept |= torch.tensor(found.exhausted)
    return values[kept], run.combined(vectors[:, kept])
