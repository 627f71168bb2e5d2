"""Zeroth-order curvature against dense Hessians, closed forms, and its own claims of error."""

import numpy as np
import pytest
import torch
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import Meter
from flataudit.curvature.losses import make_loss
from flataudit.curvature.moved_loss import MovedLoss
from flataudit.curvature.zeroth_order import average_rise, smoothed_trace, worst_rise
from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.evidence import Outcome
from flataudit.probes.smoothed_curvature import SmoothedCurvature
from flataudit.specs import Budget, LossSpec
from flataudit.testing.probes import check_probe

AMPLE = Budget(passes=1e5, seconds=600)
SOURCE = np.random.default_rng(5)
EXAMPLES = 32
INPUTS = SOURCE.normal(size=(EXAMPLES, 4))
TARGETS = SOURCE.integers(0, 3, EXAMPLES)


class Network:
    """A tanh network in NumPy that rounds to float32, or not; no torch, no derivatives."""

    task, batch_size, device = "multiclass", 4096, "cpu"

    def __init__(self, dtype="float32", *, scale=1.0):
        source = np.random.default_rng(7)
        self.dtype, self.meter = dtype, Meter()
        shapes = {"w": (4, 5), "b": (5,), "v": (5, 3), "c": (3,)}
        self.own = {name: (scale * source.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}

    def weights(self):
        return {name: value.copy() for name, value in self.own.items()}

    def predict(self, inputs):
        return self.predict_at(self.own, inputs)

    def predict_at(self, weights, inputs):
        self.meter.forward += len(inputs)
        w, b, v, c = (np.asarray(weights[name], self.dtype) for name in "wbvc")
        logits = (np.tanh(inputs.astype(self.dtype) @ w + b) @ v + c).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def data(targets=TARGETS, inputs=INPUTS):
    return checked("train", "train", inputs.astype("float32"), targets, source="memory")


def exact_trace():
    """The dense Hessian in float64, by torch."""
    network = Network("float64")
    network.own = {name: value.astype("float64") for name, value in Network().own.items()}
    flat = torch.cat([torch.tensor(value).reshape(-1) for value in network.own.values()])
    sizes = [value.size for value in network.own.values()]
    x, y = torch.tensor(INPUTS.astype("float32")).double(), torch.tensor(TARGETS)

    def loss(vector):
        w, b, v, c = (part.reshape(s.shape) for part, s in zip(vector.split(sizes), network.own.values(), strict=True))
        return nn.functional.cross_entropy(torch.tanh(x @ w + b) @ v + c, y)

    flat.requires_grad_()
    (slope,) = torch.autograd.grad(loss(flat), flat, create_graph=True)
    rows = [torch.autograd.grad(one, flat, retain_graph=True)[0][place] for place, one in enumerate(slope)]
    return float(torch.stack(rows).sum())


TRUTH = exact_trace()


def test_it_conforms():
    check_probe(SmoothedCurvature(max_vectors=4, draws=2))


def test_intervals_cover_the_exact_trace():
    """95 % intervals of 120 seeds, from float32 answers, and standard errors as large as the errors."""
    loss, held, errors, told = MovedLoss(Network(), data()), 0, [], []
    for seed in range(120):
        found = smoothed_trace(loss, seed, relative_error=0.05, max_vectors=8, budget=AMPLE)
        held += found.interval[0] <= TRUTH <= found.interval[1]
        errors.append(found.estimate - TRUTH)
        told.append(found.standard_error)
    assert 107 <= held <= 119, held
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.sqrt(np.mean(np.square(told))), rel=0.25)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(120) + 0.005 * TRUTH


def test_the_step_is_between_rounding_and_smoothing():
    """Float64 takes a shorter one than float32, and each error that is told is small against the whole."""
    found = {kind: smoothed_trace(MovedLoss(Network(kind), data()), 0, budget=AMPLE) for kind in ("float32", "float64")}
    assert found["float64"].step < found["float32"].step
    for one in found.values():
        assert one.converged and one.steps[0] / 2 == one.steps[1] and len(one.curve) == len(one.steps)
        assert max(one.plateau_error, one.rounding_error) < 0.02 * TRUTH
    assert found["float64"].rounding_error < 1e-3 * found["float32"].rounding_error


def test_rounding_is_measured_and_not_taken_for_curvature():
    """Answers rounded to 1e-4: the estimate says how uncertain it is, and the truth lies within."""

    class Coarse(Network):
        def predict_at(self, weights, inputs):
            return np.round(super().predict_at(weights, inputs), 4)

    fine = smoothed_trace(MovedLoss(Network(), data()), 1, budget=AMPLE)
    found = smoothed_trace(MovedLoss(Coarse(), data()), 1, budget=AMPLE)
    assert found.rounding_error > 5 * fine.rounding_error and found.step > fine.step
    assert found.interval[0] < TRUTH < found.interval[1]


def test_a_kinked_network_has_no_plateau_unless_the_step_is_fixed():
    source = np.random.default_rng(0)
    x = source.normal(size=(200, 6)).astype("float32")
    y = (x @ source.normal(size=(6, 3)) + 0.5 * source.normal(size=(200, 3))).argmax(1)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    kinked, examples = TorchModel(net.eval(), "multiclass"), checked("train", "train", x, y, source="memory")
    swept = smoothed_trace(MovedLoss(kinked, examples), 0, max_vectors=8, budget=AMPLE)
    assert max(swept.curve) > 1.2 * min(swept.curve)
    readings = SmoothedCurvature(step=0.1, max_vectors=8).measure(kinked, examples, 0, AMPLE)
    fixed = readings[0].measurement
    size = MovedLoss(kinked, examples).size
    assert fixed.outcome is Outcome.MEASURED and fixed.details["h"] == pytest.approx(0.1 * size)
    assert fixed.details["plateau_error"] == 0


