"""Krylov spaces by Lanczos (1950) with full reorthogonalisation, that several probes read and any of them extends.

A run is resumable: it keeps its basis, so that the run which found λ_max goes on to become the first of a quadrature.
Whoever reads it sees its first k steps, whatever others have added, and gets the same numbers as if alone.
What the ends of the spectrum are, as far as a run tells, is in `flataudit.curvature.extremes`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from flataudit.contracts import Meter
from flataudit.curvature.hessian import Hessian
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface

__all__ = [
    "SHORT_STEPS",
    "LanczosRun",
    "Products",
    "SharedRun",
    "Tridiagonal",
    "basis_bytes",
    "steps_within",
]

Products = Callable[[Tensor], Tensor]
"""A v for each row v of ``(k, n)``, in the same shape."""
_BLOCK, _LARGE = 8, 2**21
_SHORT = 2
"""Basis vectors of a short run."""
SHORT_STEPS = 2
"""Steps of a run with a basis that holds as much as a short one, its products included."""


def block(dimension: int) -> int:
    """Basis vectors that are stored, and orthogonalised against, at a time: one where each takes much memory."""
    return _BLOCK if dimension < _LARGE else 1


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """T_k = Q_kᵀ A Q_k of k steps, with what ties it to the rest: A Q_k = Q_k T_k + β_k q_{k+1} e_kᵀ."""

    diagonal: Tensor
    """α ``(k,)``, float64 on the CPU."""
    off_diagonal: Tensor
    """β ``(k,)``; the last is the norm of what is left after step k."""
    exhausted: bool
    """The Krylov space is whole: β_k is rounding."""
    precision: float
    """Rounding of the products, as a share of the largest eigenvalue in magnitude."""
    stretch: float = 1.0
    """‖d + u‖ of a start along d + u, where u is uniform on the unit sphere and d depends on no random number."""

    def __len__(self) -> int:
        return len(self.diagonal)

    def cut(self, steps: int) -> "Tridiagonal":
        """What was known after so many steps; itself if it has no more."""
        if steps >= len(self):
            return self
        return replace(self, diagonal=self.diagonal[:steps], off_diagonal=self.off_diagonal[:steps], exhausted=False)

    @cached_property
    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values ``(k,)``, ascending, and the eigenvectors of T_k as columns ``(k, k)``."""
        inner = self.off_diagonal[:-1]
        matrix = torch.diag(self.diagonal) + torch.diag(inner, 1) + torch.diag(inner, -1)
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors

    @property
    def rounding(self) -> float:
        """Below this a residual or an eigenvalue cannot be told from zero."""
        return self.precision * float(self.ritz[0].abs().max())

    @property
    def residuals(self) -> Tensor:
        """‖Ay − θy‖ = β_k |e_kᵀs| of each Ritz pair ``(k,)``, at least rounding: an eigenvalue lies so near to θ."""
        exact = self.off_diagonal[-1] * self.ritz[1][-1].abs()
        return (torch.zeros_like(exact) if self.exhausted else exact).clamp_min(self.rounding)


