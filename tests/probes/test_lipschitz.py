"""The probe of local Lipschitz constants: spectral norms, what it says of each kind of model and data, its cost."""

import networks
import numpy as np
import pytest
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import AuditData, Reading
from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.lipschitz import Lipschitz
from flataudit.specs import Budget, InputField
from flataudit.testing import check_probe
from flataudit.testing.subjects import LinearModel

GENERATOR = np.random.default_rng(4)
ROWS = GENERATOR.normal(size=(300, 4)) * [1.0, 0.1, 5.0, 2.0]
LABELS = GENERATOR.integers(0, 3, 300)


def load(inputs: object = ROWS, targets: object = LABELS, **fields: object) -> AuditData:
    return checked("validation", "validation", inputs, targets, source="memory", **fields)  # type: ignore[arg-type]


def read(
    probe: Lipschitz, model: object, data: AuditData, seed: int = 0, budget: Budget | None = None
) -> list[Reading]:
    return list(probe.measure(model, data, seed, budget or Budget()))  # type: ignore[arg-type]


def measured(probe: Lipschitz, model: object, data: AuditData, seed: int = 0) -> dict[str, Measurement]:
    return {one.measurement.metric: one.measurement for one in read(probe, model, data, seed)}


def refused(probe: Lipschitz, model: object, data: AuditData, budget: Budget | None = None) -> Measurement:
    first, *others = (reading.measurement for reading in read(probe, model, data, budget=budget))
    assert all((one.outcome, one.reason) == (first.outcome, first.reason) for one in others) and len(others) == 2
    return first


@pytest.mark.parametrize("method", ["gradient", "search"])
def test_a_linear_regression_has_the_norm_of_its_weights_in_units_of_the_inputs(method: str) -> None:
    module = networks.seeded(nn.Linear(4, 1))
    expected = float(np.linalg.norm(module.weight.detach().double().numpy()[0] * ROWS.std(axis=0)))
    found = measured(Lipschitz(method=method), networks.Network(module, "regression"), load(targets=ROWS.sum(axis=1)))
    for metric in ("local_lipschitz", "local_lipschitz_p95", "local_lipschitz_max"):
        assert found[metric].estimate == pytest.approx(expected, rel=1e-7) and found[metric].bound == "lower"
    assert found["local_lipschitz"].details["method"] == method


def test_images_share_one_unit_and_bytes_are_numbers_to_a_network() -> None:
    images = GENERATOR.integers(0, 200, (40, 1, 4, 4)).astype(np.uint8)
    module = networks.seeded(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)))
    expected = float(module[1].weight.detach().double().norm()) * images.astype(float).std()
    model = TorchModel(module.float().eval(), "regression", outputs="values")
    data = load(images.astype(np.float32), GENERATOR.normal(size=40))
    assert measured(Lipschitz(), model, data)["local_lipschitz"].estimate == pytest.approx(expected, rel=1e-4)
    found = measured(Lipschitz(unit="input"), model, data)["local_lipschitz"]
    assert found.estimate == pytest.approx(expected / images.std(), rel=1e-4)


def test_mean_percentile_and_maximum_are_those_of_the_examples() -> None:
    first, *_ = readings = read(Lipschitz(), networks.Network(networks.tanh_mlp()), load())
    slopes = np.array(first.arrays["local_lipschitz"].values())
    mean, tail, most = (reading.measurement for reading in readings)
    assert len(slopes) == 256 and mean.samples == "local_lipschitz"
    assert (mean.estimate, most.estimate) == (pytest.approx(slopes.mean()), slopes.max())
    assert tail.estimate == pytest.approx(np.quantile(slopes, 0.95)) and tail.interval is not None
    assert tail.interval[0] <= tail.estimate <= tail.interval[1] <= most.estimate
    assert mean.standard_error == pytest.approx(slopes.std(ddof=1) / 16) and most.standard_error is None


