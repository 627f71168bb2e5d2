"""The last step of a promotion: tags that say how it ended, whoever carried it out."""

import mlflow
from mlflow.exceptions import MlflowException

from flataudit.evidence import Candidate
from flataudit.ledger import Ending, LedgerEntry
from flataudit.registries.mlflow import writing

__all__ = ["settled", "word_of"]


def settled(client: mlflow.MlflowClient, entry: LedgerEntry, word: str) -> list[str]:
    """Tags that say how it ended; a note where they could not be written. A newer audit's tags are left alone."""
    assert entry.target is not None and entry.target.version is not None
    version = entry.target.version
    subject = Candidate(name=entry.model, version=version, uri=f"models:/{entry.model}/{version}")
    try:
        if entry.audit_run is not None:
            writing.settle_run(client, entry.audit_run, word)
        tagged = client.get_model_version(entry.model, version).tags.get("flataudit.audit_run")
        if entry.audit_run in (None, tagged):
            writing.settle(client, subject, word)
    except MlflowException as error:
        if word in ("promote", "rollback"):
            told = str(error).partition("\n")[0][:200]
            return [f"v{version} was promoted, and its tags still say pending: {told}"]
    return []


def word_of(entry: LedgerEntry, ending: Ending) -> str:
    """What the tags say of an entry that ended so."""
    return entry.kind if ending == "done" else ending
