"""Quadrature against dense spectra: rules, outliers, errors that keep their word, and bias that shows."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch
from networks import Network, dense_hessian, examples, relu_mlp, tanh_mlp
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from flataudit.curvature.lanczos import LanczosRun, SharedRun, Tridiagonal, basis_bytes
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.slq import (
    Plan,
    Quadrature,
    averaged_rule,
    density,
    effective_dimension,
    gauss_rule,
    log_determinant,
    mean_rule,
    quadrature,
    radau_rule,
)
from flataudit.curvature.surface import Surface
from flataudit.specs import Budget

PLENTY = Budget(passes=1e6, seconds=3600)


class Diagonal:
    """As much of a surface as quadrature needs, around a diagonal operator."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.origin = values, torch.zeros_like(values)

    def within(self, seconds: float) -> AbstractContextManager[None]:
        return nullcontext()

    def remember(self, _: object, compute: Callable[[], Quadrature]) -> Quadrature:
        return compute()


def measured(values: Tensor, seed: int, *plan: int, budget: Budget = PLENTY) -> Quadrature | None:
    run = SharedRun(LanczosRun(normals(values, generator(seed, "lanczos"))[None]), lambda rows: rows * values)
    return quadrature(Diagonal(values), seed, plan=Plan(*plan), run=run, budget=budget)  # type: ignore[arg-type]


