"""The audit as JUnit XML, so that a CI system shows each criterion as a test.

A suite a candidate, a case a criterion: what fails is a failure; what is missing or inconclusive is an error, since
unknown is not good; what a person waived, and what does not compare, is skipped with the reason. Without a decision
the measurements are the cases.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import ClassVar

from flataudit.audit import AuditRecord
from flataudit.decision import Verdict
from flataudit.evidence import Array, Evidence, Measurement, Outcome
from flataudit.report.escaping import xml_text
from flataudit.report.numbers import with_error

__all__ = ["JUnitReport"]

_TAG = {
    "fail": "failure",
    "missing": "error",
    "inconclusive": "error",
    "not comparable": "skipped",
    "waived": "skipped",
}


class JUnitReport:
    """Verdicts as test cases."""

    suffix: ClassVar[str] = "junit.xml"

    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        """The document; well-formed whatever the names hold."""
        root = _element("testsuites", name=f"flataudit {audit.kind} {audit.plan.model}")
        for evidence in audit.evidences:
            cases = list(_cases(audit, evidence))
            if cases:
                root.append(_suite(audit, evidence, cases))
        suites = list(root)
        for count in ("tests", "failures", "errors", "skipped"):
            root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
        ET.indent(root)
        return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _cases(audit: AuditRecord, evidence: Evidence) -> Iterable[ET.Element]:
    label = evidence.candidate.label
    if audit.decision is not None:
        standing = next((s for s in audit.decision.standings if s.candidate == label), None)
        return [_verdict(audit, verdict) for verdict in standing.verdicts] if standing else []
    if audit.kind == "audit":
        return [_verdict(audit, verdict) for verdict in audit.alarms if verdict.candidate == label]
    return [_measurement(audit, label, measurement) for measurement in evidence.measurements]


def _suite(audit: AuditRecord, evidence: Evidence, cases: list[ET.Element]) -> ET.Element:
    def counted(tag: str) -> str:
        return str(sum(case.find(tag) is not None for case in cases))

    suite = _element(
        "testsuite",
        name=evidence.candidate.label,
        tests=str(len(cases)),
        failures=counted("failure"),
        errors=counted("error"),
        skipped=counted("skipped"),
        timestamp=audit.created,
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("audit", audit.id),
        ("digest", evidence.candidate.digest or ""),
        ("policy_digest", audit.policy_digest),
        ("title", evidence.candidate.title or ""),
    ):
        properties.append(_element("property", name=name, value=value))
    suite.extend(cases)
    return suite


def _verdict(audit: AuditRecord, verdict: Verdict) -> ET.Element:
    case = _element("testcase", classname=_class(audit, verdict.candidate), name=verdict.criterion)
    needed = f"; {verdict.n_needed} examples would settle it" if verdict.n_needed else ""
    if verdict.verdict == "pass":
        ET.SubElement(case, "system-out").text = xml_text(verdict.why)
    else:
        case.append(_element(_TAG[verdict.word], type=verdict.word, message=verdict.told + needed))
    return case


def _measurement(audit: AuditRecord, label: str, measurement: Measurement) -> ET.Element:
    case = _element("testcase", classname=_class(audit, label), name=measurement.metric)
    reason = measurement.reason or ""
    if measurement.outcome is Outcome.MEASURED:
        ET.SubElement(case, "system-out").text = xml_text(with_error(measurement))
    elif measurement.outcome is Outcome.NOT_APPLICABLE:
        case.append(_element("skipped", message=reason))
    else:
        case.append(_element("error", type=measurement.outcome.value, message=reason))
    return case


def _class(audit: AuditRecord, label: str) -> str:
    return f"flataudit.{audit.plan.model}.{label}"


def _element(tag: str, **attributes: str) -> ET.Element:
    return ET.Element(tag, {name: xml_text(value) for name, value in attributes.items()})
