"""The probe: closed forms through its door, pairing, what it refuses, and another library's attack."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Network, relu_mlp, seeded
from pydantic import ValidationError
from scipy.special import log_expit
from scipy.stats import norm
from torch import nn

from flataudit import plugins
from flataudit.contracts import AuditData, Differentiable, Meter, Predictor
from flataudit.data.examples import checked
from flataudit.errors import ConfigurationError, ModelError, PluginError
from flataudit.evidence import Outcome
from flataudit.probes.adversarial import Adversarial
from flataudit.specs import Budget
from flataudit.statistics.clusters import clustered_mean
from flataudit.statistics.proportions import wilson_interval
from flataudit.testing.probes import check_probe
from flataudit.testing.subjects import standard_subjects

AMPLE = Budget(passes=1e6, seconds=600)
MU, W = np.array([0.9, 1.2, -0.5]), np.array([1.0, 0.8, -1.5])


class Hyperplane:
    """Class 1 where w·x > 0; only answers."""

    task, batch_size, dtype, device = "binary", 512, "float64", "cpu"

    def __init__(self) -> None:
        self.meter = Meter()

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self.meter.forward += len(inputs)
        margin = inputs.reshape(len(inputs), -1) @ W
        return np.stack([log_expit(-margin), log_expit(margin)], axis=1)


def linear() -> Network:
    """The same with a gradient."""
    module = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.stack([0 * W, W])))
    return Network(module)


def gaussian_classes(n: int, seed: int = 0) -> AuditData:
    """N(±μ, I)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    return load(generator.standard_normal((n, 3)) + np.outer(2 * labels - 1, MU), labels)


def load(inputs: np.ndarray, labels: np.ndarray) -> AuditData:
    return checked("validation", "validation", inputs, labels, source="memory")


NOT = Outcome.NOT_APPLICABLE


def measure(probe: Adversarial, data: AuditData, model: Predictor | None = None, seed: int = 0, budget=AMPLE):
    """The readings that fit the task; the other metric must say that it does not."""
    model = model or linear()
    *found, apart = probe.measure(model, data, seed, budget)
    one, other = sorted(("adversarial_accuracy", "adversarial_loss"), reverse=model.task == "regression")
    assert apart.measurement.metric == other and apart.measurement.outcome is NOT
    assert all(reading.measurement.metric.startswith(one) for reading in found)
    return found


@pytest.mark.parametrize("model", [linear, Hyperplane])
@pytest.mark.parametrize("ball", ["linf", "l2"])
def test_gaussian_classes_have_the_robust_accuracy_of_theory(model, ball):
    """Φ((w·μ − ε‖w‖_q) / ‖w‖₂), q dual to the norm."""
    probe = Adversarial(norm=ball, epsilon=0.3, unit="input", limits="none", max_examples=4000, queries=10)
    (reading,) = measure(probe, gaussian_classes(4000), model())
    found = reading.measurement
    expected = norm.cdf((W @ MU - 0.3 * np.linalg.norm(W, ord=1 if ball == "linf" else 2)) / np.linalg.norm(W))
    assert found.estimate == pytest.approx(expected, abs=4 * found.standard_error) and found.standard_error < 0.01
    assert found.bound == "upper" and found.n == 4000
    assert found.interval == pytest.approx(wilson_interval(found.estimate, 4000))
    assert found.details["method"] == ("gradient" if model is linear else "coordinate")
    assert found.details["clean_accuracy"] == pytest.approx(norm.cdf(W @ MU / np.linalg.norm(W)), abs=0.03)


