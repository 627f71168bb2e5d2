"""The tables of a report, built once from records and drawn by each format in its own way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from flataudit.audit import AuditRecord
from flataudit.decision import Comparison, Standing, Verdict
from flataudit.evidence import Measurement, Outcome
from flataudit.report import numbers
from flataudit.report.standings import accuracy_metric, rows

__all__ = [
    "Cell",
    "Group",
    "Table",
    "alarms",
    "comparisons",
    "criteria",
    "glance",
    "number_cell",
    "verdicts",
    "with_champion",
]

CellKind = Literal["text", "number", "code", "verdict", "missing"]


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table; ``note`` is a quieter second line."""

    text: str
    kind: CellKind = "text"
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under one heading; the first cell of each row names it."""

    rows: tuple[tuple[Cell, ...], ...]
    heading: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, column names and groups of rows."""

    key: str
    caption: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether it has no row at all."""
        return not any(group.rows for group in self.groups)


def glance(record: AuditRecord) -> Table:
    """Candidate, accuracy, score, verdict, why: what a person reads in five seconds."""
    made = tuple(
        (
            Cell(row.candidate.label, note=row.candidate.title or ""),
            Cell(row.verdict, "verdict", note="tied" if row.tied else ""),
            number_cell(row.accuracy),
            number_cell(row.score),
            Cell(row.why),
        )
        for row in rows(record)
    )
    columns = ("Candidate", "Verdict", accuracy_metric(record), "score", "Why")
    return Table("glance", f"Candidates of {record.plan.model}", columns, (Group(made),))


def verdicts(record: AuditRecord) -> Table:
    """A line a criterion, a column a challenger: the verdict, and the examples that would settle an open one."""
    standings = _standings(record)
    found = {(s.candidate, v.criterion): v for s in standings for v in s.verdicts}
    names = dict.fromkeys(v.criterion for s in standings for v in s.verdicts)
    made = tuple((Cell(name), *(_verdict_cell(found.get((s.candidate, name))) for s in standings)) for name in names)
    columns = ("Criterion", *(standing.candidate for standing in standings))
    return Table("verdicts", "Verdicts by criterion and challenger", columns, (Group(made),))


def criteria(record: AuditRecord) -> Table:
    """Every criterion of every challenger, with its numbers."""
    groups = tuple(
        Group(tuple(_verdict_row(v) for v in standing.verdicts), standing.candidate, standing.verdict)
        for standing in _standings(record)
    )
    return Table("criteria", "Criteria by challenger", ("Criterion", "Verdict", "Numbers", "Examples needed"), groups)


def alarms(record: AuditRecord) -> Table:
    """Every absolute limit, as the champion meets it today."""
    made = tuple(_verdict_row(verdict) for verdict in record.alarms)
    columns = ("Limit", "Verdict", "Numbers", "Examples needed")
    return Table("alarms", "Absolute limits of the policy", columns, (Group(made),))


def with_champion(record: AuditRecord) -> list[Comparison]:
    """Each comparison of a challenger with the champion, challenger minus champion, once."""
    champion = record.champion.label if record.champion else None
    found: dict[tuple[str, str], Comparison] = {}
    for pair in record.comparisons:
        seen = pair if pair.champion == champion else pair.reversed() if pair.challenger == champion else None
        if seen is not None:
            found.setdefault((seen.metric, seen.challenger), seen)
    return list(found.values())


def comparisons(record: AuditRecord) -> Table:
    """A line a metric, a column a challenger: challenger minus champion; or why the two do not compare."""
    pairs = {(pair.metric, pair.challenger): pair for pair in with_champion(record)}
    compared = {label for _, label in pairs}
    labels = [row.candidate.label for row in rows(record) if row.candidate.label in compared]
    metrics = sorted({metric for metric, _ in pairs}, key=_important(record))
    made = tuple(
        (_metric_cell(metric, list(pairs.values())), *(_pair_cell(pairs.get((metric, label))) for label in labels))
        for metric in metrics
    )
    confidence = record.plan.policy.non_inferiority.confidence
    caption = f"Challenger minus champion, with {confidence:.0%} intervals and p-values before correction"
    return Table("comparisons", caption, ("Metric", *labels), (Group(made),))


def number_cell(measurement: Measurement | None) -> Cell:
    """A number over its error, or the outcome that stands in its place."""
    if measurement is None:
        return Cell("–", "number")
    text, error = numbers.parts(measurement)
    return Cell(text, "number" if measurement.outcome is Outcome.MEASURED else "missing", note=error)


def _standings(record: AuditRecord) -> list[Standing]:
    """The challengers in the order of the first table, with what becomes of each."""
    decision = record.decision
    told = [s.model_copy(update={"verdict": decision.outcome_of(s)}) for s in decision.standings] if decision else []
    found = {s.candidate: s for s in told}
    return [found[row.candidate.label] for row in rows(record) if row.candidate.label in found]


def _verdict_row(verdict: Verdict) -> tuple[Cell, ...]:
    needed = Cell(numbers.count(verdict.n_needed) if verdict.n_needed else "", "number")
    return (Cell(verdict.criterion), Cell(verdict.word, "verdict"), Cell(verdict.told), needed)


def _verdict_cell(verdict: Verdict | None) -> Cell:
    if verdict is None:
        return Cell("–")
    needed = f"{numbers.count(verdict.n_needed)} needed" if verdict.n_needed else ""
    return Cell(verdict.word, "verdict", note=needed)


def _pair_cell(pair: Comparison | None) -> Cell:
    if pair is None:
        return Cell("–", "number")
    if pair.difference is None:
        return Cell("not compared", "missing", note=pair.reason or "")
    text, interval = numbers.signed(pair.difference, pair.interval)
    told = [interval] if interval else ["(error unknown)"]
    told += [f"p {numbers.p_value(pair.p_value)}"] if pair.p_value is not None else []
    return Cell(text, "number", note=" ".join(part.replace(" ", "\u00a0") for part in told))


def _metric_cell(metric: str, pairs: list[Comparison]) -> Cell:
    """The metric with its direction, its pairs and its method, as far as its comparisons agree on them."""
    found = [pair for pair in pairs if pair.metric == metric]
    better = {"higher": "higher is better", "lower": "lower is better", "neither": ""}[found[0].better]
    sizes = {pair.n for pair in found if pair.n is not None}
    methods = {pair.method for pair in found if pair.method}
    told = [better, f"{numbers.count(min(sizes))} pairs" if len(sizes) == 1 else "", *sorted(methods)]
    return Cell(metric, note=", ".join(part for part in told if part))


def _important(record: AuditRecord) -> Callable[[str], tuple[int, str]]:
    first = [accuracy_metric(record), "score", *(c.metric for c in record.plan.policy.criteria)]
    return lambda metric: (first.index(metric) if metric in first else len(first), metric)
