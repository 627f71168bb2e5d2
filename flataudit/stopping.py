"""Where to stop a training run: the checkpoint that validation accuracy picks beside the one that the score picks."""

from collections.abc import Sequence

from flataudit.case import Case
from flataudit.decision import Comparison, Pick, Stopping
from flataudit.evidence import Evidence
from flataudit.policy import Policy
from flataudit.ranking import band

__all__ = ["early_stopping"]


def early_stopping(
    policy: Policy, evidences: Sequence[Evidence], comparisons: Sequence[Comparison]
) -> tuple[Stopping, ...]:
    """For each run with two or more measured checkpoints, what the two rules pick.

    The score chooses as a gate's tie-break does: among the checkpoints that the data cannot tell from the most
    accurate. One that is surely less accurate is never picked for its score.

    Args:
        policy: names the metric, and how ties are broken.
        evidences: of all candidates; those without a training step are passed over.
        comparisons: of all pairs.
    """
    runs: dict[str, list[Evidence]] = {}
    for evidence in evidences:
        if evidence.candidate.run_id is not None and evidence.candidate.step is not None:
            runs.setdefault(evidence.candidate.run_id, []).append(evidence)
    found = (_stopped(policy, run_id, members, comparisons) for run_id, members in runs.items())
    return tuple(one for one in found if one is not None)


def _stopped(
    policy: Policy, run_id: str, members: Sequence[Evidence], comparisons: Sequence[Comparison]
) -> Stopping | None:
    metric = policy.non_inferiority.metric
    case = Case(policy, {one.candidate.label: one for one in members}, comparisons, None)
    pool = [label for label in case.table if case.estimate(label, metric) is not None]
    if len(pool) < 2:
        return None
    tied = band(case, pool)
    better = next(m.better for label in pool if (m := case.measurement(label, metric)))
    sign = 1.0 if better == "higher" else -1.0
    # Of several that are equally accurate the earliest: nothing was gained by training on.
    best = max(tied, key=lambda label: (sign * (case.estimate(label, metric) or 0.0), -_step(case, label)))
    scores = {label: case.estimate(label, "score") for label in tied}
    chosen = min((label for label in tied if scores[label] == scores[tied[0]]), key=lambda label: _step(case, label))
    return Stopping(
        run_id=run_id,
        metric=metric,
        by_metric=_pick(case, best, metric),
        by_score=_pick(case, chosen, metric),
        tied=tuple(sorted(tied, key=lambda label: _step(case, label))),
        of=len(pool),
        difference=case.pair(metric, best, chosen) if best != chosen else None,
    )


def _step(case: Case, label: str) -> int:
    return case.table[label].candidate.step or 0


def _pick(case: Case, label: str, metric: str) -> Pick:
    estimate = case.estimate(label, metric)
    assert estimate is not None
    return Pick(candidate=label, step=_step(case, label), value=estimate, score=case.estimate(label, "score"))
