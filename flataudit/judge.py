"""From evidence to a decision: pure, so that the same records give the same decision for ever.

No clock, no I/O, no randomness, no dependence on the order of candidates. A verdict is one of five words; what is
unknown never passes. Statistics arrive finished, as `Comparison`s.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from flataudit.case import Case
from flataudit.decision import Comparison, Decision, DecisionKind, Standing, Verdict
from flataudit.evidence import Evidence
from flataudit.policy import Policy
from flataudit.ranking import band, left_out
from flataudit.verdicts import criterion, effect, measured, of_candidate, superiority

__all__ = ["decide", "limits"]

_SOON = timedelta(days=7)
"""A waiver that ends within this time is warned of."""


def decide(
    policy: Policy,
    evidences: Sequence[Evidence],
    comparisons: Sequence[Comparison],
    *,
    champion: str | None = None,
    today: date | None = None,
    validation_use: int = 1,
) -> Decision:
    """Judge every challenger by the policy and choose at most one.

    Args:
        policy: the declared rule.
        evidences: of the champion and all challengers, in any order.
        comparisons: of each pair, for the metrics that the policy names and for ``score``.
        champion: label of the champion; None while the name has none.
        today: the day, UTC, on which waivers are looked at; None: no waiver holds.
        validation_use: which decision on this validation set it is, from 1 on (`Policy.validation_budget`).

    A challenger is *eligible* when it is not inferior and satisfies all criteria, and *qualified* when it
    is also better: superior in accuracy, or ahead in score by `Policy.score_lead`, each with its paired lower
    bound above 0 (Holm over the challengers). The winner is the first by tie-break among the qualified that
    are tied with the most accurate of them. Tightening any limit only removes candidates from these sets.
    """
    table = {evidence.candidate.label: evidence for evidence in sorted(evidences, key=lambda e: e.candidate.label)}
    case = Case(policy, table, comparisons, champion, today)
    verdicts = {label: of_candidate(case, label) for label in case.challengers}
    eligible = [label for label in case.challengers if all(effect(case, v) == "pass" for v in verdicts[label])]
    alpha, refusal = _level(policy, validation_use)
    better = superiority(case, alpha, refusal) if champion is not None else {}
    qualified = [label for label in eligible if champion is None or better[label].verdict == "pass"]
    if champion is None and policy.first_promotion == "refuse":
        qualified = []
    tied = band(case, qualified or eligible)
    winner = tied[0] if qualified else None
    standings = tuple(
        Standing(
            candidate=label,
            version=table[label].candidate.version,
            digest=table[label].candidate.digest,
            verdict=_standing(case, label, winner, verdicts[label]),
            verdicts=tuple(verdicts[label]) + ((better[label],) if label in better else ()),
            tied=label in tied,
            rank=tied.index(label) + 1 if label in tied else None,
        )
        for label in case.challengers
    )
    kind = _overall(standings, case)
    needed = [v.n_needed for s in standings for v in s.verdicts if v.verdict == "inconclusive" and v.n_needed]
    accuracies = [case.estimate(label, policy.non_inferiority.metric) for label in tied]
    return Decision(
        decision=kind,
        promoted=winner,
        champion=champion,
        why=_why(kind, winner, tied, case),
        standings=standings,
        tied=tuple(tied),
        random_choice=sum(a for a in accuracies if a is not None) / len(tied) if tied else None,
        n_needed=min(needed) if needed and kind != "promote" else None,
        validation_use=validation_use if policy.validation_budget else None,
        alpha=alpha if champion is not None else None,
        warnings=_warnings(case, validation_use, standings, tied),
        policy_digest=policy.digest,
    )


def limits(policy: Policy, evidence: Evidence, *, today: date | None = None) -> tuple[Verdict, ...]:
    """The absolute limits alone, on one candidate: what a scheduled audit watches."""
    label = evidence.candidate.label
    case = Case(policy, {label: evidence}, (), None, today)
    absolute = [criterion(case, label, c) for c in policy.criteria if not c.no_worse_than]
    return (measured(case, label, policy.non_inferiority.metric), *absolute)


def _level(policy: Policy, use: int) -> tuple[float, str | None]:
    """α of this decision, and why nothing can be shown on a validation set that is used up."""
    budget = policy.validation_budget
    if budget is None:
        return 1 - policy.non_inferiority.confidence, None
    over = use > budget.decisions and budget.exhausted == "refuse"
    told = f"the validation set is used up: {use - 1} decisions were made on it; bring fresh examples"
    return budget.level(use), told if over else None


def _warnings(case: Case, use: int, standings: Sequence[Standing], tied: Sequence[str]) -> tuple[str, ...]:
    untied = [f"{metric} breaks no tie: {why}" for metric, why in left_out(case, tied).items()]
    marked = sorted(
        label
        for label, one in case.table.items()
        if any(m.details.get("trust") == "code_bearing" for m in one.measurements)
    )
    told = "numbers of the parameters of {} come from processes in which their own code ran"
    own = [told.format(", ".join(marked))] if marked else []
    return (*_budget_warnings(case.policy, use), *_waiver_warnings(case.policy, case.today, standings), *untied, *own)


def _budget_warnings(policy: Policy, use: int) -> list[str]:
    budget = policy.validation_budget
    left = budget.decisions - use if budget else None
    if budget is None or left is None or left > budget.warn_before:
        return []
    if left < 0:
        word = "shows nothing any more" if budget.exhausted == "refuse" else "is asked beyond its budget"
        return [f"the validation set {word}: this is decision {use} of {budget.decisions}; bring fresh examples"]
    return [f"the validation set has room for {left} more decision{'s' * (left != 1)}; prepare fresh examples"]


def _waiver_warnings(policy: Policy, today: date | None, standings: Sequence[Standing]) -> list[str]:
    used = {v.waived for s in standings for v in s.verdicts if v.waived}
    soon = [w for w in policy.waivers if today is not None and today <= w.until <= today + _SOON]
    return [f"{waiver.metric} is {waiver.text}" for waiver in policy.waivers if waiver.text in used] + [
        f"the waiver of {waiver.metric} by {waiver.who} ends on {waiver.until.isoformat()}" for waiver in soon
    ]


def _standing(case: Case, label: str, winner: str | None, verdicts: Iterable[Verdict]) -> DecisionKind:
    effects = {effect(case, verdict) for verdict in verdicts}
    if "fail" in effects:
        return "reject"
    if "inconclusive" in effects:
        return "inconclusive"
    return "promote" if label == winner else "hold"


def _overall(standings: Sequence[Standing], case: Case) -> DecisionKind:
    """The best that any challenger reached; inconclusive where nothing at all was measured."""
    reached = {standing.verdict for standing in standings}
    if not case.anything_measured():
        return "inconclusive"
    order: tuple[DecisionKind, ...] = ("promote", "hold", "inconclusive", "reject")
    return next((kind for kind in order if kind in reached), "hold")


def _why(kind: DecisionKind, winner: str | None, tied: Sequence[str], case: Case) -> str:
    band_told = f" It was tied with {', '.join(tied[1:])} and won the tie-break." if len(tied) > 1 else ""
    if winner is not None and case.champion is None:
        return f"{winner} is the first champion: the policy allows it ({case.policy.first_promotion}).{band_told}"
    if winner is not None:
        return f"{winner} is not worse than {case.champion}, within all limits, and better.{band_told}"
    if not case.challengers:
        return f"There is no challenger; {case.champion or 'no model'} stays."
    if not case.anything_measured():
        return "Nothing could be measured, so nothing is decided."
    if kind == "hold" and case.champion is None:
        return "The policy refuses a first promotion; a person has to set the alias."
    told: Mapping[DecisionKind, str] = {
        "hold": f"No challenger is shown to be better than {case.champion}, which stays.",
        "inconclusive": "The data cannot tell whether a challenger satisfies the policy.",
        "reject": "Every challenger fails the policy.",
        "promote": "",
    }
    return told[kind]