def test_the_default_radius_is_a_tenth_of_each_features_deviation():
    data = gaussian_classes(500)
    stretched = load(data.inputs * np.array([1.0, 100.0, 0.01]), data.targets)
    module = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.stack([0 * W, W / np.array([1.0, 100.0, 0.01])])))
    one, other = measure(Adversarial(), data)[0], measure(Adversarial(), stretched, Network(module))[0]
    assert one.arrays["adversarial_accuracy"] == other.arrays["adversarial_accuracy"]
    kept = np.asarray(one.arrays["adversarial/examples"].view())
    signed = (2 * data.targets - 1) * (data.inputs @ W)
    reach = np.minimum(
        0.1 * data.inputs.std(axis=0),
        np.where(
            np.outer(2 * data.targets - 1, W) > 0,
            data.inputs - data.inputs.min(axis=0),
            data.inputs.max(axis=0) - data.inputs,
        ),
    )
    exact = signed > (np.abs(W) * reach).sum(axis=1)
    assert np.array_equal(np.array(one.arrays["adversarial_accuracy"].values()) == 1, exact[kept])


def test_several_radii_are_a_family_and_nest():
    readings = measure(Adversarial(epsilon=(0.3, 0.1, 0.6)), gaussian_classes(300))
    named = {reading.measurement.metric: reading for reading in readings}
    assert list(named) == ["adversarial_accuracy", *(f"adversarial_accuracy/{e}" for e in (0.3, 0.1, 0.6))]
    assert named["adversarial_accuracy"].measurement.estimate == named["adversarial_accuracy/0.3"].measurement.estimate
    values = {
        e: np.array(named[f"adversarial_accuracy/{e}"].arrays[f"adversarial_accuracy/{e}"].values())
        for e in (0.1, 0.3, 0.6)
    }
    assert (
        (values[0.1] >= values[0.3]).all()
        and (values[0.3] >= values[0.6]).all()
        and values[0.1].sum() > values[0.6].sum()
    )
    for reading in readings:
        samples = np.array(reading.arrays[reading.measurement.samples].values())
        assert reading.measurement.estimate == pytest.approx(samples.mean())


def test_candidates_share_their_examples():
    data = gaussian_classes(300)
    one = measure(Adversarial(max_examples=50), data)[0]
    other = measure(Adversarial(max_examples=50), data, Hyperplane())[0]
    chosen = np.asarray(one.arrays["adversarial/examples"].view())
    assert one.arrays["adversarial/examples"] == other.arrays["adversarial/examples"]
    assert len(set(chosen.tolist())) == 50 == one.measurement.n and not (np.diff(chosen) > 0).all()
    assert (
        measure(Adversarial(max_examples=50), data, seed=1)[0].arrays["adversarial/examples"]
        != one.arrays["adversarial/examples"]
    )


def test_cost_is_counted():
    model, data = linear(), gaussian_classes(400)
    measure(Adversarial(starts=1, check=0, max_examples=100), data, model)
    cost = model.meter.cost(Meter(), 400)
    assert 0.25 < cost.backward <= 10 / 4 and cost.forward <= (1 + 11 + 1) / 4 + 1


class Rounded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([0 * x[:, 0], (x * 20).round() @ torch.tensor(W)], dim=1)


def test_masked_gradients_are_named():
    found = measure(Adversarial(epsilon=0.5), gaussian_classes(200), Network(Rounded()))[0].measurement
    assert "beaten by coordinate" in found.details["masking"] and "method: search" in found.advice
    plain = measure(Adversarial(epsilon=0.5), gaussian_classes(200))[0].measurement
    assert plain.details["masking"] == "none seen" and plain.advice is None
    assert found.details["checked_coordinate"] < found.details["checked_gradient"]


def test_images_are_attacked_by_squares():
    generator = np.random.default_rng(0)
    images = generator.standard_normal((30, 1, 8, 8)).astype(np.float32)

    class Bright(Hyperplane):
        def predict(self, inputs: np.ndarray) -> np.ndarray:
            assert inputs.dtype == np.float32
            self.meter.forward += len(inputs)
            margin = inputs.mean(axis=(1, 2, 3), dtype=np.float64) * 50
            return np.stack([log_expit(-margin), log_expit(margin)], axis=1)

    labels = (images.mean(axis=(1, 2, 3)) > 0).astype(int)
    found = measure(Adversarial(epsilon=0.3, queries=100), load(images, labels), Bright())[0].measurement
    assert found.details["method"] == "square" and found.estimate < 0.3
    assert found.details["mean_change_allowed"] == pytest.approx(0.3 * images.std())


