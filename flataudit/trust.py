"""What the parent's own look at a candidate's files makes of it: who may run at all, and whose numbers count as what.

A worker in which a candidate's code ran can say anything, also that none ran. So whether code may have run is decided
by what the parent found in the files (`flataudit.admission`), and the worker's word only ever makes it worse.
"""

from collections.abc import Mapping
from pathlib import Path

from flataudit.admission.examining import admit
from flataudit.attestation.trustees import Granted
from flataudit.contracts import Predictor
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Admission, Evidence, Examined, Finding, Measurement, Outcome
from flataudit.examination import failed_evidence, make_probe
from flataudit.plugins import names
from flataudit.policy import Policy
from flataudit.specs import Job

__all__ = ["ruled", "turned_away"]

_TOLD = 3
"""Approvals that do not count, in a message."""


def turned_away(job: Job, leave: Granted | None = None) -> tuple[Admission, Examined | None]:
    """What is found in a candidate's files, and the evidence of one that no worker shall open; None: it may go on.

    Args:
        job: `trust` says whether its own code may run.
        leave: by which entry, which the evidence then names.
    """
    admission = admit(Path(job.artifact))
    error: ModelError
    if admission.verdict == "refused":
        expected, remedy = "an artifact as its library writes it", "log the model again, with nothing but its own files"
        error = ModelError(expected, got=admission.listed("refusal"), remedy=remedy)
    elif admission.verdict == "carries code" and not job.trust and job.candidate.flavour in names("backends"):
        remedy = (
            "log it in a format of data (pt2, safetensors, ONNX, skops), or let the policy's `trust` name its signer, "
            "digest or registry (--trust names all)"
        )
        refused = "; ".join(f"approval {why}" for why in (leave.refused if leave else ())[:_TOLD])
        got = admission.listed("code") + f"; {refused}" * bool(refused)
        error = UntrustedError("a format that is data only", got=got, remedy=remedy)
    else:
        return (_noting(admission, leave.by) if leave and leave.by and job.trust else admission), None
    failed = failed_evidence(job, str(error), error.remedy)
    return admission, Examined(failed.evidence.model_copy(update={"admission": admission}))


def _noting(admission: Admission, by: str) -> Admission:
    """With the entry that lets its code run, whether or not any was found: a backend may find more."""
    note = Finding(kind="note", path="trust", what="its own code may run", detail=by)
    return Admission.of([*admission.findings, note])


def ruled(job: Job, examined: Examined, admission: Admission, policy: Policy) -> Examined:
    """The evidence with the parent's admission, and with its word on trust in the place of the worker's.

    Numbers of a candidate whose own code ran beside the probes, and that needed more than its answers, are marked
    ``trust: code_bearing``, or have no number where the policy refuses them: its process could have forged them.
    """
    evidence = examined.evidence
    ran = evidence.trust != "unknown" or any(m.outcome is Outcome.MEASURED for m in evidence.measurements)
    if admission.verdict == "carries code" and ran and evidence.trust != "code_bearing":
        evidence = evidence.model_copy(update={"trust": "code_bearing"})
    evidence = evidence.model_copy(update={"admission": admission})
    if evidence.trust == "code_bearing":
        evidence = _marked(evidence, _beyond_answers(job), policy)
    return Examined(evidence, examined.arrays)


def _beyond_answers(job: Job) -> Mapping[str, bool]:
    """Of each probe, whether it asks a model for more than its answers, or for its time."""
    probes = {spec.use: make_probe(spec) for spec in job.probes}
    return {use: probe.requires is not Predictor or getattr(probe, "timed", False) for use, probe in probes.items()}


def _marked(evidence: Evidence, beyond: Mapping[str, bool], policy: Policy) -> Evidence:
    refuse = policy.code_bearing_parameters == "refuse"
    made = tuple(
        (_refused(m) if refuse else _noted(m)) if m.outcome is Outcome.MEASURED and beyond.get(m.probe, False) else m
        for m in evidence.measurements
    )
    return evidence.model_copy(update={"measurements": made})


def _noted(measurement: Measurement) -> Measurement:
    return measurement.model_copy(update={"details": {**measurement.details, "trust": "code_bearing"}})


def _refused(measurement: Measurement) -> Measurement:
    return Measurement(
        metric=measurement.metric,
        unit=measurement.unit,
        better=measurement.better,
        probe=measurement.probe,
        outcome=Outcome.FAILED,
        cost=measurement.cost,
        reason="the candidate's own code ran beside the probe, and the policy takes no such number of parameters",
        advice="log it in a format of data, or set policy: code_bearing_parameters: accept",
    )
