"""One criterion on one candidate: pass, fail, or why it cannot be said, with the examples that would settle it."""

from typing import Literal

from flataudit.case import Case
from flataudit.decision import Comparison, Verdict, VerdictKind
from flataudit.evidence import Interval, Measurement, Outcome
from flataudit.planning import examples_for_non_inferiority, holm
from flataudit.policy import Criterion

__all__ = ["criterion", "effect", "measured", "of_candidate", "superiority"]

_SMALLEST_GAP = 1e-6
"""Below it no number of examples is worth naming."""
_WORST: tuple[VerdictKind, ...] = ("fail", "missing", "inconclusive", "not_comparable", "pass")
Effect = Literal["pass", "fail", "inconclusive"]


def of_candidate(case: Case, label: str) -> list[Verdict]:
    """Non-inferiority and every criterion that applies."""
    rule = case.policy.non_inferiority
    limits = [c for c in case.policy.criteria if case.champion is not None or not c.no_worse_than]
    if case.champion is None and case.policy.first_promotion == "allow":
        limits = []
    if case.champion is None:
        first = measured(case, label, rule.metric)
    else:
        text = f"{rule.metric} not inferior by {rule.margin:g}"
        first = _against_champion(case, label, Criterion(metric=rule.metric, no_worse_than="champion"), rule.margin)
        if first.verdict == "not_comparable" or case.estimate(label, rule.metric) is None:
            # What must be shown is not shown by having no number.
            first = first.model_copy(update={"verdict": "missing"})
        first = first.model_copy(update={"criterion": text})
    return [first] + [criterion(case, label, one) for one in limits]


def effect(case: Case, verdict: Verdict) -> Effect:
    """What a verdict does to its candidate under the policy."""
    if verdict.waived is not None or verdict.verdict == "pass":
        return "pass"
    if verdict.verdict == "not_comparable":
        rule = case.policy.not_comparable
        return "pass" if rule == "ignore" else rule
    if verdict.verdict == "missing":
        return case.policy.missing
    return "fail" if verdict.verdict == "fail" else case.policy.inconclusive


def measured(case: Case, label: str, metric: str) -> Verdict:
    """Whether there is a number at all."""
    estimate = case.estimate(label, metric)
    if estimate is None:
        return _missing(case, label, metric, f"{metric} measured")
    return _verdict(label, metric, f"{metric} measured", "pass", f"{metric} is {estimate:.4g}")


def criterion(case: Case, label: str, one: Criterion) -> Verdict:
    """One criterion of the policy, with the waiver that lifts it."""
    found = _family(case, label, one) if one.is_family else _single(case, label, one)
    if found.verdict == "pass":
        return found
    waivers = sorted((w for w in case.policy.waivers if w.lifts(one.metric, label)), key=lambda waiver: waiver.until)
    if not waivers:
        return found
    latest = waivers[-1]
    if case.today is not None and case.today <= latest.until:
        return found.model_copy(update={"waived": latest.text})
    expired = f"{found.why}; a waiver by {latest.who} ended on {latest.until.isoformat()}"
    return found.model_copy(update={"why": expired})


def superiority(case: Case, alpha: float, refusal: str | None = None) -> dict[str, Verdict]:
    """For each challenger: superior in accuracy, or ahead in score; Holm over all challengers.

    Args:
        case: with a champion.
        alpha: two-sided level.
        refusal: why nothing can be shown here, whatever the numbers.
    """
    rule = case.policy.non_inferiority
    passed: dict[str, str] = {}
    told: dict[str, list[str]] = {}
    for metric, lead in ((rule.metric, 0.0), ("score", case.policy.score_lead)):
        pairs = {label: case.pair(metric, case.champion or "", label) for label in case.challengers}
        adjusted = holm({k: p.p_value for k, p in pairs.items() if p and p.p_value is not None})
        for label, pair in pairs.items():
            told.setdefault(label, []).append(_gain_text(metric, pair))
            if refusal is None and pair and _ahead(pair, lead, adjusted.get(label), alpha):
                passed.setdefault(label, metric)
    text = f"better than the champion in {rule.metric}, or in score by {case.policy.score_lead:g}"
    verdicts = {}
    for label in case.challengers:
        score = case.pair("score", case.champion or "", label)
        kind: VerdictKind = "pass" if label in passed else "inconclusive"
        ahead = score is not None and kind != "pass" and (score.gain or 0) > 0 and refusal is None
        needed = _examples(score, 0.0, alpha) if ahead and score else None
        why = "; ".join(([refusal] if refusal else []) + told[label])
        verdicts[label] = _verdict(label, passed.get(label, "score"), text, kind, why, needed)
    return verdicts


