"""Votes on unlabelled inputs, counted by hand."""

import numpy as np
import pytest

from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined, Outcome
from flataudit.statistics.agreement import voters, with_agreement


def _candidate(label: str, predictions: object, run: str | None = None, digest: str = "sha256:1") -> Examined:
    protocol = AuditProtocol(
        probes=(), data={"week": digest}, seed=0, dtype="float32", device="cpu", libraries={"numpy": "2"}
    )
    evidence = Evidence(
        candidate=Candidate(name="m", version=label, run_id=run, uri="models:/m"), protocol=protocol, measurements=()
    )
    arrays = {} if predictions is None else {"predictions/week": Array.pack(np.asarray(predictions))}
    return Examined(evidence, arrays)


def _shares(examined: list[Examined]) -> dict[str, float | None]:
    return {e.evidence.candidate.label: e.evidence["agreement/week"].estimate for e in with_agreement(examined)}


def test_three_voters_by_hand() -> None:
    found = _shares([_candidate("1", [0, 0, 1, 1]), _candidate("2", [0, 0, 1, 0]), _candidate("3", [0, 1, 0, 0])])
    assert found == pytest.approx({"v1": (0.75 + 0.25) / 2, "v2": (0.75 + 0.5) / 2, "v3": (0.25 + 0.5) / 2})


def test_per_example_shares_are_kept() -> None:
    first, *_ = with_agreement(
        [_candidate("1", [0, 0, 1, 1]), _candidate("2", [0, 0, 1, 0]), _candidate("3", [0, 1, 0, 0])]
    )
    assert first.arrays["agreement/week"].values() == [1.0, 0.5, 0.5, 0.0]
    assert first.evidence["agreement/week"].samples == "agreement/week"


def test_copies_cast_one_vote_and_none_for_themselves() -> None:
    base = [_candidate("1", [0, 0, 1, 1]), _candidate("2", [0, 0, 1, 0]), _candidate("3", [0, 1, 0, 0])]
    copied = _shares([*base, _candidate("4", [0, 0, 1, 1]), _candidate("5", [0, 0, 1, 1])])
    alone = _shares(base)
    assert {k: copied[k] for k in alone} == pytest.approx(alone)
    assert copied["v4"] == copied["v1"]


def test_one_run_is_one_voter() -> None:
    found = with_agreement(
        [_candidate("1", [0, 0, 1, 1], "r"), _candidate("2", [0, 1, 1, 0], "r"), _candidate("3", [0, 1, 0, 0])]
    )
    measurement = found[0].evidence["agreement/week"]
    assert measurement.outcome is Outcome.NOT_APPLICABLE
    assert measurement.reason is not None and measurement.reason.startswith("2 independent candidates")


def test_kinship_is_passed_on() -> None:
    base = np.zeros(100, dtype=np.int64)
    near, nearer = base.copy(), base.copy()
    nearer[0], near[:2] = 1, 1
    far = np.ones(100, dtype=np.int64)
    predictions = {"a": base, "b": nearer, "c": near, "d": far}
    evidences = {label: _candidate(label, None).evidence for label in predictions}
    assert voters(predictions, evidences) == (("a", "b", "c"), ("d",))


def test_candidate_without_predictions_neither_votes_nor_counts() -> None:
    votes = [[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    examined = [_candidate(str(k), v) for k, v in enumerate(votes)]
    assert _shares([*examined, _candidate("9", None)]) == _shares(examined) | {"v9": None}


def test_other_inputs_are_refused_by_name() -> None:
    votes = [[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    examined = [_candidate(str(k), v) for k, v in enumerate(votes)]
    found = with_agreement([*examined, _candidate("9", [0, 1], digest="sha256:2")])
    assert "other inputs" in (found[-1].evidence["agreement/week"].reason or "")
    assert found[0].evidence["agreement/week"].outcome is Outcome.MEASURED


def test_regression_agrees_by_skill() -> None:
    truth = np.linspace(-1, 1, 50)
    wild = np.random.default_rng(0).permutation(truth)
    found = _shares(
        [_candidate("1", truth), _candidate("2", truth * 1.3), _candidate("3", truth + 0.1), _candidate("4", wild)]
    )
    assert found["v4"] == min(v for v in found.values() if v is not None)
    assert found["v1"] == max(v for v in found.values() if v is not None)
