"""A winner that is no registered version is called the best, and never promoted: no alias can point to it."""

import io
import json
import re
from types import ModuleType

import pytest
from rich.console import Console

from flataudit import terminal
from flataudit.audit import AuditRecord
from flataudit.report.explanation import explained
from flataudit.report.html import HtmlReport
from flataudit.report.json import JsonReport
from flataudit.report.markdown import MarkdownReport


def of_a_run(record: AuditRecord) -> AuditRecord:
    """The same gate, had its winner been logged and not registered."""
    assert record.decision is not None
    winner = record.decision.promoted
    standings = tuple(
        one.model_copy(update={"version": None}) if one.candidate == winner else one
        for one in record.decision.standings
    )
    return record.model_copy(
        update={"decision": record.decision.model_copy(update={"standings": standings}), "receipt": None}
    )


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_best_is_named_with_what_to_do(audits: ModuleType, dry_run: bool) -> None:
    record = of_a_run(audits.rich_gate(dry_run=dry_run)[0])
    assert record.decision is not None and record.decision.outcome == "hold"
    out = io.StringIO()
    terminal.show_audit(record, Console(file=out, width=140, highlight=False))
    lines = out.getvalue().splitlines()
    assert lines[0] == "HOLD  v8 is the best, and not registered: nothing to promote; v7 stays champion of digits."
    told = 'Register it with mlflow.register_model("models:/digits/8", "digits"), then gate that version.'
    assert told in out.getvalue() and "PROMOTE" not in out.getvalue() and "promoted" not in out.getvalue()
    (row,) = [line for line in lines if line.startswith("v8  the best")]
    assert "not worse, within all limits, and better; not registered" in row
    (story,) = [one for one in explained(record) if one.candidate == "v8"]
    assert story.verdict == "hold" and story.paragraph.startswith("v8 is the best, and not registered")


def test_every_format_says_hold(audits: ModuleType) -> None:
    record = of_a_run(audits.rich_gate()[0])
    document = json.loads(JsonReport().render(record, {}))
    assert (document["decision"], document["promoted"], document["unregistered"]) == ("hold", None, "v8")
    assert {one["label"]: one["verdict"] for one in document["candidates"]}["v8"] == "hold"
    plain = json.loads(JsonReport().render(audits.rich_gate()[0], {}))
    assert (plain["decision"], plain["promoted"], plain["unregistered"]) == ("promote", "8", None)
    assert MarkdownReport().render(record, {}).startswith("## flataudit gate: hold")
    assert not re.search(r'class="verdict v-promote', HtmlReport().render(record, {}))


def test_a_first_champion_that_is_not_registered_is_none(audits: ModuleType) -> None:
    record, _ = audits.rich_gate()
    assert record.decision is not None
    first = record.model_copy(
        update={"champion": None, "decision": record.decision.model_copy(update={"champion": None})}
    )
    out = io.StringIO()
    terminal.show_audit(of_a_run(first), Console(file=out, width=140, highlight=False))
    assert out.getvalue().startswith("HOLD  v8 is the best, and not registered: nothing to promote in digits.")
