"""Accuracy without labels: exact where the assumption holds, and by how much each is wrong where it does not."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined, Metric, Outcome
from flataudit.statistics.agreement_line import with_agreement_line
from flataudit.statistics.gaps import gap
from flataudit.statistics.group_means import worst_mean
from flataudit.statistics.label_free import (
    average_thresholded_confidence,
    confidence_difference,
    doubt_of_labels,
    mano,
    negative_entropies,
    nuclear_norm,
)
from flataudit.statistics.means import Mean
from flataudit.statistics.proportions import wilson_interval


def test_collapse_into_one_of_four_classes_is_seen_by_the_nuclear_norm_and_not_by_mano() -> None:
    collapsed, spread = np.eye(4)[np.zeros(1000, dtype=int)], np.eye(4)[np.arange(1000) % 4]
    assert nuclear_norm(collapsed).estimate == pytest.approx(0.5, abs=1e-12)
    assert nuclear_norm(spread).estimate == pytest.approx(1.0, abs=1e-12)
    assert mano(collapsed) == pytest.approx(0.5**0.5, abs=1e-12) == mano(spread)
    assert nuclear_norm(np.full((1000, 4), 0.25)).estimate == pytest.approx(0.25)
    assert nuclear_norm(collapsed).sampling_error is None


def test_nuclear_norm_and_its_error_against_singular_values() -> None:
    generator = np.random.default_rng(0)
    whole = generator.dirichlet(np.full(5, 0.3), 40_000)
    found = [nuclear_norm(whole[generator.integers(40_000, size=400)]) for _ in range(200)]
    one = whole[:400]
    singular = np.linalg.svd(one, compute_uv=False).sum()
    assert nuclear_norm(one).estimate == pytest.approx(singular / (400 * 5) ** 0.5)
    claimed = np.mean([f.sampling_error for f in found])
    assert claimed == pytest.approx(np.std([f.estimate for f in found]), rel=0.15)
    few = generator.dirichlet(np.ones(6), 3)
    assert nuclear_norm(few).estimate == pytest.approx(np.linalg.svd(few, compute_uv=False).sum() / 3)


def test_entropy_of_certain_and_uniform_answers() -> None:
    with np.errstate(divide="ignore"):
        found = negative_entropies(np.log(np.array([[1.0, 0.0], [0.5, 0.5]])))
    assert found == pytest.approx([0.0, -np.log(2)])


@pytest.mark.parametrize("distinct", (3, 10_000))
def test_atc_gives_back_the_accuracy_of_validation_itself(distinct: int) -> None:
    generator = np.random.default_rng(3)
    scores = np.floor(generator.random(400) * distinct)
    right = (generator.random(400) < 0.7).astype(float)
    found = average_thresholded_confidence(scores, right, scores, generator)
    assert found.estimate == pytest.approx(right.mean(), abs=1e-12)


def _answers(generator: np.random.Generator, n: int, hard: float, honest: float) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether right; `hard` makes all less sure, `honest` 1 keeps confidence the chance of right."""
    confidence = 0.5 + 0.5 * generator.beta(4, hard, n)
    right = (generator.random(n) < 0.5 + (confidence - 0.5) * honest).astype(float)
    return confidence, right


def test_doc_is_right_where_confidence_stays_honest_and_wrong_where_it_does_not() -> None:
    """Mean absolute errors over simulated shifts whose truth is known; the assumption decides, not the sample."""
    generator = np.random.default_rng(4)
    errors: dict[float, list[float]] = {1.0: [], 0.3: []}
    for _ in range(40):
        confidence, right = _answers(generator, 2000, 1.0, 1.0)
        for honest, found in errors.items():
            target, truth = _answers(generator, 2000, 3.0, honest)
            found.append(abs(confidence_difference(confidence, right, target).estimate - truth.mean()))
    of_fifty_labels = 0.8 * (0.75 * 0.25 / 50) ** 0.5
    assert np.mean(errors[1.0]) < 0.015 < of_fifty_labels < 0.1 < np.mean(errors[0.3])


def test_atc_is_right_where_the_threshold_stays_and_wrong_where_it_moves() -> None:
    generator = np.random.default_rng(8)
    errors: dict[float, list[float]] = {0.6: [], 0.75: []}
    for _ in range(40):
        scores = generator.random(1000)
        for threshold, found in errors.items():
            target = generator.beta(2, 2.5, 1000)
            right = (scores > 0.6).astype(float)
            guessed = average_thresholded_confidence(scores, right, target, generator, replicates=2)
            found.append(abs(guessed.estimate - np.mean(target > threshold)))
    assert np.mean(errors[0.6]) < 0.005 and np.mean(errors[0.75]) > 0.1


def test_sampling_errors_are_those_of_repeated_samples() -> None:
    generator = np.random.default_rng(5)
    atc, doc = [], []
    for _ in range(150):
        (confidence, right), (target, _) = _answers(generator, 500, 1.0, 1.0), _answers(generator, 300, 2.0, 1.0)
        atc.append(average_thresholded_confidence(confidence, right, target, generator, replicates=60))
        doc.append(confidence_difference(confidence, right, target))
    for found in (atc, doc):
        assert np.mean([f.sampling_error for f in found]) == pytest.approx(np.std([f.estimate for f in found]), rel=0.2)


