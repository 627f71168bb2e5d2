"""The decision: laws as properties, and the cases a user would name."""

import math
from collections.abc import Sequence
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flataudit.decision import Comparison, Decision
from flataudit.evidence import AuditProtocol, Candidate, Evidence, Measurement, Metric, Outcome
from flataudit.judge import decide, limits
from flataudit.policy import Criterion, NonInferiority, Policy, ValidationBudget

ACCURACY = Metric(name="validation_accuracy", better="higher")
SCORE = Metric(name="score", better="higher")
TRACE = Metric(name="hessian_trace", better="lower")
PROTOCOL = AuditProtocol(
    probes=("p@1",), data={"validation": "sha256:d"}, seed=0, dtype="float32", device="cpu", libraries={}
)
ORDER = {"fail": 0, "missing": 0, "inconclusive": 1, "pass": 2}


def evidence(version: str, accuracy: float, score: float, trace: float = 1.0) -> Evidence:
    candidate = Candidate(name="m", version=version, uri=f"models:/m/{version}", digest=f"sha256:{version}")
    half = 0.01
    measurements = (
        ACCURACY.measured(accuracy, standard_error=half / 2, interval=(accuracy - half, accuracy + half), n=2000),
        SCORE.measured(score, standard_error=half / 2, interval=(score - half, score + half), n=2000),
        TRACE.measured(trace, standard_error=0.0),
    )
    return Evidence(candidate=candidate, protocol=PROTOCOL, measurements=measurements)


def pairs(evidences: Sequence[Evidence], error: float = 0.002) -> list[Comparison]:
    """Each pair with a standard error; intervals of ± 2 of them and a p-value to match."""
    found = []
    for i, a in enumerate(evidences):
        for b in evidences[i + 1 :]:
            for metric in ("validation_accuracy", "score", "hessian_trace"):
                x, y = a[metric].estimate, b[metric].estimate
                assert x is not None and y is not None
                difference = y - x
                found.append(
                    Comparison(
                        metric=metric,
                        champion=a.candidate.label,
                        challenger=b.candidate.label,
                        better=a[metric].better,
                        difference=difference,
                        standard_error=error,
                        interval=(difference - 2 * error, difference + 2 * error),
                        p_value=0.001 if abs(difference) > 3 * error else 0.2,
                        n=2000,
                    )
                )
    return found


def judged(evidences: Sequence[Evidence], policy: Policy | None = None, champion: str | None = "v1") -> Decision:
    return decide(policy or Policy(), evidences, pairs(evidences), champion=champion)


def verdicts(decision: Decision) -> dict[tuple[str, str], str]:
    return {(s.candidate, f"{i} {v.metric}"): v.verdict for s in decision.standings for i, v in enumerate(s.verdicts)}


def test_a_better_challenger_is_promoted_and_says_why() -> None:
    decision = judged([evidence("1", 0.90, 0.80), evidence("2", 0.93, 0.82)])
    assert (decision.decision, decision.promoted) == ("promote", "v2")
    assert "not worse than v1" in decision.why


def test_flat_but_worse_is_not_promoted() -> None:
    decision = judged([evidence("1", 0.95, 0.85, trace=10.0), evidence("2", 0.90, 0.95, trace=0.1)])
    assert (decision.decision, decision.promoted) == ("reject", None)
    assert decision.standings[0].verdicts[0].verdict == "fail"


def test_an_equal_challenger_is_held_with_the_examples_that_would_settle_it() -> None:
    decision = judged([evidence("1", 0.9, 0.80), evidence("2", 0.9, 0.803)])
    assert decision.decision == "hold"
    assert decision.n_needed is not None and decision.n_needed > 2000


def test_equal_accuracy_and_a_clear_lead_in_score_is_promoted() -> None:
    assert judged([evidence("1", 0.9, 0.80), evidence("2", 0.9, 0.82)]).promoted == "v2"


