"""Every text of a record made hostile at once: no renderer lets one run, hide or recolour anything."""

import io
import json
import unicodedata
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import JsonValue, ValidationError
from rich.console import Console

from flataudit import plugins, terminal
from flataudit.attestation.verifying import Attested, Terms, verified
from flataudit.audit import AuditRecord
from flataudit.report.explanation import explained
from flataudit.report.sarif import SarifReport
from flataudit.testing.reports import HOSTILE, _records

RENDERERS = ("html", "md", "junit", "json")


def leaves(value: JsonValue) -> set[str]:
    if isinstance(value, dict):
        return {text for key, inner in value.items() for text in ({key} if "/" in key else set()) | leaves(inner)}
    if isinstance(value, list):
        return {text for inner in value for text in leaves(inner)}
    return {value} if isinstance(value, str) else set()


def replaced(value: JsonValue, chosen: set[str]) -> Any:
    """Each chosen text with the hostile one after it, wherever it stands, so that what refers to it still does."""
    if isinstance(value, dict):
        return {key: replaced(inner, chosen) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, chosen) for inner in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) and value in chosen else value


def hostile(record: AuditRecord) -> AuditRecord:
    evidences = tuple(
        one.model_copy(update={"notes": ("read in some way", "checked"), "isolation": {"fs": "none", "net": "partial"}})
        for one in record.evidences
    )
    told = record.model_copy(update={"evidences": evidences}).model_dump(mode="json", by_alias=True)
    chosen: set[str] = set()
    for text in sorted(leaves(told) - {record.created, record.evidences[0].protocol.dtype}):
        try:
            AuditRecord.model_validate(replaced(told, {text}))
        except ValidationError:
            continue
        chosen.add(text)
    assert {"read in some way", "checked", "none", "v1", "1"} <= chosen | {"v1"}
    return AuditRecord.model_validate(replaced(told, chosen))


RECORDS = [hostile(record) for record in _records()]


def odd(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}} - {"\n", "\t"}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
@pytest.mark.parametrize("name", [*RENDERERS, "sarif"])
def test_no_text_of_a_record_steers_a_document(record: AuditRecord, name: str) -> None:
    renderer: Any = SarifReport() if name == "sarif" else plugins.make("reports", name)
    document = renderer.render(record, {})
    assert not odd(document)
    if name in ("html", "md"):
        assert "<script>" not in document and "<!--]]>" not in document
        assert "alert" in document  # it is shown, harmless
    if name == "html":
        assert "read in some way" in document
    if name == "md":
        assert "|`a`" not in document
    if name == "junit":
        ElementTree.fromstring(document)
    if name in ("json", "sarif"):
        assert json.loads(document)
        assert document.isascii()


def shown(draw: Callable[[Console], None]) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    draw(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_no_text_of_a_record_steers_the_terminal(record: AuditRecord) -> None:
    told = shown(lambda console: terminal.show_audit(record, console))
    told += shown(lambda console: terminal.show_comparison([(HOSTILE, one) for one in record.evidences], console))
    told += shown(lambda console: terminal.show_explanations(explained(record), console))
    assert "alert" in told and not odd(told)


def test_a_verification_of_hostile_names_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from datetime import UTC, datetime

    from flataudit.cli_attestation import _show

    envelope = json.dumps({"payload": "", "payloadType": HOSTILE, "signatures": []}).encode()
    found = verified(
        Attested(digest=HOSTILE, name=HOSTILE, version=HOSTILE, alias=HOSTILE, envelope=envelope, tag=HOSTILE),
        Terms(now=datetime(2026, 1, 1, tzinfo=UTC)),
    )
    _show(found, HOSTILE)
    told = capsys.readouterr().out
    assert "FAILED" in told and not odd(told)