def _family(case: Case, label: str, one: Criterion) -> Verdict:
    """All members must pass; the worst verdict is the family's."""
    evidence = case.table.get(label)
    members = [m for m in (evidence.measurements if evidence else ()) if one.covers(m.metric)]
    judged = [m for m in members if m.n is None or m.n >= one.min_examples]
    if not judged:
        why = f"no {one.metric} was measured" if not members else f"no {one.metric} has {one.min_examples} examples"
        return _verdict(label, one.metric, one.text, "missing", why)
    found = [_single(case, label, one.model_copy(update={"metric": m.metric, "min_examples": 1})) for m in judged]
    worst = min((v.verdict for v in found), key=_WORST.index)
    parts = [f"{sum(v.verdict == 'pass' for v in found)} of {len(found)} pass"]
    parts += [f"{v.metric}: {v.verdict}, {v.why}" for v in found if v.verdict != "pass"]
    small = [m.metric.rpartition("/")[2] for m in members if m not in judged]
    parts += [f"not judged, for fewer than {one.min_examples} examples: {', '.join(small)}"] if small else []
    needed = [v.n_needed for v in found if v.verdict == "inconclusive"]
    most = max((n for n in needed if n is not None), default=None) if None not in needed else None
    return _verdict(label, one.metric, one.text, worst, "; ".join(parts), most)


def _single(case: Case, label: str, one: Criterion) -> Verdict:
    if one.no_worse_than:
        champion = case.estimate(case.champion, one.metric) if case.champion else None
        margin = one.margin + one.relative_margin * abs(champion or 0.0)
        return _against_champion(case, label, one, margin)
    found = case.measurement(label, one.metric)
    if found is None or found.outcome is not Outcome.MEASURED:
        return _missing(case, label, one.metric, one.text)
    return _absolute(label, one, found)


def _against_champion(case: Case, label: str, one: Criterion, margin: float) -> Verdict:
    assert case.champion is not None
    metric, text = one.metric, one.text
    if case.estimate(label, metric) is None or case.estimate(case.champion, metric) is None:
        return _one_sided(case, label, metric, text)
    pair = case.pair(metric, case.champion, label)
    interval = pair.gain_interval if pair else None
    if pair and pair.matched and one.on == "estimate" and pair.gain is not None:
        interval = (pair.gain, pair.gain)
    if pair is None or interval is None or not pair.matched:
        reason = (pair.reason if pair else None) or f"{metric} was not compared with the champion's"
        kind: VerdictKind = "inconclusive" if pair is None or pair.matched else "not_comparable"
        return _verdict(label, metric, text, kind, f"not comparable: {reason}")
    why = f"gain {_signed(pair.gain)} [{_signed(interval[0])}, {_signed(interval[1])}] over {case.champion}"
    if interval[0] > -margin or interval == (-margin, -margin):
        return _verdict(label, metric, text, "pass", why)
    if interval[1] < -margin:
        return _verdict(label, metric, text, "fail", f"worse than allowed: {why}")
    return _verdict(label, metric, text, "inconclusive", why, _examples(pair, margin))


