"""PyHessian, curvlinops and hessian-eigenthings, each used as its own documentation says, with nothing around it.

All three see the same module, the same mean cross-entropy and the same examples. Where a peer offers a choice that
does not change the answer (one batch or a loader, batch sizes), it is an argument, and `fastest` takes the fastest.
"""

import importlib
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from subjects import Subject
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import curvlinops
    import hessian_eigenthings as eigenthings
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    # ``import pyhessian.hessian as …`` would give the class: the package binds that name to it.
    pyhessian_module = importlib.import_module("pyhessian.hessian")

__all__ = ["Curvlinops", "Eigenthings", "Eigenvalue", "Peer", "PyHessian", "Quadrature", "fastest", "peers", "seeded"]

GRAPH_WARNING = "Using backward\\(\\) with create_graph=True"


@dataclass(frozen=True)
class Eigenvalue:
    """What a peer says is the largest eigenvalue, and the Hessian-vector products that it took."""

    value: float
    products: int
    history: tuple[float, ...] = ()
    """The estimate after each product, for one that stops by a rule of its own."""


@dataclass(frozen=True)
class Quadrature:
    """A spectral density as nodes and weights that sum to one, ``(vectors × steps,)`` each."""

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    products: int


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The peers draw from torch's global generator (eigsh from NumPy's): seeded here, and restored after."""
    state = np.random.get_state()
    with torch.random.fork_rng(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=GRAPH_WARNING)
        warnings.filterwarnings("ignore", category=FutureWarning)
        torch.default_generator.manual_seed(seed)
        np.random.set_state(np.random.RandomState(seed).get_state())
        try:
            yield
        finally:
            np.random.set_state(state)


class Peer(ABC):
    """A library's Hessian of one subject; making it is its set-up, and is timed."""

    name: str
    package: str
    sizes: Sequence[int | None] = (None, 256)
    """Batch sizes to choose from; None: all examples at once."""

    def __init__(self, subject: Subject, batch_size: int | None = None) -> None:
        self.subject, self.batch_size = subject, batch_size
        size = batch_size or len(subject.inputs)
        self.data = list(zip(subject.inputs.split(size), subject.targets.split(size), strict=True))
        self.loss = nn.CrossEntropyLoss() if subject.targets.dtype == torch.int64 else nn.MSELoss()

    @property
    def version(self) -> str:
        """As installed."""
        return version(self.package)

    @abstractmethod
    def trace(self, vectors: int) -> float:
        """Mean of vᵀHv over random sign vectors: one product each."""

    @abstractmethod
    def largest(self, tolerance: float) -> Eigenvalue:
        """The largest eigenvalue by its own method, stopped by its own rule."""

    @abstractmethod
    def density(self, vectors: int, steps: int) -> Quadrature:
        """Stochastic Lanczos quadrature."""


class PyHessian(Peer):
    """https://github.com/amirgholami/PyHessian, 0.1 (2020)."""

    name, package = "PyHessian", "pyhessian"

    def __init__(self, subject: Subject, batch_size: int | None = None) -> None:
        super().__init__(subject, batch_size)
        # One batch: the gradient's graph is built once and serves every product. A loader: once a batch and product.
        given = {"data": self.data[0]} if batch_size is None else {"dataloader": self.data}
        self.hessian = pyhessian_module.hessian(subject.model, self.loss, cuda=False, **given)

    def samples(self, vectors: int) -> list[float]:
        """VᵀHv of each vector; a tolerance below 0 never stops early."""
        return [float(value) for value in self.hessian.trace(maxIter=vectors, tol=-1.0)]

    def trace(self, vectors: int) -> float:
        """Hutchinson (1989)."""
        return float(np.mean(self.samples(vectors)))

    def largest(self, tolerance: float = 1e-3) -> Eigenvalue:
        """Power iteration; its own default tolerance is 1e-3, between two iterations."""
        with _watched() as history:
            (value,), _ = self.hessian.eigenvalues(tol=tolerance)
        return Eigenvalue(float(value), len(history), tuple(history))

    def density(self, vectors: int, steps: int) -> Quadrature:
        """SLQ; `torch.eig` left torch in 1.13, so that it is given back for the symmetric matrices it is called on."""
        torch.eig = _symmetric_eig
        try:
            nodes, weights = self.hessian.density(iter=steps, n_v=vectors)
        finally:
            del torch.eig
        return _quadrature(nodes, weights, vectors * steps)

    def close(self) -> None:
        """Drop the graph that it keeps alive in ``.grad``."""
        del self.hessian
        self.subject.model.zero_grad(set_to_none=True)


