"""The score by hand, the methods by metric, symmetry, refusals, coverage and speed."""

import time
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from flataudit.decision import Comparison
from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined, Measurement, Metric, Outcome
from flataudit.judge import decide
from flataudit.plugins import load
from flataudit.policy import NonInferiority, Policy, ScoreWeights
from flataudit.statistics.clusters import clustered_difference
from flataudit.statistics.comparer import PairedComparer
from flataudit.statistics.means import bounded_mean, mean

Floats = NDArray[np.float64]
PLAIN = Policy()
FEW = PairedComparer(replicates=400)


def _examined(
    label: str,
    samples: Mapping[str, Floats],
    *,
    votes: NDArray[np.int64] | None = None,
    extra: tuple[Measurement, ...] = (),
    seed: int = 0,
) -> Examined:
    protocol = AuditProtocol(
        probes=("p@1",), data={"validation": "1"}, seed=seed, dtype="f", device="cpu", libraries={}
    )
    measured = []
    for name, values in samples.items():
        lower = name.endswith("loss")
        metric = Metric(name=name, better="lower" if lower else "higher")
        fields = vars(mean(values) if lower else bounded_mean(values))
        measured.append(metric.measured(**fields, samples=name))
    arrays = {name: Array.pack(np.ascontiguousarray(values, dtype=np.float64)) for name, values in samples.items()}
    if votes is not None:
        arrays["predictions/week"] = Array.pack(votes)
    evidence = Evidence(
        candidate=Candidate(name="m", version=label, uri="models:/m"),
        protocol=protocol,
        measurements=(*measured, *extra),
    )
    return Examined(evidence, arrays)


def _parts(seed: int, *, n: int = 200, accuracy: float = 0.85) -> dict[str, Floats]:
    generator = np.random.default_rng(seed)
    clean = (generator.random(n) < accuracy).astype(np.float64)
    graded = np.clip(clean - generator.random(n) * 0.3, 0, 1)
    return {
        "validation_accuracy": clean,
        "validation_loss": generator.exponential(size=n),
        "corruption_accuracy": graded,
        "weight_noise_accuracy": np.clip(graded + 0.05, 0, 1),
    }


def _pairs(comparisons: object) -> dict[tuple[str, str, str], Comparison]:
    return {(c.metric, c.champion, c.challenger): c for c in comparisons}  # type: ignore[attr-defined]


def test_is_installed_under_its_name() -> None:
    assert load("comparers", "paired") is PairedComparer


# ── The score ──


def test_score_by_hand() -> None:
    parts = _parts(0) | {"shift_accuracy/a": np.repeat([1.0, 0.0], [30, 20]), "shift_accuracy/b": np.ones(40)}
    policy = Policy(score_weights=ScoreWeights(clean=2, corrupted=1, weight_noise=0, shifted=1))
    (found,) = FEW.score([_examined("1", parts)], policy)
    measured = found.evidence["score"]
    clean, corrupted = parts["validation_accuracy"].mean(), parts["corruption_accuracy"].mean()
    assert measured.estimate == pytest.approx(0.5 * clean + 0.25 * corrupted + 0.25 * (0.6 + 1.0) / 2)
    assert measured.details["weights"] == "clean 1/2, corrupted 1/4, shifted 1/4"
    assert measured.details["shifted"] == pytest.approx(0.8)
    assert (measured.n, measured.samples) == (200, None)
    inside = 0.5 * parts["validation_accuracy"] + 0.25 * parts["corruption_accuracy"]
    variance = inside.var() / 200 + (0.125 * 0.24**0.5) ** 2 / 50
    assert measured.standard_error == pytest.approx(variance**0.5, rel=0.12)
    assert found.arrays["score"].values() == pytest.approx((inside / 0.75).tolist())


