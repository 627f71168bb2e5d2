"""What a person reads in the terminal: the verdict in five seconds, numbers with their errors, progress.

Every text that comes from a record or a plugin is shown through `terminal_text`, as `rich.text.Text`, so that no
name can colour, move or hide a line.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import JsonValue
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flataudit.audit import AuditRecord
from flataudit.contracts import Check
from flataudit.contracts import Progress as ProgressCallback
from flataudit.evidence import Candidate, Evidence, Measurement, Outcome
from flataudit.report import numbers
from flataudit.report.escaping import terminal_text
from flataudit.report.explanation import Explanation
from flataudit.report.standings import accuracy_metric, rows
from flataudit.report.summary import (
    FIFTY_LABELS,
    headline,
    outcome_word,
    reasons,
    status,
    tie,
    uncertainty,
)

__all__ = [
    "progress_reporter",
    "show_audit",
    "show_checks",
    "show_comparison",
    "show_explanations",
    "show_listing",
    "show_measurements",
]

_NAMED_WIDTH = 110
_STYLES = {
    "promote": "bold green",
    "pass": "green",
    "passed": "bold green",
    "reject": "bold red",
    "fail": "red",
    "alarm": "bold red",
    "inconclusive": "yellow",
    "missing": "yellow",
    "not comparable": "yellow",
    "waived": "yellow",
    "nothing measured": "yellow",
    "hold": "bold blue",
    "champion": "bold",
}


def show_audit(record: AuditRecord, console: Console) -> None:
    """Who won, why, what was tied, what is uncertain; then a reason a candidate, and where things stand."""
    word = outcome_word(record)
    console.print(Text.assemble(_word(word.upper(), word), "  ", _text(headline(record), "bold")), soft_wrap=True)
    for told in (reasons(record), tie(record), uncertainty(record)):
        if told:
            _say(console, told)
    console.print(_candidates(record, console.width))
    explained = [(row.candidate.label, row.reason) for row in rows(record) if row.reason and row.role != "champion"]
    for label, why in explained:
        console.print(Text.assemble(_text(label, "bold"), "  ", _text(why)), soft_wrap=True)
    for alarm in record.alarms:
        line = (_word(alarm.word), "  ", _text(f"{alarm.criterion}: {alarm.told}"))
        console.print(Text.assemble(*line), soft_wrap=True)
    for note in (status(record), *(record.receipt.notes if record.receipt else ())):
        _say(console, note)
    if record.decision is not None and len(record.decision.tied) > 1:
        _say(console, FIFTY_LABELS, "dim")


def show_explanations(found: Sequence[Explanation], console: Console) -> None:
    """A paragraph a candidate, then its criteria line by line."""
    for one in found:
        console.print(
            Text.assemble(_word(one.verdict.upper(), one.verdict), "  ", _text(one.paragraph)), soft_wrap=True
        )
        table = _table("", "criterion", "verdict", "numbers", "examples needed")
        for line in one.lines:
            needed = f"{line.n_needed:,}" if line.n_needed else ""
            table.add_row(_text(line.criterion), _word(line.verdict), _text(line.numbers), _text(needed))
        console.print(table)


def show_measurements(evidence: Evidence, console: Console) -> None:
    """Every number of one candidate, with error and cost, and the reason for what is missing."""
    table = _table(f"Measurements of {evidence.candidate.label}", "metric", "number", "error", "unit", "passes", "note")
    for measurement in evidence.measurements:
        number, error = _number(measurement)
        note = " – ".join(part for part in (measurement.reason, measurement.advice) if part)
        passes = numbers.number(measurement.cost.passes)
        table.add_row(_text(measurement.metric), number, error, _text(measurement.unit), passes, _text(note))
    console.print(table)


def show_comparison(found: Sequence[tuple[str, Evidence]], console: Console) -> None:
    """Candidates side by side, a line a metric; protocols that differ are named first.

    Args:
        found: a label that tells the candidate apart, and its evidence.
        console: where to print.
    """
    if not found:
        _say(console, "There is nothing to compare.")
        return
    first, reference = found[0]
    for label, evidence in found[1:]:
        for difference in evidence.protocol.differences(reference.protocol):
            _say(console, f"{label} does not compare with {first}: {difference}", "yellow")
    table = _table("Side by side", "metric", *(label for label, _ in found))
    for metric in dict.fromkeys(m.metric for _, evidence in found for m in evidence.measurements):
        cells = [_both(evidence.get(metric), "\n") for _, evidence in found]
        table.add_row(_text(metric), *cells)
    console.print(table)


def show_listing(listing: Sequence[Mapping[str, JsonValue]], console: Console) -> None:
    """Installed plugins by group; a plugin that fails to import says why."""
    for group in dict.fromkeys(str(row["group"]) for row in listing):
        table = _table(group, "name", "about", "metrics or parameters")
        for row in listing:
            if row["group"] == group:
                about = row.get("error") or row.get("about") or ""
                named = row.get("metrics") or row.get("parameters") or []
                told = ", ".join(str(name) for name in named) if isinstance(named, list) else str(named)
                table.add_row(_text(str(row["name"])), _text(str(about), "red" if "error" in row else ""), _text(told))
        console.print(table)


def show_checks(checks: Sequence[Check], console: Console) -> None:
    """What works on this machine, a line a check, with the remedy for what does not."""
    table = _table("", "", "check", "found", "remedy")
    for check in checks:
        word = _word("works", "pass") if check.ok else _word("fails", "fail")
        table.add_row(word, _text(check.name), _text(check.found), _text(check.remedy or ""))
    console.print(table)


@contextmanager
def progress_reporter(console: Console) -> Iterator[ProgressCallback]:
    """A callback for `flataudit.contracts.Progress`: bars on a terminal, a plain line a step elsewhere.

    It may be called from several threads at once.
    """
    if not console.is_terminal:
        yield _PlainProgress(console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield _BarProgress(bars)


class _PlainProgress:
    """A line whenever a candidate begins something else."""

    def __init__(self, console: Console) -> None:
        self._console, self._doing, self._lock = console, dict[str, str](), threading.Lock()

    def __call__(self, label: str, what: str, share: float) -> None:
        with self._lock:
            if self._doing.get(label) != what:
                self._doing[label] = what
                self._console.print(_text(f"{label}: {what} ({share:.0%})"), soft_wrap=True)


class _BarProgress:
    """A bar a candidate."""

    def __init__(self, bars: Progress) -> None:
        self._bars, self._tasks, self._lock = bars, dict[str, TaskID](), threading.Lock()

    def __call__(self, label: str, what: str, share: float) -> None:
        with self._lock:
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(terminal_text(label), total=1.0)
            told = terminal_text(f"{label}: {what}")
            self._bars.update(self._tasks[label], completed=min(max(share, 0.0), 1.0), description=told)


def _candidates(record: AuditRecord, width: int) -> Table:
    """A line a candidate; a narrow terminal leaves out the names that people gave."""
    table = _table("", "candidate", "verdict", accuracy_metric(record), "score")
    for column in table.columns[1:]:
        column.no_wrap = True
    named = width >= _NAMED_WIDTH
    if named:
        table.add_column(_text("name", "dim"), overflow="ellipsis", no_wrap=True, max_width=width - _NAMED_WIDTH + 30)
    for row in rows(record):
        tied = Text(" tied", "dim") if row.tied else Text("")
        cells = [
            _text(_short(row.candidate)),
            Text.assemble(_word(row.verdict), tied),
            _both(row.accuracy),
            _both(row.score),
        ]
        table.add_row(*cells, *([_text(row.candidate.title or "", "dim")] if named else []))
    return table


def _short(candidate: Candidate) -> str:
    """A label that fits: of a checkpoint its step, and the beginning of its id."""
    if candidate.version is None and candidate.step is not None and candidate.model_id:
        return f"step {candidate.step} ({candidate.model_id[:10]})"
    return candidate.label


def _table(title: str, *columns: str) -> Table:
    """A quiet table; long texts fold, numbers do not."""
    table = Table(title=_text(title, "bold") if title else None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(_text(name, "dim"), overflow="fold", vertical="top")
    return table


def _number(measurement: Measurement) -> tuple[Text, Text]:
    number, error = numbers.parts(measurement)
    return _text(number, "" if measurement.outcome is Outcome.MEASURED else "yellow"), _text(error, "dim")


def _both(measurement: Measurement | None, separator: str = " ") -> Text:
    if measurement is None:
        return Text("–", "dim")
    number, error = _number(measurement)
    return Text.assemble(number, separator, error) if error.plain else number


def _word(word: str, style: str | None = None) -> Text:
    return Text(word, _STYLES.get(style or word, ""))


def _text(text: str, style: str = "") -> Text:
    return Text(terminal_text(text), style)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(_text(text, style), soft_wrap=True)
