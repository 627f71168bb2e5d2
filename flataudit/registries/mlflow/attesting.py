"""The attestation of a decision in MLflow: signed with this machine's key, kept beside the audit, found to verify.

The envelope itself is an artifact of the ledger's run, under its own digest, and the entry names that digest. Copies
lie beside ``audit.json``, in the folder and in the audit runs, for whoever verifies without a registry; the version's
tag `flataudit.attestation` points to it for people.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from flataudit import __version__
from flataudit.attestation.dsse import Envelope, signed
from flataudit.attestation.keys import signer
from flataudit.attestation.statement import statement_of
from flataudit.attestation.verifying import Attested, deciding
from flataudit.errors import NotFoundError
from flataudit.evidence import Candidate
from flataudit.journal import Journal, state_folder
from flataudit.ledger import Ledger, LedgerEntry
from flataudit.manifest import file_digest, manifest_digest
from flataudit.registries.mlflow import selection, writing
from flataudit.registries.mlflow.client import is_silence
from flataudit.registries.mlflow.entering import pointing_at
from flataudit.registries.mlflow.fetching import download
from flataudit.registries.mlflow.ledger_run import LedgerRun, Seal, located

__all__ = ["ENVELOPE_FILE", "attested", "kept", "seal"]

ENVELOPE_FILE = "attestation.dsse.json"


def seal() -> Seal | None:
    """What signs entries with the key of this environment; None: there is none.

    Raises:
        ConfigurationError: a key is named and cannot be read.
    """
    key = signer(os.environ)
    if key is None:
        return None

    def envelope(entry: LedgerEntry, ledger_run: str) -> bytes | None:
        statement = statement_of(entry, ledger=ledger_run, version=__version__)
        return signed(statement.to_bytes(), [key]).to_bytes() if statement else None

    return envelope


def kept(book: LedgerRun, entry: LedgerEntry, runs: Mapping[str, str], files: Path | None) -> list[str]:
    """Copies of the envelope beside the audit, and the tag; a note where they could not be written.

    Args:
        book: the ledger.
        entry: of the decision.
        runs: audit run of each candidate that the decision is about.
        files: the audit's folder.
    """
    try:
        envelope = book.envelope(entry) or _unsigned(entry, book.run_id)
        if envelope is None:
            return []
        if files is not None:
            (files / ENVELOPE_FILE).write_bytes(envelope)
        for run_id in runs.values():
            book.client.log_text(run_id, envelope.decode("ascii"), f"audit/{ENVELOPE_FILE}")
        if entry.moves and entry.target is not None and entry.target.version is not None:
            version = entry.target.version
            subject = Candidate(name=entry.model, version=version, uri=f"models:/{entry.model}/{version}")
            writing.tag_attestation(book.client, subject, entry.attestation or "unsigned")
    except (MlflowException, OSError) as error:
        told = str(error).partition("\n")[0][:200]
        return [f"copies of the attestation could not be written, the ledger keeps it: {told}"]
    return []


def attested(client: mlflow.MlflowClient, uri: str, model: str, *, alias: str | None, version: str | None) -> Attested:
    """What the registry holds of a model and says of it; the bytes are hashed anew.

    Raises:
        NotFoundError: there is no such model, alias or version.
        ModelError: it has no files.
    """
    selection.check_model(client, model)
    found = selection.aliased(client, model, alias) if alias else client.get_model_version(model, str(version))
    if found is None:
        remedy = "name one that `flataudit history` shows, or a version"
        raise NotFoundError(f"an alias {alias!r} of {model!r}", got="none", remedy=remedy)
    candidate = selection.candidate(client, found)
    book = located(client, model, Journal(state_folder()))
    seen = book.seen() if book else None
    ledger = book.unverified() if book else Ledger(model=model)
    entry = deciding(ledger, alias=alias, version=str(found.version))
    return Attested(
        digest=_hashed(client, uri, candidate),
        name=model,
        version=str(found.version),
        alias=alias,
        envelope=book.envelope(entry) if book and entry else None,
        entry=entry,
        ledger=ledger,
        ledger_run=book.run_id if book else None,
        found=pointing_at(candidate) if alias else None,
        tag=found.tags.get("flataudit.attestation"),
        inputs=_inputs(client, entry) if entry else {},
        seen=seen,
    )


def _hashed(client: mlflow.MlflowClient, uri: str, candidate: Candidate) -> str:
    """Of its bytes alone: an MLmodel that cannot be read any more is a change like any other."""
    with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
        download(client, uri, candidate, Path(scratch))
        return manifest_digest(Path(scratch))


def _inputs(client: mlflow.MlflowClient, entry: LedgerEntry) -> dict[str, str]:
    """Digests of the audit's files, as the audit run of the decision keeps them now."""
    found: dict[str, str] = {}
    for name in entry.files or () if entry.audit_run else ():
        with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
            try:
                kept = client.download_artifacts(str(entry.audit_run), f"audit/{name}", scratch)
                found[name] = f"sha256:{file_digest(Path(kept))}"
            except (OSError, MlflowException) as error:
                if is_silence(error):
                    raise
    return found


def _unsigned(entry: LedgerEntry, ledger_run: str) -> bytes | None:
    statement = statement_of(entry, ledger=ledger_run, version=__version__)
    return Envelope(statement.to_bytes()).to_bytes() if statement else None