def test_agreement_takes_its_share_of_the_whole() -> None:
    votes = [np.array([0, 0, 1, 1] * 20), np.array([0, 0, 1, 0] * 20), np.array([0, 1, 0, 0] * 20)]
    examined = [_examined(str(k), _parts(k), votes=v) for k, v in enumerate(votes)]
    first = FEW.score(examined, PLAIN)[0].evidence["score"]
    three = [np.mean(_parts(0)[f"{m}_accuracy"]) for m in ("validation", "corruption", "weight_noise")]
    assert first.estimate == pytest.approx(0.5 * np.mean(three) + 0.5 * 0.5)
    assert first.details["weights"] == "clean 1/6, corrupted 1/6, weight_noise 1/6, agreement 1/2"


def test_two_voters_leave_agreement_out_and_say_so() -> None:
    examined = [_examined(str(k), _parts(k), votes=np.arange(40) % (k + 2)) for k in range(2)]
    found = FEW.score(examined, PLAIN)[0].evidence
    assert found["score"].details["weights"] == "clean 1/3, corrupted 1/3, weight_noise 1/3"
    assert "2 independent candidates" in str(found["score"].details["left_out"])
    assert found["agreement/week"].outcome is Outcome.NOT_APPLICABLE


def test_a_part_that_only_one_lacks_costs_it_its_score() -> None:
    short = {k: v for k, v in _parts(1).items() if k != "weight_noise_accuracy"}
    whole, lacking = FEW.score([_examined("1", _parts(0)), _examined("2", short)], PLAIN)
    assert whole.evidence["score"].outcome is Outcome.MEASURED
    assert lacking.evidence["score"].outcome is Outcome.NOT_APPLICABLE
    assert "weight_noise_accuracy" in (lacking.evidence["score"].reason or "")
    only = FEW.score([_examined("2", short)], PLAIN)[0].evidence["score"]
    assert only.details["weights"] == "clean 1/2, corrupted 1/2"


def test_a_part_that_does_not_apply_to_one_kind_of_model_is_none_for_all() -> None:
    """A forest has no weights to shake: the two compare on what both have."""
    short = {k: v for k, v in _parts(1).items() if k != "weight_noise_accuracy"}
    why = Metric(name="weight_noise_accuracy").missing(Outcome.NOT_APPLICABLE, "a forest has no weights")
    network, forest = FEW.score([_examined("1", _parts(0)), _examined("2", short, extra=(why,))], PLAIN)
    for one in (network, forest):
        assert one.evidence["score"].details["weights"] == "clean 1/2, corrupted 1/2"
    pair = next(c for c in FEW.compare([network, forest], PLAIN) if c.metric == "score")
    assert pair.interval is not None
    nothing = _examined("3", {}, extra=(why, Metric(name="validation_accuracy").missing(Outcome.FAILED, "it broke")))
    alone, _ = FEW.score([_examined("1", _parts(0)), nothing], PLAIN)
    assert alone.evidence["score"].details["weights"] == "clean 1/3, corrupted 1/3, weight_noise 1/3"


def test_a_decoy_of_another_kind_does_not_change_the_score_of_the_others() -> None:
    why = Metric(name="weight_noise_accuracy").missing(Outcome.NOT_APPLICABLE, "a tree has no weights")
    poor = {k: v * 0.5 for k, v in _parts(1, accuracy=0.3).items() if k != "weight_noise_accuracy"}
    poor["validation_accuracy"] = (_parts(1, accuracy=0.3))["validation_accuracy"]
    network, _ = FEW.score([_examined("1", _parts(0)), _examined("2", poor, extra=(why,))], PLAIN)
    assert network.evidence["score"].details["weights"] == "clean 1/3, corrupted 1/3, weight_noise 1/3"


