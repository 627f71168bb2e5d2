"""The probe of randomised smoothing, on Gaussian classes and a linear model, where all is known."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import log_expit
from scipy.stats import norm

from flataudit import plugins
from flataudit.contracts import AuditData, Meter
from flataudit.data.examples import checked
from flataudit.evidence import Outcome
from flataudit.probes.certified import Certified
from flataudit.specs import Budget
from flataudit.statistics.proportions import wilson_interval
from flataudit.testing.probes import check_probe

AMPLE = Budget(passes=1e6, seconds=600)
MU, W = np.array([0.5, 1.0, -0.25]), np.array([1.0, 0.8, -1.5])


class Hyperplane:
    """Class 1 where w·x > 0."""

    task, batch_size, dtype, device = "binary", 512, "float64", "cpu"

    def __init__(self, w: np.ndarray = W) -> None:
        self.meter, self.w = Meter(), w

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self.meter.forward += len(inputs)
        margin = inputs.reshape(len(inputs), -1) @ self.w
        return np.stack([log_expit(-margin), log_expit(margin)], axis=1)


def gaussian_classes(n: int) -> AuditData:
    """N(±μ, I)."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, n)
    return load(generator.standard_normal((n, 3)) + np.outer(2 * labels - 1, MU), labels)


def load(inputs: np.ndarray, labels: np.ndarray) -> AuditData:
    return checked("validation", "validation", inputs, labels, source="memory")


def measure(probe: Certified, data: AuditData, model: Hyperplane | None = None, seed: int = 0, budget=AMPLE):
    readings = probe.measure(model or Hyperplane(), data, seed, budget)  # type: ignore[arg-type]
    return {reading.measurement.metric: reading for reading in readings}


def test_certified_accuracy_of_gaussian_classes():
    """At most Φ((w·μ − r‖w‖)/‖w‖), and near it for many draws."""
    probe = Certified(sigma=0.5, radius=(0.25, 0.0, 0.75), unit="input", draws=1000, alpha=0.01, max_examples=1500)
    found = measure(probe, gaussian_classes(1500))
    for radius in (0.25, 0.0, 0.75):
        one = found[f"certified_accuracy/{radius:g}"].measurement
        expected = norm.cdf((W @ MU) / np.linalg.norm(W) - radius)
        assert one.bound == "lower" and one.n == 1500
        assert expected - 0.03 - 3 * one.standard_error < one.estimate < expected + 3 * one.standard_error
        assert one.interval == pytest.approx(wilson_interval(one.estimate, 1500))
        assert one.details["radius"] == radius and 0 < one.details["abstained"] < 0.1
    first = found["certified_accuracy"].measurement
    assert first.estimate == found["certified_accuracy/0.25"].measurement.estimate


def test_no_certificate_goes_beyond_the_exact_distance():
    data = gaussian_classes(400)
    found = measure(Certified(sigma=0.5, unit="input", draws=400, alpha=1e-6, max_examples=400), data)[
        "certified_radius"
    ]
    proven = np.array(found.arrays["certified_radius"].values())
    places = np.asarray(found.arrays["certified/examples"].view())
    signed = ((2 * data.targets - 1) * (data.inputs @ W))[places] / np.linalg.norm(W)
    assert (proven <= np.maximum(signed, 0)).all() and (proven > 0).mean() > 0.5
    assert found.measurement.estimate == pytest.approx(proven.mean()) and found.measurement.bound == "lower"
    assert proven.max() <= found.measurement.details["largest_provable"]


def test_an_abstention_is_wrong():
    """On the border of the classes hardly any vote is decided."""
    data = gaussian_classes(200)
    near = load(1e-6 * data.inputs, data.targets)
    found = measure(Certified(sigma=1.0, radius=0.0, unit="input"), near)["certified_accuracy"].measurement
    assert found.details["abstained"] > 0.9 and found.estimate <= 1 - found.details["abstained"] + 1e-9


