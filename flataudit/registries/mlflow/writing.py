"""What an audit leaves in MLflow: audit runs, metrics where its pages compare, short tags on versions."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import mlflow
from mlflow.entities import LoggedModelInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from flataudit.audit import AuditRecord
from flataudit.evidence import Candidate, Evidence, Outcome
from flataudit.registries.mlflow import rows
from flataudit.registries.mlflow.client import is_missing, is_silence, retried

__all__ = [
    "artifact_location",
    "experiment_id",
    "mirror_metrics",
    "settle",
    "settle_run",
    "tag_attestation",
    "tag_version",
    "write_audit_run",
    "write_scores",
]

T = TypeVar("T")
_METRICS, _PARAMS, _TAGS = 1000, 100, 100
"""The most that one request may hold."""
_TAG_CHARACTERS = 8000


def write_audit_run(
    client: mlflow.MlflowClient, uri: str, experiment: str, audit: AuditRecord, evidence: Evidence, files: Path
) -> str:
    """One audit run for one candidate, with metrics, settings, reports and evidence; its id.

    A repetition finds the run that the same audit finished, and writes nothing.
    """
    home = experiment_id(client, uri, experiment)
    tags = _run_tags(audit, evidence)
    done = _finished(client, home, tags)
    if done is not None:
        return done
    run_id = str(client.create_run(home, tags=_cut(tags)).info.run_id)
    try:
        if evidence.candidate.model_id:
            client.log_inputs(run_id, models=[LoggedModelInput(evidence.candidate.model_id)])
        _log(client, run_id, _metrics(client, audit, evidence, on_model=True), rows.params(audit, evidence))
        client.log_text(run_id, evidence.model_dump_json(indent=1), "evidence.json")
        client.log_artifacts(run_id, str(files), "audit")
    except BaseException:
        with contextlib.suppress(MlflowException):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _run_tags(audit: AuditRecord, evidence: Evidence) -> dict[str, str]:
    label = evidence.candidate.label
    tags = {
        "mlflow.runName": f"{audit.kind} {evidence.candidate.name} {label}",
        "flataudit.audit": audit.id,
        "flataudit.kind": audit.kind,
        "flataudit.candidate": label,
        "flataudit.digest": evidence.candidate.digest or "none",
        "flataudit.subject": rows.subject(evidence),
        "flataudit.source_run": evidence.candidate.run_id or "none",
        "flataudit.decision": rows.standing(audit, label),
    }
    words = {verdict.verdict for verdict in audit.alarms}
    worst = next((word for word in ("fail", "missing", "inconclusive", "pass") if word in words), None)
    return tags | ({"flataudit.limits": worst} if worst else {})


def _finished(client: mlflow.MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> str | None:
    quoted = tags["flataudit.audit"].replace("'", "")
    found = client.search_runs([experiment_id], f"tags.flataudit.audit = '{quoted}' and status = 'FINISHED'")
    wanted = _cut(tags)["flataudit.subject"]
    return next((str(run.info.run_id) for run in found if run.data.tags.get("flataudit.subject") == wanted), None)


def write_scores(client: mlflow.MlflowClient, audit: AuditRecord, files: Path) -> dict[str, str]:
    """The measurements of runs' models on the runs themselves and on each logged model, with the report.

    Returns:
        The run of each candidate, by its label.
    """
    runs = {evidence.candidate.label: str(evidence.candidate.run_id) for evidence in audit.evidences}
    for run_id in dict.fromkeys(runs.values()):
        _write_scores(client, audit, run_id, files)
    return runs


def _write_scores(client: mlflow.MlflowClient, audit: AuditRecord, run_id: str, files: Path) -> None:
    missing: dict[str, str] = {}
    for evidence in (one for one in audit.evidences if one.candidate.run_id == run_id):
        _log(client, run_id, _metrics(client, audit, evidence, on_model=True), [])
        missing |= {
            key: f"{missing[key]}\n{why}" if key in missing else why
            for key, told in rows.outcomes(evidence).items()
            for why in [f"{evidence.candidate.label}: {told}"]
        }
    tags = {"flataudit.audit": audit.id, "flataudit.policy_sha": audit.policy_digest} | missing
    for some in _chunks([RunTag(key, value) for key, value in _cut(tags).items()], _TAGS):
        retried(lambda some=some: client.log_batch(run_id, tags=some))  # type: ignore[misc]  # a default, bound now
    client.log_artifacts(run_id, str(files), f"flataudit/{audit.id}")


def mirror_metrics(client: mlflow.MlflowClient, audit: AuditRecord, evidence: Evidence) -> str | None:
    """The same metrics on the source run, which is all that MLflow's comparison of versions shows.

    Returns:
        A note where the run does not show them; None when it does.
    """
    run_id, label = evidence.candidate.run_id, evidence.candidate.label
    if run_id is None:
        return None
    sharing = [e.candidate.label for e in audit.evidences if e.candidate.run_id == run_id]
    if len(sharing) > 1:
        return f"{', '.join(sharing)} come from one run, where MLflow's comparison of versions cannot tell them apart"
    try:
        _log(client, run_id, _metrics(client, audit, evidence, on_model=False), [])
    except MlflowException as error:
        if is_silence(error):
            raise
        told = str(error).partition("\n")[0][:200]
        return f"the metrics of {label} could not be mirrored on its source run: {told}"
    return None


def tag_version(client: mlflow.MlflowClient, audit: AuditRecord, evidence: Evidence, run_id: str) -> None:
    """Short tags on the registered version, bound to its name, number and bytes by ``flataudit.subject``.

    `copy_model_version` copies tags: whoever reads a decision must compare the subject first. MLflow writes one
    tag at a time, so an older decision goes first and the new one comes last: none ever stands beside the other's
    subject.
    """
    candidate, score = evidence.candidate, evidence.get("score")
    measured = score is not None and score.outcome is Outcome.MEASURED and score.estimate is not None
    tags = {
        "flataudit.subject": rows.subject(evidence),
        "flataudit.digest": candidate.digest or "none",
        "flataudit.policy_sha": audit.policy_digest,
        "flataudit.audit_run": run_id,
        "flataudit.score": f"{score.estimate:.6f}" if score is not None and measured else "none",
    }
    decision = rows.standing(audit, candidate.label)
    _tag(client, candidate, "flataudit.decision", "pending")
    for key, value in tags.items():
        _tag(client, candidate, key, value)
    if decision != "pending":
        _tag(client, candidate, "flataudit.decision", decision)


def settle(client: mlflow.MlflowClient, candidate: Candidate, decision: str) -> None:
    """How the promotion ended, on the version."""
    _tag(client, candidate, "flataudit.decision", decision)


def tag_attestation(client: mlflow.MlflowClient, candidate: Candidate, digest: str) -> None:
    """Which envelope attests the decision that moved an alias to the version; a pointer for people, never believed."""
    _tag(client, candidate, "flataudit.attestation", digest)


def settle_run(client: mlflow.MlflowClient, run_id: str, decision: str) -> None:
    """How the promotion ended, on the audit run."""
    client.set_tag(run_id, "flataudit.decision", decision)


def _tag(client: mlflow.MlflowClient, candidate: Candidate, key: str, value: str) -> None:
    retried(lambda: client.set_model_version_tag(candidate.name, candidate.version, key, value))


def artifact_location(uri: str) -> str | None:
    """Where a new experiment keeps its files: beside a database file, else where the server says."""
    parts = urlsplit(uri)
    if parts.scheme != "sqlite":
        return None
    return (Path(parts.path[1:]).resolve().parent / "flataudit-artifacts").as_uri()


def experiment_id(client: mlflow.MlflowClient, uri: str, name: str) -> str:
    """The experiment of the audit runs, made if there is none."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=artifact_location(uri)))
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another audit may have made it meanwhile
        if not found:
            raise
        return str(found.experiment_id)


def _metrics(client: mlflow.MlflowClient, audit: AuditRecord, evidence: Evidence, *, on_model: bool) -> list[Metric]:
    model_id = evidence.candidate.model_id
    held = _held(client, model_id) if on_model and model_id else None
    return rows.metrics(audit, evidence, timestamp=int(time.time() * 1000), on_model=held)


def _held(client: mlflow.MlflowClient, model_id: str) -> set[tuple[str, str]] | None:
    """Keys and data set names of the logged model's metrics; None if the model was deleted under its version."""
    try:
        return {(metric.key, metric.dataset_name or "") for metric in client.get_logged_model(model_id).metrics or ()}
    except MlflowException as error:
        if is_missing(error):
            return None
        raise


def _log(client: mlflow.MlflowClient, run_id: str, metrics: Sequence[Metric], params: Sequence[Param]) -> None:
    for some in _chunks(params, _PARAMS):
        client.log_batch(run_id, params=some)
    for batch in _chunks(metrics, _METRICS):
        retried(lambda batch=batch: client.log_batch(run_id, metrics=batch))  # type: ignore[misc]  # bound now


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:_TAG_CHARACTERS] for key, value in tags.items()}


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk
