"""Guesses of accuracy through the probe: what they say of themselves, and when they are not given."""

from dataclasses import replace

import numpy as np
import pytest

from flataudit.contracts import AuditData, Meter
from flataudit.data.examples import checked
from flataudit.evidence import Measurement, Outcome
from flataudit.examination import measure_all
from flataudit.probes.label_free import LabelFree
from flataudit.specs import Budget
from flataudit.statistics.label_free import doubt_of_labels
from flataudit.testing import check_probe
from flataudit.testing.subjects import Subject

ACCURACIES = ("estimated_accuracy_atc", "estimated_accuracy_doc", "estimated_accuracy_nuclear")


class _Centres:
    """Bayes' rule for four unit normals, a calibrated classifier of ``(n, 2)`` inputs."""

    batch_size, dtype, device = 64, "float64", "cpu"
    centres = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])

    def __init__(self, task: str = "multiclass", collapsed: bool = False) -> None:
        self.task, self.meter, self.collapsed = task, Meter(), collapsed

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self.meter.forward += len(inputs)
        logits = np.asarray(inputs, dtype=np.float64) @ self.centres.T
        if self.collapsed:
            logits = logits + np.array([60.0, 0.0, 0.0, 0.0])
        return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def _drawn(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(4, size=n)
    return _Centres.centres[labels] + spread * generator.standard_normal((n, 2)), labels


def _found(model: _Centres, inputs: np.ndarray, budget: Budget | None = None, **fields: int) -> dict[str, Measurement]:
    ours, labels = _drawn(1500, 0)
    data = [
        AuditData("validation", "validation", ours, labels, None, "a"),
        AuditData("week", "unlabelled", inputs, None, None, "b"),
    ]
    probes = [("label_free", LabelFree(**fields))]
    readings = measure_all(model, data, probes, seed=1, budget=budget or Budget(), announce=lambda what, share: None)  # type: ignore[arg-type]
    return {r.measurement.metric.removesuffix("/week"): r.measurement for r in readings}


def test_without_a_shift_all_are_right_and_none_claims_an_error() -> None:
    inputs, labels = _drawn(1500, 1)
    truth = float(np.mean(_Centres().predict(inputs).argmax(axis=1) == labels))
    for name in ACCURACIES:
        found = _found(_Centres(), inputs)[name]
        assert found.estimate == pytest.approx(truth, abs=0.045)
        assert found.standard_error is None and found.interval is None
        assert 0 < float(found.details["sampling error"] or 0) < 0.03
        assert found.details["50 labels would give ±"] == pytest.approx(doubt_of_labels(found.estimate or 0))
        assert isinstance(found.details["assumption"], str) and "label 50" in (found.advice or "")


def test_a_shift_that_makes_the_model_surer_fools_every_one() -> None:
    """Inputs spread out: more are wrong, and the model is surer. The reason why no interval is given."""
    inputs, labels = _drawn(1500, 2, spread=2.5)
    truth = float(np.mean(_Centres().predict(inputs).argmax(axis=1) == labels))
    found = _found(_Centres(), inputs)
    for name in ACCURACIES[:2]:
        assert (found[name].estimate or 0) > truth + 0.1


def test_collapse_shows_in_the_nuclear_norm_alone() -> None:
    found = _found(_Centres(collapsed=True), _drawn(400, 3)[0])
    norm = found["nuclear_norm"]
    assert norm.estimate == pytest.approx(0.5, abs=1e-3) and norm.details["MaNo"] == pytest.approx(0.7071, abs=1e-3)
    assert found["estimated_accuracy_nuclear"].outcome is Outcome.NOT_APPLICABLE
    assert "does not rise" in (found["estimated_accuracy_nuclear"].reason or "")


def test_a_norm_beyond_the_blends_is_not_read_off() -> None:
    found = _found(_Centres(), _drawn(1500, 4)[0] * 4)["estimated_accuracy_nuclear"]
    assert found.outcome is Outcome.NOT_APPLICABLE and "lies outside" in (found.reason or "")


def test_blends_are_over_budget_when_passes_are_few() -> None:
    found = _found(_Centres(), _drawn(100, 5)[0], Budget(passes=3.0), copies=50)
    assert found["estimated_accuracy_nuclear"].outcome is Outcome.OVER_BUDGET
    assert found["estimated_accuracy_doc"].outcome is Outcome.MEASURED


def test_regression_and_a_lonely_set_are_not_applicable() -> None:
    data = AuditData("week", "unlabelled", _drawn(50, 6)[0], None, None, "b")
    for model in (_Centres("regression"), _Centres()):
        readings = LabelFree().measure(model, data, 0, Budget())  # type: ignore[arg-type]
        assert {r.measurement.outcome for r in readings} == {Outcome.NOT_APPLICABLE}


def test_it_conforms() -> None:
    def subject() -> Subject:
        ours, labels = _drawn(500, 7)
        reference = AuditData("validation", "validation", ours, labels, None, "a")
        data = AuditData("autumn", "unlabelled", _drawn(500, 8)[0], None, None, "b", reference=reference)
        return Subject("four normals", _Centres(), data, lambda: _Centres.centres.tobytes())  # type: ignore[arg-type]

    check_probe(LabelFree(), subjects=[subject])


def test_texts_are_guessed_of_but_not_blended() -> None:
    class Reader(_Centres):
        def predict(self, inputs):  # type: ignore[no-untyped-def]
            return np.log(np.where(np.eye(4)[[len(text) for text in inputs.tolist()]] == 1, 0.7, 0.1))

    lengths = np.random.default_rng(0).integers(0, 4, 60)
    texts = np.array(["", "a", "bb", "ccc"])[lengths]
    reference = checked("validation", "validation", texts, lengths, source="memory")
    data = replace(checked("week", "unlabelled", texts, source="memory"), reference=reference)
    found = {r.measurement.metric: r.measurement for r in LabelFree().measure(Reader(), data, 0, Budget())}
    assert found["estimated_accuracy_doc/week"].estimate == 1.0
    assert "texts cannot be blended" in (found["estimated_accuracy_nuclear/week"].reason or "")


def test_gaps_are_guessed_of_but_not_blended() -> None:
    """A blend with a row that has a gap would have one too: the copies would lose more than their share says."""

    class Filling(_Centres):
        def predict(self, inputs):  # type: ignore[no-untyped-def]
            return super().predict(np.nan_to_num(inputs))

    inputs, labels = _drawn(60, 1)
    inputs[3, 0] = np.nan
    reference = checked("validation", "validation", inputs, labels, source="memory", gaps=True)
    data = replace(checked("week", "unlabelled", _drawn(60, 2)[0], source="memory"), reference=reference)
    found = {r.measurement.metric: r.measurement for r in LabelFree().measure(Filling(), data, 0, Budget())}
    assert found["estimated_accuracy_doc/week"].outcome is Outcome.MEASURED
    assert "missing (NaN) cannot be blended" in (found["estimated_accuracy_nuclear/week"].reason or "")
