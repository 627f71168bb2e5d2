"""Where the ledger lives in MLflow: one run for each registered model, whose write-once params are its entries.

``log_param`` refuses to change a value, so of all who write under one key exactly one wins: a compare-and-swap. An
entry's key is its number. Which run is a model's ledger is settled the same way, by a param of one run that holds
the directory of all ledgers; and which run is the directory by the tags that an experiment is created with, since
an experiment's name is given only once. What a write answers is not believed (a time-out may come after the effect):
the run is read again.
"""

import contextlib
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import mlflow
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from flataudit.errors import RegistryError
from flataudit.journal import Journal, Seen
from flataudit.ledger import Ending, Ledger, LedgerEntry
from flataudit.registries.mlflow.client import is_silence, retried
from flataudit.registries.mlflow.writing import artifact_location, experiment_id

__all__ = ["Claim", "LedgerRun", "Seal", "directory", "located", "opened"]

Seal = Callable[[LedgerEntry, str], bytes | None]
"""The signed envelope of an entry in the ledger of that run; None where there is nothing to sign."""

_EXPERIMENT = "flataudit-ledger"
"""Holds the ledgers' runs."""
_ROOT = "flataudit-ledger-directory"
_NOTE = "Holds no runs: its tag names the run that lists flataudit's ledgers. Leave it as it is."
_DIRECTORY = "flataudit.directory"
_KEY = re.compile(r"(decision|outcome|claim)\.(\d{6,})(?:\.(\d+))?")
_PARAM_CHARACTERS = 6000
_A_DAY = 86_400.0
_TRIES = 4
_REMEDY = "do not decide until it is known who changed it: restore the run from a backup of the registry"


@dataclass(frozen=True)
class Claim:
    """Leave to move an alias for one entry, for as long as the lease."""

    number: int
    """1, 2, … of that entry; only the newest counts."""
    holder: str
    lease: float
    """Seconds, by the holder's clock from before it claimed, by all others' from when they saw the claim."""