def test_bounds_by_different_attacks_do_not_compare() -> None:
    def attacked(label: str, method: str) -> Examined:
        robust = Metric(name="adversarial_accuracy", better="higher")
        found = robust.measured(0.4, interval=(0.3, 0.5), bound="upper", details={"method": method})
        return _examined(label, _parts(int(label)), extra=(found,))

    for methods, told in ((("pgd", "square"), "attacked differently: pgd / square"), (("pgd", "pgd"), "")):
        pair = FEW.compare([attacked("1", methods[0]), attacked("2", methods[1])], PLAIN)
        reason = next(c for c in pair if c.metric == "adversarial_accuracy").reason or ""
        assert reason.startswith(told) and ("attacked" in reason) == bool(told)


def test_no_part_no_score() -> None:
    found = FEW.score([_examined("1", {"validation_loss": np.arange(9.0)})], PLAIN)[0].evidence["score"]
    assert found.outcome is Outcome.NOT_APPLICABLE and found.advice is not None


def test_regression_scores_by_skill() -> None:
    skill = np.random.default_rng(0).random(80)
    unclipped = skill - (skill < 0.1)
    one = _examined("1", {"validation_r2": unclipped})
    one = Examined(one.evidence, {**one.arrays, "validation_skill": Array.pack(skill)})
    found = FEW.score([one], PLAIN)[0].evidence["score"]
    assert found.estimate == pytest.approx(skill.mean())


def test_a_perfect_score_is_not_certain() -> None:
    found = FEW.score([_examined("1", {"validation_accuracy": np.ones(50)})], PLAIN)[0].evidence["score"]
    assert found.estimate == 1.0
    assert found.interval is not None and found.interval[0] == pytest.approx(0.9287, abs=1e-3)
    assert found.standard_error is not None and found.standard_error > 0.01


def test_same_seed_same_records() -> None:
    examined = [_examined(str(k), _parts(k)) for k in range(3)]
    once, again = FEW.score(examined, PLAIN), FEW.score(examined, PLAIN)
    assert [e.evidence for e in once] == [e.evidence for e in again]
    assert FEW.compare(once, PLAIN) == FEW.compare(again, PLAIN)
    other = PairedComparer(replicates=400, seed=1)
    assert other.compare(once, PLAIN) != FEW.compare(once, PLAIN)


# ── Comparisons ──


def test_each_metric_by_its_method() -> None:
    exact = Metric(name="lambda_max", better="lower")
    extra = [
        (
            exact.measured(5.0 + k, standard_error=0.0),
            Metric(name="hessian_trace").measured(9.0 + k, standard_error=0.5),
            Metric(name="sharpness_l2").measured(1.0, standard_error=0.1, bound="lower"),
            Metric(name="local_entropy").measured(1.0 + k),
        )
        for k in range(2)
    ]
    examined = FEW.score([_examined(str(k), _parts(k), extra=extra[k]) for k in range(2)], PLAIN)
    found = {c.metric: c for c in FEW.compare(examined, PLAIN)}
    assert found["validation_accuracy"].method == "Tango 1998"
    assert "BCa" in found["validation_loss"].method and found["validation_loss"].better == "lower"
    assert "BCa" in found["score"].method and found["score"].n == 200
    assert found["lambda_max"].interval == (1.0, 1.0)
    assert found["hessian_trace"].standard_error == pytest.approx(0.5**0.5)
    assert found["hessian_trace"].method == "unpaired normal"
    assert found["local_entropy"].difference == 1.0 and found["local_entropy"].interval is None
    assert "unknown" in (found["local_entropy"].reason or "")
    assert found["sharpness_l2"].interval is None and "bound" in (found["sharpness_l2"].reason or "")


def test_differences_are_those_of_the_estimates() -> None:
    examined = FEW.score([_examined(str(k), _parts(k)) for k in range(2)], PLAIN)
    first, second = (one.evidence for one in examined)
    for one in FEW.compare(examined, PLAIN):
        assert one.difference == pytest.approx((second[one.metric].estimate or 0) - (first[one.metric].estimate or 0))