def test_what_has_no_plateau_is_not_converged():
    """|θ| summed has a kink at its own parameters: the second difference grows with 1/h for ever."""

    class Kink(Network):
        task = "regression"

        def __init__(self):
            super().__init__()
            self.own = {"a": np.zeros(4, "float32"), "b": np.ones(1, "float32")}

        def predict_at(self, weights, inputs):
            self.meter.forward += len(inputs)
            return np.full(len(inputs), float(np.abs(weights["a"]).sum()) + float(weights["b"][0]))

    readings = SmoothedCurvature().measure(Kink(), data(np.zeros(EXAMPLES) + 0.5), 0, AMPLE)
    found = readings[0].measurement
    assert found.outcome is Outcome.NOT_CONVERGED and "no plateau" in found.reason and "step" in found.advice


def linear_regression():
    class Linear(Network):
        task = "regression"

        def __init__(self):
            super().__init__()
            self.own = {"w": np.array([1.0, -0.5, 2.0, 0.25], "float32")}

        def predict_at(self, weights, inputs):
            self.meter.forward += len(inputs)
            return (inputs @ np.asarray(weights["w"])).astype(np.float64)

    return Linear(), data(INPUTS @ [1.1, -0.4, 1.5, 0.0])


def test_a_quadratic_has_its_closed_forms():
    """L(w) = mean (x·w − y)²: trace 2/N Σ‖x‖², average rise σ² Σ wᵢ² Hᵢᵢ / 2, worst case by search."""
    model, examples = linear_regression()
    x, w = examples.inputs.astype(float), model.own["w"].astype(float)
    hessian, slope = 2 * x.T @ x / len(x), 2 * x.T @ (x @ w - examples.targets) / len(x)
    found = smoothed_trace(MovedLoss(model, examples), 0, max_vectors=200, relative_error=0.01, budget=AMPLE)
    assert found.interval[0] < np.trace(hessian) < found.interval[1]
    loss = MovedLoss(model, examples)
    rise = average_rise(loss, 0, sigma=0.1, draws=400)
    assert rise.estimate == pytest.approx(0.01 * (np.diag(hessian) * w**2).sum() / 2, abs=4 * rise.standard_error)
    scaled, along = hessian * np.outer(w, w), slope * w
    angles = np.random.default_rng(0).normal(size=(200_000, 4))
    steps = 0.5 * angles / np.linalg.norm(angles, axis=1, keepdims=True)
    best = float((steps @ along + np.einsum("ni,ij,nj->n", steps, scaled, steps) / 2).max())
    worst = worst_rise(loss, 0, rho=0.5)
    assert 0.5 * best < worst.estimate <= best * 1.001


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_the_loss_is_that_which_the_model_was_trained_with(task):
    spec = {
        "multiclass": LossSpec(use="cross_entropy", label_smoothing=0.1, label_weights=(1.0, 2.0, 0.5)),
        "multilabel": LossSpec(use="binary_cross_entropy", label_weights=(1.0, 3.0, 0.5)),
        "regression": LossSpec(use="huber", delta=0.3),
    }[task]
    source = np.random.default_rng(1)
    targets = {
        "multiclass": TARGETS,
        "multilabel": source.integers(0, 2, (EXAMPLES, 3)),
        "regression": source.normal(size=EXAMPLES),
    }[task]
    net = nn.Sequential(nn.Linear(4, 1 if task == "regression" else 3)).double().eval()
    model, examples = TorchModel(net, task, loss=spec), data(targets, 10 * INPUTS)
    raw = net(torch.tensor(examples.inputs).double())
    truth = make_loss(spec, task).mean(raw[:, 0] if task == "regression" else raw, torch.tensor(examples.targets))
    assert sum(MovedLoss(model, examples).here) == pytest.approx(float(truth.detach()), rel=1e-9)


def test_no_parameters_no_number():
    class Fixed(Network):
        def weights(self):
            return {}

    readings = SmoothedCurvature().measure(Fixed(), data(), 0, AMPLE)
    assert {r.measurement.outcome for r in readings} == {Outcome.NOT_APPLICABLE}


def test_a_loss_that_is_not_finite_is_said_to_be_so():
    class Broken(Network):
        def predict_at(self, weights, inputs):
            return np.full((len(inputs), 3), np.nan)

    with pytest.raises(ModelError, match="finite loss"):
        SmoothedCurvature().measure(Broken(), data(), 0, AMPLE)


def test_the_budget_is_kept():
    model = Network()
    readings = SmoothedCurvature().measure(model, data(), 0, Budget(passes=10.0))
    assert {r.measurement.outcome for r in readings} == {Outcome.OVER_BUDGET} and model.meter.forward == 0
    readings = SmoothedCurvature(relative_error=1e-6, max_vectors=10_000).measure(
        model, data(), 0, Budget(passes=120.0)
    )
    assert readings[0].measurement.outcome is Outcome.MEASURED
    assert model.meter.forward / len(data()) / 2 <= 120