@dataclass(frozen=True)
class LedgerRun:
    """The ledger of one registered model."""

    client: mlflow.MlflowClient
    run_id: str
    model: str
    journal: Journal
    seal: Seal | None = None
    """Signs what is entered; None: entries are unsigned."""

    def read(self) -> Ledger:
        """All entries, verified.

        Raises:
            RegistryError: the chain is broken, or ends before what this machine has seen of it.
        """
        for attempt in range(_TRIES):
            seen = self.seen()  # first: another process of this machine may see more while this one reads
            ledger = self.unverified()
            cut_back = _cut_back(ledger, seen)
            if not cut_back:
                break
            time.sleep(0.1 * 2**attempt)  # a stale answer, unless it stays so
        problems = ledger.problems() or cut_back
        if problems:
            raise RegistryError(f"an unbroken ledger of {self.model!r}", got=problems[0], remedy=_REMEDY)
        if ledger.head:
            self._saw(ledger.head)
        return ledger

    def unverified(self) -> Ledger:
        """The same, whatever state it is in; an entry that cannot be read is left out, and its number told."""
        entries: list[LedgerEntry] = []
        unreadable: list[int] = []
        endings: dict[int, Ending] = {}
        for key, value in self._params().items():
            found = _KEY.fullmatch(key)
            if found and found[1] == "decision":
                parsed = self._parsed(value)
                entries += parsed
                unreadable += [] if parsed else [int(found[2])]
            if found and found[1] == "outcome":
                endings |= {int(found[2]): cast("Ending", value)} if value in get_args(Ending) else {}
        entries.sort(key=lambda entry: entry.sequence)
        return Ledger(model=self.model, entries=tuple(entries), endings=endings, unreadable=tuple(sorted(unreadable)))

    def sealed(self, entry: LedgerEntry) -> LedgerEntry:
        """The entry with the digest of its signed envelope, which is kept here before the entry is."""
        envelope = self.seal(entry, self.run_id) if self.seal else None
        if envelope is None:
            return entry
        digest = hashlib.sha256(envelope).hexdigest()
        self.client.log_text(self.run_id, envelope.decode("ascii"), f"attestations/{digest}.json")
        return entry.with_attestation(f"sha256:{digest}")

    def envelope(self, entry: LedgerEntry) -> bytes | None:
        """The signed envelope of an entry, as it is kept; None if it is not."""
        if entry.attestation is None:
            return None
        try:
            return self._artifact(f"attestations/{entry.attestation.removeprefix('sha256:')}.json")
        except (OSError, MlflowException) as error:
            if is_silence(error):
                raise
            return None

    def append(self, entry: LedgerEntry) -> bool:
        """Write the entry under its number; whether it stands there now."""
        text = entry.compact_json()
        if len(text) > _PARAM_CHARACTERS:  # MLflow would cut it without a word
            place = f"decisions/{entry.digest.removeprefix('sha256:')}.json"
            self.client.log_text(self.run_id, text, place)
            text = json.dumps({"artifact": place, "digest": entry.digest})
        won = self._put(f"decision.{entry.sequence:06}", text) == text
        if won:
            self._saw(entry)
        return won

    def close(self, sequence: int, ending: Ending) -> Ending:
        """Write how an entry ended; the ending that stands now, which may be another's."""
        return cast("Ending", self._put(f"outcome.{sequence:06}", ending))

    def claim(self, sequence: int, claim: Claim) -> bool:
        """Take leave to move the alias; whether nobody was faster."""
        text = f"{claim.holder} {claim.lease!r}"
        return self._put(f"claim.{sequence:06}.{claim.number}", text) == text

    def standing(self, sequence: int) -> tuple[Ending | None, Claim | None]:
        """How an entry ended, and the newest claim on it."""
        params = self._params()
        claims = [int(found[3]) for key in params if (found := _KEY.fullmatch(key)) and _claims(found, sequence)]
        newest = max(claims, default=0)
        ending = cast("Ending | None", params.get(f"outcome.{sequence:06}"))
        if not newest:
            return ending, None
        holder, _, lease = params[f"claim.{sequence:06}.{newest}"].rpartition(" ")
        return ending, Claim(newest, holder, _seconds(lease))

    def _params(self) -> Mapping[str, str]:
        return cast("Mapping[str, str]", self.client.get_run(self.run_id).data.params)

    def _put(self, key: str, value: str) -> str:
        """Write once; the value that stands there afterwards."""
        for attempt in range(_TRIES):
            try:
                self.client.log_param(self.run_id, key, value)
                return value
            except MlflowException as error:
                refusal = error
            standing = self._params().get(key)
            if standing is not None:
                return standing
            time.sleep(0.05 * 2**attempt)
        raise refusal

    def _parsed(self, value: str) -> list[LedgerEntry]:
        try:
            told = json.loads(value)
            if "artifact" in told:
                entry = LedgerEntry.from_json(self._artifact(str(told["artifact"])))
                return [entry] if entry.digest == told["digest"] else []
            return [LedgerEntry.from_json(value)]
        except (ValueError, ValidationError, TypeError, KeyError, OSError, RecursionError, MlflowException) as error:
            if isinstance(error, MlflowException) and is_silence(error):
                raise
            return []

    def _saw(self, head: LedgerEntry) -> None:
        with contextlib.suppress(OSError):  # a folder that cannot be written: whoever promotes says so
            self.journal.saw(self.run_id, head)

    def _artifact(self, place: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
            return Path(self.client.download_artifacts(self.run_id, place, scratch)).read_bytes()

    def seen(self) -> Seen | None:
        """The newest entry that this machine has seen; None where it remembers none."""
        try:
            return self.journal.seen(self.run_id)
        except OSError:
            return None


def _seconds(told: str) -> float:
    """How long a claim lasts; what is no such number was not written by a gate, and keeps others off for a day."""
    try:
        found = float(told)
    except ValueError:
        return _A_DAY
    return found if 0 < found <= _A_DAY else _A_DAY


def located(client: mlflow.MlflowClient, model: str, journal: Journal) -> LedgerRun | None:
    """The ledger of a model; None before its first decision."""
    root = _root(client)
    run_id = client.get_run(root).data.params.get(_name(model)) if root else None
    return LedgerRun(client, run_id, model, journal) if run_id else None


def directory(client: mlflow.MlflowClient) -> list[str]:
    """Models that have a ledger."""
    root = _root(client)
    params = client.get_run(root).data.params if root else {}
    runs = [client.get_run(run_id) for key, run_id in params.items() if key.startswith("ledger.")]
    return sorted(str(run.data.tags.get("flataudit.model")) for run in runs)


def opened(client: mlflow.MlflowClient, uri: str, model: str, journal: Journal) -> LedgerRun:
    """The ledger of a model, made if there is none; of all who make one at once, one is kept."""
    found = located(client, model, journal)
    if found:
        return found
    root = _root(client) or _made_root(client, uri)
    tags = {"mlflow.runName": f"ledger of {model}", "flataudit.model": model, "flataudit.kind": "ledger"}
    mine = _finished_run(client, experiment_id(client, uri, _EXPERIMENT), tags)
    kept = LedgerRun(client, root, model, journal)._put(_name(model), mine)
    if kept != mine:
        client.delete_run(mine)
        return LedgerRun(client, kept, model, journal)
    with contextlib.suppress(MlflowException):  # for people, who find it on the model's page; nothing here reads it
        retried(lambda: client.set_registered_model_tag(model, "flataudit.ledger", mine))
    return LedgerRun(client, kept, model, journal)


def _made_root(client: mlflow.MlflowClient, uri: str) -> str:
    """The run that holds the directory; whoever makes the experiment that names it has made it."""
    tags = {"mlflow.runName": "directory of ledgers", "flataudit.kind": "directory"}
    mine = _finished_run(client, experiment_id(client, uri, _EXPERIMENT), tags)
    with contextlib.suppress(MlflowException):  # whoever comes second is refused
        client.create_experiment(_ROOT, artifact_location(uri), tags={_DIRECTORY: mine, "mlflow.note.content": _NOTE})
    kept = _root(client)
    if kept is None:
        raise RegistryError(f"to make the experiment {_ROOT!r}", got="a refusal", remedy="ask for leave to make it")
    if kept != mine:
        client.delete_run(mine)
    return kept


def _root(client: mlflow.MlflowClient) -> str | None:
    """Run that holds the directory of all ledgers."""
    found = client.get_experiment_by_name(_ROOT)
    if found is None:
        return None
    if _DIRECTORY not in found.tags or found.lifecycle_stage != "active":
        raise RegistryError(
            f"the experiment {_ROOT!r} as flataudit made it, with the tag {_DIRECTORY}",
            got=f"{found.lifecycle_stage}, with the tags {', '.join(found.tags) or 'none'}",
            remedy="restore it; if flataudit did not make it, rename it",
        )
    return str(found.tags[_DIRECTORY])


def _finished_run(client: mlflow.MlflowClient, home: str, tags: Mapping[str, str]) -> str:
    run_id = str(client.create_run(home, tags=dict(tags)).info.run_id)
    client.set_terminated(run_id, "FINISHED")  # params may be written all the same
    return run_id


def _name(model: str) -> str:
    return f"ledger.{hashlib.sha256(model.encode()).hexdigest()[:32]}"


def _cut_back(ledger: Ledger, seen: Seen | None) -> tuple[str, ...]:
    """How a ledger lacks what was seen of it."""
    if seen is None:
        return ()
    if len(ledger.entries) < seen.sequence:
        return (f"{len(ledger.entries)} entries, of which this machine has seen {seen.sequence}",)
    if ledger.entries[seen.sequence - 1].digest != seen.digest:
        return (f"another entry {seen.sequence} than this machine has seen",)
    return ()


def _claims(found: re.Match[str], sequence: int) -> bool:
    return found[1] == "claim" and int(found[2]) == sequence
