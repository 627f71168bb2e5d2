"""Carrying out a ledger's promotion: the alias moves only for bytes hashed a moment ago, from the compared champion.

MLflow cannot set an alias on a condition. So one gate at a time has leave to: it claims the entry, and may set the
alias only while its lease lasts; another may claim after it has watched a claim stand for a whole lease. Whoever
claims verifies everything anew, so it does not matter who finishes a promotion, nor how often it is tried. Against
those who ask for no leave (people, scripts) a read comes directly before the write and another after it: they are
never overwritten knowingly, and what remains is the time of one request.
"""

import os
import secrets
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.exceptions import MlflowException

from flataudit.errors import ConflictError, ModelError, RegistryError, TamperedError
from flataudit.evidence import Candidate
from flataudit.journal import EXPIRY, age
from flataudit.ledger import AliasTarget, Ending, LedgerEntry
from flataudit.registries.mlflow.client import is_missing, retried
from flataudit.registries.mlflow.fetching import fetched
from flataudit.registries.mlflow.ledger_run import Claim, LedgerRun
from flataudit.registries.mlflow.selection import aliased, logged_model

__all__ = ["SETTLE_SECONDS", "Promoter", "now", "request_seconds", "sleep"]

SETTLE_SECONDS = 0.1
_READS = 3
_POLL_SECONDS = 0.25
_TAMPERED = "nothing was promoted: find out who changed it, then run the gate again"
_MOVED = "somebody moved it meanwhile; it was left alone: run the gate again"


def now() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def sleep(seconds: float) -> None:
    """Wait; a name of this module's own, so that tests can let time pass."""
    time.sleep(seconds)


