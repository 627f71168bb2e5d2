"""The probe of the spectrum's ends: numbers, bounds, outcomes, sharing, and what it says of the parameters."""

from collections.abc import Callable
from typing import cast

import networks
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from flataudit.contracts import Differentiable
from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.spectral_density import SpectralDensity
from flataudit.probes.spectrum import Spectrum
from flataudit.specs import Budget
from flataudit.testing import check_probe


class Quadratic(nn.Module):
    """A loss ½ Σ λᵢ (θᵢ − mᵢ)² + c, whatever the examples: its Hessian is diag(λ)."""

    def __init__(self, values: list[float], *, away: float = 0.0, constant: float = 1.0) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((len(values),), away, dtype=torch.float64))
        self.register_buffer("values", torch.tensor(values, dtype=torch.float64))
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        loss = (self.values * self.theta.square()).sum() / 2 + self.constant
        return loss.sqrt().expand(len(x), 1)


def quadratic(values: list[float], **given: float) -> Differentiable:
    return cast("Differentiable", networks.Network(Quadratic(values, **given), "regression"))


ZEROS = checked("train", "train", np.ones((8, 4)), np.zeros(8), source="test")
"""Squared error against zero gives the loss of `Quadratic`."""


def measured(probe: Spectrum, model: Differentiable, seed: int = 0, **budget: float) -> dict[str, Measurement]:
    data = ZEROS if model.task == "regression" else networks.examples()
    readings = probe.measure(model, data, seed, Budget(**budget))  # type: ignore[arg-type]
    return {reading.measurement.metric: reading.measurement for reading in readings}


def test_it_conforms() -> None:
    check_probe(Spectrum())


@pytest.mark.parametrize("make", [networks.softmax_regression, networks.relu_mlp, networks.tanh_mlp])
def test_all_metrics_against_the_dense_hessian(make: Callable[[], nn.Module]) -> None:
    network, data = networks.Network(make()), networks.examples()
    values = np.linalg.eigvalsh(networks.dense_hessian(network, data))
    for seed in range(5):
        found = measured(Spectrum(), network, seed)
        assert all(one.outcome is Outcome.MEASURED for one in found.values())
        assert all(one.n == len(data) and "gradient_norm" in one.details for one in found.values())
        top, bottom, norm = (found[name] for name in ("lambda_max", "lambda_min", "spectral_norm"))
        assert (top.bound, bottom.bound, norm.bound) == ("lower", "upper", "lower")
        for one, truth in ((top, values[-1]), (bottom, values[0]), (norm, np.abs(values).max())):
            assert one.interval[0] - 1e-9 <= truth <= one.interval[1] + 1e-9
        assert top.estimate == pytest.approx(values[-1], rel=0.01)
        assert bottom.interval[1] - bottom.interval[0] <= 0.1 * values[-1]
        ratio = found["condition_number"]
        above = values[values >= 1e-3 * values[-1]]
        assert ratio.bound == "lower" and ratio.interval[0] <= values[-1] / above.min() <= ratio.interval[1]
        assert ratio.details["floor"] == pytest.approx(1e-3 * values[-1], rel=0.01)
        used = ratio.details["smallest_above_floor"]
        assert np.abs(values - used).min() <= ratio.details["residual"] <= 0.011 * used


@pytest.mark.parametrize("ends", [(-99.0, 98.0), (-98.0, 99.0)])
def test_two_signs(ends: tuple[float, float]) -> None:
    low, high = ends
    model = quadratic([low, high, *np.linspace(-1, 1, 80)], constant=1.0)
    for seed in range(10):
        found = measured(Spectrum(), model, seed)
        assert found["lambda_max"].estimate == pytest.approx(high, rel=0.01)
        assert found["lambda_min"].estimate == pytest.approx(low, rel=0.01)
        assert found["spectral_norm"].estimate == pytest.approx(99, rel=0.01)


@pytest.mark.parametrize(
    ("values", "norm", "ratio"),
    [
        ([3.0], 3.0, 1.0),
        ([4.0, 2.0, 0.5], 4.0, 8.0),
        ([4.0, 2.0, 1e-4, 0.0], 4.0, 2.0),
        ([2.0, -8.0, 1.0], 8.0, 2.0),
    ],
)
def test_a_whole_space_is_exact(values: list[float], norm: float, ratio: float) -> None:
    """Fewer parameters than steps: nothing is a bound; eigenvalues below the floor do not count in the ratio."""
    found = measured(Spectrum(relative_error=1e-9, smallest_error=1e-9), quadratic(values))
    expected = {"lambda_max": max(values), "lambda_min": min(values), "spectral_norm": norm, "condition_number": ratio}
    for name, truth in expected.items():
        one = found[name]
        assert one.estimate == pytest.approx(truth, abs=1e-9)
        assert one.bound == "estimate" and one.standard_error == 0.0
        assert one.interval[0] - 1e-9 <= truth <= one.interval[1] + 1e-9


def test_no_curvature_at_all() -> None:
    found = measured(Spectrum(), quadratic([0.0] * 5))
    assert [found[name].estimate for name in ("lambda_max", "lambda_min", "spectral_norm")] == [0.0, 0.0, 0.0]
    assert found["condition_number"].outcome is Outcome.NOT_APPLICABLE
    assert found["gradient_norm"].estimate == 0.0 and "slope" not in found["gradient_norm"].details


