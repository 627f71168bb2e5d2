"""Drift of shifted and of unlabelled inputs: the closed forms through the probe, names, projections, refusals."""

import numpy as np
import pytest
from scipy.special import ndtr

from flataudit.contracts import AuditData, Meter
from flataudit.evidence import Measurement, Outcome
from flataudit.examination import measure_all
from flataudit.probes.drift import Drift
from flataudit.specs import Budget
from flataudit.testing import check_probe
from flataudit.testing.subjects import Subject


class _Silent:
    """A model that must not be asked."""

    task, batch_size, dtype, device = "binary", 64, "float64", "cpu"

    def __init__(self) -> None:
        self.meter = Meter()

    def predict(self, inputs: object) -> object:
        raise AssertionError("drift needs no answers")


def _found(validation: np.ndarray, other: np.ndarray, role: str = "shifted", **fields: int) -> dict[str, Measurement]:
    data = [
        AuditData("validation", "validation", validation, np.zeros(len(validation)), None, "a"),
        AuditData("autumn", role, other, None, None, "b"),  # type: ignore[arg-type]
    ]
    readings = measure_all(
        _Silent(), data, [("drift", Drift(**fields))], seed=3, budget=Budget(), announce=lambda what, share: None
    )
    return {r.measurement.metric.removesuffix("/autumn"): r.measurement for r in readings}


@pytest.mark.parametrize("role", ("shifted", "unlabelled"))
def test_a_feature_that_moved_by_a_deviation(role: str) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(5, 3, (8000, 3)), generator.normal(5, 3, (8000, 3))
    theirs[:, 1] += 3
    found = _found(ours, theirs, role, bins=100, examples=8000)
    assert found["drift_ks"].estimate == pytest.approx(2 * ndtr(0.5) - 1, abs=0.03)
    assert found["drift_w1"].estimate == pytest.approx(1.0, abs=0.06)
    assert found["drift_psi"].estimate == pytest.approx(1.0, abs=0.12)
    assert found["drift_domain_auc"].estimate == pytest.approx(ndtr(0.5**0.5), abs=0.015)
    assert found["drift_mmd2"].interval is not None and found["drift_mmd2"].interval[0] > 0
    assert {found[name].details["feature"] for name in ("drift_ks", "drift_w1", "drift_psi")} == {"feature 1"}
    assert all(m.cost.passes == 0 and m.better == "neither" for m in found.values())


def test_the_same_inputs_have_not_moved() -> None:
    inputs = np.random.default_rng(1).standard_normal((300, 4))
    found = _found(inputs, inputs.copy())
    assert [found[name].estimate for name in ("drift_ks", "drift_w1", "drift_psi")] == [0.0, 0.0, 0.0]
    assert found["drift_domain_auc"].estimate == pytest.approx(0.5, abs=0.1)
    assert found["drift_mmd2"].estimate == pytest.approx(0.0, abs=0.01)


def test_images_name_the_pixel_or_are_projected() -> None:
    generator = np.random.default_rng(2)
    ours, theirs = generator.random((400, 1, 6, 6)), generator.random((400, 1, 6, 6))
    theirs[:, 0, 2, 3] += 1
    assert _found(ours, theirs)["drift_ks"].details["feature"] == "feature (0, 2, 3)"
    few = _found(ours, theirs + 0.5, features=8)
    assert str(few["drift_ks"].details["feature"]).startswith("random projection")
    assert few["drift_ks"].details["features"] == 8
    assert (few["drift_domain_auc"].estimate or 0) > 0.9
    again = _found(ours, theirs + 0.5, features=8)
    assert [m.estimate for m in again.values()] == [m.estimate for m in few.values()]


def test_other_shapes_and_few_examples_are_not_applicable() -> None:
    wrong = _found(np.zeros((30, 3)), np.zeros((30, 4)))
    assert {m.outcome for m in wrong.values()} == {Outcome.NOT_APPLICABLE}
    few = _found(np.random.default_rng(3).random((30, 3)), np.random.default_rng(4).random((7, 3)))
    assert few["drift_domain_auc"].outcome is Outcome.NOT_APPLICABLE and few["drift_ks"].outcome is Outcome.MEASURED


def test_constant_and_whole_number_inputs_are_measured() -> None:
    ours = np.zeros((40, 2), dtype=np.uint8)
    theirs = np.array([[0, 7]] * 40, dtype=np.uint8)
    found = _found(ours, theirs)
    assert found["drift_ks"].estimate == 1.0 and found["drift_ks"].details["feature"] == "feature 1"
    assert found["drift_w1"].estimate == pytest.approx(2.0)  # in deviations of both together
    assert found["drift_domain_auc"].estimate == 1.0


def test_it_conforms() -> None:
    def subject() -> Subject:
        generator = np.random.default_rng(5)
        reference = AuditData("validation", "validation", generator.random((50, 4)), np.zeros(50), None, "a")
        data = AuditData("autumn", "shifted", generator.random((40, 4)), None, None, "b", reference=reference)
        return Subject("two sets", _Silent(), data, lambda: b"")  # type: ignore[arg-type]

    check_probe(Drift(), subjects=[subject])


def test_texts_are_not_applicable() -> None:
    found = _found(np.array(["a", "b"] * 20), np.array(["c", "d"] * 20))
    assert all("texts have no features" in (m.reason or "") for m in found.values())


def test_a_constant_that_became_another_has_no_deviation_on_validation() -> None:
    """0.1 that is 0.2 now: the deviation of 1e-17 that rounding leaves of the first is no unit of the move."""
    generator = np.random.default_rng(6)
    ours, theirs = generator.normal(size=(300, 2)), generator.normal(size=(200, 2))
    ours[:, 1], theirs[:, 1] = 0.1, 0.2
    found = _found(ours, theirs)["drift_w1"]
    assert found.details["feature"] == "feature 1"
    assert found.estimate == pytest.approx(0.1 / np.concatenate([ours, theirs])[:, 1].std())


@pytest.mark.parametrize("which", (0, 1))
def test_missing_values_have_no_distance(which: int) -> None:
    sets = [np.random.default_rng(k).normal(size=(60, 3)) for k in range(2)]
    sets[which][4, 1] = np.nan
    found = _found(*sets)
    assert {m.outcome for m in found.values()} == {Outcome.NOT_APPLICABLE}
    assert all("missing (NaN)" in str(m.reason) for m in found.values())
