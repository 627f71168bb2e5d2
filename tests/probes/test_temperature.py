"""Temperature scaling as advice: what it says of models whose right temperature is known, and when it says nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from flataudit.contracts import AuditData, Meter
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.temperature import TemperatureScaling
from flataudit.specs import Budget, Task
from flataudit.testing import check_probe
from flataudit.testing.subjects import Subject


class _Answers:
    """A model whose inputs are its answers."""

    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, task: Task = "multiclass") -> None:
        self.task, self.meter = task, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return inputs


def _data(n: int, temperature: float, seed: int, groups: int | None = None) -> AuditData:
    """Five classes; the logits are right after division by the temperature."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.standard_normal((n, 5))
    chances = np.exp(log_softmax(logits / temperature, axis=1))
    labels = np.minimum((generator.random(n)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1), 4)
    named = None if groups is None else np.arange(n) * groups // n
    return AuditData("validation", "validation", log_softmax(logits, axis=1), labels, named, f"sha256:{seed}")


def _measured(data: AuditData, task: Task = "multiclass", seed: int = 0) -> dict[str, Measurement]:
    readings = TemperatureScaling().measure(_Answers(task), data, seed, Budget())
    return {r.measurement.metric: r.measurement for r in readings}


def test_an_overconfident_model_is_told_its_temperature() -> None:
    found = _measured(_data(4000, 2.0, 0))
    temperature, error, loss = (
        found[name] for name in ("temperature", "calibration_error_after_temperature", "loss_after_temperature")
    )
    low, high = temperature.interval or (0, 0)
    assert low < 2.0 < high and temperature.estimate == pytest.approx(2.0, abs=0.1)
    assert "divide its logits by" in (temperature.advice or "")
    assert error.details["before"] > 0.1 > 0.03 > (error.estimate or 1)
    assert error.details["debiased"] < error.details["debiased_before"] / 5
    assert 0 < loss.details["gain_low"] < loss.details["gain"] < loss.details["gain_high"]
    assert loss.details["before"] - (loss.estimate or 0) == pytest.approx(loss.details["gain"])


def test_a_calibrated_model_is_told_to_stay() -> None:
    temperature = _measured(_data(1500, 1.0, 1))["temperature"]
    assert temperature.advice == "none: 1 lies in the interval"


def test_no_example_is_judged_by_a_temperature_that_it_helped_to_choose() -> None:
    """On noise the honest loss is above what the temperature of all examples would give them."""
    honest, fitted = [], []
    for seed in range(30):
        data = _data(100, 1.0, 100 + seed)
        found = _measured(data)
        scaled = log_softmax(data.inputs / (found["temperature"].estimate or 1), axis=1)
        assert data.targets is not None
        fitted.append(-scaled[np.arange(100), data.targets].mean())
        honest.append(found["loss_after_temperature"].estimate or 0.0)
    assert np.mean(honest) > np.mean(fitted)


def test_halves_are_of_whole_groups() -> None:
    """Each group is one example many times: its copies in the other half would give its answer away."""
    few = _data(8, 1.0, 3)
    assert few.targets is not None
    copies = AuditData(
        "validation", "validation", np.repeat(few.inputs, 40, 0), np.repeat(few.targets, 40), np.arange(320) // 40, "x"
    )
    found = _measured(copies)["temperature"]
    assert found.outcome is Outcome.NOT_CONVERGED or found.details["first_half"] != found.details["second_half"]
    grouped = _measured(_data(2000, 1.5, 4, groups=50))["temperature"]
    low, high = grouped.details["clustered_low"], grouped.details["clustered_high"]
    assert low < 1.5 < high


def test_labels_and_tokens() -> None:
    generator = np.random.default_rng(5)
    odds = 3 * generator.standard_normal((800, 6))
    held = (generator.random((800, 6)) < 1 / (1 + np.exp(-odds / 2))).astype(np.int64)
    labels = AuditData("validation", "validation", -np.log1p(np.exp(-odds)), held, None, "sha256:m")
    marked = _measured(labels, "multilabel")["temperature"]
    assert marked.estimate == pytest.approx(2.0, abs=0.2) and "before the sigmoid" in (marked.advice or "")
    flat = _data(1500, 0.5, 6)
    assert flat.targets is not None
    tokens = AuditData(
        "validation", "validation", flat.inputs.reshape(150, 10, 5), flat.targets.reshape(150, 10), None, "sha256:t"
    )
    found = _measured(tokens)["temperature"]
    assert found.estimate == pytest.approx(_measured(flat)["temperature"].estimate) and found.n == 150
    assert "not sure enough" in (found.advice or "")


@pytest.mark.parametrize(
    ("inputs", "targets", "outcome", "reason"),
    [
        (np.tile([0.9, 0.1], (200, 1)), np.zeros(200, dtype=np.int64), Outcome.NOT_CONVERGED, "every answer is right"),
        (np.tile([0.9, 0.1], (200, 1)), np.arange(200) % 2, Outcome.NOT_CONVERGED, "hotter"),
        (np.tile([0.9, 0.1], (30, 1)), np.arange(30) % 2, Outcome.NOT_APPLICABLE, "too few"),
    ],
)
def test_where_there_is_no_answer(
    inputs: NDArray[np.float64], targets: NDArray[np.int64], outcome: Outcome, reason: str
) -> None:
    found = _measured(AuditData("validation", "validation", np.log(inputs), targets, None, "sha256:0"), "binary")
    assert len(found) == 3
    for measurement in found.values():
        assert measurement.outcome is outcome and reason in (measurement.reason or "") and measurement.advice


@pytest.mark.parametrize(
    ("n", "groups", "reason"),
    [
        (1, None, "1 example: too few"),
        (30, None, "30 examples: too few"),
        (200, 3, "200 examples in 3 groups: too few"),
    ],
)
def test_what_is_too_few(n: int, groups: int | None, reason: str) -> None:
    assert (_measured(_data(n, 1.0, 8, groups))["temperature"].reason or "").startswith(reason)


def test_it_conforms() -> None:
    def subject() -> Subject:
        return Subject("answers", _Answers(), _data(200, 1.5, 7), lambda: b"")

    def values() -> Subject:
        data = AuditData("validation", "validation", np.arange(5.0), np.arange(5.0), None, "sha256:r")
        return Subject("values", _Answers("regression"), data, lambda: b"")

    check_probe(TemperatureScaling(), subjects=[subject, values])