def test_the_score_chooses_only_within_the_band() -> None:
    near = judged([evidence("1", 0.90, 0.80), evidence("2", 0.930, 0.82), evidence("3", 0.928, 0.84)])
    assert near.promoted == "v3" and near.tied == ("v3", "v2")
    assert near.random_choice == pytest.approx(0.929)
    far = judged([evidence("1", 0.90, 0.80), evidence("2", 0.930, 0.82), evidence("3", 0.92, 0.84)])
    assert far.promoted == "v2" and far.tied == ("v2",)


def test_tie_break_by_list_and_by_weighted_ranks() -> None:
    three = [evidence("1", 0.90, 0.80), evidence("2", 0.93, 0.83, trace=9.0), evidence("3", 0.93, 0.82, trace=2.0)]
    assert judged(three).promoted == "v2"
    assert judged(three, Policy(tie_break=("hessian_trace",))).promoted == "v3"
    assert judged(three, Policy(tie_break={"score": 1.0, "hessian_trace": 3.0})).promoted == "v3"


@pytest.mark.parametrize(
    ("rule", "expected"), [("allow", "promote"), ("require_criteria", "reject"), ("refuse", "reject")]
)
def test_first_promotion_is_explicit(rule: str, expected: str) -> None:
    policy = Policy.model_validate({"first_promotion": rule, "criteria": [{"metric": "hessian_trace", "at_most": 0.5}]})
    assert judged([evidence("1", 0.9, 0.8)], policy, champion=None).decision == expected


def test_first_promotion_refused_is_held() -> None:
    decision = judged([evidence("1", 0.9, 0.8)], Policy(first_promotion="refuse"), champion=None)
    assert (decision.decision, decision.promoted) == ("hold", None)


def test_a_champion_that_cannot_be_measured_decides_nothing() -> None:
    broken = evidence("1", 0.9, 0.8).model_copy(
        update={"measurements": (ACCURACY.missing(Outcome.FAILED, "it crashed"),)}
    )
    decision = decide(Policy(), [broken, evidence("2", 0.95, 0.9)], [], champion="v1")
    assert (decision.decision, decision.promoted) == ("inconclusive", None)


def test_no_challenger_holds() -> None:
    assert judged([evidence("1", 0.9, 0.8)]).decision == "hold"


def test_missing_never_passes_and_the_policy_says_what_it_does() -> None:
    criterion = Criterion(metric="lambda_max", at_most=5.0)
    both = [evidence("1", 0.9, 0.8), evidence("2", 0.95, 0.9)]
    assert judged(both, Policy(criteria=(criterion,))).decision == "reject"
    assert judged(both, Policy(criteria=(criterion,), missing="inconclusive")).decision == "inconclusive"


@pytest.mark.parametrize(
    ("fields", "at_most", "expected"),
    [
        ({"standard_error": 0.0}, 1.0, "pass"),
        ({"standard_error": 0.0}, 0.9, "fail"),
        ({"standard_error": None}, 5.0, "inconclusive"),
        ({"interval": (0.5, 1.5), "n": 100}, 1.2, "inconclusive"),
        ({"interval": (0.5, 1.5)}, 1.5, "pass"),
        ({"interval": (0.5, 1.5)}, 0.4, "fail"),
        ({"interval": (1.0, 1.2), "bound": "lower"}, 1.5, "pass"),
        ({"standard_error": 0.0, "bound": "lower"}, 5.0, "inconclusive"),
        ({"standard_error": 0.0, "bound": "lower"}, 0.5, "fail"),
    ],
)
def test_an_absolute_limit_uses_the_whole_interval(fields: dict[str, object], at_most: float, expected: str) -> None:
    measured = Metric(name="lambda_max", better="lower").measured(1.0, **fields)
    subject = evidence("1", 0.9, 0.8).with_measurements([measured])
    policy = Policy(criteria=(Criterion(metric="lambda_max", at_most=at_most),))
    assert limits(policy, subject)[1].verdict == expected


