"""The truth that every library is held against: made another way than any of them, in float64, slowly, once.

Kept in ``results/known.json`` under the digest of the weights, since it depends on nothing else.
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.stats import wasserstein_distance
from subjects import Subject, cache
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["Truth", "dense_spectrum", "effective_dimension", "known", "remembered", "transport", "truth"]

KNOWN = Path(__file__).parent / "results" / "known.json"
RESIDUAL_VECTORS = 200
DENSE_PARAMETERS = 3000


@dataclass(frozen=True)
class Truth:
    """Trace and largest eigenvalue of a subject's Hessian."""

    trace: float
    trace_error: float
    """Standard error; 0 for an exact one."""
    how: str
    lambda_max: float


def truth(subject: Subject) -> Truth:
    """Of one subject, computed once."""
    return Truth(**remembered(f"truth-{subject.digest}", lambda: asdict(_truth(subject))))


def remembered(name: str, compute: Callable[[], dict[str, float | str]]) -> dict[str, float | str]:
    """``compute()`` once, and then from ``results/known.json``; a name must say which weights it is about."""
    if name not in known():
        found = compute()
        whole = json.dumps({**known(), name: found}, indent=1, sort_keys=True, ensure_ascii=False)
        KNOWN.write_text(whole + "\n", encoding="utf-8")
    return known()[name]


def known() -> dict[str, dict[str, float | str]]:
    """All that is remembered."""
    return json.loads(KNOWN.read_text(encoding="utf-8")) if KNOWN.exists() else {}


def dense_spectrum(subject: Subject) -> NDArray[np.float64]:
    """All eigenvalues ``(parameters,)``, ascending, of the dense float64 Hessian of a small subject."""
    if subject.parameters > DENSE_PARAMETERS:
        raise ValueError(f"expected at most {DENSE_PARAMETERS} parameters, got {subject.parameters}")
    path = cache(f"spectrum-{subject.digest}.npy")
    if not path.exists():
        product = _product(subject)
        columns = np.stack([product(row) for row in np.eye(subject.parameters)])
        np.save(path, np.linalg.eigvalsh((columns + columns.T) / 2))
    return np.load(path)


def transport(nodes: NDArray[np.float64], weights: NDArray[np.float64], spectrum: NDArray[np.float64]) -> float:
    """Wasserstein-1 distance between a quadrature and the true eigenvalues."""
    return float(wasserstein_distance(nodes, spectrum, weights, np.full(len(spectrum), 1 / len(spectrum))))


def effective_dimension(
    nodes: NDArray[np.float64], weights: NDArray[np.float64], parameters: int, alpha: float
) -> float:
    """Σ λ⁺ / (λ⁺ + α), of a quadrature or of the eigenvalues themselves (each with weight 1 / parameters)."""
    positive = np.maximum(nodes, 0)
    return float(parameters * (weights * positive / (positive + alpha)).sum())


def _truth(subject: Subject) -> Truth:
    largest = _largest(subject)
    if subject.parameters <= DENSE_PARAMETERS:
        spectrum = dense_spectrum(subject)
        return Truth(float(spectrum.sum()), 0.0, "dense Hessian", largest)
    gauss_newton = _gauss_newton_trace(subject)
    if not any(isinstance(part, nn.LayerNorm | nn.Tanh | nn.GELU) for part in subject.model.modules()):
        return Truth(gauss_newton, 0.0, "per-example Jacobians: Tr(H) = Tr(GGN) here", largest)
    forms = _residual_forms(subject)
    error = float(np.std(forms, ddof=1) / math.sqrt(len(forms)))
    how = f"per-example Jacobians + {len(forms)} products with H − GGN"
    return Truth(gauss_newton + float(np.mean(forms)), error, how, largest)


def _gauss_newton_trace(subject: Subject) -> float:
    """(1/n) Σᵢ Tr(Jᵢᵀ (diag pᵢ − pᵢpᵢᵀ) Jᵢ), an example at a time with its Jacobian whole."""
    model, total = _double(subject), 0.0
    parameters = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        for x in subject.inputs.double().split(1):
            outputs = model(x)[0]
            rows = [torch.autograd.grad(value, parameters, retain_graph=True) for value in outputs]
            jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
            p = outputs.detach().softmax(dim=0)
            total += float(((torch.diag(p) - torch.outer(p, p)) * (jacobian @ jacobian.T)).sum())
    return total / len(subject.inputs)


def _residual_forms(subject: Subject) -> NDArray[np.float64]:
    """Vᵀ(H − G)v, with signs of their own for every 64 examples: H − G is the Hessian of ⟨∂ℓ/∂f, f(θ)⟩, slope held."""
    source = np.random.default_rng(0)
    total = np.zeros(RESIDUAL_VECTORS)
    for start in range(0, len(subject.inputs), 64):
        some = slice(start, start + 64)
        product = _product(subject, residual=True, some=some)
        signs = source.choice([-1.0, 1.0], size=(RESIDUAL_VECTORS, subject.parameters))
        share = len(subject.inputs[some]) / len(subject.inputs)
        total += share * np.array([v @ product(v) for v in signs])
    return total


def _largest(subject: Subject) -> float:
    operator = LinearOperator((subject.parameters,) * 2, matvec=_product(subject), dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(subject.parameters)
    return float(eigsh(operator, k=1, which="LA", tol=1e-5, v0=start, return_eigenvectors=False)[0])


def _double(subject: Subject) -> nn.Module:
    """A copy in float64."""
    return copy.deepcopy(subject.model).double().eval()


def _product(
    subject: Subject, *, residual: bool = False, some: slice = slice(None)
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """H v (or (H − G) v) over all examples (or some) in float64, from one graph that is kept."""
    model = _double(subject)
    parameters = list(model.parameters())
    x, y = subject.inputs[some].double(), subject.targets[some]
    with sdpa_kernel(SDPBackend.MATH):
        outputs = model(x)
    if residual:
        leaf = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(leaf, y), leaf)
        value = (slope * outputs).sum()
    else:
        value = nn.functional.cross_entropy(outputs, y)
    kept = {"retain_graph": True, "materialize_grads": True}
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, create_graph=True)])

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        found = torch.autograd.grad(gradient, parameters, torch.from_numpy(vector.reshape(-1)), **kept)
        return torch.cat([part.flatten() for part in found]).numpy()

    return product