def test_what_cannot_be_attacked_says_why():
    data = gaussian_classes(40)
    bytes_ = load(np.random.default_rng(0).integers(0, 255, (40, 1, 8, 8)).astype(np.uint8), data.targets)
    several = AuditData("v", "validation", data.inputs, np.zeros((40, 2), np.int64), None, "sha256:0")
    same = load(np.ones((40, 3)), data.targets)
    labels = Network(seeded(nn.Linear(3, 2)), "multilabel")
    for given, model, words in (
        (bytes_, linear(), "between whole numbers"),
        (data, labels, "multilabel model"),
        (several, linear(), "several answers"),
        (same, linear(), "no scale"),
    ):
        for probe in (Adversarial(), Adversarial(epsilon=(0.1, 0.2))):
            readings = measure(probe, given, model)
            assert len(readings) == (1 if probe.epsilon is None else 3)
            assert all(r.measurement.outcome is NOT and words in r.measurement.reason for r in readings)


def test_mistakes_in_the_settings_and_the_data():
    data = gaussian_classes(40)
    with pytest.raises(ConfigurationError, match=r"declared limits 0 to 1"):
        measure(Adversarial(limits=(0, 1)), data)
    with pytest.raises(ModelError, match="one that only answers"):
        measure(Adversarial(method="gradient"), data, Hyperplane())
    with pytest.raises(ModelError, match="labels from 0 to 1"):
        measure(Adversarial(), load(data.inputs, data.targets + 1))
    assert measure(Adversarial(method="search"), data)[0].measurement.details["method"] == "coordinate"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"steps": 40, "step_size": 1 / 30}, r"40 × 0.0333333 = 1.33; write step_size: 0.05"),
        ({"steps": 1, "step_size": 1.0}, "at least 2"),
        ({"epsilon": (0.1, 0.1)}, "each epsilon once"),
        ({"epsilon": 0.0}, "greater than 0"),
        ({"limits": (1.0, 0.0)}, "smallest and the largest"),
        ({"norm": "l1"}, "linf"),
    ],
)
def test_wrong_parameters_are_refused_when_the_probe_is_made(parameters, words):
    with pytest.raises(ValidationError, match=words):
        Adversarial(**parameters)
    with pytest.raises(PluginError, match=words):
        plugins.make("probes", "adversarial", parameters)


def test_an_ended_budget_says_what_is_known():
    data = gaussian_classes(400)
    for budget in (Budget(passes=1e-3), Budget(passes=2.0), Budget(seconds=1e-9)):
        for model in (Network(seeded(nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 2)))), Hyperplane()):
            found = measure(Adversarial(), data, model, budget=budget)[0].measurement
            assert (
                found.outcome is Outcome.OVER_BUDGET and found.estimate is None and "lower max_examples" in found.advice
            )
    assert "at most 0." in found.reason
    later = measure(Adversarial(epsilon=(0.01, 0.02), queries=30), data, Hyperplane(), budget=Budget(passes=16))
    assert [r.measurement.outcome for r in later] == [Outcome.MEASURED, Outcome.MEASURED, Outcome.OVER_BUDGET]


@pytest.mark.parametrize("requires", [Predictor, Differentiable])
def test_conforms(requires):
    subjects = list(standard_subjects(requires, "validation"))
    check_probe(Adversarial(epsilon=(0.1, 0.5), queries=12, check=8, steps=3), subjects=subjects)


def test_single_precision_and_a_single_example():
    data = gaussian_classes(1)
    single = load(data.inputs.astype(np.float32), data.targets)
    found = measure(Adversarial(unit="input"), single, linear())[0].measurement
    assert found.n == 1 and found.interval[1] - found.interval[0] > 0.5


