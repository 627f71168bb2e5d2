"""Votes on unlabelled inputs, counted by hand."""

import numpy as np
import pytest

from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined, Outcome
from flataudit.statistics.agreement import voters, with_agreement
from flataudit.statistics.disagreement import with_disagreement


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


def _many(n: int, seed: int, accuracies: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6)) -> list[Examined]:
    """Independent candidates that are right that often; wrong answers never agree."""
    generator = np.random.default_rng(seed)
    hits = [generator.random(n) < share for share in accuracies]
    return [_candidate(str(k), np.where(hit, 0, k + 1).astype(np.int64)) for k, hit in enumerate(hits)]


def test_the_interval_is_that_of_resampled_inputs_and_holds_the_truth() -> None:
    truth, held, errors, claimed = 0.9 * (0.8 + 0.7 + 0.6) / 3, 0, [], []
    for seed in range(200):
        first, *_ = with_agreement(_many(120, seed), replicates=300, seed=seed)
        found = first.evidence["agreement/week"]
        assert found.interval is not None and found.standard_error is not None and found.estimate is not None
        held += found.interval[0] <= truth <= found.interval[1]
        errors.append(found.estimate - truth)
        claimed.append(found.standard_error)
    assert held >= 181
    assert np.mean(claimed) == pytest.approx(np.std(errors), rel=0.15)


def test_the_same_seed_gives_the_same_interval() -> None:
    one, again, other = (with_agreement(_many(100, 0), seed=s)[0].evidence["agreement/week"] for s in (1, 1, 2))
    assert one == again and one.interval != other.interval and one.estimate == other.estimate


def test_few_or_unvarying_inputs_have_wilsons_interval_and_never_an_exact_one() -> None:
    same = [_candidate("1", np.zeros(80, dtype=int), "a"), _candidate("2", np.ones(80, dtype=int))]
    found = with_agreement([*same, _candidate("3", np.full(80, 2))])[0].evidence["agreement/week"]
    assert found.estimate == 0.0 and found.standard_error is not None and found.standard_error > 0


def test_it_says_with_whom_a_candidate_is_one_voter() -> None:
    base = _many(100, 0)
    copied = [*base, _candidate("9", np.asarray(base[0].arrays["predictions/week"].view()))]
    found = [e.evidence["agreement/week"] for e in with_agreement(copied)]
    assert (found[0].details["one voter with"], found[-1].details["one voter with"]) == ("v9", "v0")
    assert "one voter with" not in found[1].details and found[1].details["other_voters"] == 3


def test_one_candidate_with_other_inputs_does_not_refuse_all_the_rest() -> None:
    votes = [[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    odd = _candidate("9", [0, 1], digest="sha256:2")
    found = with_agreement([odd, *(_candidate(str(k), v) for k, v in enumerate(votes))])
    assert "other inputs" in (found[0].evidence["agreement/week"].reason or "")
    assert found[1].evidence["agreement/week"].outcome is Outcome.MEASURED


# ── Disagreement on clean and corrupted inputs ──


def _kept(label: str, clean: list[int], corrupted: list[list[int]] | None = None) -> Examined:
    one = _candidate(label, None)
    arrays = {"validation_predictions": Array.pack(np.asarray(clean))}
    if corrupted is not None:
        arrays["corruption_predictions"] = Array.pack(np.asarray(corrupted))
    return Examined(one.evidence, arrays)


def test_disagreement_by_hand() -> None:
    examined = with_disagreement(
        [
            _kept("1", [0, 0, 1, 1], [[0, 0, 1, 1], [0, 0, 0, 0]]),
            _kept("2", [0, 0, 1, 0], [[1, 0, 1, 1], [0, 0, 0, 1]]),
            _kept("3", [0, 1, 0, 0], [[0, 0, 1, 1], [1, 1, 1, 1]]),
        ]
    )
    clean, corrupted = (examined[0].evidence[f"disagreement/{name}"] for name in ("clean", "corrupted"))
    assert clean.estimate == pytest.approx((0.25 + 0.75) / 2)
    assert clean.details == {"with v3": 0.75, "with v2": 0.25}
    assert corrupted.estimate == pytest.approx((2 / 8 + 4 / 8) / 2) and corrupted.n == 4
    assert examined[0].arrays["disagreement/corrupted"].values() == [0.5, 0.25, 0.25, 0.5]


def test_disagreement_needs_another_and_kept_predictions() -> None:
    (alone,) = with_disagreement([_kept("1", [0, 1])])
    assert alone.evidence["disagreement/clean"].outcome is Outcome.NOT_APPLICABLE
    assert alone.evidence.get("disagreement/corrupted") is None
    none = with_disagreement([_candidate("1", [0, 1]), _candidate("2", [0, 1])])
    assert all(one.evidence.measurements == () for one in none)
    some = with_disagreement([_kept("1", [0, 1]), _kept("2", [0, 0]), _candidate("3", None)])
    assert "no predictions" in (some[2].evidence["disagreement/clean"].reason or "")
    assert some[0].evidence["disagreement/clean"].estimate == 0.5


def test_near_copies_are_one_other_candidate_and_no_copy_parts_from_its_own() -> None:
    base = [0] * 100
    other, third = [1] * 40 + [0] * 60, [0] * 90 + [2] * 10
    shaken = [[0] * 50 + [1] * 50]
    kept = [
        _kept("1", base, [base]),
        # A copy in all but its answers to corrupted inputs.
        _kept("2", [*base[:-1], 1], shaken),
        _kept("3", other, [other]),
        _kept("4", third, [third]),
    ]
    found = with_disagreement(kept)
    clean = [one.evidence["disagreement/clean"].estimate for one in found]
    assert clean[0] == pytest.approx((0.4 + 0.1) / 2)
    assert clean[2] == pytest.approx(((0.4 + 0.41) / 2 + 0.5) / 2)
    # The family of the clean answers votes once on the corrupted inputs too.
    corrupted = [one.evidence["disagreement/corrupted"] for one in found]
    assert corrupted[1].estimate == pytest.approx((0.9 + 0.5) / 2)
    assert corrupted[3].estimate == pytest.approx(((0.1 + 0.5) / 2 + 0.5) / 2)
    assert corrupted[0].details["with v2"] == 0.5
    copies = with_disagreement(kept[:2])
    assert "near-copies" in (copies[0].evidence["disagreement/corrupted"].reason or "")


def test_predictions_of_another_size_or_kind_are_refused_by_name() -> None:
    kept = [_kept("1", [0, 1, 1], [[0, 1, 1]]), _kept("2", [0, 0, 1], [[0, 1, 0]]), _kept("3", [0, 0, 0], [[0], [1]])]
    found = with_disagreement(kept)
    assert "another kind of answer" in (found[2].evidence["disagreement/corrupted"].reason or "")
    assert found[2].evidence["disagreement/clean"].outcome is Outcome.MEASURED
    assert found[0].evidence["disagreement/corrupted"].estimate == pytest.approx(1 / 3)
