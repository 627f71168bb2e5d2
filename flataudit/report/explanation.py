"""Why a candidate ended where it did, in a paragraph and line by line, in the words of the policy."""

from flataudit.audit import AuditRecord
from flataudit.decision import Standing, Verdict
from flataudit.evidence import Record
from flataudit.report.numbers import count, with_error
from flataudit.report.standings import accuracy_metric, decisive

__all__ = ["Explanation", "Line", "explained"]

_LEADS = {
    "promote": "is promoted",
    "hold": "is held: it satisfies the policy and is not promoted",
    "reject": "is rejected",
    "inconclusive": "is undecided",
}


class Line(Record):
    """One criterion, as it was met."""

    criterion: str
    verdict: str
    """``pass``, ``fail``, ``inconclusive``, ``missing``, ``not comparable`` or ``waived``."""
    numbers: str
    n_needed: int | None = None


class Explanation(Record):
    """One candidate's story."""

    candidate: str
    verdict: str
    paragraph: str
    lines: tuple[Line, ...]


def explained(record: AuditRecord) -> tuple[Explanation, ...]:
    """One a challenger; of a scheduled audit, of the champion and its limits."""
    if record.decision is not None:
        return tuple(_of_standing(record, standing) for standing in record.decision.standings)
    if record.alarms:
        label = record.alarms[0].candidate
        words = [verdict.word for verdict in record.alarms]
        broken = sum(word == "fail" for word in words)
        unknown = sum(word in ("missing", "inconclusive") for word in words)
        told = f"{label} meets {len(words) - broken - unknown} of its {len(words)} limits today"
        told += f", breaks {broken}" if broken else ""
        told += f", and {unknown} cannot be told" if unknown else ""
        verdict = "fail" if broken else "inconclusive" if unknown else "pass"
        lines = tuple(_line(one) for one in record.alarms)
        return (Explanation(candidate=label, verdict=verdict, paragraph=f"{told}.", lines=lines),)
    return ()


def _of_standing(record: AuditRecord, standing: Standing) -> Explanation:
    unregistered = record.decision is not None and record.decision.unregistered == standing.candidate
    kind = "hold" if unregistered else standing.verdict
    lead = "is the best, and not registered: no alias can point to it" if unregistered else _LEADS[kind]
    sentences = [f"{standing.candidate} {lead}.", *_numbers(record, standing)]
    verdict = decisive(standing.verdicts)
    if verdict is not None and verdict.verdict != "pass":
        sentences.append(f"What decided: {verdict.criterion}; {verdict.told}.")
    sentences += _place(record, standing)
    lifted = [v for v in standing.verdicts if v.word in ("waived", "not comparable") and v is not verdict]
    sentences += [f"Not counted: {v.criterion}; {v.told}." for v in lifted]
    needed = [v.n_needed for v in standing.verdicts if v.n_needed and v.verdict == "inconclusive"]
    if needed and standing.verdict != "promote":
        had = next((data.n for data in record.data if data.role == "validation"), None)
        sentences.append(
            f"About {count(min(needed))} validation examples would settle the nearest open question"
            + (f"; there were {count(had)}." if had else ".")
        )
    lines = tuple(_line(one) for one in standing.verdicts)
    return Explanation(candidate=standing.candidate, verdict=kind, paragraph=" ".join(sentences), lines=lines)


def _numbers(record: AuditRecord, standing: Standing) -> list[str]:
    """Its accuracy and score beside the champion's."""
    told = []
    for metric in (accuracy_metric(record), "score"):
        own = record.evidence(standing.candidate).get(metric)
        if own is None or own.estimate is None:
            continue
        champion = record.evidence(record.champion.label).get(metric) if record.champion else None
        other = f", the champion's {with_error(champion)}" if champion and champion.estimate is not None else ""
        told.append(f"Its {metric} is {with_error(own)}{other}.")
    return told


def _place(record: AuditRecord, standing: Standing) -> list[str]:
    decision = record.decision
    if decision is None or not standing.tied or len(decision.tied) < 2 or standing.rank is None:
        return []
    others = [label for label in decision.tied if label != standing.candidate]
    return [f"It is tied with {', '.join(others)}, and place {standing.rank} by the tie-break."]


def _line(verdict: Verdict) -> Line:
    return Line(criterion=verdict.criterion, verdict=verdict.word, numbers=verdict.told, n_needed=verdict.n_needed)