def test_what_fifty_labels_give() -> None:
    low, high = wilson_interval(0.8, 50)
    assert doubt_of_labels(0.8) == pytest.approx((high - low) / 2)


# ── Agreement on the line ──


def _networks(
    slope: float, bias: float, *, unlike: bool = False, n: int = 20_000, runs: bool = False
) -> list[Examined]:
    """Six classifiers of 1,000 classes whose accuracy, and pairwise agreement, lie on one probit line.

    Each is right independently with its accuracy; wrong answers never agree, so that the agreement of two is
    the product of their accuracies. `unlike` breaks the line: every other network falls much further.
    """
    generator = np.random.default_rng(6)
    agreement = np.array([0.55, 0.62, 0.7, 0.78, 0.86, 0.92])
    examined = []
    for index, clean in enumerate(agreement):
        shifted = ndtr(slope * ndtri(clean) + bias)
        shifted = shifted * 0.55 if unlike and index % 2 else shifted
        answers, right = [], None
        for share in (clean, shifted):
            hit = generator.random(n) < share
            right = hit if right is None else right
            answers.append(np.where(hit, 0, 1 + index).astype(np.int64))
        metric = Metric(name="validation_accuracy").measured(float(np.mean(right)), samples="validation_accuracy")
        protocol = AuditProtocol(
            probes=(), data={"validation": "a", "week": "b"}, seed=0, dtype="f", device="cpu", libraries={}
        )
        candidate = Candidate(name="m", version=str(index), uri="x", run_id="r" if runs and index < 4 else None)
        arrays = {
            "validation_predictions": Array.pack(answers[0]),
            "predictions/week": Array.pack(answers[1]),
            "validation_accuracy": Array.pack(np.asarray(right, dtype=np.float64)),
        }
        examined.append(Examined(Evidence(candidate=candidate, protocol=protocol, measurements=(metric,)), arrays))
    return examined


def test_a_line_is_read_off_at_the_validation_accuracy() -> None:
    """The estimate is the line's, made here by numpy's own least squares on the same pairs."""
    examined = with_agreement_line(_networks(0.9, -0.3))
    before = [np.asarray(e.arrays["validation_predictions"].view()) for e in examined]
    after = [np.asarray(e.arrays["predictions/week"].view()) for e in examined]
    pairs = [(a, b) for a in range(6) for b in range(a)]
    x, y = ([ndtri(np.mean(kept[a] == kept[b])) for a, b in pairs] for kept in (before, after))
    slope, bias = np.polyfit(x, y, 1)
    for one in examined:
        found = one.evidence["estimated_accuracy_line/week"]
        accuracy = one.evidence["validation_accuracy"].estimate
        assert found.estimate == pytest.approx(ndtr(slope * ndtri(accuracy) + bias), abs=1e-9)
        assert found.standard_error is None and found.interval is None
        assert found.details["pairs"] == 15 and found.details["r squared"] > 0.95
        assert 0 < found.details["sampling error"] < 0.02 and "line" in found.details["assumption"]
        assert found.advice is not None and "label 50" in found.advice


def test_without_a_line_there_is_no_number() -> None:
    for one in with_agreement_line(_networks(0.9, -0.3, unlike=True)):
        found = one.evidence["estimated_accuracy_line/week"]
        assert found.outcome is Outcome.NOT_APPLICABLE and "R²" in (found.reason or "")


def test_three_independent_networks_are_needed() -> None:
    for examined in (_networks(0.9, -0.3)[:2], _networks(0.9, -0.3, runs=True)[:5]):
        found = with_agreement_line(examined)[0].evidence["estimated_accuracy_line/week"]
        assert found.outcome is Outcome.NOT_APPLICABLE and "2 independent" in (found.reason or "")


# ── Gaps and groups of shifted sets ──


@pytest.mark.parametrize(
    ("first", "second", "limits"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ],
)
def test_gaps_are_newcombes_published_intervals(
    first: tuple[int, int], second: tuple[int, int], limits: tuple[float, float]
) -> None:
    means = [Mean(k / n, None, wilson_interval(k / n, n), n) for k, n in (first, second)]
    assert gap(*means).interval == pytest.approx(limits, abs=6e-5)
    reverse = gap(means[1], means[0]).interval
    assert reverse is not None and (-reverse[1], -reverse[0]) == pytest.approx(limits, abs=6e-5)


def test_the_worst_mean_is_that_of_the_groups_probe() -> None:
    name, found = worst_mean({"a": np.repeat([0.0, 1.0], [4, 36]), "b": np.repeat([0.0, 1.0], 15)})
    wide = [wilson_interval(share, n, confidence=0.975) for share, n in ((0.9, 40), (0.5, 30))]
    assert name == "b" and found.interval == pytest.approx((min(w[0] for w in wide), min(w[1] for w in wide)))
