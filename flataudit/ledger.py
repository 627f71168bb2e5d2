"""The numbered, hash-chained account of every decision on one registered model, and what follows from it.

Nothing here reads or writes: a registry keeps the entries, and gives each number to one writer only. From the entries
alone follows which version each alias should point to, which promotion is unfinished, and whether somebody who is
no gate moved an alias.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt

from flataudit.evidence import Record, canonical_digest

__all__ = [
    "AliasTarget",
    "Ending",
    "EntryKind",
    "History",
    "Ledger",
    "LedgerDraft",
    "LedgerEntry",
    "Resumed",
    "operation_id",
    "validation_use",
]

EntryKind = Literal["promote", "hold", "reject", "inconclusive", "conflict", "rollback", "drift"]
"""``conflict``: would have promoted, but the champion that was compared was champion no more. ``drift``: somebody
who is no gate moved the alias; the entry says what was found, and the account goes on from there."""
Ending = Literal["done", "conflict", "tampered", "abandoned"]
"""How a promotion or rollback ended. ``abandoned``: it was left open for so long that its decision has expired."""
_MOVING = ("promote", "rollback")


class AliasTarget(Record):
    """What an alias points to."""

    version: str | None = None
    """None: there is no such alias."""
    digest: str | None = None
    """Of the version's files; None where nobody read them."""
    run_id: str | None = None
    """Run that logged it."""
    model_id: str | None = None
    """Logged model behind it. A version that was deleted and made again has another run or logged model."""

    def matches(self, other: "AliasTarget") -> bool:
        """Whether both are the same version, and of the same bytes and origin as far as both say.

        >>> AliasTarget(version="3").matches(AliasTarget(version="3", digest="sha256:a"))
        True
        >>> AliasTarget(version="3", digest="sha256:b").matches(AliasTarget(version="3", digest="sha256:a"))
        False
        """
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("digest", "run_id", "model_id"))
        return self.version == other.version and all(a is None or b is None or a == b for a, b in pairs)

    def __str__(self) -> str:
        return f"version {self.version}" if self.version else "absent"


class LedgerDraft(Record):
    """An entry that has no number yet."""

    model: str
    """Registered model."""
    alias: str
    kind: EntryKind
    audit: str
    """Id of the audit that decided; of a rollback or a drift, an id of its own."""
    operation: str
    """`operation_id`: who writes the same decision again finds it by this."""
    created: str
    """When the entry was made, by its writer's clock. UTC, ISO 8601."""
    actor: str
    """Who or what decided, as it says itself."""
    policy_digest: str | None = None
    validation_digest: str | None = None
    """``sha256:…`` of the validation set that the decision looked at."""
    alpha: NonNegativeFloat | None = None
    """Share of the validation set's error budget that this decision spent."""
    validation_use: PositiveInt | None = None
    """Which decision on this validation set it is, as ``alpha`` was computed."""
    evidence: Mapping[str, str] = Field(default_factory=dict)
    """Digest of each candidate's evidence, by its label."""
    judged: Mapping[str, str] | None = None
    """Digest of each challenger's bytes, by its version or, without one, its label."""
    files: Mapping[str, str] | None = None
    """``sha256:…`` of the audit's own files (``audit.json``, ``arrays.npz``), by name."""
    expires: str | None = None
    """When its attestation is no longer to be believed, UTC, ISO 8601; None: never."""
    expected: AliasTarget | None = None
    """The champion that was compared; of a drift, the one that the ledger says. None: nobody can say."""
    target: AliasTarget | None = None
    """What the alias shall point to; of a drift, what it was found to point to. None: nothing moves."""
    audit_run: str | None = None
    """Audit run of the target."""
    why: str = Field("", max_length=500)

    @property
    def moves(self) -> bool:
        """Whether a gate moves the alias for it, and therefore an ending is due."""
        return self.kind in _MOVING