class Curvlinops(Peer):
    """https://github.com/f-dangel/curvlinops, a linear operator for SciPy and for its own estimators."""

    name, package = "curvlinops", "curvlinops-for-pytorch"
    chunk = 8

    def __init__(self, subject: Subject, batch_size: int | None = None) -> None:
        super().__init__(subject, batch_size)
        parameters = [p for p in subject.model.parameters() if p.requires_grad]
        self.operator = curvlinops.HessianLinearOperator(
            subject.model, self.loss, parameters, self.data, check_deterministic=False
        )

    def trace(self, vectors: int) -> float:
        """`hutchinson_trace`, at most 8 vectors at a time: all at once, under vmap, would fill the memory."""
        sizes = [min(self.chunk, vectors - done) for done in range(0, vectors, self.chunk)]
        found = [size * curvlinops.hutchinson_trace(self.operator, size).item() for size in sizes]
        return sum(found) / vectors

    def xtrace(self, products: int) -> float:
        """XTrace (Epperly et al. 2024), with all products of a half at once."""
        return float(curvlinops.xtrace(self.operator, products))

    def hutchpp(self, products: int) -> float:
        """Hutch++ (Meyer et al. 2020)."""
        return float(curvlinops.hutchpp_trace(self.operator, products))

    def largest(self, tolerance: float = 1e-2) -> Eigenvalue:
        """`scipy.sparse.linalg.eigsh` on the operator, as its examples do."""
        inner, count = self.operator.to_scipy(), [0]

        def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            count[0] += 1
            return inner.matvec(vector)

        counted = LinearOperator(inner.shape, matvec=product, dtype=inner.dtype)
        (value,) = eigsh(counted, k=1, which="LA", tol=tolerance, return_eigenvectors=False)
        return Eigenvalue(float(value), count[0])

    def density(self, vectors: int, steps: int) -> Quadrature:
        """The Lanczos runs of `lanczos_approximate_spectrum`, before it smooths them (it does not reorthogonalise)."""
        runs = [fast_lanczos(self.operator, steps) for _ in range(vectors)]
        weights = [vectors_[0].square() for _, vectors_ in runs]
        return _quadrature([v.tolist() for v, _ in runs], [w.tolist() for w in weights], vectors * steps)


class Eigenthings(Peer):
    """https://github.com/noahgolmant/pytorch-hessian-eigenthings, 1.0 (2026)."""

    name, package = "hessian-eigenthings", "hessian-eigenthings"
    sizes = (None,)
    """It averages batches without their sizes: with a short last batch it would be another Hessian."""

    def __init__(self, subject: Subject, batch_size: int | None = None) -> None:
        super().__init__(subject, batch_size)
        self.operator = eigenthings.HessianOperator(subject.model, self.data, eigenthings.supervised_loss(self.loss))

    def trace(self, vectors: int) -> float:
        """Hutchinson (1989)."""
        seed = int(torch.randint(2**31, ()))
        return float(eigenthings.trace(self.operator, num_matvecs=vectors, method="hutchinson", seed=seed).estimate)

    def hutchpp(self, products: int) -> float:
        """Hutch++, its default method."""
        seed = int(torch.randint(2**31, ()))
        return float(eigenthings.trace(self.operator, num_matvecs=products, seed=seed).estimate)

    def largest(self, tolerance: float = 1e-4) -> Eigenvalue:
        """Lanczos for its default of ten pairs (20 products); it has no stop rule, only a convergence flag."""
        seed = int(torch.randint(2**31, ()))
        found = eigenthings.lanczos(self.operator, k=10, which="LA", tol=tolerance, seed=seed)
        return Eigenvalue(float(found.eigenvalues.max()), found.iterations)

    def density(self, vectors: int, steps: int) -> Quadrature:
        """`spectral_density`'s nodes and weights, before it smooths them."""
        seed = int(torch.randint(2**31, ()))
        found = eigenthings.spectral_density(self.operator, num_runs=vectors, lanczos_steps=steps, seed=seed)
        return _quadrature(found.raw_eigenvalues.tolist(), found.raw_weights.tolist(), vectors * steps)


def peers() -> tuple[type[Peer], ...]:
    """The three of them."""
    return PyHessian, Curvlinops, Eigenthings


def fastest(kind: type[Peer], subject: Subject) -> int | None:
    """The batch size at which this peer's products take the least time here."""

    def cost(size: int | None) -> float:
        peer = kind(subject, size)
        peer.trace(1)
        start = time.perf_counter()
        peer.trace(2)
        spent = time.perf_counter() - start
        getattr(peer, "close", lambda: None)()
        return spent

    if len(kind.sizes) == 1:
        return kind.sizes[0]
    with seeded(0):
        return min(kind.sizes, key=cost)


def _quadrature(nodes: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], products: int) -> Quadrature:
    flat = np.concatenate([np.asarray(run, dtype=np.float64) for run in nodes])
    mass = np.concatenate([np.asarray(run, dtype=np.float64) for run in weights])
    kept = np.isfinite(flat) & np.isfinite(mass)  # hessian-eigenthings pads runs that end early with NaN
    return Quadrature(flat[kept], mass[kept] / mass[kept].sum(), products)


def _symmetric_eig(matrix: Tensor, eigenvectors: bool = False) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


@contextmanager
def _watched() -> Iterator[list[float]]:
    """The Rayleigh quotient of each of PyHessian's products, as it computes it."""
    history: list[float] = []
    plain, whole = pyhessian_module.hessian_vector_product, pyhessian_module.hessian.dataloader_hv_product

    def product(gradient: list[Tensor], parameters: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
        found = plain(gradient, parameters, vector)
        history.append(float(pyhessian_module.group_product(found, vector)))
        return found

    def over_loader(self: object, vector: list[Tensor]) -> tuple[float, list[Tensor]]:
        value, found = whole(self, vector)
        history.append(value)
        return value, found

    pyhessian_module.hessian_vector_product = product
    pyhessian_module.hessian.dataloader_hv_product = over_loader
    try:
        yield history
    finally:
        pyhessian_module.hessian_vector_product = plain
        pyhessian_module.hessian.dataloader_hv_product = whole
