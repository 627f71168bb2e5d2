import xml.etree.ElementTree as ET
from types import ModuleType

from flataudit.audit import AuditRecord
from flataudit.evidence import Array
from flataudit.report.junit import JUnitReport

Arrays = dict[str, dict[str, Array]]


def parsed(record: AuditRecord, arrays: Arrays) -> ET.Element:
    return ET.fromstring(JUnitReport().render(record, arrays).encode())


def test_it_is_well_formed_and_its_counts_are_right(audited: tuple[AuditRecord, Arrays]) -> None:
    root = parsed(*audited)
    assert root.tag == "testsuites"
    for element in (root, *root.findall("testsuite")):
        assert int(element.get("tests", "")) == len(list(element.iter("testcase")))
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.get(count, "")) == len(list(element.iter(tag)))


def test_verdicts_become_failures_and_errors(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    root = parsed(record, arrays)
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"v8", "v9", "v10", "v11", "v12", "v13", "v14"}, "the champion is not on trial"
    assert suites["v8"].get("failures") == suites["v8"].get("errors") == "0"
    for standing in record.decision.standings:
        cases = list(suites[standing.candidate].iter("testcase"))
        for verdict, case in zip(standing.verdicts, cases, strict=True):
            problem = case.find("failure") if verdict.verdict == "fail" else case.find("error")
            assert (problem is None) == (verdict.verdict == "pass")
            if problem is not None:
                assert problem.get("type") == verdict.verdict
    held = next(suites["v9"].iter("error"))
    assert held.get("type") == "inconclusive" and "36548 examples would settle it" in (held.get("message") or "")


def test_a_score_reports_measurements(audits: ModuleType) -> None:
    root = parsed(*audits.everything()["score"])
    suites = {suite.get("name"): suite for suite in root}
    assert suites["v8"].get("errors") == "0" and int(suites["v14"].get("errors", "0")) == len(audits.METRICS)


def test_a_scheduled_audit_reports_its_limits(audits: ModuleType) -> None:
    root = parsed(*audits.everything()["audit"])
    assert (root.get("tests"), root.get("errors")) == ("3", "1")
