"""MLflow as flataudit's registry: every ability is a call or two of the modules beside this one."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import mlflow
from pydantic import Field, JsonValue, PositiveFloat

from flataudit.attestation.verifying import Attested
from flataudit.audit import AuditRecord
from flataudit.contracts import Check, Receipt
from flataudit.errors import FlatauditError, NotFoundError
from flataudit.evidence import Candidate, Record
from flataudit.journal import Journal, state_folder
from flataudit.ledger import History, Ledger, LedgerEntry, Resumed
from flataudit.registries.mlflow import attesting, carrying, checkpoints, entering, selection, writing
from flataudit.registries.mlflow.client import connect, shown, speaking
from flataudit.registries.mlflow.description import ModelDescription, describe
from flataudit.registries.mlflow.fetching import fetched, logged_datasets
from flataudit.registries.mlflow.ledger_run import Seal, directory, located, opened
from flataudit.registries.mlflow.promotion import Promoter
from flataudit.specs import DataSpec

__all__ = ["MlflowRegistry"]

_RUNS_ASKED = 5
"""Runs of the newest versions that are asked for their data sets."""


class MlflowRegistry(Record):
    """A registered model in an MLflow tracking server, or in a SQLite file (the embedded default)."""

    model: str
    """Registered model."""
    champion_alias: str = "champion"
    challengers_of: Mapping[str, JsonValue] = Field(default={"alias": "challenger"}, alias="challengers")
    """One of alias, aliases, newest, versions, tag, run, sweep."""
    tracking_uri: str | None = None
    """None: MLFLOW_TRACKING_URI, else ``sqlite:///mlflow.db``."""
    experiment: str = "flataudit"
    """Where audit runs go."""
    lease_seconds: PositiveFloat = 60.0
    """How long one gate alone may move the alias for its decision; after a crash, others wait for as long."""
    mirror: bool = True
    """Write the metrics to the source runs too, where MLflow's comparison of versions reads them."""

    @property
    def uri(self) -> str:
        """The registry that is spoken to; a database of this machine by its whole path, which names it everywhere."""
        found = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        scheme, _, path = found.partition("sqlite:///")
        local = not scheme and path and not path.startswith(("/", ":memory:"))
        return f"sqlite:///{Path(path).resolve()}" if local else found

    @cached_property
    def seal(self) -> Seal | None:
        """What signs decisions with this environment's key, whose passphrase is asked for once; None: nothing does."""
        return attesting.seal()

    @property
    def _registered(self) -> bool:
        """Whether the candidates are versions of the model, and not what runs logged."""
        return not {"run", "sweep"} & set(self.challengers_of)

    def _champions_model(self, client: mlflow.MlflowClient) -> str | None:
        """The logged model behind the champion; None where the model or its alias is not there."""
        try:
            selection.check_model(client, self.model)
        except NotFoundError:
            return None
        version = selection.aliased(client, self.model, self.champion_alias)
        return selection.logged_model(version) if version else None

    def _runs(self, client: mlflow.MlflowClient) -> list[str]:
        """The run, or the runs of the sweep, that the candidates come from."""
        if "run" in self.challengers_of:
            return [checkpoints.check_run(client, str(self.challengers_of["run"])).info.run_id]
        sweep = cast("Mapping[str, JsonValue]", self.challengers_of["sweep"])
        return [run.info.run_id for run in checkpoints.runs_of_sweep(client, sweep)]

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
            if not self._registered:
                found = selection.challengers(client, self.model, self.challengers_of, None)
                return [one for one in found if one.model_id != self._champions_model(client)]
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
            if not self._registered:
                return logged_datasets(client, self._runs(client))
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
        """Write evidence first, then the decision into the ledger; the alias moves after both, its tag comes last."""
        _ = self.seal  # a key that cannot be read is told before anything is written
        if promote:
            entering.checked(audit)
        with speaking(self.uri):
            client = connect(self.uri)
            if audit.kind == "score" and not self._registered:
                return Receipt(audit_runs=writing.write_scores(client, audit, files))
            runs, notes = self._write(client, audit, files)
            if audit.decision is not None:
                return self._decided(client, audit, runs, notes, files, promote=promote)
            if audit.kind == "audit":
                notes += self._watched(client, audit)
            return Receipt(audit_runs=runs, notes=tuple(dict.fromkeys(notes)))

    def history(self) -> Sequence[LedgerEntry]:
        """Every decision on the model, oldest first; none for a model without a ledger."""
        with speaking(self.uri):
            book = located(connect(self.uri), self.model, Journal(state_folder()))
            return book.read().entries if book else ()

    def account(self) -> History:
        """The ledger, whatever state it is in, beside what the alias points to now."""
        with speaking(self.uri):
            client = connect(self.uri)
            selection.check_model(client, self.model)
            book = located(client, self.model, Journal(state_folder()))
            version = selection.aliased(client, self.model, self.champion_alias)
            return History(
                ledger=book.unverified() if book else Ledger(model=self.model),
                alias=self.champion_alias,
                ledger_run=book.run_id if book else None,
                found=entering.pointing_at(selection.candidate(client, version) if version else None),
            )

    def ledgers(self) -> Sequence[str]:
        """Models that have a ledger, or whose first decision this machine was about to enter."""
        with speaking(self.uri):
            begun = {intent.draft.model for intent in Journal(state_folder()).begun_at(shown(self.uri))}
            return sorted({*directory(connect(self.uri)), *begun})

    def rollback(self, *, version: str | None, reason: str, actor: str) -> Receipt:
        """Restore a former champion as a new decision; None: the one before the present."""
        with speaking(self.uri):
            client = connect(self.uri)
            selection.check_model(client, self.model)
            if located(client, self.model, Journal(state_folder())) is None:
                remedy = "run a gate first: only what a gate recorded can be restored"
                raise NotFoundError(f"a ledger of {self.model!r}", got="none", remedy=remedy)
            promoter = self._promoter(client)
            entry, notes = carrying.rollback(promoter, self.champion_alias, version=version, reason=reason, actor=actor)
            assert entry.target is not None
            notes += attesting.kept(promoter.book, entry, {}, None)
            return Receipt(
                promoted=entry.target.version,
                sequence=entry.sequence,
                attestation=entry.attestation,
                notes=tuple(notes),
            )

    def resume(self) -> Sequence[Resumed]:
        """Finish or close the promotions and rollbacks that were left open, whatever their alias."""
        with speaking(self.uri):
            client = connect(self.uri)
            selection.check_model(client, self.model)
            journal = Journal(state_folder())
            begun = any(intent.draft.model == self.model for intent in journal.begun_at(shown(self.uri)))
            if not begun and located(client, self.model, journal) is None:
                return []
            return carrying.resumed(self._promoter(client))

    def attested(self, *, version: str | None) -> Attested:
        """What `flataudit verify` checks: of a version, or of what the champion alias points to."""
        alias = None if version else self.champion_alias
        with speaking(self.uri):
            return attesting.attested(connect(self.uri), self.uri, self.model, alias=alias, version=version)

    def load_audit(self, run_id: str, into: Path) -> None:
        """Download the stored audit of an audit run, or the newest of a scored run, into a folder.

        Raises:
            NotFoundError: there is no such run, or it holds no audit.
        """
        remedy = "name an audit run: the version tag flataudit.audit_run holds one"
        with speaking(self.uri):
            client = connect(self.uri)
            checkpoints.check_run(client, run_id)
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

    def _promoter(self, client: mlflow.MlflowClient) -> Promoter:
        book = opened(client, self.uri, self.model, Journal(state_folder()))
        return Promoter(replace(book, seal=self.seal), self.uri, self.lease_seconds)

    def _watched(self, client: mlflow.MlflowClient, audit: AuditRecord) -> list[str]:
        """What to tell of an alias that somebody moved; a model without a ledger gets none for that."""
        if located(client, self.model, Journal(state_folder())) is None:
            return []
        seen = entering.onlooker(
            self.model, self.champion_alias, during=audit.id, actor=audit.actor, compared=audit.champion
        )
        drift = entering.drift_noted(self._promoter(client), seen)
        return [drift] if drift else []

    def _decided(
        self,
        client: mlflow.MlflowClient,
        audit: AuditRecord,
        runs: Mapping[str, str],
        notes: list[str],
        files: Path,
        *,
        promote: bool,
    ) -> Receipt:
        """The gate's decision, entered and carried out; an end that is not known leaves the tags ``pending``."""
        assert audit.decision is not None
        label = audit.decision.promoted
        if promote and label is not None and audit.evidence(label).candidate.version is None:
            writing.settle_run(client, runs[label], "unregistered")
            remedy = "register it, choose it by its version, and run the gate again"
            notes.append(f"{label} won as a model of its run, where no alias can point: {remedy}")
        winner = runs[label] if label else None
        draft = entering.drafted(audit, self.champion_alias, promote=promote, audit_run=winner, files=files)
        promoter = self._promoter(client)
        entry, told = carrying.carried(promoter, draft)
        about = {label: run for label, run in runs.items() if audit.champion is None or label != audit.champion.label}
        told += attesting.kept(promoter.book, entry, about, files)
        return Receipt(
            audit_runs=runs,
            promoted=entry.target.version if entry.moves and entry.target else None,
            sequence=entry.sequence,
            attestation=entry.attestation,
            notes=tuple(dict.fromkeys(notes + told)),
        )
