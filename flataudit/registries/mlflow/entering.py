"""How a decision gets its number: read the whole ledger, settle what is open, check the champion, write, or read again.

A promotion is entered only if the champion that the entries before it imply is the one that was compared, and no
promotion before it is open. Since a number is given once, whoever wins it has seen all that came before: the ledger
is one line of decisions, and of two gates that compared the same champion at most one replaces it.
"""

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flataudit.audit import AuditRecord
from flataudit.errors import ConflictError, RegistryError, TamperedError
from flataudit.evidence import Candidate, canonical_digest
from flataudit.ledger import AliasTarget, EntryKind, Ledger, LedgerDraft, LedgerEntry, operation_id, validation_use
from flataudit.manifest import file_digest
from flataudit.registries.mlflow import promotion
from flataudit.registries.mlflow.promotion import Promoter
from flataudit.registries.mlflow.settling import settled, word_of

__all__ = [
    "checked",
    "conflict_of",
    "drafted",
    "drift_noted",
    "drift_told",
    "enter",
    "onlooker",
    "pointing_at",
    "stamped",
]

_ATTEMPTS = 64
_WHY = 500
_FILES = ("audit.json", "arrays.npz")
_CONFIRMATIONS = 3
_ASKED = "decided as question"


def pointing_at(candidate: Candidate | None) -> AliasTarget:
    """What an alias points to that points to the candidate; None: to nothing."""
    if candidate is None:
        return AliasTarget()
    return AliasTarget(
        version=candidate.version,
        digest=candidate.digest,
        run_id=candidate.run_id,
        model_id=candidate.model_id,
    )


def stamped() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def drafted(
    audit: AuditRecord, alias: str, *, promote: bool, audit_run: str | None, files: Path | None = None
) -> LedgerDraft:
    """The entry of a gate's decision.

    Args:
        audit: of kind ``gate``.
        alias: of the champion.
        promote: whether the alias shall move; a winner that is no registered version moves nothing.
        audit_run: of the winner.
        files: folder of the published audit.
    """
    assert audit.decision is not None
    decision = audit.decision
    winner = audit.evidence(decision.promoted).candidate if decision.promoted else None
    moves = promote and winner is not None and winner.version is not None
    kind: EntryKind = decision.decision if moves or decision.decision != "promote" else "hold"
    expected = pointing_at(audit.champion)
    target = pointing_at(winner) if moves else None
    decided = canonical_digest([audit.id, decision.model_dump(mode="json")])
    return LedgerDraft(
        model=audit.plan.model,
        alias=alias,
        kind=kind,
        audit=audit.id,
        operation=operation_id(audit.plan.model, alias, expected=expected, target=target, decision=decided),
        created=stamped(),
        actor=audit.actor,
        policy_digest=decision.policy_digest,
        validation_digest=next((data.digest for data in audit.data if data.role == "validation"), None),
        alpha=decision.alpha,
        validation_use=decision.validation_use,
        evidence={e.candidate.label: e.digest for e in audit.evidences},
        judged={one.version or one.candidate: one.digest for one in decision.standings if one.digest} or None,
        files=_digests(files) if files else None,
        expires=_expiry(audit),
        expected=expected,
        target=target,
        audit_run=audit_run if moves else None,
        why=_shortened(decision.why),
    )


def _digests(files: Path) -> dict[str, str] | None:
    """Of the audit's own files, by name."""
    found = [files / name for name in _FILES if (files / name).is_file()]
    return {file.name: f"sha256:{file_digest(file)}" for file in found} or None


def _expiry(audit: AuditRecord) -> str | None:
    days = audit.plan.attestation.expires_days
    if days is None:
        return None
    return (datetime.fromisoformat(stamped()) + timedelta(days=days)).isoformat(timespec="seconds")


def checked(audit: AuditRecord) -> None:
    """Refuse a promotion whose record does not hold together.

    Raises:
        TamperedError: the policy, a digest or the data of the evidence is not that of the decision.
    """
    assert audit.decision is not None and audit.decision.promoted is not None
    remedy = "nothing was promoted: run the gate again"
    decision, winner = audit.decision, audit.evidence(audit.decision.promoted)
    if winner.candidate.version is None:
        return  # no alias can point to it
    if decision.policy_digest != audit.policy_digest:
        raise TamperedError(f"a decision by policy {audit.policy_digest}", got=decision.policy_digest, remedy=remedy)
    judged = next((s.digest for s in decision.standings if s.candidate == decision.promoted), None)
    if winner.candidate.digest is None or judged != winner.candidate.digest:
        got, asked = str(winner.candidate.digest), f"evidence on the bytes that were judged, {judged}"
        raise TamperedError(asked, got=got, remedy=remedy)
    champion = audit.evidence(audit.champion.label) if audit.champion else None
    for evidence in (winner, champion):
        for data in audit.data if evidence else ():
            measured = evidence.protocol.data.get(data.name) if evidence else None
            if measured != data.digest:
                label = evidence.candidate.label if evidence else ""
                asked = f"evidence of {label} on the audit's data {data.name!r}, {data.digest}"
                raise TamperedError(asked, got=str(measured), remedy=remedy)


