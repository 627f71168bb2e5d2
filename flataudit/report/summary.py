"""What an audit says in sentences: who won, why, what was tied, what is uncertain. Shared by every format.

Every function is pure and returns plain text that may hold names from the registry; the format that prints it
escapes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flataudit.audit import AuditRecord
from flataudit.decision import Decision
from flataudit.report.numbers import count, number
from flataudit.report.standings import accuracy_metric, measured

__all__ = [
    "FIFTY_LABELS",
    "Fact",
    "facts",
    "headline",
    "moment",
    "outcome_word",
    "reasons",
    "status",
    "tie",
    "uncertainty",
]

FIFTY_LABELS = "About 50 labelled examples of the target distribution tell candidates apart better than any probe does."


@dataclass(frozen=True)
class Fact:
    """One number that stands beside the verdict."""

    term: str
    value: str
    note: str


def outcome_word(record: AuditRecord) -> str:
    """One word for how it ended: the decision, or ``measured``, ``passed``, ``alarm``, ``inconclusive``."""
    if record.decision is not None:
        return record.decision.outcome
    if record.kind == "audit":
        words = {verdict.word for verdict in record.alarms}
        return "alarm" if "fail" in words else "passed" if words <= {"pass", "waived"} else "inconclusive"
    return "measured" if any(measured(evidence) for evidence in record.evidences) else "inconclusive"


def headline(record: AuditRecord) -> str:
    """Who won, in one sentence."""
    model = record.plan.model
    if record.decision is not None:
        return _decided(record.decision, model, record.dry_run)
    if record.kind == "audit":
        label = record.champion.label if record.champion else "the champion"
        failed = [verdict for verdict in record.alarms if verdict.word == "fail"]
        unknown = [verdict for verdict in record.alarms if verdict.word in ("missing", "inconclusive")]
        if failed:
            return f"{label} of {model} breaks {len(failed)} of its {len(record.alarms)} limits today."
        if unknown:
            what = f"{len(unknown)} of its {len(record.alarms)} limits"
            return f"It is not known whether {label} of {model} satisfies {what} today."
        return f"{label} of {model} satisfies all its limits today."
    usable = sum(1 for evidence in record.evidences if measured(evidence))
    return f"{usable} of {_many(len(record.evidences), 'candidate')} of {model} could be measured; nothing was decided."


def reasons(record: AuditRecord) -> str:
    """Why, in the words of the decision."""
    if record.decision is not None:
        return record.decision.why
    if record.stopping:
        return " ".join(stopping.told for stopping in record.stopping)
    broken = [f"{verdict.criterion} ({verdict.word})" for verdict in record.alarms if verdict.verdict != "pass"]
    return f"Not satisfied: {'; '.join(broken)}." if broken else ""


def tie(record: AuditRecord) -> str:
    """How many were tied, and what a random choice among them would give."""
    decision, metric = record.decision, accuracy_metric(record)
    if decision is None or not decision.tied:
        return ""
    first = decision.tied[0]
    if len(decision.tied) == 1:
        return f"No other challenger that satisfies the policy is tied with {first} in {metric}."
    text = f"{len(decision.tied)} challengers are tied in {metric}: {', '.join(decision.tied)}."
    chosen = _estimate(record, first, metric)
    if decision.random_choice is not None and chosen is not None:
        text += f" A random choice among them would give {number(decision.random_choice, 4)}"
        text += f"; the tie-break puts {first} first, with {number(chosen, 4)}."
    return text


def facts(record: AuditRecord) -> tuple[Fact, ...]:
    """What stands beside the winner: how many were tied, what chance would give, what is still open."""
    decision, metric = record.decision, accuracy_metric(record)
    if decision is None:
        return ()
    told = []
    if decision.tied:
        first, chosen = decision.tied[0], _estimate(record, decision.tied[0], metric)
        told.append(Fact("Tied for the first place", str(len(decision.tied)), ", ".join(decision.tied)))
        if decision.random_choice is not None and len(decision.tied) > 1:
            told.append(Fact("A random choice among them", number(decision.random_choice, 4), f"mean {metric}"))
        if chosen is not None and len(decision.tied) > 1:
            told.append(Fact("The choice of the tie-break", number(chosen, 4), f"{metric} of {first}"))
    chosen_best = record.selection
    if chosen_best is not None:
        low, high = chosen_best.interval
        note = f"[{number(low, 4)}, {number(high, 4)}]; {chosen_best.metric} of the best of {chosen_best.of}"
        told.append(Fact(f"{chosen_best.best} without its luck", number(chosen_best.corrected, 4), note))
        others = chosen_best.confidence_set
        told.append(Fact("May be the best", str(len(others)), ", ".join(others)))
    if decision.n_needed is not None:
        told.append(Fact("Examples that settle the nearest question", count(decision.n_needed), _had(record)))
    return tuple(told)


def uncertainty(record: AuditRecord) -> str:
    """What this audit could not tell, and how many examples would."""
    told = []
    decision = record.decision
    if decision is not None:
        undecided = [s.candidate for s in decision.standings if s.verdict == "inconclusive"]
        if undecided:
            told.append(f"The data cannot tell whether {_listed(undecided)} {_verb(undecided)} the policy.")
        if decision.n_needed is not None:
            had = f" ({_had(record)})" if _had(record) else ""
            needed = count(decision.n_needed)
            told.append(f"About {needed} validation examples would settle the nearest open question{had}.")
        told += [f"{warning[0].upper()}{warning[1:]}." for warning in decision.warnings]
    unmeasured = [e.candidate.label for e in record.evidences if not measured(e)]
    if unmeasured:
        told.append(f"Nothing could be measured on {_listed(unmeasured)}.")
    return " ".join(told)


def status(record: AuditRecord) -> str:
    """Whether anything was written, and where the alias points."""
    winner = record.decision.unregistered if record.decision else None
    if winner is not None:
        uri = record.evidence(winner).candidate.uri
        told = f'Register it with mlflow.register_model("{uri}", "{record.plan.model}"), then gate that version.'
        return f"Dry run: the registry was only read. {told}" if record.dry_run else told
    if record.dry_run:
        return "Dry run: the registry was only read; nothing was promoted."
    if record.kind != "gate":
        return "Nothing is promoted by this kind of audit."
    promotes = record.decision is not None and record.decision.decision == "promote"
    if record.receipt is None:
        if not promotes:
            return "The champion alias stays where it is."
        return "Written before the registry was asked: the audit's run in the registry tells whether the alias moved."
    if record.receipt.promoted is not None:
        return f"Promoted: the champion alias points to version {record.receipt.promoted} now."
    return "The champion alias was not moved" + (", although the decision was to promote." if promotes else ".")


def moment(record: AuditRecord) -> str:
    """When the audit was made, for a person; as recorded where that is no ISO time."""
    try:
        return f"{datetime.fromisoformat(record.created).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return record.created


def _decided(decision: Decision, model: str, dry_run: bool) -> str:
    if decision.unregistered is not None:
        best = f"{decision.unregistered} is the best, and not registered: nothing to promote"
        return f"{best}; {decision.champion} stays champion of {model}." if decision.champion else f"{best} in {model}."
    if decision.promoted is not None:
        would = "would become" if dry_run else "becomes"
        if decision.champion is None:
            return f"{decision.promoted} {would} the first champion of {model}."
        return f"{decision.promoted} {would} champion of {model} in place of {decision.champion}."
    stays = f"{decision.champion} stays champion of {model}" if decision.champion else f"{model} gets no champion"
    ends = {
        "hold": "no challenger is shown to be better" if decision.standings else "there is no challenger",
        "reject": "every challenger is rejected",
        "inconclusive": "the audit is inconclusive",
    }
    if decision.decision == "hold" and decision.champion is None:
        return f"{stays}: a person has to set the first one."
    return f"{stays}: {ends.get(decision.decision, 'nothing is promoted')}."


def _had(record: AuditRecord) -> str:
    examples = next((data.n for data in record.data if data.role == "validation"), None)
    return "" if examples is None else f"this audit had {count(examples)}"


def _estimate(record: AuditRecord, label: str, metric: str) -> float | None:
    found = record.evidence(label).get(metric)
    return found.estimate if found else None


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _verb(labels: Sequence[str]) -> str:
    return "satisfies" if len(labels) == 1 else "satisfy"


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
