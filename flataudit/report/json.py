"""The audit as one JSON document for pipelines: ``flataudit/gate/1``, ``flataudit/score/1`` or ``flataudit/audit/1``.

Only ASCII is written, so that no name can steer the terminal that prints the document.
"""

import json
from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from flataudit.audit import AuditRecord
from flataudit.decision import Decision, Standing, Verdict
from flataudit.evidence import Array, Candidate, Evidence, Measurement

__all__ = ["JsonReport"]

Document = dict[str, JsonValue]


class JsonReport:
    """What was decided and every number behind it, by the names of the schema."""

    suffix: ClassVar[str] = "json"

    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        """The document, indented by one space; ``arrays`` stay beside it."""
        return json.dumps(_document(audit), indent=1, ensure_ascii=True, allow_nan=False)


def _document(audit: AuditRecord) -> Document:
    decision = audit.decision
    document: Document = {"schema": f"flataudit/{audit.kind}/1", "model": audit.plan.model}
    if decision is not None:
        document |= {
            "decision": decision.outcome,
            "why": decision.why,
            "promoted": None if decision.unregistered else _version(audit, decision.promoted),
            "unregistered": decision.unregistered,
            "champion": _named(audit.champion),
            "tied": [label for label in decision.tied],
            "random_choice": decision.random_choice,
            "n_needed": decision.n_needed,
            "validation_use": decision.validation_use,
            "alpha": decision.alpha,
            "warnings": list(decision.warnings),
        }
    if audit.kind == "score":
        document |= {"stopping": [stopping.model_dump(mode="json") for stopping in audit.stopping]}
    if audit.kind == "audit":
        document |= {"champion": _named(audit.champion), "alarms": [_verdict(verdict) for verdict in audit.alarms]}
    receipt = audit.receipt
    return document | {
        "policy_digest": audit.policy_digest,
        "sequence": receipt.sequence if receipt is not None else None,
        "audit": audit.id,
        "created": audit.created,
        "actor": audit.actor,
        "flataudit_version": audit.flataudit_version,
        "dry_run": audit.dry_run,
        "receipt": receipt.model_dump(mode="json") if receipt is not None else None,
        "reused": {label: list(names) for label, names in audit.reused.items()},
        "data": [data.model_dump(mode="json") for data in audit.data],
        "candidates": [_candidate(evidence, audit, decision) for evidence in audit.evidences],
    }


def _version(audit: AuditRecord, label: str | None) -> str | None:
    return None if label is None else audit.evidence(label).candidate.version or label


def _named(champion: Candidate | None) -> JsonValue:
    return None if champion is None else {"version": champion.version, "digest": champion.digest}


def _candidate(evidence: Evidence, audit: AuditRecord, decision: Decision | None) -> Document:
    candidate, score = evidence.candidate, evidence.get("score")
    standing = _standing(decision, candidate.label)
    champion = audit.champion is not None and audit.champion.label == candidate.label
    document: Document = {
        "version": candidate.version,
        "digest": candidate.digest,
        "label": candidate.label,
        "title": candidate.title,
        "run_id": candidate.run_id,
        "model_id": candidate.model_id,
        "role": "champion" if champion else "challenger" if audit.kind == "gate" else "candidate",
        "verdict": decision.outcome_of(standing) if decision and standing else None,
        "tied": standing.tied if standing else False,
        "rank": standing.rank if standing else None,
        "score": _score(score),
        "measurements": [_measurement(measurement) for measurement in evidence.measurements],
        "verdicts": [_verdict(verdict) for verdict in standing.verdicts] if standing else [],
        "protocol_digest": evidence.protocol.digest,
        "trust": evidence.trust,
        "admission": evidence.admission.model_dump(mode="json") if evidence.admission else None,
        "flavour": candidate.flavour,
        "step": candidate.step,
        "notes": list(evidence.notes),
        "isolation": dict(evidence.isolation),
    }
    return document


def _standing(decision: Decision | None, label: str) -> Standing | None:
    return next((s for s in decision.standings if s.candidate == label), None) if decision else None


def _score(score: Measurement | None) -> JsonValue:
    if score is None or score.estimate is None:
        return None
    return {"value": score.estimate, "lo": _end(score, 0), "hi": _end(score, 1)}


def _measurement(measurement: Measurement) -> Document:
    return {
        "metric": measurement.metric,
        "outcome": measurement.outcome.value,
        "unit": measurement.unit,
        "better": measurement.better,
        "probe": measurement.probe,
        "estimate": measurement.estimate,
        "standard_error": measurement.standard_error,
        "lo": _end(measurement, 0),
        "hi": _end(measurement, 1),
        "confidence": measurement.confidence,
        "bound": measurement.bound,
        "n": measurement.n,
        "details": dict(measurement.details),
        "cost": {
            "passes": measurement.cost.passes,
            "reused": measurement.cost.reused,
            "seconds": measurement.cost.seconds,
            "peak_bytes": measurement.cost.peak_bytes,
        },
        "reason": measurement.reason,
        "advice": measurement.advice,
    }


def _end(measurement: Measurement, which: int) -> float | None:
    return None if measurement.limits is None else measurement.limits[which]


def _verdict(verdict: Verdict) -> Document:
    return {
        "criterion": verdict.criterion,
        "metric": verdict.metric,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "n_needed": verdict.n_needed,
    }
