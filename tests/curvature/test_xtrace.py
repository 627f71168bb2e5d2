"""XTrace against its definition, one explicit basis for each vector that is left out."""

import math

import numpy as np
import pytest
import torch
from networks import Network, dense_hessian, examples, tanh_mlp
from torch import Tensor

from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.xtrace import XTrace, xtrace


def symmetric(n: int, outliers: list[float], seed: int = 0) -> Tensor:
    drawn = normals(torch.empty(n, n, dtype=torch.float64), generator(seed, "matrix"))
    bulk = (drawn + drawn.T) / 2
    vectors = torch.linalg.qr(normals(torch.empty(n, n, dtype=torch.float64), generator(seed, "vectors")))[0]
    sizes = torch.zeros(n, dtype=torch.float64)
    sizes[: len(outliers)] = torch.tensor(outliers, dtype=torch.float64)
    return bulk / math.sqrt(n) + vectors @ torch.diag(sizes) @ vectors.T


def traced(matrix: Tensor, num_matvecs: int, seed: int = 0) -> XTrace:
    source = generator(seed, "test")
    return xtrace(lambda rows: rows @ matrix, len(matrix), num_matvecs=num_matvecs, source=source, like=matrix)


def left_out_one_by_one(matrix: Tensor, vectors: int, seed: int = 0) -> tuple[float, float]:
    """Equation (2.5) with the normalisation of section 2.3 of Epperly, Tropp & Webber (2024), as it is written."""
    n = len(matrix)
    omega = normals(matrix.new_empty(vectors, n), generator(seed, "test"))
    estimates = []
    for i in range(vectors):
        others = [j for j in range(vectors) if j != i]
        basis, _ = torch.linalg.qr(matrix @ omega[others].T)
        rest = omega[i] - basis @ (basis.T @ omega[i])
        rest = rest * math.sqrt(n - vectors + 1) / rest.norm()
        estimates.append(float(torch.trace(basis.T @ matrix @ basis) + rest @ matrix @ rest))
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) / math.sqrt(vectors))


@pytest.mark.parametrize("vectors", [2, 3, 10, 39])
def test_it_is_its_definition(vectors: int) -> None:
    matrix = symmetric(40, [30, -20, 10])
    found = traced(matrix, 2 * vectors)
    estimate, error = left_out_one_by_one(matrix, vectors)
    assert found.estimate == pytest.approx(estimate, abs=1e-8)
    assert found.standard_error == pytest.approx(error, abs=1e-8)
    assert found.num_matvecs == 2 * vectors


def test_a_hessian() -> None:
    network, data = Network(tanh_mlp()), examples()
    objective = Objective(network, data)
    truth = float(np.trace(dense_hessian(network, data)))
    found = xtrace(
        lambda rows: objective.products(objective.origin, rows),
        objective.origin.numel(),
        num_matvecs=60,
        source=generator(0, "test"),
        like=objective.origin,
    )
    assert abs(found.estimate - truth) < 4 * found.standard_error < 0.3 * truth


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_low_rank_is_exact(rank: int) -> None:
    factor = normals(torch.empty(50, rank, dtype=torch.float64), generator(0, "factor"))
    matrix = factor @ factor.T
    found = traced(matrix, 20)
    assert found.estimate == pytest.approx(float(matrix.trace()), rel=1e-10)
    assert found.standard_error < 1e-10 * found.estimate


def test_nothing_and_everything() -> None:
    matrix = symmetric(6, [5])
    assert traced(torch.zeros_like(matrix), 8) == XTrace(0.0, 0.0, 8)
    whole = traced(matrix, 100)
    assert whole.estimate == pytest.approx(float(matrix.trace()), abs=1e-10) and whole.num_matvecs == 12
    assert traced(torch.tensor([[2.0]]), 4).estimate == pytest.approx(2.0)


def test_too_few_products() -> None:
    with pytest.raises(ValueError, match="at least 4 products, got 3"):
        traced(symmetric(6, []), 3)


def test_it_is_unbiased_and_its_error_is_right_once_outliers_are_covered() -> None:
    """400 seeds: with five products an outlier the error is nearly what it says; with two it says too little."""
    matrix, seeds = symmetric(120, [400, 300, 250, 200]), 400
    truth = float(matrix.trace())
    ratios = {}
    for num_matvecs in (8, 20):
        runs = [traced(matrix, num_matvecs, seed) for seed in range(seeds)]
        off = np.array([run.estimate for run in runs]) - truth
        assert abs(off.mean()) < 4 * off.std() / math.sqrt(seeds)
        ratios[num_matvecs] = math.sqrt(np.mean([run.standard_error**2 for run in runs])) / off.std()
    assert 0.85 < ratios[20] < 1.1, ratios
    assert ratios[8] < 0.75, ratios


def test_it_beats_plain_random_vectors_where_outliers_make_the_trace() -> None:
    matrix = symmetric(60, [400, 300, 250])
    truth = float(matrix.trace())
    ours = [traced(matrix, 24, seed).estimate - truth for seed in range(50)]
    plain = []
    for seed in range(50):
        rows = normals(matrix.new_empty(24, 60), generator(seed, "plain")).sign()
        plain.append(float((rows @ matrix * rows).sum(dim=1).mean()) - truth)
    assert np.std(ours) < 0.05 * np.std(plain)