def test_on_estimate_accepts_the_number_alone() -> None:
    measured = Metric(name="lambda_max", better="lower").measured(1.0, bound="lower")
    policy = Policy(criteria=(Criterion(metric="lambda_max", at_most=2.0, on="estimate"),))
    assert limits(policy, evidence("1", 0.9, 0.8).with_measurements([measured]))[1].verdict == "pass"


# ── Laws ──

rows = st.lists(st.tuples(st.floats(0.85, 0.95), st.floats(0.7, 0.9), st.floats(0.1, 10.0)), min_size=2, max_size=5)
policies = st.builds(
    lambda margin, lead, trace, relative, band: Policy(
        non_inferiority=NonInferiority(margin=margin),
        score_lead=lead,
        band_width=band,
        criteria=(
            Criterion(metric="hessian_trace", at_most=trace),
            Criterion(metric="hessian_trace", no_worse_than="champion", margin=relative),
        ),
    ),
    st.floats(0.001, 0.05),
    st.floats(0.0, 0.05),
    st.floats(0.1, 10.0),
    st.floats(0.0, 5.0),
    st.floats(0.0, 3.0),
)


def candidates(values: Sequence[tuple[float, float, float]]) -> list[Evidence]:
    return [evidence(str(i + 1), *row) for i, row in enumerate(values)]


@given(rows, policies, st.floats(0.1, 1.0))
@settings(max_examples=200, deadline=None)
def test_tightening_a_bound_never_improves_a_verdict(
    values: list[tuple[float, float, float]], policy: Policy, share: float
) -> None:
    tighter = Policy(
        non_inferiority=NonInferiority(margin=policy.non_inferiority.margin * share),
        score_lead=policy.score_lead / share,
        band_width=policy.band_width,
        criteria=(
            Criterion(metric="hessian_trace", at_most=(policy.criteria[0].at_most or 0) * share),
            Criterion(metric="hessian_trace", no_worse_than="champion", margin=policy.criteria[1].margin * share),
        ),
    )
    loose, strict = judged(candidates(values), policy), judged(candidates(values), tighter)
    for key, verdict in verdicts(strict).items():
        assert ORDER[verdict] <= ORDER[verdicts(loose)[key]]
    if strict.decision == "promote":
        assert loose.decision == "promote"


@given(rows, policies, st.data())
@settings(max_examples=200, deadline=None)
def test_losing_its_own_measurements_never_promotes_a_candidate(
    values: list[tuple[float, float, float]], policy: Policy, data: st.DataObject
) -> None:
    subjects = candidates(values)
    victim = data.draw(st.integers(1, len(subjects) - 1))
    lost = data.draw(st.sets(st.sampled_from(["validation_accuracy", "score", "hessian_trace"]), min_size=1))
    label = subjects[victim].candidate.label
    kept = tuple(m for m in subjects[victim].measurements if m.metric not in lost)
    robbed = [*subjects]
    robbed[victim] = subjects[victim].model_copy(update={"measurements": kept})
    left = [c for c in pairs(subjects) if not (c.metric in lost and label in (c.champion, c.challenger))]
    before = judged(subjects, policy)
    after = decide(policy, robbed, left, champion="v1")
    if before.promoted != label:
        assert after.promoted != label


