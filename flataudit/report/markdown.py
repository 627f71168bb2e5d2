"""The audit as GitHub Markdown, short enough for the summary of a CI step."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from flataudit.audit import AuditRecord
from flataudit.evidence import Array
from flataudit.report import inventory, tables
from flataudit.report.escaping import markdown_text
from flataudit.report.summary import FIFTY_LABELS, headline, outcome_word, reasons, status, tie, uncertainty
from flataudit.report.tables import Cell, Table

__all__ = ["MarkdownReport"]

_MARKS = {
    "pass": "✅",
    "promote": "✅",
    "fail": "❌",
    "reject": "❌",
    "missing": "❔",
    "not comparable": "➖",
    "waived": "➖",
    "inconclusive": "❔",
    "nothing measured": "❔",
    "hold": "⏸️",
}


class MarkdownReport:
    """Verdict, candidates, criteria and what is missing; figures and the full list are in the HTML report."""

    suffix: ClassVar[str] = "md"

    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        """The document."""
        return "\n\n".join(_blocks(audit)) + "\n"


def _blocks(audit: AuditRecord) -> Iterator[str]:
    yield f"## flataudit {audit.kind}: {outcome_word(audit)}"
    yield f"**{markdown_text(headline(audit))}**"
    yield " ".join(markdown_text(text) for text in (reasons(audit), uncertainty(audit), status(audit)) if text)
    if audit.receipt is not None and audit.receipt.notes:
        yield "\n".join(f"- {markdown_text(note)}" for note in audit.receipt.notes)
    yield _drawn(tables.glance(audit))
    if audit.decision is not None:
        yield " ".join(text for text in (markdown_text(tie(audit)), FIFTY_LABELS) if text)
    for table in (tables.alarms(audit), tables.criteria(audit), inventory.missing(audit)):
        if not table.empty:
            yield f"<details><summary>{table.caption}</summary>\n\n{_drawn(table)}\n\n</details>"
    digest = f"policy `{audit.policy_digest}`"
    yield f"<sub>audit {markdown_text(audit.id)}, {markdown_text(audit.created)}, {digest}</sub>"


def _drawn(table: Table) -> str:
    grouped = any(group.heading for group in table.groups)
    columns = ("", *table.columns) if grouped else table.columns
    kinds = next((row for group in table.groups for row in group.rows), ())
    rules = ["---:" if cell.kind == "number" else "---" for cell in kinds] or ["---"] * len(table.columns)
    lines = [_line([markdown_text(name) for name in columns]), _line((["---"] if grouped else []) + rules)]
    for group in table.groups:
        heading = [f"**{markdown_text(group.heading)}**"] if grouped else []
        lines += [_line(heading + [_cell(cell) for cell in row]) for row in group.rows]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    mark = f"{_MARKS[cell.text]} " if cell.kind == "verdict" and cell.text in _MARKS else ""
    note = f"<br><sub>{markdown_text(cell.note)}</sub>" if cell.note else ""
    if cell.kind in ("number", "verdict"):
        note = f" {markdown_text(cell.note)}" if cell.note else ""
    return f"{mark}{markdown_text(cell.text)}{note}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
