"""The probe of the whole spectrum: sums, errors, arrays, outcomes, and what it shares with the spectrum's ends."""

from collections.abc import Callable

import networks
import numpy as np
import pytest
from pydantic import ValidationError
from torch import nn

from flataudit.contracts import Reading
from flataudit.evidence import Outcome
from flataudit.probes.spectral_density import SpectralDensity
from flataudit.probes.spectrum import Spectrum
from flataudit.specs import Budget

SMALL = SpectralDensity(outlier_steps=15, vectors=6, steps=10)


def measured(probe: SpectralDensity, network: object, seed: int = 0, **budget: float) -> list[Reading]:
    return list(probe.measure(network, networks.examples(), seed, Budget(**budget)))  # type: ignore[arg-type]


def sums(values: np.ndarray, alpha: float) -> tuple[float, float]:
    positive = np.maximum(values, 0)
    return float((positive / (positive + alpha)).sum()), float(np.log1p(positive / alpha).sum())


@pytest.mark.parametrize("make", [networks.softmax_regression, networks.relu_mlp, networks.tanh_mlp])
def test_sums_over_the_positive_eigenvalues(make: Callable[[], nn.Module]) -> None:
    network = networks.Network(make())
    values = np.linalg.eigvalsh(networks.dense_hessian(network, networks.examples()))
    held = 0
    for seed in range(5):
        for reading, truth in zip(measured(SMALL, network, seed), sums(values, 0.1), strict=True):
            one = reading.measurement
            assert one.outcome is Outcome.MEASURED and one.n == 100 and one.bound == "estimate"
            assert one.standard_error > 0 and one.estimate == pytest.approx(truth, rel=0.5)
            assert one.details["quadrature_error"] >= abs(one.details["half_steps_change"])
            assert one.details["gradient_norm"] > 0 and one.details["alpha"] == 0.1
            held += one.interval[0] <= truth <= one.interval[1]
    assert held >= 8  # of 10


def test_the_arrays_are_a_density_and_the_measure_behind_it() -> None:
    network = networks.Network(networks.relu_mlp())
    values = np.linalg.eigvalsh(networks.dense_hessian(network, networks.examples()))
    arrays = {name: np.asarray(array.view()) for name, array in measured(SMALL, network)[0].arrays.items()}
    assert set(arrays) == {f"spectrum/{name}" for name in ("grid", "density", "nodes", "weights")}
    grid, density, nodes, weights = (arrays[f"spectrum/{name}"] for name in ("grid", "density", "nodes", "weights"))
    assert grid.shape == density.shape == (1000,) and bool((density >= 0).all())
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1.0, abs=1e-3)
    assert weights.sum() == pytest.approx(len(values)) and nodes.shape == weights.shape
    assert nodes.max() == pytest.approx(values[-1], rel=1e-6)


def test_negative_eigenvalues_are_a_share_of_the_density() -> None:
    network = networks.Network(networks.tanh_mlp())
    values = np.linalg.eigvalsh(networks.dense_hessian(network, networks.examples()))
    probe = SpectralDensity(outlier_steps=30, vectors=8, steps=20)
    found = measured(probe, network, passes=400)[0].measurement
    truth = float((values < -1e-3 * values[-1]).mean())
    assert found.details["negative_share"] == pytest.approx(truth, abs=0.15) and truth > 0.3
    assert "bends down" in str(found.details["negative_curvature"])


def test_a_quadrature_that_is_too_coarse_has_not_converged() -> None:
    network = networks.Network(networks.tanh_mlp())
    probe = SpectralDensity(alpha=1e-5, outlier_steps=4, vectors=2, steps=3)
    for reading in measured(probe, network):
        one = reading.measurement
        assert one.outcome is Outcome.NOT_CONVERGED and one.estimate is None
        assert "quadrature" in str(one.reason) and one.advice == "raise steps, or alpha"
        assert one.details["best"] > 0 and one.details["quadrature_error"] > 0.25 * one.details["best"]
    lenient = measured(probe.model_copy(update={"max_change": 10.0}), network)
    assert all(reading.measurement.outcome is Outcome.MEASURED for reading in lenient)


def test_budgets_without_room() -> None:
    network = networks.Network(networks.tanh_mlp())
    for budget, advice in (
        ({"passes": 100.0}, "raise budget.passes"),
        ({"memory_bytes": 1000}, "raise budget.memory_bytes"),
        ({"seconds": 1e-9}, "raise budget.seconds"),
    ):
        for reading in measured(SMALL, network, **budget):
            one = reading.measurement
            assert one.outcome is Outcome.OVER_BUDGET and str(one.advice).startswith(advice)


def test_it_goes_on_where_the_spectrum_stopped() -> None:
    data, numbers, matvecs = networks.examples(), [], []
    for first in (False, True):
        network = networks.Network(networks.tanh_mlp())
        if first:
            ends = Spectrum().measure(network, data, 0, Budget())
        spent = network.meter.matvecs
        numbers.append([reading.measurement for reading in measured(SMALL, network)])
        matvecs.append(network.meter.matvecs - spent)
    steps = ends[0].measurement.details["steps"]
    assert numbers[0] == numbers[1]
    assert matvecs[0] - matvecs[1] >= steps * len(data) and network.meter.reused >= 2 * steps * len(data)


def test_another_alpha_costs_nothing_more() -> None:
    network = networks.Network(networks.tanh_mlp())
    measured(SMALL, network)
    spent = network.meter.matvecs
    again = measured(SMALL.model_copy(update={"alpha": 0.5}), network)[0].measurement
    assert network.meter.matvecs == spent and again.details["alpha"] == 0.5


def test_a_subset_of_the_parameters() -> None:
    network = networks.Network(networks.relu_mlp())
    hessian = networks.dense_hessian(network, networks.examples())[-27:, -27:]
    truth = sums(np.linalg.eigvalsh(hessian), 0.1)
    probe = SpectralDensity(outlier_steps=40, vectors=2, steps=4, parameters=("last:1",))
    for reading, expected in zip(measured(probe, network), truth, strict=True):
        assert reading.measurement.estimate == pytest.approx(expected, rel=1e-8)


def test_parameters_are_checked() -> None:
    for wrong in ({"alpha": 0}, {"vectors": 1}, {"steps": 1}, {"width": 0}, {"points": 0}):
        with pytest.raises(ValidationError):
            SpectralDensity.model_validate(wrong)
