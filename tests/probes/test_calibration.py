"""The calibration probe on models whose calibration is known."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Meter
from flataudit.evidence import Outcome
from flataudit.plugins import load
from flataudit.probes.accuracy import Accuracy
from flataudit.probes.calibration import Calibration
from flataudit.specs import Budget, Task


class _Answers:
    """A model whose inputs are its answers."""

    batch_size, dtype, device = 64, "float64", "cpu"

    def __init__(self, task: Task = "binary") -> None:
        self.task, self.meter = task, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return inputs


class _Counting(_Answers):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        self.calls += 1
        return inputs


def _claiming(n: int, excess: float, seed: int) -> AuditData:
    """Confidences uniform on [.5, 1], true in confidence − excess of the cases."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1.0, n)
    right = generator.random(n) < confidence - excess
    inputs = np.log(np.stack([confidence, 1 - confidence], axis=1))
    return AuditData("validation", "validation", inputs, np.where(right, 0, 1), None, "sha256:0")


def _measured(data: AuditData, seed: int = 0, task: Task = "binary"):  # type: ignore[no-untyped-def]
    readings = Calibration().measure(_Answers(task), data, seed, Budget())
    return {r.measurement.metric: r.measurement for r in readings}, {
        k: v for r in readings for k, v in r.arrays.items()
    }


def test_calibrated_model_lies_in_the_null_band() -> None:
    found, _ = _measured(_claiming(1000, 0.0, 0))
    error, null = found["calibration_error"], found["calibration_null_p95"]
    assert null.estimate == pytest.approx(0.051, abs=0.003)
    assert error.details["expected_if_calibrated"] == pytest.approx(0.0384, rel=0.05)
    assert error.estimate is not None and null.estimate is not None and error.estimate < null.estimate
    assert found["calibration_error_debiased"].interval is not None
    assert found["calibration_error_debiased"].interval[0] == 0


def test_overconfident_model_is_outside_it() -> None:
    found, arrays = _measured(_claiming(20_000, 0.1, 1))
    assert found["calibration_error"].estimate == pytest.approx(0.1, abs=0.01)
    assert found["calibration_error_debiased"].estimate == pytest.approx(0.1, abs=0.01)
    low, high = found["calibration_error_debiased"].interval or (0, 0)
    assert low < 0.1 < high and high - low < 0.02
    table = np.asarray(arrays["calibration/bins"].view())
    assert table.shape == (15, 3)
    assert table[:, 2].sum() == 20_000
    assert np.mean(table[:, 0] - table[:, 1]) == pytest.approx(0.1, abs=0.01)


def test_same_seed_same_numbers_whatever_ran_before() -> None:
    data = _claiming(300, 0.05, 2)
    first = _measured(data)
    np.random.default_rng(0).random(100)
    assert _measured(data) == first
    assert _measured(data, seed=1)[0]["calibration_null_p95"] != first[0]["calibration_null_p95"]


def test_regression_states_no_confidence() -> None:
    data = AuditData("validation", "validation", np.arange(3.0), np.arange(3.0), None, "sha256:0")
    readings = load("probes", "calibration")().measure(_Answers("regression"), data, 0, Budget())
    assert {r.measurement.metric for r in readings} == {m.name for m in Calibration.metrics}
    assert {r.measurement.outcome for r in readings} == {Outcome.NOT_APPLICABLE}


def test_certain_and_right_model() -> None:
    """Fifty answers without an error leave room for 7 % of them: Wilson's interval, not certainty."""
    inputs = np.log(np.tile([1.0 - 1e-300, 1e-300], (50, 1)))
    data = AuditData("validation", "validation", inputs, np.zeros(50, dtype=np.int64), None, "sha256:0")
    found, arrays = _measured(data)
    for name in ("calibration_error", "calibration_error_debiased", "calibration_error_width"):
        assert found[name].estimate == 0.0
        assert found[name].interval == pytest.approx((0.0, 0.0713), abs=1e-4)
    assert arrays["calibration/bins"].values() == [[1.0, 1.0, 50.0]]
    assert arrays["calibration/bands"].values()[0] == pytest.approx([1.0, 1.0, 0.9287, 1.0], abs=1e-4)


