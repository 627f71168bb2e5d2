"""MLflow as flataudit's registry: every ability is a call or two of the modules beside this one."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from pydantic import Field, JsonValue

from flataudit.audit import AuditRecord
from flataudit.contracts import Check, DataSpec, Receipt
from flataudit.errors import ConflictError, FlatauditError, NotFoundError, TamperedError
from flataudit.evidence import Candidate, Record
from flataudit.registries.mlflow import selection, writing
from flataudit.registries.mlflow.client import connect, shown, speaking
from flataudit.registries.mlflow.description import ModelDescription, describe
from flataudit.registries.mlflow.fetching import fetched, logged_datasets
from flataudit.registries.mlflow.promotion import promote

__all__ = ["MlflowRegistry"]

_RUNS_ASKED = 5
"""Runs of the newest versions that are asked for their data sets."""


class MlflowRegistry(Record):
    """A registered model in an MLflow tracking server, or in a SQLite file (the embedded default)."""

    model: str
    """Registered model."""
    champion_alias: str = "champion"
    challengers_of: Mapping[str, JsonValue] = Field(default={"alias": "challenger"}, alias="challengers")
    """One of alias, newest, versions, tag, run."""
    tracking_uri: str | None = None
    """None: MLFLOW_TRACKING_URI, else ``sqlite:///mlflow.db``."""
    experiment: str = "flataudit"
    """Where audit runs go."""
    mirror: bool = True
    """Write the metrics to the source runs too, where MLflow's comparison of versions reads them."""

    @property
    def uri(self) -> str:
        """The registry that is spoken to."""
        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"

    def champion(self) -> Candidate | None:
        """What the champion alias points to; None only if there is no such alias."""
        with speaking(self.uri):
            client = connect(self.uri)
            selection.check_model(client, self.model)
            version = selection.aliased(client, self.model, self.champion_alias)
            return selection.candidate(client, version) if version else None

    def challengers(self) -> Sequence[Candidate]:
        """The chosen candidates without the champion."""
        with speaking(self.uri):
            client = connect(self.uri)
            if "run" in self.challengers_of:
                return selection.challengers(client, self.model, self.challengers_of, None)
            selection.check_model(client, self.model)
            champion = selection.aliased(client, self.model, self.champion_alias)
            current = str(champion.version) if champion else None
            return selection.challengers(client, self.model, self.challengers_of, current)

    def fetch(self, candidate: Candidate, into: Path) -> Candidate:
        """Copy its files into an empty folder; the same candidate with flavour and digest."""
        with speaking(self.uri):
            return fetched(connect(self.uri), self.uri, candidate, into)

    def datasets(self) -> Sequence[DataSpec]:
        """Data that the candidates' runs logged and that can be read from here."""
        with speaking(self.uri):
            client = connect(self.uri)
            if "run" in self.challengers_of:
                run_id = str(self.challengers_of["run"])
                selection.check_run(client, run_id)
                return logged_datasets(client, [run_id])
            selection.check_model(client, self.model)
            newest = selection.versions_of(client, self.model)[:_RUNS_ASKED]
            return logged_datasets(client, [version.run_id for version in newest if version.run_id])

    def describe(self) -> ModelDescription:
        """What `flataudit init` writes above a new policy."""
        with speaking(self.uri):
            client = connect(self.uri)
            selection.check_model(client, self.model)
            return describe(client, self.uri, self.model)

    def record(self, audit: AuditRecord, files: Path, *, promote: bool) -> Receipt:
        """Write evidence first, then what was decided; the alias moves after both, and its tag comes last."""
        with speaking(self.uri):
            client = connect(self.uri)
            if audit.kind == "score" and "run" in self.challengers_of:
                run_id = str(self.challengers_of["run"])
                writing.write_scores(client, audit, run_id, files)
                return Receipt(audit_runs={evidence.candidate.label: run_id for evidence in audit.evidences})
            runs, notes = self._write(client, audit, files)
            promoted = None
            if promote:
                promoted, told = self._promote(client, audit, runs)
                notes += told
            return Receipt(audit_runs=runs, promoted=promoted, notes=tuple(dict.fromkeys(notes)))

    def load_audit(self, run_id: str, into: Path) -> None:
        """Download the stored audit of an audit run, or the newest of a scored run, into a folder.

        Raises:
            NotFoundError: there is no such run, or it holds no audit.
        """
        remedy = "name an audit run: the version tag flataudit.audit_run holds one"
        with speaking(self.uri):
            client = connect(self.uri)
            selection.check_run(client, run_id)
            scored = sorted(found.path for found in client.list_artifacts(run_id, "flataudit") if found.is_dir)
            path = scored[-1] if scored else "audit"
            if not client.list_artifacts(run_id, path):
                raise NotFoundError(f"an audit in run {run_id}", got="none", remedy=remedy)
            with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
                kept = client.download_artifacts(run_id, path, scratch)
                shutil.copytree(kept, into, dirs_exist_ok=True)

    def check(self) -> list[Check]:
        """Whether the registry answers, and knows the model (unless that is ``unknown``)."""
        name = f"registries: mlflow at {shown(self.uri)}"
        try:
            with speaking(self.uri):
                connect(self.uri).search_registered_models(max_results=1)
            found = [Check(name=name, ok=True, found=f"answers; MLflow {mlflow.__version__} here")]
        except FlatauditError as error:
            return [Check(name=name, ok=False, found=error.got, remedy=error.remedy)]
        return found if self.model == "unknown" else [*found, self._check_model()]

    def _check_model(self) -> Check:
        name = f"registries: model {self.model}"
        try:
            champion = self.champion()
        except FlatauditError as error:
            return Check(name=name, ok=False, found=error.got, remedy=error.remedy)
        return Check(name=name, ok=True, found=f"{self.champion_alias}: {champion.label if champion else 'none'}")

    def _write(self, client: mlflow.MlflowClient, audit: AuditRecord, files: Path) -> tuple[dict[str, str], list[str]]:
        """Audit run of each candidate, and notes."""
        runs, notes = {}, []
        for evidence in audit.evidences:
            candidate = evidence.candidate
            run_id = writing.write_audit_run(client, self.uri, self.experiment, audit, evidence, files)
            runs[candidate.label] = run_id
            note = writing.mirror_metrics(client, audit, evidence) if self.mirror else None
            notes += [note] if note else []
            if candidate.version is not None and audit.kind != "score":
                writing.tag_version(client, audit, evidence, run_id)
        return runs, notes

    def _promote(
        self, client: mlflow.MlflowClient, audit: AuditRecord, runs: Mapping[str, str]
    ) -> tuple[str | None, list[str]]:
        """Version that the alias points to now, and notes; an end that is not known leaves the tags ``pending``."""
        assert audit.decision is not None and audit.decision.promoted is not None
        winner = audit.evidence(audit.decision.promoted).candidate
        run_id = runs[winner.label]
        if winner.version is None:
            writing.settle_run(client, run_id, "unregistered")
            remedy = "register it, choose it by its version, and run the gate again"
            return None, [f"{winner.label} won as a model of its run, where no alias can point: {remedy}"]
        try:
            promote(client, self.uri, self.champion_alias, winner, audit.champion)
        except (ConflictError, TamperedError) as error:
            word = "conflict" if isinstance(error, ConflictError) else "tampered"
            with contextlib.suppress(MlflowException):  # the refusal matters more than its tag, and must be heard
                writing.settle(client, winner, run_id, word)
            raise
        try:
            writing.settle(client, winner, run_id, "promote")
        except MlflowException as error:
            told = str(error).partition("\n")[0][:200]
            return winner.version, [f"{winner.label} was promoted, and its tags still say pending: {told}"]
        return winner.version, []