def plain(values: Tensor, seed: int, vectors: int, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of textbook quadrature: no outliers, and the Gauss rule."""
    run = LanczosRun(normals(values.new_empty(vectors, len(values)), generator(seed, "plain")))
    run.extend(lambda rows: rows * values, steps)
    rules = [gauss_rule(run.tridiagonal(steps, row)) for row in range(vectors)]
    return torch.cat([n for n, _ in rules]), torch.cat([w for _, w in rules]) * len(values) / vectors


def networklike(n: int = 600) -> Tensor:
    """Ten outliers, a tail, and a bulk about zero of both signs."""
    source = np.random.default_rng(0)
    bulk = source.standard_normal(n) ** 3 * 2e-3
    return torch.tensor(np.concatenate([10 / np.arange(1, 11), 0.3 * source.random(40) ** 3, bulk]))


def tridiagonal(steps: int) -> tuple[Tridiagonal, Tensor, Tensor]:
    """Of some steps, with eigenvalues and weights of the measure behind it."""
    values = torch.linspace(-1, 2, 30, dtype=torch.float64)
    start = normals(values, generator(0, "rule"))
    run = LanczosRun(start[None])
    run.extend(lambda rows: rows * values, steps)
    return run.tridiagonal(steps), values, (start / start.norm()).square()


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_rules_are_exact_for_polynomials_of_their_degree(steps: int) -> None:
    found, values, mass = tridiagonal(steps)
    rules = ((gauss_rule, 2 * steps - 1), (averaged_rule, 2 * steps if steps > 1 else 1), (radau_rule, 2 * steps))
    for rule, degree in (*rules, (mean_rule, 2 * steps - 1)):
        nodes, weights = rule(found)
        assert bool((weights >= 0).all()) and float(weights.sum()) == pytest.approx(1.0)
        for power in range(degree + 1):
            expected = float((mass * values**power).sum())
            assert float((weights * nodes**power).sum()) == pytest.approx(expected, abs=1e-9), (rule, power)
    nodes, _ = radau_rule(found)
    assert float(nodes.abs().min()) < 1e-9


def test_a_radau_node_that_would_lie_far_away_is_not_used() -> None:
    """T is singular: its Gauss rule has the node at zero."""
    found = Tridiagonal(torch.tensor([1.0, 1.0]).double(), torch.tensor([1.0, 0.5]).double(), False, 1e-16)
    for one, other in zip(radau_rule(found), gauss_rule(found), strict=True):
        assert torch.equal(one, other)


def test_whole_spaces_have_one_exact_rule() -> None:
    found, values, mass = tridiagonal(40)
    assert found.exhausted
    for rule in (gauss_rule, averaged_rule, radau_rule, mean_rule):
        nodes, weights = rule(found)
        assert float((weights * nodes.exp()).sum()) == pytest.approx(float((mass * values.exp()).sum()), rel=1e-10)


@pytest.mark.parametrize("make", [relu_mlp, tanh_mlp])
def test_hessians_of_networks(make: Callable[[], nn.Module]) -> None:
    network, data = Network(make()), examples()
    values = torch.tensor(np.linalg.eigvalsh(dense_hessian(network, data)))
    surface = Surface.of(network, data)
    plan = Plan(20, 8, 15)
    found = quadrature(surface, 0, plan=plan, run=SharedRun.of(surface, 0), budget=PLENTY)
    assert found is not None
    for outlier in found.outliers.tolist():
        assert float((values - outlier).abs().min()) < 1e-5
    nodes, weights = found.nodes()
    assert float(weights.sum()) == pytest.approx(len(values))
    trace = found.total(lambda eigenvalues: eigenvalues)
    assert trace.estimate == pytest.approx(float(nodes @ weights))
    assert abs(trace.estimate - float(values.sum())) < 4 * trace.standard_error
    for function in (effective_dimension(0.1), log_determinant(0.1)):
        total = found.total(function)
        assert total.interval[0] <= float(function(values).sum()) <= total.interval[1]
        assert 0 < total.standard_error < 0.2 * total.estimate


def test_done_once_for_each_plan_and_booked() -> None:
    network, data = Network(tanh_mlp()), examples()
    surface = Surface.of(network, data)

    def again(vectors: int) -> Quadrature:
        found = quadrature(surface, 0, plan=Plan(8, vectors, 6), run=SharedRun.of(surface, 0), budget=PLENTY)
        assert found is not None
        return found

    surface.self_check()
    checked = network.meter.matvecs
    first = again(2)
    assert network.meter.matvecs - checked == len(data) * (8 + 2 * 6)
    spent, reused = network.meter.matvecs, network.meter.reused
    assert again(2) is first and network.meter.matvecs == spent
    assert network.meter.reused - reused == pytest.approx(2 * len(data) * (8 + 2 * 6))
    assert again(3).outliers.tolist() == first.outliers.tolist()
    assert network.meter.matvecs - spent == 3 * 6 * len(data)


def test_everything_is_known_of_a_whole_space() -> None:
    """All eigenvalues are found, so that nothing is left to chance."""
    values = torch.tensor([3.0, 1.0, -0.5, 0.25], dtype=torch.float64)
    found = measured(values, 0, 10, 2, 5)
    assert found is not None and not found.rest
    total = found.total(log_determinant(0.5))
    assert total.estimate == pytest.approx(float(log_determinant(0.5)(values).sum()), rel=1e-10)
    assert total.standard_error == 0.0 and total.quadrature_error == 0.0


@pytest.mark.parametrize("values", [[0.0] * 9, [2.0], [1.5] * 9, [1.0] * 4 + [0.0] * 4])
def test_degenerate_spectra(values: list[float]) -> None:
    """No curvature at all, one parameter, repeated eigenvalues, of which Lanczos sees each once."""
    spectrum = torch.tensor(values, dtype=torch.float64)
    found = measured(spectrum, 0, 6, 3, 4)
    assert found is not None
    total = found.total(effective_dimension(1.0))
    truth = float(effective_dimension(1.0)(spectrum).sum())
    assert total.interval[0] - 1e-9 <= truth <= total.interval[1] + 1e-9
    if len(set(values)) == 1:
        assert total.estimate == pytest.approx(truth, abs=1e-12) and total.standard_error < 1e-12


def test_the_interval_covers_the_truth() -> None:
    """400 seeds and two functions on a spectrum that 14 steps integrate to rounding: Student's interval alone."""
    values = torch.cat([torch.tensor([30.0, 20.0, 12.0]), torch.linspace(0.5, 2, 60)]).double()
    covered, functions = [], (effective_dimension(1.0), log_determinant(1.0))
    for seed in range(400):
        found = measured(values, seed, 12, 4, 14)
        assert found is not None and len(found.outliers) >= 3
        for function in functions:
            total = found.total(function)
            assert total.quadrature_error < 1e-3 * total.standard_error + 1e-9 * total.estimate
            covered.append(total.interval[0] <= float(function(values).sum()) <= total.interval[1])
    assert 0.93 <= np.mean(covered) <= 0.97, np.mean(covered)


def test_between_vectors_nothing_shows_of_the_bias_that_the_half_steps_and_the_rules_show() -> None:
    """Few steps on a small α: Student's interval is off in most seeds; with the quadrature error it holds."""
    values, seeds = networklike(), 60
    function = effective_dimension(1e-3)
    truth, student, whole, told = float(function(values).sum()), 0, 0, []
    for seed in range(seeds):
        found = measured(values, seed, 8, 6, 6)
        assert found is not None
        total = found.total(function)
        half = (total.interval[1] - total.interval[0]) / 2 - total.quadrature_error
        student += abs(total.estimate - truth) <= half
        whole += abs(total.estimate - truth) <= half + total.quadrature_error
        told.append(total.quadrature_error / total.standard_error)
    assert student / seeds < 0.6 and whole / seeds >= 0.9, (student, whole)
    assert np.median(told) > 2


def test_a_third_of_the_products_stands_up_to_plain_quadrature() -> None:
    """88 against 300, RMS over ten seeds: distance to the true spectrum, log-determinant, effective dimension.

    Two are several times better; the third is about eigenvalues too small to be outliers, where vectors count.
    """
    values = networklike(2000)
    alpha = float(values.max()) / 100
    functions = (log_determinant(alpha), effective_dimension(alpha))

    def errors(nodes: Tensor, weights: Tensor) -> list[float]:
        off = [float((weights * f(nodes)).sum() / f(values).sum()) - 1 for f in functions]
        return [wasserstein_distance(nodes.numpy(), values.numpy(), weights.numpy(), np.ones(len(values))), *off]

    def ours(seed: int) -> list[float]:
        found = measured(values, seed, 24, 4, 16)
        assert found is not None
        return errors(*found.nodes())

    one, other = (
        np.sqrt(np.mean(np.square(runs), axis=0))
        for runs in ([ours(seed) for seed in range(10)], [errors(*plain(values, seed, 10, 30)) for seed in range(10)])
    )
    assert bool((one < np.array([0.3, 0.6, 1.7]) * other).all()), (one, other)


def test_the_density_integrates_to_one_and_has_the_first_moment() -> None:
    nodes, weights = torch.tensor([-1.0, 0.0, 4.0]).double(), torch.tensor([1.0, 7.0, 2.0]).double()
    grid, values = density(nodes, weights, points=300, width=0.01)
    step = float(grid[1] - grid[0])
    assert float(values.sum()) * step == pytest.approx(1.0, abs=1e-4)
    assert float(values @ grid) * step == pytest.approx(0.7, abs=1e-3)
    near = (grid - 4).abs() < 0.2
    assert float(values[near].sum()) * step == pytest.approx(0.2, abs=1e-3)
    grid, values = density(nodes[:1], weights[:1], points=50, width=0.01)
    assert float(values.sum()) * float(grid[1] - grid[0]) == pytest.approx(1.0, abs=1e-4)


def test_a_budget_without_room_is_said() -> None:
    surface = Surface.of(Network(tanh_mlp()), examples())
    plan = Plan(8, 3, 6)
    assert plan.products == 26
    run = SharedRun.of(surface, 0)
    assert plan.refusal(surface, run, Budget(passes=52)) is None
    passes, memory = (plan.refusal(surface, run, Budget(**low)) for low in ({"passes": 51}, {"memory_bytes": 1000}))
    assert passes is not None and "52 passes needed" in passes[0]
    assert memory is not None and "memory_bytes" in memory[0]
    run.to(8)
    assert plan.refusal(surface, SharedRun.of(surface, 0), Budget(passes=36)) is None
    assert quadrature(surface, 0, plan=plan, run=SharedRun.of(surface, 0), budget=Budget(seconds=1e-9)) is None


def test_less_memory_means_fewer_vectors_at_a_time_and_the_same_numbers() -> None:
    values, plan = networklike(), Plan(8, 4, 6)
    like = torch.zeros_like(values)
    tight = 2 * (basis_bytes(like, 8) + 8 * len(like) * 8 + basis_bytes(like, 6))
    assert plan.together(like, tight / 2) == 1 and plan.together(like, tight / 2 - 1) == 0
    one = measured(values, 0, 8, 4, 6)
    other = measured(values, 0, 8, 4, 6, budget=PLENTY.model_copy(update={"memory_bytes": tight}))
    assert one is not None and other is not None
    totals = [found.total(log_determinant(0.1)) for found in (one, other)]
    assert math.isclose(totals[0].estimate, totals[1].estimate, rel_tol=1e-9)
