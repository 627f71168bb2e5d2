"""The audit as SARIF 2.1.0 (OASIS), so that code scanning shows each unmet criterion as a result on the policy.

A rule a metric, a result a criterion that did not pass: what fails is an error, what is missing or inconclusive a
warning, since unknown is not good; what a person waived is a suppressed result with the reason. The location is the
policy, which asks for the criterion, and the candidate as a logical location. Without verdicts there are no results
but for measurements that failed. Only ASCII is written, so that no name can steer the terminal that prints it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import JsonValue

from flataudit.audit import AuditRecord
from flataudit.decision import Verdict
from flataudit.evidence import Array, Evidence, Outcome
from flataudit.report.escaping import visible

__all__ = ["SarifReport"]

Document = dict[str, JsonValue]
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"fail": "error", "missing": "warning", "inconclusive": "warning", "not comparable": "note", "waived": "note"}
_NAMED = (Outcome.FAILED, Outcome.NOT_CONVERGED, Outcome.OVER_BUDGET)


class SarifReport:
    """Criteria that did not pass, as results."""

    suffix: ClassVar[str] = "sarif"

    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        """The document, indented by one space."""
        results = list(_results(audit))
        metrics = sorted({str(result["ruleId"]) for result in results})
        for result in results:
            result["ruleIndex"] = metrics.index(str(result["ruleId"]))
        driver: Document = {
            "name": "flataudit",
            "version": visible(audit.flataudit_version),
            "rules": [{"id": metric, "shortDescription": {"text": f"A limit on {metric}"}} for metric in metrics],
        }
        run: Document = {
            "tool": {"driver": driver},
            "automationDetails": {"id": f"flataudit/{audit.kind}/{visible(audit.plan.model)}/{visible(audit.id)}"},
            "results": [*results],
            "properties": {"audit": visible(audit.id), "policyDigest": audit.policy_digest},
        }
        document: Document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
        return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _results(audit: AuditRecord) -> Iterator[Document]:
    judged = [verdict for one in (audit.decision.standings if audit.decision else ()) for verdict in one.verdicts]
    for verdict in (*judged, *audit.alarms):
        if verdict.verdict != "pass":
            yield _verdict(audit, verdict)
    if audit.decision is None and audit.kind == "score":
        for evidence in audit.evidences:
            yield from _unmeasured(audit, evidence)


def _verdict(audit: AuditRecord, verdict: Verdict) -> Document:
    needed = f"; {verdict.n_needed} examples would settle it" if verdict.n_needed else ""
    told = f"{verdict.candidate}: {verdict.criterion}: {verdict.word}: {verdict.why}{needed}"
    result = _result(audit, verdict.candidate, verdict.metric, _LEVELS[verdict.word], told)
    if verdict.waived:
        result["suppressions"] = [{"kind": "external", "justification": visible(verdict.waived)}]
    return result


def _unmeasured(audit: AuditRecord, evidence: Evidence) -> Iterator[Document]:
    label = evidence.candidate.label
    for measurement in evidence.measurements:
        if measurement.outcome in _NAMED:
            told = f"{label}: {measurement.metric}: {measurement.outcome}: {measurement.reason}"
            yield _result(audit, label, measurement.metric, "warning", told)


def _result(audit: AuditRecord, label: str, metric: str, level: str, told: str) -> Document:
    digest = next((e.candidate.digest for e in audit.evidences if e.candidate.label == label), None)
    place: Document = {
        "physicalLocation": {"artifactLocation": {"uri": "flataudit.yaml"}, "region": {"startLine": 1}},
        "logicalLocations": [{"fullyQualifiedName": visible(f"{audit.plan.model}/{label}"), "kind": "resource"}],
    }
    known = hashlib.sha256(f"{audit.plan.model}\0{label}\0{metric}\0{digest}".encode()).hexdigest()
    return {
        "ruleId": visible(metric),
        "level": level,
        "message": {"text": visible(told)},
        "locations": [place],
        "partialFingerprints": {"flatauditCriterion/v1": known},
        "properties": {"candidate": visible(label), "digest": visible(digest or "")},
    }