def request_seconds(uri: str) -> float:
    """The longest that one write may be under way, with the repetitions of MLflow's client."""
    if not uri.startswith("http"):
        return 6.0  # what SQLite's driver waits for a lock, and a little
    timeout = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"))
    retries = int(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"))
    factor = float(os.environ.get("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1"))
    return timeout * (retries + 1) + factor * sum(2.0**n for n in range(retries)) + 1.0


@dataclass(frozen=True)
class Promoter:
    """One process that carries out promotions of one ledger."""

    book: LedgerRun
    uri: str
    lease: float
    """Seconds that a claim of this process lasts; never less than three requests."""
    holder: str = field(default_factory=lambda: secrets.token_hex(8))

    def finish(self, entry: LedgerEntry, *, owner: bool) -> tuple[Ending, RegistryError | None]:
        """Carry an entry out, or wait until another has; how it ended, and the error to raise unless that is done.

        Args:
            entry: a promotion or rollback of the ledger.
            owner: whether it is this process's own to carry out; others first leave its writer the time of a lease.

        Raises:
            RegistryError: it cannot be finished now, and stays open.
        """
        while True:
            turn = self._turn(entry, owner=owner)
            if isinstance(turn, str):
                return turn, None if turn == "done" else _told(entry, turn)
            fault = self._verified(entry)
            limit = now() + self._lease - request_seconds(self.uri)
            if not self.book.claim(entry.sequence, Claim(turn, self.holder, self._lease)):
                continue
            ending, error = self._move(entry, limit) if fault is None else ("tampered", fault)
            stands = self.book.close(entry.sequence, ending)
            if stands == ending:
                return ending, error
            return stands, None if stands == "done" else _told(entry, stands)

    def pointed(self, alias: str) -> AliasTarget:
        """What an alias points to now; the digest is not read."""
        version = aliased(self.book.client, self.book.model, alias)
        if version is None:
            return AliasTarget()
        return AliasTarget(version=str(version.version), run_id=version.run_id or None, model_id=logged_model(version))

    def hashed(self, found: AliasTarget) -> AliasTarget:
        """The same with the digest of its bytes, where they can be read."""
        if found.version is None:
            return found
        try:
            return found.model_copy(update={"digest": self._digest(found)})
        except ModelError:
            return found

    @property
    def _lease(self) -> float:
        return max(self.lease, 3 * request_seconds(self.uri))

    def _turn(self, entry: LedgerEntry, *, owner: bool) -> Ending | int:
        """The ending, or the number of the next claim once the last has stood for its lease before our eyes.

        The wait counts from when the claim was first seen here, so that no two clocks are ever compared.
        """
        watched, since = 0, now()
        while True:
            ending, claim = self.book.standing(entry.sequence)
            if ending is not None:
                return ending
            number = claim.number if claim else 0
            if number != watched:
                watched, since = number, now()
            patience = claim.lease if claim else 0.0 if owner else self._lease
            if now() - since >= patience:
                return number + 1
            sleep(_POLL_SECONDS)

    def _verified(self, entry: LedgerEntry) -> TamperedError | None:
        """What is wrong with the target: its origin, then its bytes. A version's number says nothing."""
        assert entry.target is not None
        target = entry.target
        expected = f"version {target.version} to be run {target.run_id}, model {target.model_id}"
        try:
            version = self.book.client.get_model_version(self.book.model, str(target.version))
        except MlflowException as error:
            if is_missing(error):
                return TamperedError(expected, got="no such version any more", remedy=_TAMPERED)
            raise
        if (version.run_id or None, logged_model(version)) != (target.run_id, target.model_id):
            got = f"run {version.run_id}, model {logged_model(version)}"
            return TamperedError(expected, got=got, remedy=_TAMPERED)
        try:
            digest = self._digest(target)
        except ModelError as error:
            return TamperedError(f"files with digest {target.digest}", got=error.got, remedy=_TAMPERED)
        if digest != target.digest:
            return TamperedError(f"files with digest {target.digest}", got=str(digest), remedy=_TAMPERED)
        return None

    def _digest(self, target: AliasTarget) -> str | None:
        model, version = self.book.model, str(target.version)
        candidate = Candidate(name=model, version=version, model_id=target.model_id, uri=f"models:/{model}/{version}")
        with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
            return fetched(self.book.client, self.uri, candidate, Path(scratch)).digest

    def _move(self, entry: LedgerEntry, limit: float) -> tuple[Ending, RegistryError | None]:
        """Set the alias unless it is set, if it still is where it was when the two were compared."""
        assert entry.target is not None and entry.target.version is not None
        alias, target, expected = entry.alias, entry.target.version, entry.expected or AliasTarget()
        here = self.pointed(alias)
        if here.version == target:
            return "done", None
        if not here.matches(expected):
            asked = f"{alias!r} to be {expected}, which was compared"
            return "conflict", ConflictError(asked, got=str(here), remedy=_MOVED)
        if age(entry.created) > EXPIRY:
            return "abandoned", _told(entry, "abandoned")
        self._set(alias, target, limit)
        for _ in range(_READS):
            sleep(SETTLE_SECONDS)
            after = self.pointed(alias)
            if after.version == target:
                return "done", None
        asked = f"{alias!r} to be version {target} after it was set"
        if after.matches(expected):  # an answer from before the write: whether it took effect is not known yet
            raise RegistryError(asked, got=f"still {after}", remedy="look again and finish it with `flataudit resume`")
        remedy = "somebody moved it at the same moment: look at the registry, then run the gate again"
        return "conflict", ConflictError(asked, got=str(after), remedy=remedy)

    def _set(self, alias: str, target: str, limit: float) -> None:
        client, model = self.book.client, self.book.model

        def write() -> None:
            if now() >= limit:  # a slow read: another may have leave by the time that the write arrives
                raise RegistryError(
                    f"to set {alias!r} within {self._lease:g} seconds",
                    got="a registry that is too slow",
                    remedy="finish it with `flataudit resume`",
                )
            client.set_registered_model_alias(model, alias, target)

        try:
            retried(write)
        except MlflowException:
            if self.pointed(alias).version != target:  # the answer may be lost, and the effect there
                raise


def _told(entry: LedgerEntry, ending: Ending) -> RegistryError:
    """The error for an ending that the ledger holds."""
    if ending == "tampered":
        return TamperedError(f"{entry.target} to hold the bytes that were audited", got="others", remedy=_TAMPERED)
    if ending == "abandoned":
        remedy = "nothing was promoted: run the gate again"
        return ConflictError(f"entry {entry.sequence} within a day", got="one left open since", remedy=remedy)
    asked = f"{entry.alias!r} to be {entry.expected}, which was compared"
    return ConflictError(asked, got=f"another when entry {entry.sequence} was carried out", remedy=_MOVED)
