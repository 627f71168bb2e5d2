"""Flatness compares only between candidates that are alike; everything else goes on comparing."""

import pytest

from flataudit.decision import Comparison
from flataudit.evidence import AuditProtocol, Candidate, Evidence, Examined, Measurement, Metric, Outcome
from flataudit.policy import Matching, Policy
from flataudit.statistics.comparer import PairedComparer

PROTOCOL = AuditProtocol(probes=("p@1",), data={"v": "1"}, seed=0, dtype="f", device="cpu", libraries={})


def named(metric: Metric, probe: str, estimate: float, **details: str) -> Measurement:
    found = metric.measured(estimate, standard_error=0.1, details=details)
    return found.model_copy(update={"probe": probe})


def candidate(version: str, loss: float | None, normalisation: str = "none gathered") -> Examined:
    level = Metric(name="training_loss")
    kept = level.missing(Outcome.FAILED, "it crashed").model_copy(update={"probe": "training_loss"})
    if loss is not None:
        kept = named(level, "training_loss", loss, normalisation=normalisation)
    measurements = (
        named(Metric(name="hessian_trace", better="lower"), "hessian_trace", 5.0),
        named(Metric(name="sharpness_l2", better="lower"), "sharpness", 1.0),
        named(Metric(name="corruption_accuracy", better="higher"), "corruption", 0.8),
        named(Metric(name="input_gradient_norm", better="lower"), "calibration", 0.8),
        kept,
    )
    return Examined(
        Evidence(candidate=Candidate(name="m", version=version, uri="u"), protocol=PROTOCOL, measurements=measurements)
    )


def compared(one: Examined, other: Examined, **rule: object) -> dict[str, Comparison]:
    policy = Policy(matching=Matching.model_validate(rule))
    return {c.metric: c for c in PairedComparer(replicates=200).compare([one, other], policy)}


def test_alike_candidates_compare_in_everything() -> None:
    found = compared(candidate("1", 0.10), candidate("2", 0.19))
    assert found["hessian_trace"].matched and found["hessian_trace"].difference == 0.0
    assert found["training_loss"].matched


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (candidate("2", 0.21), "training losses of 0.1 and 0.21 are more than 2 times apart"),
        (candidate("2", 0.10, "gathered statistics"), "normalises by statistics"),
        (candidate("2", None), "training_loss is not known of both"),
    ],
)
def test_unlike_candidates_do_not_compare_in_flatness_alone(other: Examined, said: str) -> None:
    found = compared(candidate("1", 0.10), other)
    for metric in ("hessian_trace", "sharpness_l2"):
        assert found[metric].matched == ("not known" in said) and said in (found[metric].reason or "")
        assert found[metric].difference is None and found[metric].interval is None
    for metric in ("corruption_accuracy", "input_gradient_norm"):
        assert found[metric].matched and found[metric].difference == 0.0


def test_the_policy_says_what_is_alike() -> None:
    one, other = candidate("1", 0.1), candidate("2", 0.5, "gathered statistics")
    assert compared(one, other, training_loss_ratio=10, normalisation=False)["hessian_trace"].matched