def test_all_right_is_no_certainty_for_the_parts_either() -> None:
    """Two classes told apart without an error among 50: up to 7 % may be wrong, in both columns."""
    labels = np.arange(50) % 2
    inputs = np.log(np.where(np.eye(2)[labels] > 0, 1.0, 1e-300))
    found, _ = _measured(AuditData("validation", "validation", inputs, labels, None, "sha256:0"))
    assert found["calibration_error_classwise"].interval == pytest.approx((0.0, 0.0713), abs=1e-4)
    assert found["brier_reliability"].interval == pytest.approx((0.0, 2 * 0.0713), abs=2e-4)


def test_constant_answers_and_one_outcome() -> None:
    """One answer has no resolution, one outcome no uncertainty: others may be a share q of 0.0713, 2q(1 − q)."""
    most = 2 * 0.0713 * (1 - 0.0713)
    labels = np.arange(50) % 2
    inputs = np.log(np.tile([0.6, 0.4], (50, 1)))
    constant, _ = _measured(AuditData("validation", "validation", inputs, labels, None, "sha256:0"))
    assert constant["brier_resolution"].estimate == pytest.approx(0.0, abs=1e-12)
    assert constant["brier_resolution"].interval == pytest.approx((0.0, most), abs=1e-3)
    varied = np.linspace(0.55, 0.95, 50)
    inputs = np.log(np.stack([varied, 1 - varied], axis=1))
    one, _ = _measured(AuditData("validation", "validation", inputs, 0 * labels, None, "sha256:0"))
    for name in ("brier_resolution", "brier_uncertainty"):
        assert one[name].interval == pytest.approx((0.0, most), abs=1e-3)


def test_known_errors_of_every_kind() -> None:
    found, _ = _measured(_claiming(20_000, 0.1, 3))
    for name in ("calibration_error", "calibration_error_width", "calibration_error_smooth"):
        measurement = found[name]
        low, high = measurement.interval or (0, 0)
        assert measurement.estimate == pytest.approx(0.1, abs=0.01) and low < 0.1 < high
        assert measurement.details["expected_if_calibrated"] < 0.02
    assert found["calibration_error_classwise"].estimate == pytest.approx(0.1, abs=0.01)


def test_intervals_hold_the_models_own_error() -> None:
    """And not only the mean of a number that chance makes larger: around that alone three in ten would."""
    held = dict.fromkeys(("calibration_error", "calibration_error_debiased", "calibration_error_width"), 0)
    for seed in range(30):
        readings = Calibration(replicates=50).measure(_Answers(), _claiming(300, 0.02, 1000 + seed), seed, Budget())
        found = {r.measurement.metric: r.measurement for r in readings}
        for name in held:
            low, high = found[name].interval or (1, 0)
            held[name] += low <= 0.02 <= high
    assert min(held.values()) >= 27


def test_the_parts_add_up_to_the_brier_score_that_accuracy_measures() -> None:
    data = _claiming(900, 0.05, 4)
    found, _ = _measured(data)
    told = found["brier_reliability"]
    parts = [found[f"brier_{name}"].estimate or 0.0 for name in ("reliability", "resolution", "uncertainty")]
    brier = next(
        r.measurement
        for r in Accuracy().measure(_Answers(), data, 0, Budget())
        if r.measurement.metric.endswith("brier")
    )
    assert parts[0] - parts[1] + parts[2] + told.details["within_bins"] == pytest.approx(brier.estimate)
    assert told.details["brier"] == pytest.approx(brier.estimate)


def test_bands_and_intervals_of_the_bins() -> None:
    _, arrays = _measured(_claiming(3000, 0.15, 9))
    bins, bands = (np.asarray(arrays[f"calibration/{name}"].view()) for name in ("bins", "bands"))
    assert bands.shape == (15, 4)
    assert ((bands[:, 0] < bins[:, 0]) & (bins[:, 0] < bands[:, 1])).all(), "a band is about the confidence"
    assert ((bands[:, 2] < bins[:, 1]) & (bins[:, 1] < bands[:, 3])).all(), "an interval is about the accuracy"
    assert np.mean(bins[:, 1] < bands[:, 0]) > 0.9, "15 points too sure is seen in every bin"


