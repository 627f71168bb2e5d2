"""The ends of the spectrum against dense Hessians and chosen spectra, and whether their reach keeps its word."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Network, dense_hessian, examples, relu_mlp, softmax_regression, tanh_mlp
from torch import Tensor, nn

from flataudit.curvature.extremes import Extremes, _within, extreme_eigenvalues, extremes, reach
from flataudit.curvature.lanczos import LanczosRun, SharedRun, Tridiagonal
from flataudit.curvature.randomness import generator, normals
from flataudit.curvature.surface import Surface


def of(values: Tensor, seed: int = 0) -> SharedRun:
    """A run on a diagonal operator."""
    return SharedRun(LanczosRun(normals(values, generator(seed, "test"))[None]), lambda rows: rows * values)


def found(values: Tensor, seed: int = 0, **wanted: float) -> Extremes:
    given = {"relative_error": 0.01, "smallest_error": 0.01, "max_steps": 100, **wanted}
    return extreme_eigenvalues(of(values, seed), **given)  # type: ignore[arg-type]


def doubles(*parts: Tensor | list[float]) -> Tensor:
    return torch.cat([torch.as_tensor(part, dtype=torch.float64) for part in parts])


SPECTRA = {
    "uniform": torch.linspace(-1, 2, 200),
    "two signs": doubles([-99, 98], torch.linspace(-1, 1, 100)),
    "mirrored": doubles([-5, 5], torch.linspace(-3, 3, 101)),
    "clustered": doubles([10, 9.999, 9.99], torch.linspace(0, 1, 150)),
    "repeated": doubles([4, 4, 4, -2, -2], torch.zeros(60)),
    "outliers": doubles([50, 20, 10, 5], 0.1 * torch.linspace(-1, 1, 300)),
    "negative": doubles([-30, -8], torch.linspace(-1, -0.5, 80)),
    "one": doubles([3.0], torch.zeros(80)),
}


@pytest.mark.parametrize("make", [softmax_regression, relu_mlp, tanh_mlp])
def test_both_ends_agree_with_the_dense_hessian(make: Callable[[], nn.Module]) -> None:
    network, data = Network(make()), examples()
    network.batch_size = 17
    values = np.linalg.eigvalsh(dense_hessian(network, data))
    run = SharedRun.of(Surface.of(network, data), 0)
    ends = extreme_eigenvalues(run, relative_error=1e-6, smallest_error=1e-6, max_steps=60)
    size = np.abs(values).max()
    assert ends.largest.converged and ends.smallest.converged
    assert ends.largest.value == pytest.approx(values[-1], abs=1e-6 * size)
    assert ends.smallest.value == pytest.approx(values[0], abs=1e-6 * size)


@pytest.mark.parametrize("kind", SPECTRA)
def test_each_end_is_the_extreme_one_and_not_the_largest_in_magnitude(kind: str) -> None:
    values = SPECTRA[kind].double()
    high, low = float(values.max()), float(values.min())
    size, missed = max(abs(high), abs(low)), 0
    for seed in range(20):
        ends = found(values, seed)
        assert ends.largest.converged and ends.smallest.converged
        assert ends.largest.value <= high + 1e-9 and ends.smallest.value >= low - 1e-9
        missed += ends.largest.value < high - 0.01 * abs(ends.largest.value) - 1e-9
        missed += ends.smallest.value > low + 0.01 * size + 1e-9
    assert missed <= 4  # one of 40 on average, by the proof


def test_a_hidden_eigenvalue_is_not_passed_over() -> None:
    """The start hardly has any part in the top eigenvector: a residual would settle for the second."""
    values = doubles([2.0, 1.0], torch.linspace(0, 0.02, 400))
    start = normals(values, generator(0, "test"))
    start[:2] = torch.tensor([0.05, 3.0])  # as little in one start out of 25
    run = SharedRun(LanczosRun(start[None]), lambda rows: rows * values)
    naive = next(one for one in map(run.to, range(1, 9)) if float(one.residuals[-1]) <= 0.1 * float(one.ritz[0][-1]))
    assert float(naive.ritz[0][-1]) < 1.1
    ends = extreme_eigenvalues(run, relative_error=0.1, smallest_error=0.1, max_steps=60)
    assert ends.largest.value == pytest.approx(2.0, rel=0.1) and ends.largest.converged


@pytest.mark.parametrize(("kind", "least"), [("uniform", 0.0), ("outliers", 0.1), ("one", 0.3)])
def test_the_reach_holds_at_every_step_at_once(kind: str, least: float) -> None:
    """400 seeds: whatever the step at which one looks, or stops, both ends are within reach in 95 % or more.

    The proof gives away little where there are outliers: a reach of half the certainty fails in up to a half.
    """
    values, seeds = SPECTRA[kind].double(), 400
    high, low = float(values.max()) - 1e-9, float(values.min()) + 1e-9
    failed, at_half = 0, 0
    for seed in range(seeds):
        run = of(values, seed)
        known = [run.to(steps) for steps in range(1, 8)]
        told = [extremes(one, len(values), relative_error=0.01, smallest_error=0.01) for one in known]
        failed += any(ends.largest.reach < high or ends.smallest.reach > low for ends in told)
        at_half += any(reach(one, len(values), failure=0.5) < high for one in known)
    assert failed / seeds <= 0.05
    assert least <= at_half / seeds <= 0.5 + 3 * (0.25 / seeds) ** 0.5


@pytest.mark.parametrize("kind", ["uniform", "outliers", "one"])
@pytest.mark.parametrize("along", ["second", "top"])
def test_the_reach_holds_whatever_the_uniform_direction_is_added_to(kind: str, along: str) -> None:
    """400 seeds, at every step at once; the hardest is a direction without any part in the extreme eigenvector."""
    values, seeds, failed = SPECTRA[kind].double(), 400, 0
    added = torch.zeros(len(values), dtype=torch.float64)
    added[values.argsort()[-2 if along == "second" else -1]] = 1.0
    for seed in range(seeds):
        run = beside(values, seed, added)
        failed += any(short_of(float(values.max()), run.to(steps), len(values)) for steps in range(1, 6))
    assert failed / seeds <= 0.025 + 3 * (0.025 * 0.975 / seeds) ** 0.5


def beside(values: Tensor, seed: int, added: Tensor) -> SharedRun:
    """A run from a uniform direction and a fixed vector together."""
    drawn = normals(values, generator(seed, "test"))
    start = drawn / drawn.norm() + added
    return SharedRun(LanczosRun(start[None], stretch=float(start.norm())), lambda rows: rows * values)


def short_of(truth: float, found: Tridiagonal, dimension: int) -> bool:
    """Whether the reach ends before the truth, without looking for where it ends."""
    return not found.exhausted and _within(found, dimension, truth - 1e-9 - float(found.ritz[0][-1]))


def test_a_stretch_that_is_kept_silent_voids_the_reach() -> None:
    values, failed = SPECTRA["one"].double(), 0
    added = torch.zeros(len(values), dtype=torch.float64)
    added[1] = 20.0
    for seed in range(100):
        found = beside(values, seed, added).to(1)
        failed += short_of(3.0, replace(found, stretch=1.0), len(values))
        assert reach(found, len(values)) < reach(replace(found, stretch=40.0), len(values))
    assert failed > 20


def test_only_the_ends_that_are_asked_for_are_waited_for() -> None:
    values = SPECTRA["outliers"]
    run = of(values)
    one = extreme_eigenvalues(run, relative_error=0.01, smallest_error=1e-4, max_steps=80, ends=("largest",))
    both = extreme_eigenvalues(of(values), relative_error=0.01, smallest_error=1e-4, max_steps=80)
    assert one.steps < 12 < both.steps and one.largest.converged and not one.smallest.converged
    assert both.smallest.converged


def test_a_longer_run_changes_nothing() -> None:
    values = SPECTRA["uniform"].double()
    run = LanczosRun(normals(values, generator(0, "test"))[None])
    alone = extreme_eigenvalues(of(values), relative_error=0.05, smallest_error=0.05, max_steps=80)
    run.extend(lambda rows: rows * values, 60)
    shared = SharedRun(run, lambda rows: rows * values)
    assert extreme_eigenvalues(shared, relative_error=0.05, smallest_error=0.05, max_steps=80) == alone


def test_too_few_steps_have_not_converged_and_still_have_a_reach() -> None:
    ends = found(torch.linspace(0, 1, 500, dtype=torch.float64), max_steps=3)
    assert ends.steps == 3 and not ends.largest.converged and not ends.smallest.converged
    assert ends.largest.value < 1 < ends.largest.reach and ends.smallest.reach < 0 < ends.smallest.value


def test_time_that_is_up_ends_the_run() -> None:
    assert found(torch.linspace(0, 1, 500, dtype=torch.float64), seconds=0.0).steps == 1


@pytest.mark.parametrize("values", [[5.0], [-1.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0]])
def test_whole_spaces_are_exact(values: list[float]) -> None:
    ends = found(doubles(values))
    assert ends.exhausted and ends.largest.converged and ends.smallest.converged
    assert ends.largest.value == pytest.approx(max(values), abs=1e-12)
    assert ends.smallest.value == pytest.approx(min(values), abs=1e-12)
    assert ends.largest.reach - ends.largest.value <= 1e-12


def test_float32_reaches_at_least_its_rounding() -> None:
    values = doubles([100.0], torch.linspace(0, 1, 300)).float()
    ends = found(values, relative_error=1e-12, smallest_error=1e-12)
    assert ends.largest.converged and 1e-6 < ends.largest.reach - ends.largest.value < 1e-2


def test_a_residual_is_expected_to_be_enough_and_its_interval_stays_honest() -> None:
    """The weaker stop is right within what was asked on networks' spectra, and takes fewer steps."""
    values = SPECTRA["outliers"].double()
    for seed in range(100):
        sure, likely = (found(values, seed, proof=proof) for proof in ("interval", "residual"))
        assert likely.steps <= sure.steps
        assert likely.largest.value == pytest.approx(50, rel=0.02) and likely.largest.converged
        assert likely.largest.reach == pytest.approx(reach(of(values, seed).to(likely.steps), len(values)))
