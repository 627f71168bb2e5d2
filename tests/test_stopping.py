"""Early stopping by two rules: what each picks, and what neither may."""

from collections.abc import Sequence

from flataudit.decision import Comparison
from flataudit.evidence import AuditProtocol, Candidate, Evidence, Metric, Outcome
from flataudit.policy import Policy
from flataudit.stopping import early_stopping

ACCURACY = Metric(name="validation_accuracy", better="higher")
SCORE = Metric(name="score", better="higher")
PROTOCOL = AuditProtocol(probes=("p@1",), data={}, seed=0, dtype="float32", device="cpu", libraries={})


def checkpoint(step: int | None, accuracy: float | None, score: float, run: str = "r") -> Evidence:
    candidate = Candidate(name="m", model_id=f"{run}-{step}", run_id=run, step=step, uri="models:/m")
    first = (
        ACCURACY.measured(accuracy, standard_error=0.01) if accuracy else ACCURACY.missing(Outcome.FAILED, "it broke")
    )
    return Evidence(
        candidate=candidate, protocol=PROTOCOL, measurements=(first, SCORE.measured(score, standard_error=0.01))
    )


def pairs(evidences: Sequence[Evidence], error: float) -> list[Comparison]:
    found = []
    for i, one in enumerate(evidences):
        for other in evidences[i + 1 :]:
            x, y = one["validation_accuracy"].estimate, other["validation_accuracy"].estimate
            if x is None or y is None:
                continue
            found.append(
                Comparison(
                    metric="validation_accuracy",
                    champion=one.candidate.label,
                    challenger=other.candidate.label,
                    difference=y - x,
                    standard_error=error,
                    interval=(y - x - 2 * error, y - x + 2 * error),
                )
            )
    return found


def stopped(evidences: Sequence[Evidence], error: float = 0.005):
    return early_stopping(Policy(), evidences, pairs(evidences, error))


def test_the_score_chooses_among_the_tied_and_says_the_difference() -> None:
    # Step 1 has the best score of all, and is surely less accurate: it is picked by no rule.
    run = [checkpoint(1, 0.80, 0.99), checkpoint(2, 0.925, 0.9), checkpoint(3, 0.93, 0.5), checkpoint(4, 0.921, 0.4)]
    (found,) = stopped(run)
    assert (found.by_metric.step, found.by_score.step, found.of) == (3, 2, 4)
    assert found.tied == ("r-2", "r-3", "r-4")
    assert found.difference is not None and found.difference.difference is not None
    assert abs(found.difference.difference + 0.005) < 1e-12
    assert "step 3 (0.93); by score: step 2 (0.925), among 3 of 4 checkpoints tied with it" in found.told
    assert "-0.0050 [-0.0150, +0.0050]" in found.told


def test_of_equally_accurate_checkpoints_the_earliest() -> None:
    (found,) = stopped([checkpoint(30, 0.9, 0.3), checkpoint(10, 0.9, 0.5), checkpoint(20, 0.9, 0.4)])
    assert (found.by_metric.step, found.by_score.step) == (10, 10)
    assert found.difference is None and "by score the same" in found.told


def test_each_run_by_itself_and_only_where_there_is_a_choice() -> None:
    runs = [checkpoint(1, 0.9, 0.1, "a"), checkpoint(2, 0.8, 0.2, "a"), checkpoint(5, 0.99, 0.9, "b")]
    runs += [checkpoint(None, 0.9, 0.9, "c"), checkpoint(None, 0.8, 0.9, "c")]
    assert [(one.run_id, one.by_metric.step) for one in stopped(runs)] == [("a", 1)]


def test_a_checkpoint_without_a_number_is_no_candidate() -> None:
    run = [checkpoint(1, None, 0.9), checkpoint(2, 0.8, 0.2), checkpoint(3, 0.9, 0.1)]
    (found,) = stopped(run, error=0.5)
    assert found.of == 2 and "r-1" not in found.tied
    assert stopped(run[:2]) == ()
