"""The local entropy of the loss: how much of a Gaussian neighbourhood of the parameters is about as good as they are.

Φ(γ) = log E exp(−β (L(θ + Sz) − L(θ))) over z ~ N(0, I/γ), in nats, with an inverse temperature β of the mean loss
and a scale S of the parameters (Baldassi et al. 2015; Chaudhari et al. 2017; Pittorino et al. 2021). Higher is flatter;
where L is a quadratic with Hessian H and no gradient, Φ = −½ log det(I + β S H S / γ) ≤ 0.

The plain average of exp(−βΔL) over draws from N(0, I/γ) fails in many dimensions: every stiff direction makes good
draws rarer. Three things together replace it. (1) What the loss does along its stiffest directions is integrated in
closed form: chains start from the Gaussian that a quadratic model of low rank (Ritz vectors) makes of N(0, I/γ).
(2) Each chain is then annealed from that Gaussian to the target (Neal 2001): for a given length of the moves its
weight is an unbiased estimate of what is left of exp Φ, however well or badly it mixes, so that there is no burn-in to
discard and no integral over temperatures to discretise. (3) Its moves keep the Gaussian as it is (preconditioned
Crank–Nicolson: Cotter et al. 2013, Rudolf & Sprungk 2018), so that their acceptance depends on what the quadratic
leaves over, not on the number of parameters.

Chains that do not mix show as weights that differ, and `LocalEntropy.effective_share` says so: it is what R̂ is to
chains that are averaged over their steps. With log-normal weights a share of one half is a spread of 0.83 nats; if what
is below is refused, fewer than 8 of 100 runs of 16 chains give an interval without the truth, whatever their spread.
Where the quadratic leaves little over, annealing is worth as much as independent draws; where it leaves tens of nats,
a few rungs do not help (200 equal curvatures of γ: still 3 nats low after 256), and more products do where the
spectrum has few large eigenvalues.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from scipy.special import stdtrit
from torch import Tensor

from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface

__all__ = [
    "LocalEntropy",
    "Neighbourhood",
    "Reference",
    "entropy_from_log_determinant",
    "local_entropy",
    "log_mean_exponential",
    "quadratic_entropy",
    "reference",
]

LADDER_POWER = 2.0
"""Temperatures are (k/K)²: closer together near the reference, where the energy varies most."""
REACH = 1.5
"""A move is as long as makes its energy differ by about so much, times √2."""
ROUNDING = 64.0
"""No error is below so many roundings of the numbers that it is the error of."""
_QUARTILES = torch.tensor([0.25, 0.75], dtype=torch.float64)


def quadratic_entropy(eigenvalues: Tensor, gamma: float) -> float:
    """−½ Σ log(1 + λ/γ): Φ of a quadratic with these eigenvalues of βSHS; those that are not given count as 0.

    Raises:
        ValueError: an eigenvalue of −γ or less, where E exp(−βΔL) is infinite.

    >>> round(quadratic_entropy(torch.tensor([3.0, 0.0]), 1.0), 4)
    -0.6931
    """
    ratios = eigenvalues.double() / gamma
    if bool((ratios <= -1).any()):
        raise ValueError(f"expected eigenvalues above {-gamma}, got {float(eigenvalues.min())}; raise gamma")
    return entropy_from_log_determinant(float(torch.log1p(ratios).sum()))


def entropy_from_log_determinant(log_determinant: float) -> float:
    """Φ of a quadratic from log det(I + βSHS/γ).

    >>> entropy_from_log_determinant(4.0)
    -2.0
    """
    return -float(log_determinant) / 2


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The Gaussian N(θ, S²/γ), and how hard a rise of the loss counts in it."""

    scale: Tensor
    """S ``(parameters,)``, not negative (`flataudit.curvature.scales`)."""
    gamma: float
    inverse_temperature: float
    """β, in nats per unit of the mean loss."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The Gaussian N(m, (γI + βA)⁻¹) of z, that minimises γ‖z‖²/2 + β q(z) for q(z) = cᵀVz + ½ zᵀAz, A = VᵀΛV."""

    neighbourhood: Neighbourhood
    vectors: Tensor
    """V, orthonormal rows ``(k, parameters)``."""
    curvatures: Tensor
    """Λ ``(k,)``, at least −γ/2β, so that the Gaussian stays within twice the width of N(0, I/γ)."""
    slopes: Tensor
    """c ``(k,)``, the gradient's coordinates in V."""

    @property
    def entropy(self) -> float:
        """Φ of the quadratic model, log E exp(−β q(z)) over N(0, I/γ), from the k directions alone."""
        area, beta = self.neighbourhood, self.neighbourhood.inverse_temperature
        shift = beta**2 * (self.slopes.double() ** 2 / self._precisions.double()).sum() / 2
        return quadratic_entropy(beta * self.curvatures, area.gamma) + float(shift)

    @property
    def _precisions(self) -> Tensor:
        return self.neighbourhood.gamma + self.neighbourhood.inverse_temperature * self.curvatures

    def draw(self, source: torch.Generator) -> Tensor:
        """A random z − m, ``(parameters,)``."""
        gamma = self.neighbourhood.gamma
        drawn = normals(self.neighbourhood.scale, source)
        narrowed = (self._precisions / gamma).rsqrt() - 1
        return (drawn + (narrowed * (self.vectors @ drawn)) @ self.vectors) / math.sqrt(gamma)

    def energy(self, rise: Callable[[Tensor], float], centred: Tensor) -> float:
        """β (L(θ + Sz) − L(θ) − q(z)): what the quadratic leaves over; ``rise`` is of the step Sz."""
        beta = self.neighbourhood.inverse_temperature
        z = centred - (beta * self.slopes / self._precisions) @ self.vectors
        coordinates = self.vectors @ z
        quadratic = self.slopes @ coordinates + (self.curvatures * coordinates.square()).sum() / 2
        return beta * (rise(self.neighbourhood.scale * z) - float(quadratic))


