import re
from types import ModuleType

from flataudit.audit import AuditRecord
from flataudit.evidence import Array
from flataudit.report.markdown import MarkdownReport

Arrays = dict[str, dict[str, Array]]


def test_tables_are_rectangular_whatever_the_names_hold(audited: tuple[AuditRecord, Arrays]) -> None:
    lines = MarkdownReport().render(*audited).splitlines()
    widths: list[int] = []
    for line in lines:
        if not line.startswith("|"):
            widths = []
            continue
        widths.append(len(re.findall(r"(?<!\\)\|", line)))
        assert len(set(widths)) == 1, line


def test_no_markup_but_the_reports_own(audited: tuple[AuditRecord, Arrays]) -> None:
    text = MarkdownReport().render(*audited)
    tags = set(re.findall(r"</?([a-zA-Z!][^>]*)>", text))
    assert tags <= {"br", "sub", "details", "summary"}
    without_digest = re.sub(r"`sha256:[0-9a-f]{64}`", "", text)
    assert not re.search(r"(?<!\\)`", without_digest)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b\u202e]", text)


def test_the_verdict_comes_first(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    text = MarkdownReport().render(record, arrays)
    assert text.startswith("## flataudit gate: promote\n\n**v8 becomes champion of digits in place of v7.**")
    assert "| v9<br><sub>adamw</sub> | ⏸️ hold | 0.9662 \\[0.9578, 0.9746] |" in text
    assert "About 50 labelled examples" in text and record.policy_digest in text
