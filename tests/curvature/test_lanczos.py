"""Krylov spaces against explicit ones, and what resuming, sharing and locking leave unchanged."""

import pytest
import torch
from networks import DEVICES, Network, dense_hessian, examples, relu_mlp, tanh_mlp
from torch import Tensor

from flataudit.contracts import Meter
from flataudit.curvature import hessian as hessian_module
from flataudit.curvature.hessian import Hessian
from flataudit.curvature.lanczos import LanczosRun, Products, SharedRun, basis_bytes, steps_within
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface
from flataudit.errors import ModelError


def symmetric(n: int, seed: int = 0) -> Tensor:
    drawn = normals(torch.empty(n, n, dtype=torch.float64), generator(seed, "matrix"))
    return (drawn + drawn.T) / 2


def by(matrix: Tensor) -> Products:
    return lambda rows: rows @ matrix


def starts(count: int, n: int, seed: int = 0) -> Tensor:
    return normals(torch.empty(count, n, dtype=torch.float64), generator(seed, "starts"))


def krylov_projection(matrix: Tensor, start: Tensor, steps: int) -> Tensor:
    """Eigenvalues of A projected on span{v, Av, …}, by a QR of the power basis: only for a few steps."""
    powers = [start]
    for _ in range(steps - 1):
        powers.append(matrix @ powers[-1])
    basis, _ = torch.linalg.qr(torch.stack(powers, dim=1))
    return torch.linalg.eigvalsh(basis.T @ matrix @ basis)


def test_ritz_values_and_residuals_are_those_of_the_projection() -> None:
    matrix, first = symmetric(30), starts(1, 30)
    run = LanczosRun(first)
    run.extend(by(matrix), 6)
    found = run.tridiagonal(6)
    values, vectors = found.ritz
    assert values.tolist() == pytest.approx(krylov_projection(matrix, first[0], 6).tolist(), abs=1e-9)
    ritz_vectors = run.combined(vectors)
    assert torch.allclose(ritz_vectors @ ritz_vectors.T, torch.eye(6, dtype=torch.float64), atol=1e-12)
    residuals = (ritz_vectors @ matrix - values[:, None] * ritz_vectors).norm(dim=1)
    assert found.residuals.tolist() == pytest.approx(residuals.tolist(), abs=1e-10)


def test_the_basis_stays_orthogonal_where_eigenvalues_have_converged() -> None:
    """Without reorthogonalisation copies of 1000 would appear after some ten steps."""
    values = torch.cat([torch.tensor([1000.0, 500.0]), torch.linspace(0, 1, 200)]).double()
    run = LanczosRun(starts(1, len(values)))
    run.extend(lambda rows: rows * values, 60)
    ritz, _ = run.tridiagonal(60).ritz
    assert int((ritz > 400).sum()) == 2
    basis = run.combined(torch.eye(60, dtype=torch.float64))
    assert float((basis @ basis.T - torch.eye(60)).abs().max()) < 1e-12


def test_a_run_goes_on_where_it_stopped() -> None:
    matrix = symmetric(40)
    whole, resumed = LanczosRun(starts(1, 40)), LanczosRun(starts(1, 40))
    whole.extend(by(matrix), 20)
    for steps in (1, 3, 9, 20, 20):
        resumed.extend(by(matrix), steps)
    for steps in (2, 9, 20):
        one, other = whole.tridiagonal(steps), resumed.tridiagonal(steps)
        assert torch.equal(one.diagonal, other.diagonal) and torch.equal(one.off_diagonal, other.off_diagonal)
    assert torch.equal(whole.tridiagonal(20).cut(7).off_diagonal, whole.tridiagonal(7).off_diagonal)


def test_runs_that_advance_together_are_those_that_advance_alone() -> None:
    matrix, several = symmetric(40), starts(3, 40)
    together = LanczosRun(several)
    together.extend(by(matrix), 12)
    for row in range(3):
        alone = LanczosRun(several[row][None])
        alone.extend(by(matrix), 12)
        assert torch.allclose(together.tridiagonal(12, row).diagonal, alone.tridiagonal(12).diagonal, atol=1e-10)