def test_units_of_each_feature():
    data, factors = gaussian_classes(60), np.array([1.0, 100.0, 0.01])
    stretched = load(data.inputs * factors, data.targets)
    one, other = measure(Certified(), data), measure(Certified(), stretched, Hyperplane(W / factors))
    assert one["certified_radius"].arrays == other["certified_radius"].arrays


def test_cost_seed_and_examples():
    data, model = gaussian_classes(300), Hyperplane()
    one = measure(Certified(max_examples=30, radius=0, choosing=4, draws=16, alpha=0.01), data, model)
    assert model.meter.cost(Meter(), 300).forward == 2
    again = measure(Certified(max_examples=30, radius=0, choosing=4, draws=16, alpha=0.01), data, Hyperplane(-W))
    assert (
        one["certified_radius"].arrays["certified/examples"] == again["certified_radius"].arrays["certified/examples"]
    )
    right = [np.array(r["certified_radius"].arrays["certified_radius"].values()) > 0 for r in (one, again)]
    assert not (right[0] & right[1]).any() and right[0].sum() > right[1].sum()
    assert (
        measure(Certified(max_examples=30), data, seed=1)["certified_radius"].arrays != one["certified_radius"].arrays
    )


def test_what_has_no_certificate_says_why():
    data = gaussian_classes(40)
    codes = load(np.random.default_rng(0).integers(0, 9, (40, 3)), data.targets)
    several = AuditData("v", "validation", data.inputs, np.zeros((40, 2), np.int64), None, "sha256:0")
    regressor = Hyperplane()
    regressor.task = "regression"
    for given, model, words in (
        (codes, Hyperplane(), "no Gaussian noise"),
        (several, Hyperplane(), "several answers"),
        (load(np.ones((40, 3)), data.targets), Hyperplane(), "no scale"),
        (data, regressor, "regression model"),
    ):
        for reading in measure(Certified(radius=(0.1, 0.2)), given, model).values():
            assert reading.measurement.outcome is Outcome.NOT_APPLICABLE and words in reading.measurement.reason


def test_the_budget():
    data = gaussian_classes(40)
    for budget, words in ((Budget(passes=10), "it takes 144 passes"), (Budget(seconds=1e-9), "ran out")):
        for reading in measure(Certified(), data, budget=budget).values():
            found = reading.measurement
            assert found.outcome is Outcome.OVER_BUDGET and words in found.reason and "lower" in found.advice


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"radius": (0.1, 0.1)}, "each radius once"),
        ({"radius": (0.25, 0.5)}, r"256 draws can prove, at most 0.483, got 0.5; raise sigma"),
        ({"radius": -0.1}, "greater than or equal to 0"),
        ({"alpha": 0.5}, "less than 0.5"),
        ({"sigma": 0}, "greater than 0"),
    ],
)
def test_wrong_parameters_are_refused_when_the_probe_is_made(parameters, words):
    with pytest.raises(ValidationError, match=words):
        Certified(**parameters)


def test_conforms():
    check_probe(plugins.make("probes", "certified", {"radius": [0.1, 0.2], "draws": 20, "choosing": 5, "alpha": 0.01}))  # type: ignore[arg-type]


def test_groups_give_the_interval_of_whole_groups_in_the_details():
    data = gaussian_classes(100)
    groups = np.argsort(np.argsort((2 * data.targets - 1) * (data.inputs @ W))) // 10
    bare, grouped = (
        measure(Certified(), one)["certified_radius"].measurement for one in (data, replace(data, groups=groups))
    )
    assert grouped.estimate == bare.estimate and grouped.interval == bare.interval and "clusters" not in bare.details
    assert grouped.details["clusters"] == 10 and grouped.details["design_effect"] > 3
    assert grouped.details["clustered_high"] - grouped.details["clustered_low"] > bare.interval[1] - bare.interval[0]