def test_two_candidates_pair_by_example() -> None:
    """The same answers of which one is a little surer: their errors differ by far less than each is known."""
    data = _claiming(2000, 0.2, 10)
    surer = data.replace_inputs(data.inputs + np.array([0.0, -0.05]))
    surer = replace(surer, digest="sha256:1", inputs=surer.inputs - np.log(np.exp(surer.inputs).sum(1, keepdims=True)))
    (one, arrays), (other, others) = _measured(data), _measured(surer)
    for name in ("calibration_error", "calibration_error_width", "calibration_error_smooth"):
        values, others_values = (np.asarray(found[name].view()) for found in (arrays, others))
        change = others_values - values
        assert change.mean() == pytest.approx((other[name].estimate or 0) - (one[name].estimate or 0))
        assert change.std() / 2000**0.5 < (one[name].standard_error or 0) / 3


def test_several_labels_an_example() -> None:
    """Ten labels that all say the same: knowledge of one label, in ten columns."""
    generator = np.random.default_rng(5)
    chance = generator.uniform(0.02, 0.98, 1500)
    held = (generator.random(1500) < chance).astype(np.int64)
    whole = AuditData(
        "validation", "validation", np.log(np.tile(chance, (10, 1)).T), np.tile(held, (10, 1)).T, None, "sha256:0"
    )
    both = np.log(np.stack([1 - chance, chance], axis=1))
    single = AuditData("validation", "validation", both, held, None, "sha256:1")
    many, _ = _measured(whole, task="multilabel")
    one, _ = _measured(single)
    for name in ("calibration_error", "calibration_error_width", "calibration_error_smooth"):
        assert many[name].estimate == pytest.approx(one[name].estimate, abs=1e-3)
        assert many[name].standard_error == pytest.approx(one[name].standard_error, rel=0.05)
        assert many[name].n == 1500 and many[name].details["answers"] == 15_000
    assert many["calibration_null_p95"].estimate == pytest.approx(one["calibration_null_p95"].estimate, rel=0.15)
    assert 2 * (many["brier_resolution"].estimate or 0) == pytest.approx(one["brier_resolution"].estimate, rel=0.02)


def test_tokens_of_a_sequence() -> None:
    generator = np.random.default_rng(6)
    chances = generator.dirichlet(np.ones(4), (300, 12))
    targets = (generator.random((300, 12, 1)) > np.cumsum(chances, axis=2)).sum(axis=2)
    targets[:, 9:] = -100
    data = AuditData("validation", "validation", np.log(chances), targets, None, "sha256:0")
    found, arrays = _measured(data, task="multiclass")
    error = found["calibration_error"]
    assert error.details["answers"] == 2700 and error.n == 300
    assert np.asarray(arrays["calibration_error"].view()).shape == (300,)
    assert np.asarray(arrays["calibration_error"].view()).mean() == pytest.approx(error.estimate)
    assert arrays["calibration/classes"].shape == (4, 4)
    assert (error.estimate or 1) < (found["calibration_null_p95"].estimate or 0)
    nothing = AuditData("validation", "validation", np.log(chances), np.full((300, 12), -100), None, "sha256:1")
    assert {m.outcome for m in _measured(nothing, task="multiclass")[0].values()} == {Outcome.NOT_APPLICABLE}


def test_groups_are_told_beside() -> None:
    data = _claiming(600, 0.1, 7)
    grouped = replace(data, groups=np.repeat(np.arange(60), 10))
    error = _measured(grouped)[0]["calibration_error"]
    assert error.interval == _measured(data)[0]["calibration_error"].interval
    assert error.details["clusters"] == 60
    assert error.details["clustered_low"] < error.estimate < error.details["clustered_high"]


def test_the_debiased_error_of_groups_that_err_together() -> None:
    """Every example ten times, in a group: the details say what its tenth alone would."""
    one = _claiming(400, 0.1, 11)
    assert one.targets is not None
    copies = AuditData(
        "validation", "validation", np.repeat(one.inputs, 10, 0), np.repeat(one.targets, 10), np.arange(4000) // 10, "x"
    )
    debiased, alone = (_measured(data)[0]["calibration_error_debiased"] for data in (copies, one))
    low, high = debiased.details["clustered_low"], debiased.details["clustered_high"]
    assert (low, high) == pytest.approx(alone.interval, abs=0.01)
    assert high - low > 1.5 * np.ptp(debiased.interval)


def test_one_pass_serves_all_probes() -> None:
    model, data = _Counting(), _claiming(100, 0.0, 8)
    Calibration().measure(model, data, 0, Budget())
    Accuracy().measure(model, data, 0, Budget())
    assert model.calls == 1