def test_a_temperature_moves_the_raw_number_only() -> None:
    cold, hot = LinearModel("multiclass", 4), LinearModel("multiclass", 4)
    hot._weights = {name: 3 * value for name, value in hot.weights().items()}  # type: ignore[operator]
    data = load(0.3 * ROWS)
    one, other = (measured(Lipschitz(), model, data)["local_lipschitz"] for model in (cold, hot))
    assert other.estimate == pytest.approx(3 * one.estimate)
    assert other.details["at_unit_rms"] == pytest.approx(one.details["at_unit_rms"])


def test_candidates_share_their_examples_and_the_seed_decides() -> None:
    probe = Lipschitz(max_examples=50)
    one, other = (read(probe, networks.Network(make()), load()) for make in (networks.tanh_mlp, networks.relu_mlp))
    assert one[0].arrays["lipschitz/examples"] == other[0].arrays["lipschitz/examples"]
    again = read(probe, networks.Network(networks.tanh_mlp()), load(), seed=1)
    assert again[0].arrays["lipschitz/examples"] != one[0].arrays["lipschitz/examples"]


def test_only_numbers_among_named_fields_move() -> None:
    kinds = ("number", "category", "number", "integer")
    fields = tuple(
        InputField(name=name, kind=kind, categories=("x", "y") if kind == "category" else ())
        for name, kind in zip("abcd", kinds, strict=True)
    )
    rows = ROWS.copy()
    rows[:, 1], rows[:, 3] = GENERATOR.integers(0, 2, 300), np.rint(rows[:, 3])
    data, model = load(rows, rows.sum(axis=1), fields=fields), LinearModel("regression", 4)
    weights = np.asarray(model.weights()["weight"])[:, 0]
    expected = np.linalg.norm(weights * rows.std(axis=0) * [1, 0, 1, 0])
    found = measured(Lipschitz(), model, data)["local_lipschitz"]
    assert found.estimate == pytest.approx(expected) and found.details["length"] == pytest.approx(0.05 * 2**0.5)


class Votes(LinearModel):
    """A forest's answers: shares of votes, some of them 0."""

    def predict(self, inputs):  # type: ignore[no-untyped-def]
        return np.log(np.maximum(np.eye(3)[super().predict(inputs).argmax(axis=1)], 1e-30))


class Broken(LinearModel):
    """No number beyond 1."""

    def predict(self, inputs):  # type: ignore[no-untyped-def]
        return np.where(np.abs(inputs[:, 0]) > 1, np.nan, super().predict(inputs))


def test_what_has_no_slope_says_why() -> None:
    linear = LinearModel("multiclass", 4)
    cases = {
        "probabilities of 0": (Votes("multiclass", 4), load()),
        "whole numbers": (linear, load(np.rint(ROWS).astype(np.int64))),
        "<U5": (linear, load(np.full(300, "hello"))),
        "all inputs are equal": (linear, load(np.full((300, 4), 0.1))),
        "missing": (linear, load(np.where(ROWS > 9, np.nan, ROWS), gaps=True)),
        "no field": (linear, load(LABELS[:, None] * np.ones(4), fields=tuple(_letters("abcd")))),
    }
    for words, (model, data) in cases.items():
        found = refused(Lipschitz(), model, data)
        assert found.outcome is Outcome.NOT_APPLICABLE and found.reason is not None and words in found.reason
    found = refused(Lipschitz(), Broken("regression", 4), load(targets=ROWS.sum(axis=1)))
    assert found.outcome is Outcome.FAILED and "without a finite answer" in str(found.reason)
    with pytest.raises(ModelError, match="a gradient in its inputs"):
        read(Lipschitz(method="gradient"), linear, load())


def _letters(names: str) -> list[InputField]:
    return [InputField(name=name, kind="category", categories=("x", "y", "z")) for name in names]


def test_budget() -> None:
    network = networks.Network(networks.tanh_mlp())
    for budget in (Budget(passes=5.9), Budget(seconds=1e-9)):
        found = refused(Lipschitz(), network, load(), budget)
        assert found.outcome is Outcome.OVER_BUDGET and found.advice is not None
    assert network.meter.backward == 0
    assert measured(Lipschitz(), network, load())["local_lipschitz"].n == 256


@pytest.mark.parametrize("method", ["auto", "search"])
def test_conforms(method: str) -> None:
    check_probe(Lipschitz(method=method, steps=2, directions=3))