def test_a_row_that_is_exhausted_rests_and_the_others_go_on() -> None:
    """The first start lies in an invariant plane."""
    values = torch.linspace(1, 2, 20, dtype=torch.float64)
    first = torch.zeros(20, dtype=torch.float64)
    first[[3, 11]] = 1.0
    counted: list[int] = []

    def products(rows: Tensor) -> Tensor:
        counted.append(len(rows))
        return rows * values

    run = LanczosRun(torch.stack([first, starts(1, 20)[0]]))
    run.extend(products, 6)
    assert counted == [2, 2, 1, 1, 1, 1]
    short, long = run.tridiagonal(6, 0), run.tridiagonal(6, 1)
    assert short.exhausted and len(short) == 2 and not long.exhausted and len(long) == 6
    assert short.ritz[0].tolist() == pytest.approx(values[[3, 11]].tolist(), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_parameters_are_exhausted_and_exact(n: int) -> None:
    matrix, run = symmetric(n), LanczosRun(starts(1, n))
    run.extend(by(matrix), 10)
    found = run.tridiagonal(10)
    assert found.exhausted and len(found) == n == run.steps
    assert found.ritz[0].tolist() == pytest.approx(torch.linalg.eigvalsh(matrix).tolist(), abs=1e-9)


def test_nothing_but_zeros() -> None:
    run = LanczosRun(starts(2, 7))
    run.extend(torch.zeros_like, 5)
    assert run.steps == 1 and run.tridiagonal(5).exhausted
    assert run.tridiagonal(5).ritz[0].tolist() == [0.0] and run.tridiagonal(5).residuals.tolist() == [0.0]


def test_locked_directions_are_projected_away() -> None:
    matrix = symmetric(25)
    values, vectors = torch.linalg.eigh(matrix)
    run = LanczosRun(starts(2, 25), locked=vectors[:, [0, 24]].T)
    run.extend(by(matrix), 30)
    for row in range(2):
        found = run.tridiagonal(30, row)
        assert found.exhausted and len(found) == 23
        assert found.ritz[0].tolist() == pytest.approx(values[1:24].tolist(), abs=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_residuals_of_float32_do_not_fall_below_its_rounding(device: str) -> None:
    values = torch.linspace(0, 1, 50, device=device)
    values[-1] = 100
    run = LanczosRun(normals(values, generator(0, "starts"))[None])
    run.extend(lambda rows: rows * values, 12)
    found = run.tridiagonal(12)
    assert 1e-6 < found.rounding < 1e-3 and float(found.residuals.min()) == pytest.approx(found.rounding)
    assert abs(float(found.ritz[0][-1]) - 100) <= found.rounding


def test_who_comes_second_sees_the_first_steps_and_books_what_was_ready() -> None:
    matrix, meter = symmetric(30), Meter()
    run = LanczosRun(starts(1, 30))
    first = SharedRun(run, by(matrix), meter=meter, step_price=10.0)
    early = first.to(4)
    first.to(9)
    assert meter.reused == 0
    second = SharedRun(run, by(matrix), meter=meter, step_price=10.0)
    for steps in (1, 2, 4):
        again = second.to(steps)
    assert torch.equal(again.diagonal, early.diagonal) and meter.reused == 40.0
    second.to(12)
    assert meter.reused == 90.0 and run.steps == 12
    second.to(4)
    assert meter.reused == 90.0


def test_all_probes_of_a_surface_share_the_run_of_a_seed() -> None:
    network, data = Network(tanh_mlp()), examples()
    surface = Surface.of(network, data)
    SharedRun.of(surface, 3).to(5)
    spent = network.meter.matvecs
    again = SharedRun.of(surface, 3)
    again.to(5)
    assert network.meter.matvecs == spent and network.meter.reused == 5 * 2 * len(data)
    assert SharedRun.of(surface, 4).ready == SharedRun.of(surface, 3, along_gradient=True).ready == 0


def test_a_run_along_the_gradient_starts_halfway_to_it() -> None:
    network, data = Network(tanh_mlp()), examples()
    surface = Surface.of(network, data)
    uniform = SharedRun.of(surface, 3).run.combined(torch.ones(1, 1))[0]
    slope = Surface(network, data).gradient(surface.origin)[1]
    expected = uniform + slope / slope.norm()
    run = SharedRun.of(surface, 3, along_gradient=True)
    assert torch.allclose(run.run.combined(torch.ones(1, 1))[0], expected / expected.norm(), atol=1e-12)
    assert run.to(2).stretch == run.to(2).cut(1).stretch == pytest.approx(float(expected.norm()))
    assert SharedRun.of(surface, 3).to(2).stretch == 1.0


def test_the_gradient_comes_with_kept_graphs_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data, found = examples(), []
    for free in (2**30, 1):
        monkeypatch.setattr(hessian_module, "free_bytes", lambda _, free=free: free)
        network = Network(tanh_mlp())
        surface = Surface.of(network, data)
        surface.self_check()
        before = network.meter.forward, network.meter.backward
        found.append(Hessian(surface).slope())
        assert network.meter.forward - before[0] == network.meter.backward - before[1] == len(data)
        assert surface.slope_here()[1] is found[-1]
    assert torch.allclose(*found, atol=1e-12)


@pytest.mark.parametrize("batch", [64, 17])
def test_kept_graphs_give_the_products_of_the_surface(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = Network(relu_mlp()), examples()
    network.batch_size = batch
    surface = Surface.of(network, data)
    rows = normals(torch.empty(3, surface.origin.numel(), dtype=torch.float64), generator(0, "test"))
    kept = Hessian(surface)
    expected = rows @ torch.tensor(dense_hessian(network, data))
    surface.self_check()
    before = network.meter.matvecs, network.meter.forward
    for _ in range(2):
        assert torch.allclose(kept(rows), expected, atol=1e-10)
    assert network.meter.matvecs - before[0] == 2 * 3 * len(data)
    assert network.meter.forward - before[1] == len(data)  # of the gradient, which comes with them
    monkeypatch.setattr(hessian_module, "free_bytes", lambda _: 1)
    assert torch.allclose(Hessian(surface)(rows), expected, atol=1e-10)


def test_products_that_are_not_finite_are_refused() -> None:
    surface = Surface.of(Network(relu_mlp()), examples())
    kept = Hessian(surface)
    with pytest.raises(ModelError, match="finite Hessian-vector product"):
        kept(torch.full((1, surface.origin.numel()), 1e308, dtype=torch.float64))


def test_the_memory_of_a_basis() -> None:
    like = torch.zeros(1000, dtype=torch.float64)
    for steps in (1, 7, 8, 40):
        run = LanczosRun(starts(1, 1000))
        run.extend(lambda rows: rows * torch.arange(1000), steps)
        held = sum(block.untyped_storage().nbytes() for block in run._blocks)
        assert held == basis_bytes(like, steps)
        assert steps <= steps_within(held, like) and steps_within(held - 1, like) < steps


def test_a_short_run_finds_the_ends_that_one_with_a_basis_finds() -> None:
    values = torch.cat([torch.tensor([9.0, 5.0, -4.0]), torch.linspace(0, 1, 2000)]).double()
    found = []
    for short in (False, True):
        run = LanczosRun(starts(1, len(values)), short=short)
        run.extend(lambda rows: rows * values, 60)  # twice as many as it takes: orthogonality is long lost
        ritz, _ = run.tridiagonal(60).ritz
        found.append((float(ritz[0]), float(ritz[-1])))
        held = sum(block.untyped_storage().nbytes() for block in run._blocks)
        assert (held <= 2 * 8 * len(values)) == short
    assert found[0] == pytest.approx((-4.0, 9.0), abs=1e-12)
    assert found[1] == pytest.approx(found[0], abs=1e-12)


def test_a_short_run_has_no_basis_to_combine() -> None:
    with pytest.raises(ValueError, match="a run that keeps its basis"):
        LanczosRun(starts(1, 30), short=True).combined(torch.ones(1, 1))


def test_a_short_run_gives_way_to_one_with_a_basis() -> None:
    surface = Surface.of(Network(tanh_mlp()), examples())
    SharedRun.of(surface, 3, short=True).to(4)
    assert SharedRun.of(surface, 3, short=True).ready == 4
    assert SharedRun.of(surface, 3).ready == 0  # what wants a basis finds none
    SharedRun.of(surface, 3).to(5)
    assert SharedRun.of(surface, 3, short=True).ready == 5