def test_what_has_not_converged_says_so_with_what_is_known() -> None:
    model = quadratic(np.linspace(0, 1, 400).tolist())
    found = measured(Spectrum(max_steps=3), model)
    for name in ("lambda_max", "lambda_min", "spectral_norm", "condition_number"):
        one = found[name]
        assert one.outcome is Outcome.NOT_CONVERGED and one.estimate is None
        assert "lie between" in str(one.reason) and "raise max_steps" in str(one.advice)
        assert one.details["steps"] == 3 and "best" in one.details and "residual" in one.details
    assert found["gradient_norm"].outcome is Outcome.MEASURED


def test_an_end_that_nobody_asked_for_is_not_waited_for() -> None:
    values = [10.0, *np.linspace(-1, 1, 300)]
    found = measured(Spectrum(ends=("largest",), smallest_error=1e-4), quadratic(values))
    assert found["lambda_max"].estimate == pytest.approx(10, rel=0.01)
    assert found["lambda_min"].outcome is Outcome.NOT_CONVERGED
    both = measured(Spectrum(smallest_error=1e-3, max_steps=100), quadratic(values))
    assert both["lambda_min"].outcome is Outcome.MEASURED
    assert both["lambda_min"].details["steps"] > 2 * found["lambda_max"].details["steps"]


def test_budgets_without_room() -> None:
    model = quadratic(np.linspace(0, 1, 400).tolist())
    passes, memory = measured(Spectrum(), model, passes=3), measured(Spectrum(), model, memory_bytes=2000)
    for found, what in ((passes, "passes"), (memory, "memory_bytes")):
        one = found["lambda_max"]
        assert one.outcome is Outcome.OVER_BUDGET and one.advice == f"raise budget.{what}"
        assert found["gradient_norm"].outcome is Outcome.MEASURED
    few = measured(Spectrum(), quadratic(np.linspace(0, 1, 400).tolist()), passes=9)
    assert few["lambda_max"].outcome is Outcome.NOT_CONVERGED and few["lambda_max"].details["steps"] == 4


def test_without_room_for_a_basis_two_vectors_do() -> None:
    values = np.linspace(0, 1, 400).tolist()
    ample, tight = (measured(Spectrum(), quadratic(values), memory_bytes=m) for m in (2**30, 2 * 8 * 8 * 400))
    for name in ("lambda_max", "spectral_norm"):
        assert ample[name].outcome is tight[name].outcome is Outcome.MEASURED
        assert tight[name].estimate == pytest.approx(ample[name].estimate, rel=1e-9)
    assert [found["lambda_max"].details["basis"] for found in (ample, tight)] == ["whole", "two vectors"]


def test_slopes_and_saddles_are_no_minimum() -> None:
    """Loss 1 + ½ 4 θ²: the step 1/λ_max takes ½ 4 θ² off it, which is a tenth of it at θ = 0.236."""
    for away, told in ((0.22, False), (0.25, True)):
        found = measured(Spectrum(), quadratic([4.0], away=away))
        loss = 1 + 2 * away**2
        for one in found.values():
            assert one.details["predicted_decrease"] == pytest.approx(2 * away**2 / loss)
            assert one.details["gradient_norm"] == pytest.approx(4 * away)
            assert ("slope" in one.details) is told
    for low, told in ((-0.03, False), (-0.05, True)):
        one = measured(Spectrum(), quadratic([4.0, low]))["lambda_max"]
        assert ("negative_curvature" in one.details) is told


def test_a_subset_of_the_parameters() -> None:
    network, data = networks.Network(networks.tanh_mlp()), networks.examples()
    hessian = networks.dense_hessian(network, data)[-27:, -27:]
    found = measured(Spectrum(parameters=("last:1",), relative_error=1e-6), network)
    assert found["lambda_max"].estimate == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-6)


def test_what_ran_before_changes_nothing_but_the_price() -> None:
    data, numbers, costs = networks.examples(), [], []
    for first in (False, True):
        network = networks.Network(networks.tanh_mlp())
        if first:
            SpectralDensity(outlier_steps=14, vectors=2, steps=4).measure(network, data, 0, Budget())
        spent = network.meter.matvecs, network.meter.reused
        numbers.append(measured(Spectrum(), network))
        costs.append((network.meter.matvecs - spent[0], network.meter.reused - spent[1]))
    assert numbers[0] == numbers[1]
    steps = numbers[0]["lambda_max"].details["steps"]
    assert costs[0][0] >= steps * len(data) and costs[1][0] == 0
    assert costs[1][1] >= 2 * steps * len(data)


def test_the_seed_decides() -> None:
    network = networks.Network(networks.tanh_mlp())
    one, again, other = (measured(Spectrum(), network, seed)["lambda_max"] for seed in (1, 1, 2))
    assert one == again and one.estimate != other.estimate


def test_a_product_that_is_not_finite_is_a_failure_of_the_model() -> None:
    model = quadratic([1e308, 1e308], away=1e-160)
    with pytest.raises(ModelError):
        Spectrum().measure(model, ZEROS, 0, Budget())


def test_parameters_are_checked() -> None:
    for wrong in ({"floor": 1.0}, {"floor": 0.0}, {"ends": ()}, {"ends": ("middle",)}, {"relative_error": 0}):
        with pytest.raises(ValidationError):
            Spectrum.model_validate(wrong)