def test_samples_that_do_not_average_to_the_estimate_do_not_pair() -> None:
    spectrum = Metric(name="lambda_max").measured(7.0, standard_error=0.1, samples="spectrum")
    examined = [_examined(str(k), _parts(k), extra=(spectrum,)) for k in range(2)]
    examined = [Examined(e.evidence, {**e.arrays, "spectrum": Array.of([7.0, 1.0])}) for e in examined]
    found = {c.metric: c for c in FEW.compare(examined, PLAIN)}
    assert found["lambda_max"].method == "unpaired normal"


def test_each_pair_once_and_symmetric() -> None:
    """Exchanging the labels of two candidates gives what `reversed` gives."""
    parts = [_parts(k) | {"shift_accuracy/a": _parts(k + 9)["corruption_accuracy"]} for k in range(3)]
    forth = FEW.score([_examined(label, parts[k]) for k, label in enumerate("123")], PLAIN)
    back = FEW.score([_examined(label, parts[k]) for k, label in enumerate("321")], PLAIN)
    straight, exchanged = _pairs(FEW.compare(forth, PLAIN)), _pairs(FEW.compare(back, PLAIN))
    assert {key[1:] for key in straight} == {("v1", "v2"), ("v1", "v3"), ("v2", "v3")}
    mirror = {"v1": "v3", "v2": "v2", "v3": "v1"}
    for (metric, champion, challenger), one in straight.items():
        other = exchanged[metric, mirror[challenger], mirror[champion]].reversed()
        assert other.difference == pytest.approx(one.difference, abs=1e-12)
        assert other.interval == pytest.approx(one.interval, abs=1e-9)
        assert other.p_value == pytest.approx(one.p_value, abs=1e-12)
        assert other.standard_error == pytest.approx(one.standard_error, abs=1e-12)


def _attacked(label: str, seed: int, chosen: NDArray[np.int64]) -> tuple[Examined, Floats]:
    """Correctness of 400 chosen ones of 600 examples that come in tens, all of a ten alike."""
    alike = np.repeat(np.random.default_rng(seed).random(60) < 0.8, 10).astype(np.float64)[chosen]
    one = _examined(label, {"adversarial_accuracy": alike})
    (measurement,) = one.evidence.measurements
    evidence = one.evidence.model_copy(
        update={"measurements": (measurement.model_copy(update={"probe": "adversarial"}),)}
    )
    extra = {
        "validation_groups": Array.pack(np.repeat(np.arange(60), 10)),
        "adversarial/examples": Array.pack(chosen),
    }
    return Examined(evidence, {**one.arrays, **extra}), alike


def test_examples_that_a_probe_chose_are_paired_by_their_groups() -> None:
    chosen = np.random.default_rng(9).permutation(600)[:400].astype(np.int64)
    (one, first), (other, second) = _attacked("1", 1, chosen), _attacked("2", 2, chosen)
    found = next(c for c in FEW.compare([one, other], Policy(clustered=True)) if c.metric == "adversarial_accuracy")
    groups = np.repeat(np.arange(60), 10)[chosen]
    expected = clustered_difference(first, second, groups, confidence=found.confidence, replicates=400, seed=0)
    assert found.interval is not None and found.interval == expected.interval
    plain = next(c for c in FEW.compare([one, other], PLAIN) if c.metric == "adversarial_accuracy")
    assert found.standard_error is not None and plain.standard_error is not None
    assert found.standard_error > 2 * plain.standard_error  # tens of alike examples are worth one


def test_models_of_another_precision_compare_by_their_answers_alone() -> None:
    """A forest computes in float64 and a network in float32: accuracies compare, Hessians do not."""
    trace = Metric(name="hessian_trace", better="lower").measured(1.0, standard_error=0.0)
    trace = trace.model_copy(update={"probe": "hessian_trace"})
    one, other = (_examined(str(i), _parts(i), extra=(trace,)) for i in (1, 2))
    wide = other.evidence.protocol.model_copy(update={"dtype": "d"})
    other = Examined(other.evidence.model_copy(update={"protocol": wide}), other.arrays)
    found = {c.metric: c for c in FEW.compare([one, other], PLAIN)}
    assert found["validation_accuracy"].interval is not None
    assert found["hessian_trace"].reason == "computed differently: dtype: f / d"
    assert found["hessian_trace"].difference is None