def _art(module: nn.Module, order: object, epsilon: float, data: AuditData, *, queries: int = 0) -> float:
    """Robust share by ART's projected gradient descent, 40 steps from the input, or by its square attack."""
    from art.attacks.evasion import ProjectedGradientDescent, SquareAttack
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        module, nn.CrossEntropyLoss(), data.inputs.shape[1:], 3, clip_values=(-9.0, 9.0), device_type="cpu"
    )
    attack = ProjectedGradientDescent(
        classifier, norm=order, eps=epsilon, eps_step=2.5 * epsilon / 40, max_iter=40, batch_size=500, verbose=False
    )
    if queries:
        state = np.random.get_state()  # it draws from the global generator, which stays as it was
        attack = SquareAttack(
            classifier, norm=order, eps=epsilon, max_iter=queries, p_init=0.8, nb_restarts=1, verbose=False
        )
    moved = attack.generate(data.inputs, data.targets)
    if queries:
        np.random.set_state(state)
    return float(np.mean(classifier.predict(moved).argmax(axis=1) == data.targets))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ball", "order", "epsilon"), [("linf", np.inf, 0.15), ("l2", 2, 0.25)])
def test_as_strong_as_another_librarys(ball, order, epsilon):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed: no parity test")
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((400, 4)).astype(np.float32)
    module = relu_mlp().float().eval()
    labels = module(torch.tensor(inputs)).argmax(dim=1).numpy()
    data = load(inputs, labels)
    theirs = _art(module, order, epsilon, data)
    probe = Adversarial(norm=ball, epsilon=epsilon, unit="input", limits=(-9.0, 9.0), starts=1, check=0)
    ours = measure(probe, data, Network(module))[0].measurement.estimate
    assert ours <= theirs + 0.01 and 0.2 < theirs < 0.98


class Plane:
    """w·x + b, and nothing but answers."""

    task, batch_size, dtype, device = "regression", 64, "float64", "cpu"

    def __init__(self, bias: float = 0.3) -> None:
        self.meter, self.bias = Meter(), bias

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self.meter.forward += len(inputs)
        return np.asarray(inputs.astype(np.float64) @ W + self.bias)


def plane(bias: float = 0.3) -> Network:
    module = nn.Linear(3, 1).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(W)[None])
        module.bias.fill_(bias)
    return Network(module, "regression")


def noisy_values(n: int) -> AuditData:
    generator = np.random.default_rng(5)
    inputs = generator.standard_normal((n, 3))
    return load(inputs, inputs @ W + 0.3 + generator.standard_normal(n) * (np.arange(n) % 4 > 0))


@pytest.mark.parametrize("model", [plane, Plane])
@pytest.mark.parametrize("ball", ["linf", "l2"])
def test_the_worst_loss_of_a_linear_model_is_exact(model, ball):
    """(|w·x + b − y| + ε‖w‖_q)², also where the clean error is 0 and has no side; q dual to the norm."""
    data = noisy_values(200)
    probe = Adversarial(norm=ball, epsilon=(0.2, 0.5), unit="input", limits="none", queries=9)
    readings = measure(probe, data, model())
    chosen = np.asarray(readings[0].arrays["adversarial/examples"].view())
    error = np.abs(data.inputs @ W + 0.3 - data.targets)[chosen]
    for reading, epsilon in zip(readings, (0.2, 0.2, 0.5), strict=True):
        exact = (error + epsilon * np.linalg.norm(W, ord=1 if ball == "linf" else 2)) ** 2
        found = reading.measurement
        assert np.asarray(reading.arrays[found.metric].view()) == pytest.approx(exact, rel=1e-6)
        assert found.estimate == pytest.approx(exact.mean(), rel=1e-6) and found.bound == "lower"
        assert found.standard_error == pytest.approx(exact.std(ddof=1) / np.sqrt(200), rel=1e-6)
        assert found.details["clean_loss"] == pytest.approx((error**2).mean())