def enter(promoter: Promoter, draft: LedgerDraft) -> tuple[LedgerEntry, tuple[str, ...]]:
    """The draft in the ledger: once, however often this is called. A promotion that lost becomes a ``conflict``.

    Returns:
        The entry, and what a person should know.

    Raises:
        RegistryError: the chain is broken, an open promotion cannot be finished, or no number could be won.
    """
    book, notes = promoter.book, list[str]()
    for attempt in range(_ATTEMPTS):
        ledger = book.read()
        if found := ledger.find(draft.operation):
            return found, tuple(notes)
        unfinished = ledger.unfinished(draft.alias)
        if unfinished and draft.moves:
            ending, _ = promoter.finish(unfinished[0], owner=False)
            settled(book.client, unfinished[0], word_of(unfinished[0], ending))
            continue
        here = None if unfinished else _confirmed(promoter, ledger, draft)
        if here is not None and _drifted(ledger, draft.alias, here):
            drift = book.sealed(ledger.followed_by(_drift(ledger, draft, promoter.hashed(here))))
            notes += [drift_told(drift)] if book.append(drift) else []
            continue
        why = _lost(ledger, draft, here) if draft.moves and here is not None else None
        chosen = draft.model_copy(update={"kind": "conflict", "why": _shortened(why)}) if why else draft
        entry = book.sealed(ledger.followed_by(chosen))
        if book.append(entry):
            return entry, tuple(notes)
        promotion.sleep(0.01 * (attempt % 8) * (1 + int(promoter.holder[:2], 16) / 64))
    raise RegistryError(
        f"a number in the ledger of {book.model!r}",
        got=f"none in {_ATTEMPTS} attempts",
        remedy="others decide at the same time: run it again",
    )


def drift_noted(promoter: Promoter, draft: LedgerDraft) -> str | None:
    """Enter a drift of the alias if there is one; what to tell a person."""
    for _ in range(_CONFIRMATIONS):
        ledger = promoter.book.read()
        if ledger.unfinished(draft.alias):
            return None
        here = _confirmed(promoter, ledger, draft)
        if not _drifted(ledger, draft.alias, here):
            return None
        entry = promoter.book.sealed(ledger.followed_by(_drift(ledger, draft, promoter.hashed(here))))
        if promoter.book.append(entry):
            return drift_told(entry)
    return None


def onlooker(model: str, alias: str, *, during: str, actor: str, compared: Candidate | None = None) -> LedgerDraft:
    """Who looks for a drift without deciding anything; for `drift_noted`.

    Args:
        model: registered model.
        alias: of the champion.
        during: id of the audit or rollback.
        actor: who looks.
        compared: the champion whose bytes were just read.
    """
    seen = pointing_at(compared) if compared else None
    return LedgerDraft(
        model=model,
        alias=alias,
        kind="drift",
        audit=during,
        operation=during,
        created=stamped(),
        actor=actor,
        expected=seen,
    )


def drift_told(entry: LedgerEntry) -> str:
    """A drift in words."""
    said, found = entry.expected or AliasTarget(), entry.target or AliasTarget()
    if said.version == found.version:
        return (
            f"{found} was changed under the alias {entry.alias!r}: the ledger says {said.digest}, run {said.run_id}, "
            f"and found were {found.digest}, run {found.run_id} (entry {entry.sequence})"
        )
    return (
        f"the alias {entry.alias!r} was moved by no gate: the ledger says {said}, it points to {found}; it was left "
        f"there (entry {entry.sequence})"
    )


def _confirmed(promoter: Promoter, ledger: Ledger, draft: LedgerDraft) -> AliasTarget:
    """What the alias points to; a drift is believed only if it is seen again and again, for an answer may be stale.

    The champion's bytes are read only where the gate read others than the ledger says.
    """
    for confirmation in range(_CONFIRMATIONS):
        here = promoter.pointed(draft.alias)
        champion, compared = ledger.champion(draft.alias), draft.expected
        if champion and compared and here.matches(compared) and not champion.matches(compared):
            here = promoter.hashed(here)
        if not _drifted(ledger, draft.alias, here):
            return here
        if confirmation < _CONFIRMATIONS - 1:
            promotion.sleep(promotion.SETTLE_SECONDS)
    return here


def _drifted(ledger: Ledger, alias: str, here: AliasTarget) -> bool:
    champion = ledger.champion(alias)
    return champion is not None and not champion.matches(here)


def _drift(ledger: Ledger, draft: LedgerDraft, found: AliasTarget) -> LedgerDraft:
    """The entry that says what was found, in the name of whoever found it."""
    expected = ledger.champion(draft.alias)
    seen = f"drift-{secrets.token_hex(6)}"
    return LedgerDraft(
        model=draft.model,
        alias=draft.alias,
        kind="drift",
        audit=seen,
        operation=operation_id(draft.model, draft.alias, expected=expected, target=found, decision=seen),
        created=stamped(),
        actor=draft.actor,
        expected=expected,
        target=found,
        why=f"found during {draft.audit}",
    )


def _lost(ledger: Ledger, draft: LedgerDraft, here: AliasTarget) -> str | None:
    """Why a promotion may not be entered any more."""
    assert draft.expected is not None
    if not here.matches(draft.expected):
        return f"{here} when the decision was to be entered"
    if draft.validation_use is not None and draft.validation_digest is not None:
        use = validation_use(
            ledger.entries,
            draft.validation_digest,
            policy_digest=draft.policy_digest,
            evidence=draft.evidence,
            champion=draft.expected.version,
        )
        if use != draft.validation_use:
            return f"{_ASKED} {draft.validation_use} to this validation set, and is its question {use} by now"
    return None


def conflict_of(entry: LedgerEntry) -> ConflictError:
    """The error for a promotion that became a conflict."""
    remedy = "nothing was promoted: run the gate again"
    asked = f"{entry.alias!r} to be {entry.expected}, which was compared"
    if entry.why.startswith(_ASKED):
        asked = "a validation set that no other decision looked at meanwhile"
    return ConflictError(asked, got=entry.why, remedy=remedy)


def _shortened(text: str) -> str:
    return text if len(text) <= _WHY else text[: _WHY - 1] + "…"