def test_unequal_protocols_are_refused_by_name() -> None:
    examined = FEW.score([_examined("1", _parts(0)), _examined("2", _parts(1), seed=7)], PLAIN)
    for one in FEW.compare(examined, PLAIN):
        assert one.difference is None and one.interval is None
        assert "seed: 0 / 7" in (one.reason or "")


def test_missing_numbers_have_records_only_where_the_policy_asks() -> None:
    failed = Metric(name="validation_accuracy").missing(Outcome.FAILED, "it crashed")
    examined = FEW.score([_examined("1", _parts(0)), _examined("2", {}, extra=(failed,))], PLAIN)
    found = {c.metric: c for c in FEW.compare(examined, PLAIN)}
    assert set(found) == {"validation_accuracy", "score"}
    assert found["validation_accuracy"].reason == "v2 has no validation_accuracy: failed, it crashed"


def test_identical_candidates_are_equal_with_an_error() -> None:
    examined = FEW.score([_examined(label, _parts(0)) for label in "12"], PLAIN)
    for one in FEW.compare(examined, PLAIN):
        assert one.difference == 0
        if one.metric == "validation_loss":
            assert one.interval is None and one.reason is not None
        else:
            assert one.p_value == 1.0 and one.interval is not None
            assert one.interval[0] < 0 < one.interval[1] < 0.03


def test_confidence_is_the_policys() -> None:
    wide = Policy(non_inferiority=NonInferiority(confidence=0.99))
    examined = [_examined(str(k), _parts(k)) for k in range(2)]
    narrow_found = {c.metric: c for c in FEW.compare(FEW.score(examined, PLAIN), PLAIN)}
    wide_score = FEW.score(examined, wide)
    assert wide_score[0].evidence["score"].confidence == 0.99
    for one in FEW.compare(wide_score, wide):
        narrow = narrow_found[one.metric].interval
        assert one.confidence == 0.99 and one.interval is not None and narrow is not None
        assert one.interval[1] - one.interval[0] > narrow[1] - narrow[0]


def test_a_clearly_better_challenger_is_promoted() -> None:
    weak, strong = _parts(0, n=1000, accuracy=0.7), _parts(1, n=1000, accuracy=0.95)
    examined = FEW.score([_examined("1", weak), _examined("2", strong)], PLAIN)
    evidences = [one.evidence for one in examined]
    decision = decide(PLAIN, evidences, FEW.compare(examined, PLAIN), champion="v1")
    assert (decision.decision, decision.promoted) == ("promote", "v2")
    assert decide(PLAIN, evidences, FEW.compare(examined, PLAIN), champion="v2").decision == "reject"


# ── Honesty and speed ──


def test_score_intervals_cover() -> None:
    """Two candidates with a true score difference of 0.05 on shared examples, 400 audits of 60 examples."""
    comparer, generator = PairedComparer(replicates=300), np.random.default_rng(11)
    difference, own, promoted = 0, 0, 0
    for _ in range(400):
        ability = generator.random(60)
        first, second = (
            (ability < 0.75).astype(float),
            (np.where(generator.random(60) < 0.2, 1 - ability, ability) < 0.8),
        )
        pair = [
            _examined("1", {"validation_accuracy": first, "corruption_accuracy": first * ability}),
            _examined("2", {"validation_accuracy": second.astype(float), "corruption_accuracy": first * ability}),
        ]
        scored = comparer.score(pair, PLAIN)
        low, high = scored[0].evidence["score"].interval or (1, 0)
        own += low <= 0.5 * (0.75 + 0.75**2 / 2) <= high
        comparison = next(c for c in comparer.compare(scored, PLAIN) if c.metric == "score")
        low, high = comparison.interval or (1, 0)
        difference += low <= 0.5 * (0.8 - 0.75) <= high
        promoted += (comparison.p_value or 1) < 0.05
    assert 0.91 < own / 400 < 0.98
    assert 0.91 < difference / 400 < 0.98
    assert 0.05 < promoted / 400 < 0.6