@dataclass(frozen=True)
class LocalEntropy:
    """Φ with the error of its chains; the data are taken as they are."""

    estimate: float
    standard_error: float
    interval: tuple[float, float]
    """Student's, with as many degrees of freedom as effective chains less one."""
    effective_share: float
    """(Σw)² / (n Σw²) of the n chains' weights: 1 if all agree; 1/n if one of them counts alone."""
    quadratic: float
    """Φ of the quadratic model of low rank alone."""


def reference(surface: Surface, seed: int, *, area: Neighbourhood, num_matvecs: int) -> Reference:
    """The Gaussian of the Ritz pairs of SHS in a Lanczos basis and the gradient; ``num_matvecs`` products at most.

    Any basis gives a valid reference: one that misses a stiff direction costs precision only.
    """
    origin, scale = surface.origin, area.scale
    slope = scale * surface.slope_here()[1]
    basis: list[Tensor] = []
    images: list[Tensor] = []
    following = normals(origin, generator(seed, "local entropy basis")) * (scale > 0)
    while len(basis) < num_matvecs:
        vector = _orthonormal(following, basis) if len(basis) < num_matvecs - 1 else None
        whole = vector is None
        # The last direction is the gradient's, along which the centre moves.
        vector = _orthonormal(slope, basis) if vector is None else vector
        if vector is None:
            break
        basis.append(vector)
        images.append(scale * surface.product(origin, scale * vector))
        if whole:
            break
        following = images[-1]
    return _ritz(area, basis, images, slope)


def _ritz(area: Neighbourhood, basis: list[Tensor], images: list[Tensor], slope: Tensor) -> Reference:
    if not basis:
        nothing = slope.new_zeros(0)
        return Reference(area, slope.new_zeros(0, len(slope)), nothing, nothing)
    rows, mapped = torch.stack(basis), torch.stack(images)
    projected = rows @ mapped.T
    values, rotation = torch.linalg.eigh((projected + projected.T).double() / 2)
    vectors = rotation.to(rows.dtype).T @ rows
    lowest = -area.gamma / (2 * area.inverse_temperature)
    return Reference(area, vectors, values.to(rows.dtype).clamp_min(lowest), vectors @ slope)


