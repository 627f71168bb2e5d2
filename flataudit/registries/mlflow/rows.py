"""Evidence as the rows that MLflow keeps: metrics where a number was measured, parameters for everything else.

Only measured, finite numbers become metrics: MLflow stores NaN on a logged model as 0.0, which would read as
perfectly flat. Every other outcome is a parameter that says so.
"""

import hashlib
import json
import re
from collections.abc import Container

from mlflow.entities import Metric, Param
from pydantic import JsonValue

from flataudit.audit import AuditRecord
from flataudit.evidence import Evidence, Measurement, Outcome, canonical_digest

__all__ = ["fitting", "metrics", "outcomes", "params", "standing", "subject"]

_UNFIT = re.compile(r"[^A-Za-z0-9_\-. :/]")
_KEY_CHARACTERS = 200
"""Of the 250 that a key may have; the rest is for our prefixes and suffixes."""
_PARAM_CHARACTERS = 6000
_DATASET_DIGEST = 36


def metrics(
    audit: AuditRecord, evidence: Evidence, *, timestamp: int, on_model: Container[tuple[str, str]] | None
) -> list[Metric]:
    """Estimate, ``_lo`` and ``_hi`` of every measured number, each key once.

    Args:
        audit: says which data the numbers belong to.
        evidence: of one candidate.
        timestamp: milliseconds since 1970.
        on_model: also on the logged model, but for these keys and data set names, which it has already; None:
            not on the model.
    """
    values: dict[str, float] = {}
    for measurement in evidence.measurements:
        key = f"flataudit/{fitting(measurement.metric)}"
        values |= {key + end: value for end, value in _numbers(measurement).items()}
    step = evidence.candidate.step or 0
    model = _model(audit, evidence) if on_model is not None else {}
    held = {key for key in values if on_model is not None and (key, model.get("dataset_name", "")) in on_model}
    return [Metric(key, value, timestamp, step, **({} if key in held else model)) for key, value in values.items()]


def _model(audit: AuditRecord, evidence: Evidence) -> dict[str, str]:
    """Where a metric stands among the logged model's; empty without logged model or validation data.

    MLflow's table of models finds a cell by key and by this name alone, and shows the first of several. So the
    name holds a digest of the data and one of the protocol and the score's weights: what does not compare never
    shares a column, and a repetition adds nothing (its numbers are on its own audit run).
    """
    validation = next((data for data in audit.data if data.role == "validation"), None)
    if not evidence.candidate.model_id or not validation:
        return {}
    digest = validation.digest.removeprefix("sha256:")
    policy = audit.plan.policy
    judged: list[JsonValue] = [
        evidence.protocol.digest,
        policy.score_weights.model_dump(mode="json"),
        policy.non_inferiority.confidence,
    ]
    settings = canonical_digest(judged).removeprefix("sha256:")
    return {
        "model_id": evidence.candidate.model_id,
        "dataset_name": f"{fitting(validation.name)} {digest[:8]}-{settings[:8]}",
        "dataset_digest": digest[:_DATASET_DIGEST],
    }


def _numbers(measurement: Measurement) -> dict[str, float]:
    if measurement.outcome is not Outcome.MEASURED or measurement.estimate is None:
        return {}
    limits = measurement.limits
    return {"": measurement.estimate} | ({"_lo": limits[0], "_hi": limits[1]} if limits else {})


def outcomes(evidence: Evidence) -> dict[str, str]:
    """What could not be measured, and why, by key."""
    return {
        f"flataudit/{fitting(m.metric)}.outcome": f"{m.outcome}: {m.reason}"
        for m in evidence.measurements
        if m.outcome is not Outcome.MEASURED
    }


def params(audit: AuditRecord, evidence: Evidence) -> list[Param]:
    """How the numbers came about; what is longer than MLflow keeps is in the artifacts, and its digest is here."""
    protocol = evidence.protocol
    values = {
        "model": audit.plan.model,
        "candidate": evidence.candidate.label,
        "digest": evidence.candidate.digest or "none",
        "seed": str(protocol.seed),
        "dtype": protocol.dtype,
        "device": protocol.device,
        "trust": evidence.trust,
        "policy_sha": audit.policy_digest,
        "protocol_sha": protocol.digest,
        "flataudit_version": audit.flataudit_version,
    }
    values |= {f"data/{fitting(name)}": digest for name, digest in protocol.data.items()}
    values |= {f"probe/{fitting(s.use)}": json.dumps(dict(s.params), sort_keys=True) for s in audit.plan.probes}
    rows = {f"flataudit/{key}": value for key, value in values.items()} | outcomes(evidence)
    return [Param(key, _shortened(value, _PARAM_CHARACTERS)) for key, value in rows.items()]


def standing(audit: AuditRecord, label: str) -> str:
    """What the audit says of a candidate; a promotion is ``pending`` until the alias has moved."""
    if audit.champion is not None and label == audit.champion.label:
        return "champion"
    standings = audit.decision.standings if audit.decision else ()
    verdict = next((s.verdict for s in standings if s.candidate == label), "none")
    return "pending" if verdict == "promote" else verdict


def subject(evidence: Evidence) -> str:
    """What a decision is bound to: name, version (or logged model) and digest."""
    candidate = evidence.candidate
    return f"{candidate.name}/{candidate.version or candidate.model_id}/{candidate.digest}"


def fitting(name: str) -> str:
    """A name that MLflow accepts as (part of) a key; one that had to change ends in a digest, so that none collide.

    >>> fitting("shift_accuracy/autumn")
    'shift_accuracy/autumn'
    >>> fitting("shift_accuracy/<b>/../x")
    'shift_accuracy/_b_/_/x-42eaf4'
    """
    parts = (_UNFIT.sub("_", part) for part in name.split("/"))
    fit = "/".join("_" if part.strip(" .") == "" else part for part in parts)[:_KEY_CHARACTERS]
    return fit if fit == name else f"{fit}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()} of {text}"[:limit]
