"""Decisions carried out: a gate's, a rollback, and what a crash left; each by journal, ledger, alias, tags.

The order is that of a write-ahead log: what this machine is about to do, what the registry is about to see, the alias,
the ending in the ledger, the end of the intent. A crash between any two leaves what `resumed` finishes.
"""

import contextlib
import secrets

from flataudit.errors import ConfigurationError, ConflictError, NotFoundError, RegistryError, TamperedError
from flataudit.journal import Intent
from flataudit.ledger import AliasTarget, Ending, LedgerDraft, LedgerEntry, Resumed, operation_id
from flataudit.registries.mlflow.client import shown
from flataudit.registries.mlflow.entering import conflict_of, drift_noted, enter, onlooker, stamped
from flataudit.registries.mlflow.promotion import Promoter
from flataudit.registries.mlflow.settling import settled, word_of

__all__ = ["carried", "resumed", "rollback"]


def carried(promoter: Promoter, draft: LedgerDraft) -> tuple[LedgerEntry, list[str]]:
    """Enter a decision and carry it out; repeating it changes nothing.

    Returns:
        The entry, and what a person should know.

    Raises:
        ConflictError: the alias is not where it was when the two were compared; nothing was moved.
        TamperedError: the target is not what was audited; nothing was moved.
    """
    notes: list[str] = []
    if draft.moves:
        try:
            promoter.book.journal.begin(Intent(registry=shown(promoter.uri), draft=draft))
        except OSError as error:
            told = f"{error.strerror} ({promoter.book.journal.folder})"
            notes += [f"no journal on this machine, the ledger alone can resume what a crash leaves: {told}"]
    entry, told_of = enter(promoter, draft)
    notes += told_of
    refusal: RegistryError | None = None
    if entry.kind == "conflict":
        refusal = conflict_of(entry)
        notes += settled(promoter.book.client, entry, "conflict")
    elif entry.moves:
        ending, refusal = promoter.finish(entry, owner=True)
        notes += settled(promoter.book.client, entry, word_of(entry, ending))
    if draft.moves:
        _ended(promoter, draft.operation)
    if refusal:
        raise refusal
    return entry, notes


def rollback(
    promoter: Promoter, alias: str, *, version: str | None, reason: str, actor: str
) -> tuple[LedgerEntry, list[str]]:
    """Restore a former champion, as a decision of its own, with all verification of a promotion.

    Args:
        promoter: of the ledger.
        alias: of the champion.
        version: that was champion once; None: the one before the present.
        reason: in a person's words.
        actor: who.

    Raises:
        ConfigurationError: there is no such former champion, or nobody knows its bytes.
        ConflictError: the alias was moved meanwhile.
        TamperedError: its bytes are not those that were champion.
    """
    name = f"rollback-{secrets.token_hex(6)}"
    drift = drift_noted(promoter, onlooker(promoter.book.model, alias, during=name, actor=actor))
    expected, target = _former(promoter, alias, version)
    draft = LedgerDraft(
        model=promoter.book.model,
        alias=alias,
        kind="rollback",
        audit=name,
        operation=operation_id(promoter.book.model, alias, expected=expected, target=target, decision=name),
        created=stamped(),
        actor=actor,
        expected=expected,
        target=target,
        why=reason[:500],
    )
    entry, notes = carried(promoter, draft)
    return entry, ([drift] if drift else []) + notes


def resumed(promoter: Promoter) -> list[Resumed]:
    """Finish or close whatever was left open on the model, by this machine or by others; in the order of begin.

    An open promotion of a gate that still runs is finished too, for either may do it.
    """
    found: list[Resumed] = []
    for intent in promoter.book.journal.begun_at(shown(promoter.uri)):
        if intent.draft.model == promoter.book.model:
            found.append(_of_intent(promoter, intent))
    for entry in promoter.book.read().unfinished():
        ending, error = promoter.finish(entry, owner=True)
        settled(promoter.book.client, entry, word_of(entry, ending))
        found.append(_resumed(entry, ending, str(error or "")))
    return found


def _of_intent(promoter: Promoter, intent: Intent) -> Resumed:
    draft = intent.draft
    entry = promoter.book.read().find(draft.operation)
    if entry is None and intent.expired:
        _ended(promoter, draft.operation)
        return _resumed(draft, "abandoned", "it was not entered within a day: run the gate again")
    told = ""
    try:
        carried(promoter, draft)
    except (ConflictError, TamperedError) as error:
        told = str(error)
    ledger = promoter.book.read()
    entry = ledger.find(draft.operation)
    assert entry is not None
    return _resumed(entry, ledger.endings.get(entry.sequence, "conflict"), told)


def _resumed(entry: LedgerDraft, ending: Ending, told: str) -> Resumed:
    assert entry.target is not None
    return Resumed(
        model=entry.model,
        alias=entry.alias,
        sequence=entry.sequence if isinstance(entry, LedgerEntry) else None,
        kind=entry.kind,
        target=entry.target,
        ending=ending,
        told=told,
    )


def _former(promoter: Promoter, alias: str, version: str | None) -> tuple[AliasTarget, AliasTarget]:
    """The present champion, and the one to restore."""
    ledger = promoter.book.read()
    champions = ledger.champions(alias)
    if not champions:
        remedy = "run a gate first: only what a gate recorded can be restored"
        raise NotFoundError(f"champions of {alias!r} in the ledger of {ledger.model!r}", got="none", remedy=remedy)
    known = [champion for champion in champions if champion.version is not None]
    if version is None:
        target = champions[-2] if len(champions) > 1 else AliasTarget()
    else:
        number = version.removeprefix("v")
        target = ledger.recorded(alias, number) or AliasTarget(version=number)
    if target.version == champions[-1].version:
        asked = f"another version than {target.version}, which is champion"
        raise ConfigurationError(asked, got=f"version {version}", remedy="name a former one with --to")
    if target.version is None or target.digest is None:
        got = f"version {target.version}, whose bytes are in no entry" if target.version else "none before it"
        remedy = f"name one with --to; the ledger knows {', '.join(str(champion) for champion in known) or 'none'}"
        raise ConfigurationError(f"a former champion of {ledger.model!r} with its digest", got=got, remedy=remedy)
    return champions[-1], target


def _ended(promoter: Promoter, operation: str) -> None:
    with contextlib.suppress(OSError):  # it stays an intent, and a repetition finds that all is done
        promoter.book.journal.end(operation)