def local_entropy(
    surface: Surface, seed: int, *, start: Reference, chains: int, rungs: int, seconds: float = math.inf
) -> LocalEntropy | None:
    """Φ at the surface's own parameters; ``chains`` × ``rungs`` forward passes. None: out of time.

    A chain begins at z₀ of the reference and moves once at each inverse temperature t_k = (k/K)², k = 1 … K − 1,
    towards exp(−t_k R), where R is the energy that the quadratic leaves over. Its weight is
    exp(−Σ_k (t_{k+1} − t_k) R(z_k)), of mean exp(Φ − Φ_quadratic) (Neal 2001).

    Raises:
        ModelError: the loss is not finite somewhere in the neighbourhood.
    """
    try:
        with surface.within(seconds):
            loss = surface.loss_here()
            weights = _weights(surface, seed, start, loss, chains=chains, rungs=rungs)
    except OutOfTime:
        return None
    left, error, share = log_mean_exponential(weights)
    estimate = start.entropy + left
    size = max(abs(estimate), start.neighbourhood.inverse_temperature * abs(loss))
    error = max(error, ROUNDING * torch.finfo(surface.origin.dtype).eps * size)
    half = float(stdtrit(max(1.0, share * chains - 1), 0.975)) * error
    return LocalEntropy(estimate, error, (estimate - half, estimate + half), share, start.entropy)


def _weights(surface: Surface, seed: int, start: Reference, loss: float, *, chains: int, rungs: int) -> list[float]:
    """Logarithms of the chains' weights."""

    def energy(centred: Tensor) -> float:
        return start.energy(lambda step: surface.loss(surface.origin + step) - loss, centred)

    firsts = [energy(start.draw(source)) for source in _sources(seed, chains)]
    spread = _spread(firsts)
    return [
        _annealed(start, energy, first, source, rungs=rungs, spread=spread)
        for first, source in zip(firsts, _sources(seed, chains), strict=True)
    ]


def log_mean_exponential(logarithms: list[float]) -> tuple[float, float, float]:
    """``(log E w, standard error, effective share)`` of independent weights, from their logarithms.

    The logarithm of a mean is too low by half its relative variance; the jackknife takes that out and gives the error.

    >>> [round(number, 6) for number in log_mean_exponential([1.0, 1.0, 1.0])]
    [1.0, 0.0, 1.0]
    """
    values = torch.tensor(logarithms, dtype=torch.float64)
    n = len(values)
    whole = float(values.logsumexp(0)) - math.log(n)
    others = values.repeat(n, 1).masked_fill(torch.eye(n, dtype=torch.bool), -math.inf)
    without = others.logsumexp(1) - math.log(n - 1)
    estimate = n * whole - (n - 1) * float(without.mean())
    error = math.sqrt((n - 1) * float(without.var(correction=0)))
    share = math.exp(2 * float(values.logsumexp(0)) - float((2 * values).logsumexp(0))) / n
    return estimate, error, share


def _annealed(
    start: Reference,
    energy: Callable[[Tensor], float],
    first: float,
    source: torch.Generator,
    *,
    rungs: int,
    spread: float,
) -> float:
    """Logarithm of one chain's weight."""
    ladder: list[float] = [(rung / rungs) ** LADDER_POWER for rung in range(rungs + 1)]
    state, value = start.draw(source), first
    logarithm = -ladder[1] * value
    for here, above in pairwise(ladder[1:]):
        length = REACH / max(here * spread, REACH)
        proposal = math.sqrt(1 - length**2) * state + length * start.draw(source)
        proposed = energy(proposal)
        threshold = math.log(float(torch.rand((), generator=source, dtype=torch.float64)) or math.ulp(0.0))
        if threshold < here * (value - proposed):
            state, value = proposal, proposed
        logarithm -= (above - here) * value
    return logarithm


def _sources(seed: int, chains: int) -> list[torch.Generator]:
    return [generator(seed, f"local entropy chain {chain}") for chain in range(chains)]


def _spread(values: list[float]) -> float:
    """A standard deviation that one wild value does not move: the range of the middle half, over that of N(0, 1)."""
    low, high = (float(q) for q in torch.tensor(values, dtype=torch.float64).quantile(_QUARTILES))
    return (high - low) / 1.349


def _orthonormal(vector: Tensor, basis: list[Tensor]) -> Tensor | None:
    """The direction of a vector that is orthogonal to the basis; None where nothing but rounding is left of it."""
    length = float(vector.norm())
    for _ in range(2):
        for other in basis:
            vector = vector - torch.dot(vector, other) * other
    left = float(vector.norm())
    return None if left <= 1e3 * torch.finfo(vector.dtype).eps * length or left == 0 else vector / left