def test_eight_candidates_in_seconds() -> None:
    examined = [_examined(str(k), _parts(k, n=5000)) for k in range(8)]
    comparer = PairedComparer()
    started = time.process_time()
    comparisons = comparer.compare(comparer.score(examined, PLAIN), PLAIN)
    spent = time.process_time() - started
    assert len(comparisons) == 5 * len(list(combinations(range(8), 2)))
    assert spent < 6


# ── Examples in groups ──


def _grouped(label: str, seed: int, *, groups: int = 60, size: int = 10, known: bool = True) -> Examined:
    """Accuracy and corrupted accuracy that whole groups share: ten examples of a group tell little more than one."""
    generator = np.random.default_rng(seed)
    shared = np.repeat(generator.random(groups) < 0.8, size).astype(np.float64)
    found = _examined(label, {"validation_accuracy": shared, "corruption_accuracy": 0.9 * shared})
    codes = Array.pack(np.repeat(np.arange(groups), size))
    return Examined(found.evidence, {**found.arrays, **({"validation_groups": codes} if known else {})})


def test_groups_widen_the_intervals_where_the_policy_says_clustered() -> None:
    pair = FEW.score([_grouped("1", 1), _grouped("2", 2)], PLAIN)
    policy = Policy(clustered=True)
    plain, grouped = ({c.metric: c for c in FEW.compare(pair, p)} for p in (PLAIN, policy))
    for metric in ("validation_accuracy", "corruption_accuracy", "score"):
        wide, narrow = grouped[metric].standard_error, plain[metric].standard_error
        assert wide is not None and narrow is not None and wide == pytest.approx(np.sqrt(10) * narrow, rel=0.15)
        assert grouped[metric].difference == pytest.approx(plain[metric].difference)


def test_clustered_without_groups_has_no_interval_and_says_why() -> None:
    pair = [_grouped("1", 1, known=False), _grouped("2", 2, known=False)]
    found = {c.metric: c for c in FEW.compare(pair, Policy(clustered=True))}
    assert found["validation_accuracy"].interval is None
    assert "list the probe groups" in (found["validation_accuracy"].reason or "")


def test_two_alike_candidates_on_grouped_examples_are_rarely_told_apart() -> None:
    """400 worlds of 60 groups: clustered, one in twenty is significant; as if independent, half are."""
    told = {False: 0, True: 0}
    for seed in range(400):
        pair = [_grouped("1", 2 * seed), _grouped("2", 2 * seed + 1)]
        for clustered in told:
            found = {c.metric: c for c in FEW.compare(pair, Policy(clustered=clustered))}
            told[clustered] += (found["validation_accuracy"].p_value or 0) <= 0.05
    assert told[True] <= 36 and told[False] >= 150


def test_numbers_with_intervals_alone_compare_by_them() -> None:
    """A percentile of latencies has an interval of order statistics and no standard error."""
    metric = Metric(name="latency_p95", better="lower")
    one, other = (
        _examined(label, {}, extra=(metric.measured(value, interval=(value - 0.2, value + 0.4), n=200),))
        for label, value in (("1", 2.0), ("2", 3.0))
    )
    found = {c.metric: c for c in FEW.compare([one, other], PLAIN)}["latency_p95"]
    assert found.interval == pytest.approx((1.0 - np.hypot(0.2, 0.4), 1.0 + np.hypot(0.4, 0.2)))
    assert found.gain == -1.0 and found.gain_interval is not None and found.gain_interval[1] < 0