def _absolute(label: str, one: Criterion, found: Measurement) -> Verdict:
    assert found.estimate is not None
    limits = (found.estimate, found.estimate) if one.on == "estimate" else _limits(found)
    if limits is None:
        why = f"{found.estimate:.4g} with an unknown error; write `on: estimate` to accept the number alone"
        return _verdict(label, one.metric, one.text, "inconclusive", why)
    low, high = limits
    limit = one.at_most if one.at_most is not None else one.at_least
    assert limit is not None
    passes, fails = (high <= limit, low > limit) if one.at_most is not None else (low >= limit, high < limit)
    kind: VerdictKind = "pass" if passes else "fail" if fails else "inconclusive"
    why = f"{found.estimate:.4g} in [{low:.4g}, {high:.4g}]"
    if kind == "inconclusive" and found.bound != "estimate" and found.interval is None:
        why += f", a {found.bound} bound; write `on: estimate` to accept the bound itself"
    gap, half = abs(limit - found.estimate), (high - low) / 2
    settles = kind == "inconclusive" and found.n and gap > _SMALLEST_GAP * max(abs(limit), half) and half < float("inf")
    needed = int(found.n * (half / gap) ** 2) + 1 if settles and found.n else None
    return _verdict(label, one.metric, one.text, kind, why, needed)


def _missing(case: Case, label: str, metric: str, text: str) -> Verdict:
    found = case.measurement(label, metric)
    why = f"{metric} has no number: {found.outcome}, {found.reason}" if found else f"{metric} was not measured"
    return _verdict(label, metric, text, "missing", why)


def _one_sided(case: Case, label: str, metric: str, text: str) -> Verdict:
    """A metric that the models' kinds cannot both have does not compare; any other lack is one."""
    assert case.champion is not None
    found = {one: case.measurement(one, metric) for one in (label, case.champion)}
    outcomes = {m.outcome for m in found.values() if m is not None}
    if outcomes == {Outcome.MEASURED, Outcome.NOT_APPLICABLE}:
        without, lack = next((one, m) for one, m in found.items() if m and m.outcome is Outcome.NOT_APPLICABLE)
        why = f"not comparable: {without} has no {metric}, which does not apply to it ({lack.reason})"
        # A challenger cannot shed a criterion by being of a kind that lacks its metric.
        return _verdict(label, metric, text, "inconclusive" if without == label else "not_comparable", why)
    if case.estimate(label, metric) is None:
        return _missing(case, label, metric, text)
    pair = case.pair(metric, case.champion, label)
    reason = (pair.reason if pair else None) or f"{metric} was not compared with the champion's"
    return _verdict(label, metric, text, "inconclusive", f"not comparable: {reason}")


def _verdict(
    label: str, metric: str, text: str, verdict: VerdictKind, why: str, n_needed: int | None = None
) -> Verdict:
    return Verdict(candidate=label, metric=metric, criterion=text, verdict=verdict, why=why, n_needed=n_needed)


def _limits(found: Measurement) -> Interval | None:
    """The interval; of a bound without one, the side that it does not bound is open."""
    if found.interval is not None or found.bound == "estimate" or found.estimate is None:
        return found.limits
    return (found.estimate, float("inf")) if found.bound == "lower" else (float("-inf"), found.estimate)


def _ahead(pair: Comparison, lead: float, p_adjusted: float | None, alpha: float) -> bool:
    interval = pair.gain_interval
    if pair.gain is None or interval is None or p_adjusted is None:
        return False
    return pair.gain >= lead and interval[0] > 0 and p_adjusted <= alpha


def _examples(pair: Comparison, margin: float, alpha: float | None = None) -> int | None:
    """Examples that would settle the comparison if the observed difference is the true one."""
    if pair.n is None or not pair.standard_error or pair.gain is None or pair.gain + margin < _SMALLEST_GAP:
        return None
    confidence = pair.confidence if alpha is None else 1 - alpha
    variance = pair.standard_error**2 * pair.n
    return examples_for_non_inferiority(margin, variance, difference=pair.gain, confidence=confidence)


def _gain_text(metric: str, pair: Comparison | None) -> str:
    if pair is None or pair.gain is None:
        return f"{metric}: {(pair.reason if pair else None) or 'not compared'}"
    interval = pair.gain_interval
    limits = f" [{_signed(interval[0])}, {_signed(interval[1])}]" if interval else ""
    return f"{metric} gain {_signed(pair.gain)}{limits}"


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.4f}"
