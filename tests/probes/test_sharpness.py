"""The sharpness probe: closed forms, several radii, and every way in which a number is missing."""

import networks
import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from flataudit.curvature.scales import scale_of
from flataudit.curvature.surface import Surface
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.sharpness import Sharpness
from flataudit.specs import Budget
from flataudit.testing import check_probe

KINDS = {"sharpness_l2": "unit", "sharpness_adaptive": "element", "sharpness_filter": "filter"}
PLENTY = Budget(passes=1e5)


def measured(probe: Sharpness, network: object, data: object, budget: Budget = PLENTY) -> dict[str, Measurement]:
    return {r.measurement.metric: r.measurement for r in probe.measure(network, data, 0, budget)}


def linear() -> tuple[object, object, np.ndarray, np.ndarray]:
    """A linear regression, its Hessian and its gradient."""
    network, data = (
        networks.Network(networks.seeded(nn.Linear(4, 1)), "regression"),
        networks.examples(60, regression=True),
    )
    gradient = Surface(network, data).slope_here()[1].numpy()
    return network, data, networks.dense_hessian(network, data), gradient


def trust_region_maximum(hessian: np.ndarray, gradient: np.ndarray, rho: float) -> float:
    values, vectors = np.linalg.eigh(hessian)
    turned = vectors.T @ gradient
    multiplier = brentq(
        lambda m: float(np.linalg.norm(turned / (m - values)) - rho), values[-1] + 1e-9, values[-1] + 1e6
    )
    step = turned / (multiplier - values)
    return float(turned @ step + step @ (values * step) / 2)


def test_on_a_quadratic_every_number_is_its_closed_form() -> None:
    network, data, hessian, gradient = linear()
    radii, sigmas = (0.3, 0.1, 1.0), (0.2, 0.05)
    probe = Sharpness(
        rho=radii,
        rho_adaptive=radii,
        rho_filter=radii,
        sigma=sigmas,
        sigma_isotropic=sigmas,
        relative_error=1e-3,
        steps=100,
        draws=50,
    )
    readings = {r.measurement.metric: r for r in probe.measure(network, data, 0, PLENTY)}
    surface = Surface(network, data)
    for name, kind in KINDS.items():
        scale, reading = scale_of(surface, kind).numpy(), readings[name]
        truths = [trust_region_maximum(hessian * np.outer(scale, scale), gradient * scale, rho) for rho in radii]
        rises = np.asarray(reading.arrays[f"{name}/rises"].view())
        assert np.all(rises <= np.array(truths) * (1 + 1e-12)) and rises == pytest.approx(truths, rel=1e-3)
        assert reading.measurement.estimate == rises[0] and reading.measurement.details["rise@0.1"] == rises[1]
        assert np.asarray(reading.arrays[f"{name}/radii"].view()).tolist() == list(radii)
        assert reading.measurement.bound == "lower" and reading.measurement.details["converged"] == "True"
    for name, kind in (("sharpness_average", "element"), ("sharpness_average_isotropic", "unit")):
        scale, found = scale_of(surface, kind).numpy(), readings[name].measurement
        truth = sigmas[0] ** 2 * float(scale**2 @ np.diag(hessian)) / 2
        assert abs(found.estimate - truth) < 4 * found.standard_error < 0.3 * truth
        # The same noise at both sizes: on a quadratic the rises differ by the square of the ratio alone.
        assert found.details["rise@0.05"] == pytest.approx(found.estimate / 16, rel=1e-8)


def test_rises_never_fall_with_the_radius_and_more_radii_never_worsen_a_bound() -> None:
    network, data = networks.Network(networks.relu_mlp()), networks.examples()
    radii = (0.5, 0.1, 0.05, 2.0, 1.0)
    alone = measured(Sharpness(rho_adaptive=radii[0]), network, data)["sharpness_adaptive"].estimate
    reading = Sharpness(rho_adaptive=radii).measure(network, data, 0, PLENTY)[1]
    rises = dict(zip(radii, np.asarray(reading.arrays["sharpness_adaptive/rises"].view()).tolist(), strict=True))
    assert reading.measurement.estimate >= alone
    assert sorted(rises.values()) == [rises[radius] for radius in sorted(radii)]


def test_a_continued_radius_takes_fewer_gradients_than_one_from_scratch() -> None:
    network, data = networks.Network(networks.tanh_mlp()), networks.examples()
    scratch = sum(
        measured(Sharpness(rho=rho), network, data)["sharpness_l2"].details["gradients"] for rho in (0.2, 0.25, 0.3)
    )
    continued = measured(Sharpness(rho=(0.2, 0.25, 0.3)), network, data)["sharpness_l2"].details["gradients"]
    assert continued < 0.7 * scratch


