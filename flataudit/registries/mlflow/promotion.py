"""Moving the champion alias: only for bytes that were hashed again a moment ago, only from the compared champion.

MLflow has no compare-and-set for aliases, so a check comes directly before the write and a read directly after it.
Whoever moved the alias meanwhile is never overwritten knowingly; what remains between check and write is the
time of one request.
"""

import tempfile
import time
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from flataudit.errors import ConflictError, ModelError, TamperedError
from flataudit.evidence import Candidate
from flataudit.registries.mlflow.client import is_missing, retried
from flataudit.registries.mlflow.fetching import fetched
from flataudit.registries.mlflow.selection import aliased, candidate

__all__ = ["promote"]

_SETTLE_SECONDS = 0.1
_TAMPERED = "nothing was promoted: find out who changed it, then run the gate again"


def promote(client: mlflow.MlflowClient, uri: str, alias: str, winner: Candidate, champion: Candidate | None) -> None:
    """Point the alias to the winner; does nothing if it already does.

    Args:
        client: of the registry.
        uri: of the registry, to fetch from.
        alias: of the champion.
        winner: a registered version as it was audited, with its digest.
        champion: as it was compared; None if the alias did not exist.

    Raises:
        TamperedError: the version or its bytes are not those that were audited.
        ConflictError: the alias points to another version than the champion that was compared.
    """
    assert winner.version is not None and winner.digest is not None
    target = winner.version
    _same_identity(client, winner)
    _same_bytes(client, uri, winner)
    now = _current(client, winner.name, alias)
    if now == target:
        return
    expected = champion.version if champion else None
    if now != expected:
        raise ConflictError(
            f"{alias!r} to be {_word(expected)}, which was compared",
            got=_word(now),
            remedy="somebody moved it meanwhile; it was left alone: run the gate again",
        )
    retried(lambda: client.set_registered_model_alias(winner.name, alias, target))
    time.sleep(_SETTLE_SECONDS)
    after = _current(client, winner.name, alias)
    if after != target:
        raise ConflictError(
            f"{alias!r} to be {_word(target)} after it was set",
            got=_word(after),
            remedy="somebody moved it at the same moment: look at the registry, then run the gate again",
        )


def _same_identity(client: mlflow.MlflowClient, winner: Candidate) -> None:
    """A model that was deleted and made again starts at version 1 again: the number alone says nothing."""
    expected = f"version {winner.version} to be run {winner.run_id}, model {winner.model_id}"
    try:
        found = candidate(client, client.get_model_version(winner.name, str(winner.version)))
    except MlflowException as error:
        if is_missing(error):
            raise TamperedError(expected, got="no such version any more", remedy=_TAMPERED) from error
        raise
    if (found.run_id, found.model_id) != (winner.run_id, winner.model_id):
        raise TamperedError(expected, got=f"run {found.run_id}, model {found.model_id}", remedy=_TAMPERED)


def _same_bytes(client: mlflow.MlflowClient, uri: str, winner: Candidate) -> None:
    with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
        try:
            digest = fetched(client, uri, winner, Path(scratch)).digest
        except ModelError as error:
            raise TamperedError(f"files with digest {winner.digest}", got=error.got, remedy=_TAMPERED) from error
    if digest != winner.digest:
        raise TamperedError(f"files with digest {winner.digest}", got=str(digest), remedy=_TAMPERED)


def _current(client: mlflow.MlflowClient, name: str, alias: str) -> str | None:
    version = aliased(client, name, alias)
    return str(version.version) if version else None


def _word(version: str | None) -> str:
    return f"version {version}" if version else "absent"