@pytest.mark.parametrize("model", [plane, Plane])
def test_the_worst_loss_within_the_range_of_inputs(model):
    """Where inputs end, the side with more room may be the worse one although the target is on the other."""
    data = noisy_values(150)
    inside = load(np.clip(data.inputs, 0.0, 1.0), data.targets)
    probe = Adversarial(epsilon=0.6, unit="input", limits=(0.0, 1.0), queries=40)
    (reading,) = measure(probe, inside, model())
    chosen = np.asarray(reading.arrays["adversarial/examples"].view())
    x, y = inside.inputs[chosen], inside.targets[chosen]
    up, down = (np.clip(x + side * 0.6 * np.sign(W), 0.0, 1.0) @ W + 0.3 - y for side in (1, -1))
    exact = np.maximum(np.abs(up), np.abs(down)) ** 2
    assert np.asarray(reading.arrays["adversarial_loss"].view()) == pytest.approx(exact, rel=1e-6)
    nearer = np.where(x @ W + 0.3 >= y, np.abs(up), np.abs(down)) ** 2
    assert (exact > nearer + 1e-9).any()


def test_steep_and_flat_regressions_pair_by_example():
    data = noisy_values(120)
    one, other = measure(Adversarial(), data, plane())[0], measure(Adversarial(), data, Plane(bias=1.3))[0]
    assert one.arrays["adversarial/examples"] == other.arrays["adversarial/examples"]
    gain = np.asarray(other.arrays["adversarial_loss"].view()) - np.asarray(one.arrays["adversarial_loss"].view())
    assert gain.mean() > 0 and (gain < 0).any()


class Hole(Plane):
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        found = super().predict(inputs)
        return np.where(np.abs(inputs[:, 0]) > 4, np.nan, found)


def test_an_answer_that_is_no_number_is_a_failure_and_not_a_small_loss():
    data = noisy_values(60)
    probe = Adversarial(epsilon=(2.5, 0.01), unit="input", limits="none", queries=12)
    wide, wide_too, narrow = (reading.measurement for reading in measure(probe, data, Hole()))
    assert wide.outcome is wide_too.outcome is Outcome.FAILED and "without a finite answer" in wide.reason
    assert narrow.outcome is Outcome.MEASURED


def test_a_regression_whose_budget_ends():
    data = noisy_values(400)
    for model in (Plane(), plane()):
        found = measure(Adversarial(), data, model, budget=Budget(passes=2.0))[0].measurement
        assert found.outcome is Outcome.OVER_BUDGET and "lower max_examples" in found.advice


def test_groups_give_the_interval_of_whole_groups_in_the_details():
    data = gaussian_classes(600)
    signed = (2 * data.targets - 1) * (data.inputs @ W)
    groups = np.argsort(np.argsort(signed)) // 12  # fifty groups whose members share their fate
    probe = Adversarial(epsilon=0.3, unit="input", limits="none", max_examples=400)
    (reading,) = measure(probe, replace(data, groups=groups))
    found, chosen = reading.measurement, np.asarray(reading.arrays["adversarial/examples"].view())
    values = np.asarray(reading.arrays["adversarial_accuracy"].view())
    expected = clustered_mean(values, groups[chosen], seed=0)
    assert (found.details["clustered_low"], found.details["clustered_high"]) == expected.interval
    assert found.details["clusters"] == 50 and found.details["design_effect"] > 4
    alone = found.interval[1] - found.interval[0]
    assert found.details["clustered_high"] - found.details["clustered_low"] > 1.8 * alone
    assert "clusters" not in measure(probe, data)[0].measurement.details


@pytest.mark.filterwarnings("ignore")
def test_the_square_attack_is_as_strong_as_another_librarys():
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed: no parity test")
    generator = np.random.default_rng(0)
    images = generator.standard_normal((100, 1, 12, 12)).astype(np.float32)
    module = seeded(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(600, 3)), scale=0.3)
    module = module.float().eval()
    labels = module(torch.tensor(images)).argmax(dim=1).numpy()
    data = load(images, labels)
    theirs = _art(module, np.inf, 0.03, data, queries=100)
    probe = Adversarial(epsilon=0.03, unit="input", limits=(-9.0, 9.0), method="search", queries=100)
    ours = measure(probe, data, Network(module))[0].measurement.estimate
    assert ours <= theirs + 0.01 and 0.2 < theirs < 0.98