@pytest.mark.parametrize("make", ["relu_mlp", "tanh_mlp"])
def test_a_radius_each_of_l2_and_adaptive_costs_at_most_twenty_passes(make: str) -> None:
    network, data = networks.Network(getattr(networks, make)()), networks.examples()
    found = measured(Sharpness(), network, data)
    assert 1 + sum(found[name].details["gradients"] for name in ("sharpness_l2", "sharpness_adaptive")) <= 20
    assert network.meter.cost(type(network.meter)(), len(data)).passes <= 40


def test_a_budget_that_ends_part_way_keeps_what_was_measured() -> None:
    network, data = networks.Network(networks.relu_mlp()), networks.examples()
    found = measured(Sharpness(), network, data, Budget(passes=7))
    assert found["sharpness_l2"].outcome is Outcome.MEASURED
    assert found["sharpness_average"].outcome is Outcome.OVER_BUDGET and found["sharpness_average"].advice
    assert network.meter.cost(type(network.meter)(), len(data)).passes <= 7
    found = measured(Sharpness(rho=(0.05, 0.1, 0.2)), network, data, Budget(passes=5))
    details = found["sharpness_l2"].details
    assert details["missing@0.2"] == "the budget ended"
    none = measured(Sharpness(), networks.Network(networks.relu_mlp()), data, Budget(passes=1.5))
    assert {m.outcome for m in none.values()} == {Outcome.OVER_BUDGET}


def test_an_ascent_that_is_cut_short_says_so_and_stays_a_lower_bound() -> None:
    network, data = networks.Network(networks.relu_mlp()), networks.examples()
    short = measured(Sharpness(rho=0.5, steps=1), network, data)["sharpness_l2"]
    full = measured(Sharpness(rho=0.5, steps=50), network, data)["sharpness_l2"]
    assert short.details["converged"] == "False" and full.details["converged"] == "True"
    assert 0 < short.estimate < full.estimate


class Exponential(nn.Module):
    """Overflows at a distance, with a linear layer in front."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 50).exp()


def test_a_loss_that_overflows_within_a_radius_fails_for_that_radius_only() -> None:
    network, data = (
        networks.Network(nn.Sequential(networks.seeded(nn.Linear(4, 3), scale=0.01), Exponential())),
        networks.examples(),
    )
    found = measured(
        Sharpness(rho=(0.01, 1e3), rho_adaptive=1e5, sigma=1e5, sigma_isotropic=(1e-3, 1e3)), network, data
    )
    assert found["sharpness_l2"].outcome is Outcome.MEASURED
    assert found["sharpness_l2"].details["missing@1000"] == "the loss overflows"
    assert found["sharpness_adaptive"].outcome is Outcome.FAILED
    assert found["sharpness_adaptive"].reason == "the loss overflows at radius 100000"
    assert found["sharpness_average"].outcome is Outcome.FAILED
    assert found["sharpness_average_isotropic"].details["missing@1000"] == "the loss overflows"


def test_parameters_of_size_zero_cannot_move_in_units_of_their_size() -> None:
    module = nn.Linear(4, 3)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    found = measured(Sharpness(), networks.Network(module), networks.examples())
    assert found["sharpness_l2"].estimate > 0 and found["sharpness_average_isotropic"].estimate > 0
    for name in ("sharpness_adaptive", "sharpness_filter", "sharpness_average"):
        assert found[name].outcome is Outcome.NOT_APPLICABLE and "0" in found[name].reason


def test_a_vanishing_gradient_is_no_flat_minimum() -> None:
    """ln cosh-like: two examples pull equally, so that the gradient is 0 where the curvature is not."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    data = networks.checked("train", "train", np.array([[1.0], [1.0]]), np.array([1.0, -1.0]), source="test")
    found = measured(Sharpness(rho=0.5), networks.Network(module, "regression"), data)["sharpness_l2"]
    assert found.estimate == pytest.approx(0.25)


def test_chosen_parameters_move_and_the_others_stay() -> None:
    network, data = networks.Network(networks.relu_mlp()), networks.examples()
    part = measured(Sharpness(parameters=("last:1",)), network, data)
    whole = measured(Sharpness(), network, data)
    assert 0 < part["sharpness_l2"].estimate < whole["sharpness_l2"].estimate


def test_a_single_number_is_one_radius_and_no_number_is_none() -> None:
    assert Sharpness(rho=0.1).rho == (0.1,)
    for wrong in ((), (0.1, -1.0), 0.0):
        with pytest.raises(ValueError, match="rho"):
            Sharpness(rho=wrong)


def test_it_conforms() -> None:
    check_probe(Sharpness(rho=(0.05, 0.1), sigma=(0.1, 0.2), draws=2, steps=4))