@given(rows, policies, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_candidates_never_matters(
    values: list[tuple[float, float, float]], policy: Policy, shuffler: object
) -> None:
    subjects = candidates(values)
    comparisons = pairs(subjects)
    expected = decide(policy, subjects, comparisons, champion="v1")
    mixed, turned = [*subjects], [c.reversed() for c in comparisons]
    shuffler.shuffle(mixed)  # type: ignore[attr-defined]
    shuffler.shuffle(turned)  # type: ignore[attr-defined]
    assert decide(policy, mixed, turned, champion="v1") == expected


@given(rows)
@settings(max_examples=50, deadline=None)
def test_nothing_measured_is_never_a_promotion(values: list[tuple[float, float, float]]) -> None:
    empty = [e.model_copy(update={"measurements": ()}) for e in candidates(values)]
    for champion in ("v1", None):
        for rule in ("allow", "require_criteria"):
            policy = Policy.model_validate({"first_promotion": rule})
            decision = decide(policy, empty, [], champion=champion)
            assert (decision.decision, decision.promoted) == ("inconclusive", None)


def test_the_same_records_give_the_same_bytes() -> None:
    subjects = [evidence("1", 0.90, 0.80), evidence("2", 0.93, 0.82), evidence("3", 0.928, 0.84)]
    assert judged(subjects).model_dump_json() == judged(subjects).model_dump_json()
    assert isinstance(Decision.model_validate_json(judged(subjects).model_dump_json()), Decision)
    assert Measurement.model_validate_json(subjects[0]["score"].model_dump_json()) == subjects[0]["score"]


# ── Families, relative margins, waivers, unmatched flatness, the validation budget ──


def with_groups(base: Evidence, **accuracies: tuple[float, float, int]) -> Evidence:
    """Accuracy, half width and number of examples of each group."""
    metric = Metric(name="group_accuracy", better="higher")
    return base.with_measurements(
        [metric.of(g).measured(a, interval=(a - h, a + h), n=n) for g, (a, h, n) in accuracies.items()]
    )


@pytest.mark.parametrize(
    ("least", "verdict", "said"),
    [
        (0.7, "pass", "2 of 2 pass; not judged, for fewer than 50 examples: tiny"),
        (0.82, "inconclusive", "group_accuracy/south: inconclusive"),
        (0.9, "fail", "group_accuracy/south: fail"),
    ],
)
def test_every_group_of_enough_examples_must_pass(least: float, verdict: str, said: str) -> None:
    policy = Policy.model_validate(
        {"criteria": [{"metric": "group_accuracy/*", "at_least": least, "min_examples": 50}]}
    )
    better = with_groups(evidence("2", 0.95, 0.9), north=(0.93, 0.02, 300), south=(0.81, 0.03, 90), tiny=(0.1, 0.1, 4))
    decision = judged([evidence("1", 0.9, 0.8), better], policy)
    found = decision.standings[0].verdicts[1]
    assert found.verdict == verdict and said in found.why
    assert found.metric == "group_accuracy/*"
    if verdict == "inconclusive":
        assert found.n_needed is not None and found.n_needed > 90


def test_a_family_without_members_is_missing() -> None:
    policy = Policy.model_validate({"criteria": [{"metric": "shift_accuracy/*", "at_least": 0.5}]})
    decision = judged([evidence("1", 0.9, 0.8), evidence("2", 0.95, 0.9)], policy)
    assert decision.standings[0].verdicts[1].verdict == "missing" and decision.decision == "reject"


def test_a_relative_margin_is_a_share_of_the_champions_number() -> None:
    both = [evidence("1", 0.90, 0.80, trace=10.0), evidence("2", 0.95, 0.90, trace=10.8)]
    for share, expected in ((0.1, "promote"), (0.05, "reject")):
        one = {"metric": "hessian_trace", "no_worse_than": "champion", "relative_margin": share}
        assert judged(both, Policy.model_validate({"criteria": [one]})).decision == expected


WAIVED = {
    "criteria": [{"metric": "hessian_trace", "at_most": 0.5}],
    "waivers": [
        {"metric": "hessian_trace", "candidate": "v2", "who": "ann", "why": "known, see T-1", "until": "2026-12-01"}
    ],
}


@pytest.mark.parametrize(
    ("today", "expected", "word"),
    [("2026-12-01", "promote", "waived"), ("2026-12-02", "reject", "fail"), (None, "reject", "fail")],
)
def test_a_waiver_lifts_a_criterion_until_its_day_and_is_always_said(
    today: str | None, expected: str, word: str
) -> None:
    both = [evidence("1", 0.90, 0.80), evidence("2", 0.95, 0.90)]
    day = date.fromisoformat(today) if today else None
    decision = decide(Policy.model_validate(WAIVED), both, pairs(both), champion="v1", today=day)
    found = decision.standings[0].verdicts[1]
    assert (decision.decision, found.word, found.verdict) == (expected, word, "fail")
    assert "ann" in found.told
    assert any("known, see T-1" in w for w in decision.warnings) == (word == "waived")


def test_a_waiver_of_another_candidate_lifts_nothing_and_of_no_criterion_is_an_error() -> None:
    both = [evidence("1", 0.90, 0.80), evidence("3", 0.95, 0.90)]
    policy = Policy.model_validate(WAIVED)
    assert decide(policy, both, pairs(both), champion="v1", today=date(2026, 11, 1)).decision == "reject"
    with pytest.raises(ValueError, match="a waiver of one of the criteria"):
        Policy.model_validate({"waivers": WAIVED["waivers"]})


@pytest.mark.parametrize(
    ("rule", "expected"), [("ignore", "promote"), ("inconclusive", "inconclusive"), ("fail", "reject")]
)
def test_flatness_that_does_not_compare_is_said_and_the_policy_goes_on_without(rule: str, expected: str) -> None:
    both = [evidence("1", 0.90, 0.80, trace=1.0), evidence("2", 0.95, 0.90, trace=9.0)]
    apart = [
        c.model_copy(update={"matched": False, "reason": "training losses apart", "difference": None, "interval": None})
        if c.metric == "hessian_trace"
        else c
        for c in pairs(both)
    ]
    policy = Policy.model_validate(
        {"criteria": [{"metric": "hessian_trace", "no_worse_than": "champion"}], "not_comparable": rule}
    )
    decision = decide(policy, both, apart, champion="v1")
    assert decision.decision == expected
    assert decision.standings[0].verdicts[1].verdict == "not_comparable"
    assert "training losses apart" in decision.standings[0].verdicts[1].why


def one_kind_lacks(without: str, rule: str) -> Decision:
    both = [evidence("1", 0.90, 0.80), evidence("2", 0.95, 0.90)]
    compared = [c for c in pairs(both) if c.metric != "hessian_trace"]
    forest = TRACE.missing(Outcome.NOT_APPLICABLE, "a forest has no parameters to differentiate")
    both = [e.with_measurements([forest]) if e.candidate.version == without else e for e in both]
    policy = Policy.model_validate(
        {"criteria": [{"metric": "hessian_trace", "no_worse_than": "champion"}], "not_comparable": rule}
    )
    return decide(policy, both, compared, champion="v1")


@pytest.mark.parametrize(
    ("rule", "expected"), [("ignore", "promote"), ("inconclusive", "inconclusive"), ("fail", "reject")]
)
def test_what_the_champions_kind_lacks_does_not_compare(rule: str, expected: str) -> None:
    decision = one_kind_lacks("1", rule)
    assert decision.decision == expected
    found = decision.standings[0].verdicts[1]
    assert found.verdict == "not_comparable" and "v1 has no hessian_trace" in found.why
    assert "a forest has no parameters" in found.why


def test_a_challenger_sheds_no_criterion_by_its_kind() -> None:
    decision = one_kind_lacks("2", "ignore")
    assert decision.decision == "inconclusive"
    assert decision.standings[0].verdicts[1].verdict == "inconclusive"
    assert "v2 has no hessian_trace" in decision.standings[0].verdicts[1].why


def test_a_challenger_without_the_policys_metric_is_never_promoted() -> None:
    both = [evidence("1", 0.90, 0.80), evidence("2", 0.95, 0.90)]
    compared = [c for c in pairs(both) if c.metric != "validation_accuracy"]
    silent = ACCURACY.missing(Outcome.NOT_APPLICABLE, "decision values are no probabilities")
    both[1] = both[1].with_measurements([silent])
    decision = decide(Policy(), both, compared, champion="v1")
    assert decision.decision == "reject"
    assert decision.standings[0].verdicts[0].verdict == "missing"


def test_a_number_that_failed_on_one_side_is_missing_not_incomparable() -> None:
    both = [evidence("1", 0.90, 0.80), evidence("2", 0.95, 0.90)]
    compared = [c for c in pairs(both) if c.metric != "hessian_trace"]
    both[1] = both[1].with_measurements([TRACE.missing(Outcome.FAILED, "out of memory")])
    policy = Policy.model_validate({"criteria": [{"metric": "hessian_trace", "no_worse_than": "champion"}]})
    decision = decide(policy, both, compared, champion="v1")
    assert decision.standings[0].verdicts[1].verdict == "missing"
    assert decision.decision != "promote"


def test_inconclusive_can_be_made_a_failure() -> None:
    criterion = Criterion(metric="validation_accuracy", at_least=0.945)
    both = [evidence("1", 0.90, 0.80), evidence("2", 0.95, 0.90)]
    assert judged(both, Policy(criteria=(criterion,))).decision == "inconclusive"
    assert judged(both, Policy(criteria=(criterion,), inconclusive="fail")).decision == "reject"


def test_a_validation_set_is_asked_less_and_less_and_then_nothing() -> None:
    both = [evidence("1", 0.90, 0.80), evidence("2", 0.93, 0.82)]  # p = 0.001
    uses = [decide(Policy(), both, pairs(both), champion="v1", validation_use=t) for t in (1, 5, 6, 8, 10, 11)]
    assert [d.decision for d in uses] == ["promote", "promote", "hold", "hold", "hold", "hold"]
    assert uses[0].alpha == pytest.approx(0.05 * 6 / math.pi**2)
    assert [bool(d.warnings) for d in uses] == [False, False, False, True, True, True]
    assert decide(Policy(), both, pairs(both), champion="v1", validation_use=7).warnings
    assert "used up: 10 decisions" in uses[-1].standings[0].verdicts[-1].why
    unlimited = Policy.model_validate({"validation_budget": None})
    assert decide(unlimited, both, pairs(both), champion="v1", validation_use=99).decision == "promote"
    lenient = Policy.model_validate({"validation_budget": {"exhausted": "warn", "decisions": 5}})
    late = decide(lenient, both, pairs(both), champion="v1", validation_use=50)
    assert late.decision == "promote" and "beyond its budget" in late.warnings[0]


def test_the_levels_of_all_decisions_sum_to_alpha() -> None:
    budget = ValidationBudget(decisions=10**6)
    assert sum(budget.level(t) for t in range(1, 10**5)) == pytest.approx(0.05, rel=1e-4)


def test_a_metric_that_does_not_compare_breaks_no_tie() -> None:
    three = [evidence("1", 0.90, 0.80), evidence("2", 0.93, 0.83, trace=9.0), evidence("3", 0.93, 0.82, trace=2.0)]
    apart = [
        c.model_copy(update={"matched": False, "reason": "losses apart", "difference": None, "interval": None})
        if c.metric == "hessian_trace"
        else c
        for c in pairs(three)
    ]
    for rule in (("hessian_trace", "score"), {"hessian_trace": 3.0, "score": 1.0}):
        policy = Policy.model_validate({"tie_break": rule})
        assert decide(policy, three, pairs(three), champion="v1").promoted == "v3"
        decision = decide(policy, three, apart, champion="v1")
        assert decision.promoted == "v2"
        assert any("hessian_trace breaks no tie" in warning for warning in decision.warnings)


def test_a_renewed_waiver_holds_whatever_its_place() -> None:
    current = {"metric": "hessian_trace", "candidate": "v2", "who": "ann", "why": "T-1", "until": "2026-12-01"}
    both = [evidence("1", 0.90, 0.80), evidence("2", 0.95, 0.90)]
    for dates in (("2026-01-01", "2026-12-01"), ("2026-12-01", "2026-01-01")):
        waivers = [current | {"until": until} for until in dates]
        policy = Policy.model_validate({"criteria": WAIVED["criteria"], "waivers": waivers})
        decision = decide(policy, both, pairs(both), champion="v1", today=date(2026, 6, 1))
        assert decision.decision == "promote"
