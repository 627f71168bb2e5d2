"""What this machine remembers of its own: promotions it began, and how far it has seen each ledger.

The registry's ledger holds all that a promotion needs once it is entered there. The journal covers the moment before
(a crash then leaves an intent, which `flataudit resume` carries out or closes), and notices a ledger that was cut
back or rewritten since. Each thing is one small file, replaced whole and synced, so that no crash leaves half of one.
"""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import PositiveInt, ValidationError

from flataudit.evidence import Record
from flataudit.ledger import LedgerDraft, LedgerEntry

__all__ = ["EXPIRY", "Intent", "Journal", "Seen", "age", "state_folder"]

EXPIRY = timedelta(hours=24)
"""A decision that was not carried out for so long is abandoned: the world has moved on."""


class Intent(Record):
    """A decision that this machine was about to enter and to carry out."""

    registry: str
    """Where, without credentials."""
    draft: LedgerDraft

    @property
    def expired(self) -> bool:
        """Whether it is too old to be carried out."""
        return age(self.draft.created) > EXPIRY


class Seen(Record):
    """The newest entry of a ledger that this machine has seen."""

    ledger_run: str
    sequence: PositiveInt
    digest: str


@dataclass(frozen=True)
class Journal:
    """Files under one folder; every method may raise `OSError`."""

    folder: Path

    def begin(self, intent: Intent) -> None:
        """Write the intent, synced, before the registry hears of it."""
        self._write("intents", intent.draft.operation, intent.model_dump_json())

    def end(self, operation: str) -> None:
        """Forget an intent: the ledger holds how it ended. Does nothing if it is forgotten already."""
        file = self._file("intents", operation)
        if file.exists():
            file.unlink(missing_ok=True)
            _sync(file.parent)

    def begun_at(self, registry: str) -> list[Intent]:
        """Intents of one registry that were not forgotten, oldest first; a file that is no intent is left alone."""
        found = []
        for file in sorted(self.folder.glob("intents/*.json")):
            with contextlib.suppress(ValidationError, FileNotFoundError):
                found.append(Intent.model_validate_json(file.read_bytes()))
        ours = [intent for intent in found if intent.registry == registry]
        return sorted(ours, key=lambda intent: intent.draft.created)

    def saw(self, ledger_run: str, head: LedgerEntry) -> None:
        """Remember the newest entry, unless a newer one is remembered."""
        self.reached(ledger_run, head.sequence, head.digest)

    def reached(self, ledger_run: str, sequence: int, digest: str) -> None:
        """The same of an entry that is known by its number and digest alone."""
        known = self.seen(ledger_run)
        if known is None or known.sequence < sequence:
            seen = Seen(ledger_run=ledger_run, sequence=sequence, digest=digest)
            self._write("ledgers", ledger_run, seen.model_dump_json())

    def seen(self, ledger_run: str) -> Seen | None:
        """The newest entry of that ledger that was seen from here."""
        try:
            return Seen.model_validate_json(self._file("ledgers", ledger_run).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _file(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def _write(self, kind: str, name: str, text: str) -> None:
        file = self._file(kind, name)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync(file.parent)


def state_folder() -> Path:
    """``$FLATAUDIT_STATE``, else ``$XDG_STATE_HOME/flataudit``, else ``~/.local/state/flataudit``.

    A user without a home has it among the temporary files, which last as long as the machine is up.
    """
    if own := os.environ.get("FLATAUDIT_STATE"):
        return Path(own)
    if shared := os.environ.get("XDG_STATE_HOME"):
        return Path(shared) / "flataudit"
    try:
        return Path.home() / ".local/state/flataudit"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"flataudit-state-{os.getuid()}"


def age(created: str) -> timedelta:
    """How long ago a time of a record is, by this machine's clock."""
    return datetime.now(UTC) - datetime.fromisoformat(created)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
