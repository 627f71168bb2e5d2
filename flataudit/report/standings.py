"""Where each candidate ended, in one line: its verdict, its two numbers and the reason that decided."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flataudit.audit import AuditRecord
from flataudit.decision import Standing, Verdict
from flataudit.evidence import Candidate, Evidence, Measurement, Outcome
from flataudit.report.numbers import count

__all__ = ["Role", "Row", "accuracy_metric", "decisive", "measured", "natural", "rows"]

Role = Literal["champion", "challenger", "candidate"]

_ORDER = ("promote", "champion", "hold", "inconclusive", "reject", "measured", "nothing measured")
_DECISIVE = ("fail", "missing", "inconclusive", "not comparable", "waived", "pass")
_WORDS = {
    "fail": "fails",
    "missing": "no number for",
    "inconclusive": "undecided",
    "not comparable": "decided without",
    "waived": "waived",
}
_SHORT = 110


@dataclass(frozen=True)
class Row:
    """One candidate as it is read in five seconds."""

    candidate: Candidate
    role: Role
    verdict: str
    """``promote`` ``hold`` ``reject`` ``inconclusive``, ``champion``; without a decision ``measured`` or not."""
    accuracy: Measurement | None
    score: Measurement | None
    why: str
    """In few words, for a table."""
    reason: str
    """With the numbers that decided."""
    tied: bool = False


def natural(label: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts ``v9`` before ``v10``.

    >>> sorted(["v10", "v9"], key=natural)
    ['v9', 'v10']
    """
    return tuple((int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", label))


def accuracy_metric(record: AuditRecord) -> str:
    """The metric in which challengers must not be worse."""
    return record.plan.policy.non_inferiority.metric


def rows(record: AuditRecord) -> tuple[Row, ...]:
    """All candidates: the promoted first, then the champion, then the others by verdict and rank."""
    standings = {s.candidate: s for s in record.decision.standings} if record.decision else {}
    made = [_row(record, evidence, standings.get(evidence.candidate.label)) for evidence in record.evidences]

    def key(row: Row) -> tuple[object, ...]:
        standing = standings.get(row.candidate.label)
        rank = standing.rank if standing and standing.rank else len(made) + 1
        score = row.score.estimate if row.score and row.score.estimate is not None else float("-inf")
        return (_ORDER.index(row.verdict), rank, -score, natural(row.candidate.label))

    return tuple(sorted(made, key=key))


def decisive(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The verdict that mattered most: a failure, then a missing number, then an open question."""
    return min(verdicts, key=lambda verdict: _DECISIVE.index(verdict.word), default=None)


def measured(evidence: Evidence) -> bool:
    """Whether any probe gave a number; the size of the files says nothing of the model."""
    return any(m.outcome is Outcome.MEASURED and m.probe for m in evidence.measurements)


def _row(record: AuditRecord, evidence: Evidence, standing: Standing | None) -> Row:
    champion = record.champion is not None and record.champion.label == evidence.candidate.label
    anything = measured(evidence)
    verdict, reason = ("measured", "") if anything else ("nothing measured", _failure(evidence))
    why = _clipped(reason)
    if standing is not None and record.decision is not None:
        verdict, reason = record.decision.outcome_of(standing), _reason(standing, record)
        why = _why(standing, record) if anything else f"nothing could be measured: {why}"
    elif champion:
        verdict, why = "champion", why or ("what the challengers are compared with" if record.kind == "gate" else "")
    return Row(
        candidate=evidence.candidate,
        role="champion" if champion else "challenger" if record.kind == "gate" else "candidate",
        verdict=verdict,
        accuracy=evidence.get(accuracy_metric(record)),
        score=evidence.get("score"),
        why=why,
        reason=reason,
        tied=standing is not None and standing.tied and len(record.decision.tied if record.decision else ()) > 1,
    )


def _why(standing: Standing, record: AuditRecord) -> str:
    """The decisive criterion, what would settle it, how many more there are like it."""
    verdict = decisive(standing.verdicts)
    if verdict is None or verdict.verdict == "pass" or standing.candidate == _winner(record):
        lifted = [v.criterion for v in standing.verdicts if v.word in ("waived", "not comparable")]
        return _passed(standing, record) + (f" ({len(lifted)} not counted: {', '.join(lifted)})" if lifted else "")
    needed = f"; {count(verdict.n_needed)} examples would settle it" if verdict.n_needed else ""
    if standing.verdict == "hold":
        return f"not shown to be better than the champion{needed}"
    alike = sum(1 for other in standing.verdicts if other.word == verdict.word) - 1
    more = f" (and {alike} more)" if alike else ""
    return f"{_WORDS[verdict.word]}: {verdict.criterion}{needed}{more}"


def _reason(standing: Standing, record: AuditRecord) -> str:
    """`_why` with the numbers of the decisive criterion."""
    verdict = decisive(standing.verdicts)
    numbers = verdict.told if verdict and (verdict.verdict != "pass" or record.champion is not None) else ""
    if verdict is not None and verdict.verdict == "pass" and record.champion is not None:
        numbers = standing.verdicts[-1].why
    return f"{_why(standing, record)}: {numbers}" if numbers else _why(standing, record)


def _passed(standing: Standing, record: AuditRecord) -> str:
    winner = _winner(record)
    if standing.candidate == winner:
        told = "within all limits" if record.champion is None else "not worse, within all limits, and better"
        return told if standing.version is not None else f"the best, {told}; not registered"
    if winner is None:
        return "satisfies the policy, which refuses a first promotion"
    if standing.tied:
        return f"satisfies the policy too; tied with {winner}, place {standing.rank} in the tie-break"
    return f"satisfies the policy too; {winner} is more accurate"


def _winner(record: AuditRecord) -> str | None:
    return record.decision.promoted if record.decision else None


def _failure(evidence: Evidence) -> str:
    return next((m.reason for m in evidence.measurements if m.reason), "no probe spoke of it")


def _clipped(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