class LedgerEntry(LedgerDraft):
    """One decision, in its place."""

    sequence: PositiveInt
    """1, 2, … without a gap."""
    previous: str | None = None
    """Digest of the entry before; None for the first."""
    attestation: str | None = None
    """``sha256:…`` of the signed envelope that attests all of the above; None: nobody signed it."""
    digest: str = ""
    """``sha256:…`` of all of the above that is not None."""

    @classmethod
    def of(cls, draft: LedgerDraft, *, sequence: int, previous: str | None) -> Self:
        """The draft in its place, with its digest."""
        entry = cls(**dict(draft), sequence=sequence, previous=previous)
        return entry.model_copy(update={"digest": entry.computed_digest})

    @property
    def computed_digest(self) -> str:
        """What `digest` is unless somebody changed the entry; a field that a later version adds changes nothing."""
        return canonical_digest(self.model_dump(mode="json", exclude={"digest"}, exclude_none=True))

    @property
    def attested_digest(self) -> str:
        """``sha256:…`` of what an attestation signs: all but the attestation's own digest, and the entry's."""
        return canonical_digest(self.model_dump(mode="json", exclude={"digest", "attestation"}, exclude_none=True))

    def with_attestation(self, digest: str) -> Self:
        """The entry with the digest of its signed envelope."""
        entry = self.model_copy(update={"attestation": digest})
        return entry.model_copy(update={"digest": entry.computed_digest})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """An entry from exactly what `compact_json` writes: a byte that changes no value is a change too.

        Raises:
            ValueError: it is another text.
        """
        entry = cls.model_validate_json(text)
        if entry.compact_json().encode() != (text.encode() if isinstance(text, str) else text):
            raise ValueError("expected an entry as it was written, got the same values in other bytes; restore it")
        return entry

    def compact_json(self) -> str:
        """The entry as short ASCII, whatever names hold: every database keeps it as it is."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), separators=(",", ":"))


def validation_use(
    entries: Iterable[LedgerDraft],
    validation_digest: str,
    *,
    policy_digest: str | None,
    evidence: Mapping[str, str],
    champion: str | None,
) -> int:
    """Which question to a validation set it is, from 1 on: one that was asked before keeps its number.

    A question is a policy, the evidence that it looks at and the version of the champion; who asks it again learns
    nothing new. Every other decision on the set counts, conflicts and those without an account too.
    """
    wanted = (policy_digest, tuple(sorted(evidence.items())), champion)
    asked: dict[object, int] = {}
    for entry in entries:
        if entry.validation_digest == validation_digest:
            version = entry.expected.version if entry.expected else None
            asked.setdefault((entry.policy_digest, tuple(sorted(entry.evidence.items())), version), len(asked) + 1)
    return asked.get(wanted, len(asked) + 1)


class Ledger(Record):
    """All entries of one registered model, and how its promotions ended."""

    model: str
    entries: tuple[LedgerEntry, ...] = ()
    """By number."""
    endings: Mapping[int, Ending] = Field(default_factory=dict)
    """Of promotions and rollbacks, by number; one without is unfinished."""
    unreadable: tuple[int, ...] = ()
    """Numbers under which something stands that is no entry."""

    @property
    def head(self) -> LedgerEntry | None:
        """The newest entry."""
        return self.entries[-1] if self.entries else None

    def followed_by(self, draft: LedgerDraft) -> LedgerEntry:
        """The draft as the next entry."""
        head = self.head
        return LedgerEntry.of(draft, sequence=len(self.entries) + 1, previous=head.digest if head else None)

    def find(self, operation: str) -> LedgerEntry | None:
        """The entry of that operation."""
        return next((entry for entry in self.entries if entry.operation == operation), None)

    def unfinished(self, alias: str | None = None) -> tuple[LedgerEntry, ...]:
        """Promotions and rollbacks without an ending, of one alias or of all."""
        return tuple(
            entry
            for entry in self.entries
            if entry.moves and entry.sequence not in self.endings and alias in (None, entry.alias)
        )

    def champions(self, alias: str) -> tuple[AliasTarget, ...]:
        """Champions of an alias, each above the one that it replaced; the last is the present one.

        A move back to an earlier one, by rollback or by a person, takes those above it away, so that the one before
        the last is always what a rollback should restore.
        """
        stack: tuple[AliasTarget, ...] = ()
        for entry in self.entries:
            if entry.alias == alias:
                stack = self._after(stack, entry)
        return stack

    def champion(self, alias: str) -> AliasTarget | None:
        """What the alias should point to; None while no entry says."""
        stack = self.champions(alias)
        return stack[-1] if stack else None

    def recorded(self, alias: str, version: str) -> AliasTarget | None:
        """A version as it was when it was champion last, with the digest of its bytes; None if it never was."""
        for entry in reversed(self.entries):
            moved = entry.kind == "drift" or self.endings.get(entry.sequence) == "done"
            for found in (entry.target if moved else None, entry.expected):
                if entry.alias == alias and found and found.version == version and found.digest:
                    return found
        return None

    def on_validation(self, digest: str) -> tuple[LedgerEntry, ...]:
        """Decisions that looked at a validation set, conflicts too: they all spent of its budget."""
        return tuple(entry for entry in self.entries if entry.validation_digest == digest)

    def problems(self) -> tuple[str, ...]:
        """What is wrong with the chain, in words; empty if it holds.

        It holds if numbers have no gap, each digest is the entry's own, each entry names the digest of the one before,
        and each move starts from the champion that the entries before it imply, none of them unfinished.
        """
        found = [f"entry {number} cannot be read" for number in self.unreadable]
        previous: str | None = None
        stacks: dict[str, tuple[AliasTarget, ...]] = {}
        for number, entry in enumerate(self.entries, start=1):
            found += _faults(entry, number, previous, self.model)
            stack = stacks.get(entry.alias, ())
            if entry.moves and stack and (entry.expected is None or not stack[-1].matches(entry.expected)):
                found.append(f"entry {number} moves {entry.alias!r} from {entry.expected}, which was {stack[-1]}")
            later = (e for e in self.entries[number:] if e.moves and e.alias == entry.alias)
            if entry.moves and number not in self.endings and next(later, None):
                found.append(f"entry {number} is unfinished, and a later one moves {entry.alias!r}")
            stacks[entry.alias] = self._after(stack, entry)
            previous = entry.digest
        moving = {entry.sequence for entry in self.entries if entry.moves}
        found += [f"an ending of entry {number}, which moves nothing" for number in sorted(set(self.endings) - moving)]
        return tuple(found)

    def _after(self, stack: tuple[AliasTarget, ...], entry: LedgerEntry) -> tuple[AliasTarget, ...]:
        """The champions after one more entry."""
        if not stack and entry.expected is not None and entry.kind != "conflict":
            stack = (entry.expected,)
        moved = entry.kind == "drift" or self.endings.get(entry.sequence) == "done"
        if not moved or entry.target is None:
            return stack
        earlier = [index for index, champion in enumerate(stack) if champion.matches(entry.target)]
        if entry.kind != "promote" and earlier:
            stack = stack[: earlier[-1]]
        return (*stack, entry.target)


class History(Record):
    """A ledger beside what the registry says now."""

    ledger: Ledger
    alias: str
    ledger_run: str | None = None
    """Run that keeps the ledger; None before the first decision."""
    found: AliasTarget
    """What the alias points to now."""

    @property
    def drift(self) -> bool:
        """Whether somebody who is no gate moved the alias; an unfinished promotion may have, and is no drift."""
        champion = self.ledger.champion(self.alias)
        return champion is not None and not self.unfinished and not champion.matches(self.found)

    @property
    def unfinished(self) -> tuple[LedgerEntry, ...]:
        """Promotions and rollbacks that `flataudit resume` would finish."""
        return self.ledger.unfinished(self.alias)


class Resumed(Record):
    """What became of a promotion or rollback that was left open."""

    model: str
    alias: str
    sequence: PositiveInt | None = None
    """Of its entry; None: it was never entered."""
    kind: EntryKind
    target: AliasTarget
    ending: Ending
    told: str = ""
    """Why it did not end in ``done``."""


def operation_id(
    model: str, alias: str, *, expected: AliasTarget | None, target: AliasTarget | None, decision: str
) -> str:
    """``sha256:…`` of what is to happen and by which decision (its digest, which covers the audit's id).

    The same decision has the same id whoever writes it and however often; a later decision to the same effect has not.
    """
    return canonical_digest(
        [
            model,
            alias,
            [expected.version, expected.digest] if expected else None,
            [target.version, target.digest] if target else None,
            decision,
        ]
    )


def _faults(entry: LedgerEntry, number: int, previous: str | None, model: str) -> Sequence[str]:
    """What is wrong with one entry in its place."""
    checks = {
        f"entry {number} is missing": entry.sequence == number,
        f"entry {number} is of another model, {entry.model!r}": entry.model == model,
        f"entry {number} was changed": entry.digest == entry.computed_digest,
        f"entry {number} does not follow the one before it": entry.previous == previous,
    }
    return [fault for fault, holds in checks.items() if not holds]