class LanczosRun:
    """Krylov spaces of one symmetric operator from several starts, which advance together so that they share products.

    Full reorthogonalisation, twice (Parlett 1980), a block of basis vectors at a time. The basis takes
    starts × (steps + 1) × n numbers, rounded up to whole blocks.

    Args:
        starts: ``(k, n)``, one a run; only their directions count.
        locked: orthonormal rows ``(d, n)``, d < n: the runs are of P A P, where P projects these away.
        stretch: of starts that are not uniform on the sphere, as in `Tridiagonal`.
        short: keep the last two basis vectors alone, and orthogonalise against these: the three-term recurrence, whose
            ends are as good, since orthogonality is lost only along what has converged (Paige 1976). Inner Ritz values
            may come twice, and there is no basis to combine.
    """

    def __init__(
        self, starts: Tensor, *, locked: Tensor | None = None, stretch: float = 1.0, short: bool = False
    ) -> None:
        self._locked, self._stretch, self.short, self._dropped = locked, stretch, short, 0
        self._blocks: list[Tensor] = []
        self._diagonal: list[Tensor] = []
        self._off_diagonal: list[Tensor] = []
        self.rows, self.dimension = starts.shape
        self._block = 1 if short else block(self.dimension)
        self._precision = torch.finfo(starts.dtype).eps * self.dimension**0.5
        self._scale = torch.zeros(self.rows, dtype=torch.float64)
        self._ends: list[int | None] = [None] * self.rows
        following = self._orthogonal(starts)
        self._keep(following / following.norm(dim=1, keepdim=True))

    @property
    def steps(self) -> int:
        """Steps of the longest row so far."""
        return len(self._diagonal)

    def extend(self, products: Products, steps: int) -> None:
        """Go on until there are so many steps in all; one product a row and step, none for rows that are exhausted."""
        while self.steps < steps and None in self._ends:
            self._step(products)

    def tridiagonal(self, steps: int, row: int = 0) -> Tridiagonal:
        """T of the first steps of one row, at least one; it is shorter where the row was exhausted before."""
        end = self._ends[row]
        count = min(steps, self.steps if end is None else end)
        diagonal, off = (torch.stack([part[row] for part in of[:count]]) for of in (self._diagonal, self._off_diagonal))
        return Tridiagonal(diagonal, off, count == end, self._precision, self._stretch)

    def combined(self, coefficients: Tensor, row: int = 0) -> Tensor:
        """Σ_j c_j q_j for each column c of ``(steps, d)``: vectors ``(d, n)`` of a row's Krylov space."""
        if self.short:
            raise ValueError("expected a run that keeps its basis, got a short one; make another")
        first = self._blocks[0]
        total = first.new_zeros(coefficients.shape[1], self.dimension)
        for start, some in zip(range(0, len(coefficients), self._block), self._blocks, strict=False):
            part = coefficients[start : start + self._block].to(first.device, first.dtype)
            total += part.T @ some[row, : len(part)]
        return total

    def _step(self, products: Products) -> None:
        index = self.steps
        current = self._blocks[index // self._block - self._dropped][:, index % self._block]
        active = [row for row, end in enumerate(self._ends) if end is None]
        if len(active) == self.rows:
            images = products(current)
        else:
            images = torch.zeros_like(current)
            images[active] = products(current[active])
        self._diagonal.append(torch.linalg.vecdot(images, current).double().cpu())
        images = self._orthogonal(images)
        lengths = images.norm(dim=1)
        self._off_diagonal.append(lengths.double().cpu())
        self._scale = self._scale.maximum(self._diagonal[-1].abs() + self._off_diagonal[-1])
        whole = self._off_diagonal[-1] <= self._precision * self._scale
        room = self.dimension - (0 if self._locked is None else len(self._locked))
        for row in active:
            if bool(whole[row]) or index + 1 >= room:
                self._ends[row] = index + 1
        self._keep(images / torch.where(lengths > 0, lengths, 1.0)[:, None])

    def _keep(self, vectors: Tensor) -> None:
        """Add them to the basis; of a row that is exhausted, nothing."""
        over = [end is not None for end in self._ends]
        if any(over):
            vectors = vectors.masked_fill(torch.tensor(over, device=vectors.device)[:, None], 0.0)
        place = self.steps % self._block
        if self._block == 1:
            self._blocks.append(vectors[:, None])
        elif place == 0:
            self._blocks.append(vectors.new_zeros(self.rows, self._block, self.dimension))
        if self._block > 1:
            self._blocks[-1][:, place] = vectors
        if self.short and len(self._blocks) > _SHORT:
            self._dropped += 1
            del self._blocks[0]

    def _orthogonal(self, vectors: Tensor) -> Tensor:
        """What of each row is orthogonal to its basis and to what is locked; once would leave rounding behind."""
        for _ in range(2):
            if self._locked is not None:
                vectors = torch.addmm(vectors, vectors @ self._locked.T, self._locked, alpha=-1)
            for some in self._blocks:
                # Row by row: a batched product with one column is ten times as slow on a CPU.
                pairs = zip(vectors, some, strict=True)
                rows = [torch.addmv(row, part.T, part @ row, alpha=-1) for row, part in pairs]
                vectors = rows[0][None] if self.rows == 1 else torch.stack(rows)
        return vectors


class SharedRun:
    """A run as one probe reads it: from its first step on; steps that were found ready are booked as reused."""

    def __init__(
        self,
        run: LanczosRun,
        products: Products,
        *,
        meter: Meter | None = None,
        step_price: float = 0.0,
        slope: Callable[[], object] = lambda: None,
    ) -> None:
        self.run, self.products, self.slope = run, products, slope
        self._meter, self._price = meter, step_price
        self.steps = 0
        """That this probe has seen."""
        self.ready = run.steps
        """That others had computed before."""

    @classmethod
    def of(cls, surface: Surface, seed: int, *, along_gradient: bool = False, short: bool = False) -> "SharedRun":
        """The run from the seed's first vector, one for all probes of this surface.

        Args:
            surface: the loss.
            seed: of the start, which is uniform on the sphere.
            along_gradient: a run of its own from u + ∇L / ‖∇L‖, u being that start. The gradient of a trained network
                lies mostly along its outliers (Gur-Ari et al. 2018): λ_max is near after three products instead of
                five. What is certain by u stays so (`flataudit.curvature.extremes`), and takes a product more.
            short: without a basis, where no run that keeps one is there already.
        """
        products = Hessian(surface)
        whole = ("lanczos", seed, along_gradient)
        short = short and not surface.knows(whole)

        def begin() -> LanczosRun:
            drawn = normals(surface.origin, generator(seed, "lanczos"))
            if along_gradient:
                return _toward(products.slope(), drawn.div_(drawn.norm()), short=short)
            return LanczosRun(drawn[None], short=short)

        run = surface.remember((*whole, "short") if short else whole, begin)
        return cls(run, products, meter=surface.model.meter, step_price=2.0 * len(surface.data), slope=products.slope)

    def to(self, steps: int) -> Tridiagonal:
        """T of the first steps, computed or found."""
        found = min(self.ready, steps) - self.steps
        if found > 0 and self._meter is not None:
            self._meter.reused += found * self._price
        self.run.extend(self.products, steps)
        self.steps = max(self.steps, min(steps, self.run.steps))
        return self.run.tridiagonal(steps)


def _toward(slope: Tensor, uniform: Tensor, *, short: bool) -> LanczosRun:
    """From their sum; from the uniform direction alone where there is no slope, or two parameters at most."""
    length = float(slope.norm())
    if length == 0 or len(slope) < 3:
        return LanczosRun(uniform[None], short=short)
    start = uniform + slope / length
    return LanczosRun(start[None], stretch=float(start.norm()), short=short)


def basis_bytes(like: Tensor, steps: int) -> int:
    """Memory of the basis of one run of so many steps, for starts like this one ``(n,)``.

    >>> basis_bytes(torch.zeros(5), 7), basis_bytes(torch.zeros(5), 8)
    (160, 320)
    """
    size = block(like.numel())
    return math.ceil((steps + 1) / size) * size * like.numel() * like.element_size()


def steps_within(memory_bytes: float, like: Tensor) -> int:
    """Most steps of one run whose basis fits into so much memory; negative where there is no room for a start.

    >>> steps_within(320, torch.zeros(5)), steps_within(100, torch.zeros(5))
    (15, -1)
    """
    size = block(like.numel())
    return int(memory_bytes / (size * like.numel() * like.element_size())) * size - 1
