"""The probes of curvature and of the weights: numbers, bounds, outcomes, and no trace left behind."""

import random
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

import flataudit
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import hessian_trace
from flataudit.evidence import Outcome
from flataudit.probes.hessian_trace import HessianTrace, _second_opinion
from flataudit.probes.input_gradient import InputGradient
from flataudit.probes.landscape import Landscape
from flataudit.probes.sharpness import Sharpness
from flataudit.probes.spectrum import Spectrum
from flataudit.probes.weight_noise import WeightNoise
from flataudit.specs import Budget


def test_trace_and_lambda_max_through_the_front_door() -> None:
    """`flataudit.measure` in three lines, against the dense Hessian."""
    data = networks.examples()
    for make in (networks.softmax_regression, networks.relu_mlp, networks.tanh_mlp):
        hessian = networks.dense_hessian(networks.Network(make()), data)
        found = flataudit.measure(
            make().double(), data.inputs, data.targets, probes=["hessian_trace", "lambda_max"], relative_error=0.02
        )
        trace, largest = found["hessian_trace"], found["lambda_max"]
        assert trace.estimate == pytest.approx(np.trace(hessian), rel=1e-9, abs=4 * trace.standard_error)
        assert largest.estimate == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=0.02)
        assert largest.bound in ("lower", "estimate") and trace.cost.passes > 0


def test_an_unconverged_spectrum_is_an_outcome_with_advice() -> None:
    found = Spectrum(max_steps=2, relative_error=1e-6).measure(
        networks.Network(networks.tanh_mlp()), networks.examples(), 0, Budget()
    )
    assert found[0].measurement.outcome is Outcome.NOT_CONVERGED and "raise max_steps" in found[0].measurement.advice


def test_a_second_opinion_on_the_trace() -> None:
    """XTrace knows no structure: it agrees with a right trace, and says so of a wrong one."""
    data = networks.examples()
    for make in (networks.relu_mlp, networks.tanh_mlp):
        network = networks.Network(make())
        (found, _) = HessianTrace(cross_check=40).measure(network, data, 0, Budget())
        told = found.measurement.details
        assert told["xtrace_says"] == "agrees"
        assert told["xtrace"] == pytest.approx(found.measurement.estimate, rel=0.2)
        surface = Surface.of(network, data)
        right = hessian_trace(surface, 0, relative_error=0.01, budget=Budget())
        assert right is not None
        wrong = replace(right.trace, estimate=4 * right.trace.estimate)
        assert _second_opinion(surface, wrong, 40, 0)["xtrace_says"] == "differs"


def test_no_budget_no_trace() -> None:
    found = HessianTrace().measure(networks.Network(networks.relu_mlp()), networks.examples(), 0, Budget(passes=1))
    assert found[0].measurement.outcome is Outcome.OVER_BUDGET


def test_worst_case_sharpness_is_called_a_lower_bound() -> None:
    found = Sharpness().measure(networks.Network(networks.relu_mlp()), networks.examples(), 0, Budget())
    bounds = {r.measurement.metric: r.measurement.bound for r in found}
    assert bounds == {
        "sharpness_l2": "lower",
        "sharpness_adaptive": "lower",
        "sharpness_filter": "lower",
        "sharpness_average": "estimate",
        "sharpness_average_isotropic": "estimate",
    }
    assert all(r.measurement.estimate >= 0 for r in found[:3])


def test_sharpness_at_several_radii_and_noises() -> None:
    """The metric is the first; the others are in the details and the arrays, and wider balls hold higher rises."""
    probe = Sharpness(rho=(0.05, 0.2), sigma=(0.1, 0.2))
    found = {
        r.measurement.metric: r
        for r in probe.measure(networks.Network(networks.relu_mlp()), networks.examples(), 0, Budget(passes=1e4))
    }
    l2, average = found["sharpness_l2"], found["sharpness_average"]
    rises = l2.arrays["sharpness_l2/rises"].values()
    assert l2.arrays["sharpness_l2/radii"].values() == [0.05, 0.2] and rises[0] < rises[1]
    assert l2.measurement.estimate == rises[0] and l2.measurement.details["rise@0.2"] == rises[1]
    assert average.arrays["sharpness_average/sigmas"].values() == [0.1, 0.2]


def test_weight_noise_of_an_insensitive_and_of_a_fragile_network() -> None:
    data = networks.examples(200)
    network = networks.Network(networks.relu_mlp())
    quiet, loud = (
        WeightNoise(sigma=s, draws=5).measure(network, data, 0, Budget())[0].measurement.estimate for s in (1e-9, 3.0)
    )
    clean = float((network.predict(data.inputs).argmax(1) == data.targets).mean())
    assert quiet == pytest.approx(clean) and loud < clean


def test_the_input_gradient_of_a_linear_model() -> None:
    """‖∇ₓ (w'x − y)²‖ = 2|w'x − y| ‖w‖."""
    data = networks.examples(50, regression=True)
    module = networks.seeded(nn.Linear(4, 1, bias=False))
    network = networks.Network(module, "regression")
    reading = InputGradient().measure(network, data, 0, Budget())[0]
    weight = module.weight.detach().numpy()[0]
    expected = 2 * np.abs(data.inputs @ weight - data.targets) * np.linalg.norm(weight)
    assert reading.arrays["input_gradient_norm"].values() == pytest.approx(expected.tolist())


def test_the_landscape_passes_through_the_loss_itself() -> None:
    network, data = networks.Network(networks.tanh_mlp()), networks.examples()
    reading = Landscape(steps=3).measure(network, data, 0, Budget())[0]
    steps, curves = (np.asarray(reading.arrays[f"landscape/{k}"].view()) for k in ("steps", "curves"))
    assert curves.shape == (2, 7) and steps[3] == 0
    x, y = network.tensors(data.inputs, data.targets)
    assert curves[:, 3] == pytest.approx(float(network.loss(network.parameters, x, y)))


BUILT_IN = (
    "accuracy",
    "calibration",
    "corruption",
    "description_length",
    "geometric_complexity",
    "hessian_trace",
    "input_gradient",
    "input_noise",
    "invariance",
    "landscape",
    "local_entropy",
    "pac_bayes",
    "relative_flatness",
    "sharpness",
    "spectrum",
    "weight_noise",
)


def test_a_measured_model_and_the_global_random_states_are_bit_identical() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    module[2].eval()
    module[0].bias.requires_grad_(False)
    module(torch.randn(5, 4)).sum().backward()
    tensors = {**module.state_dict(), **{f"{n}.grad": p.grad for n, p in module.named_parameters()}}
    before = {name: None if tensor is None else tensor.clone() for name, tensor in tensors.items()}
    modes, flags = [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    data = networks.examples()
    flataudit.measure(
        module,
        data.inputs,
        data.targets,
        probes=[*BUILT_IN],
    )
    after = {**module.state_dict(), **{f"{n}.grad": p.grad for n, p in module.named_parameters()}}
    for name, tensor in before.items():
        assert (tensor is None and after[name] is None) or torch.equal(tensor, after[name]), name
    assert modes == [m.training for m in module.modules()] and flags == [p.requires_grad for p in module.parameters()]
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()
