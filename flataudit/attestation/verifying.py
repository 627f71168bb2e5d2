"""Whether a model's bytes are what a decision attested: pure checks on what was found, each failure with its field.

Nothing here reads, asks or knows the time. The order of trust: the bytes are hashed anew; the envelope's signature is
by a key that the caller named; the signed statement names those bytes, its place in the ledger and the entry's digest;
the entry's digest covers the rest, and that of the entry before. A registry's tags are compared and never believed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from flataudit.attestation.dsse import Envelope, read_envelope, signatories
from flataudit.attestation.faults import AttestationError
from flataudit.attestation.keys import PublicKey
from flataudit.attestation.statement import Statement, differences, read_statement, statement_of, subjects
from flataudit.evidence import Record
from flataudit.journal import Seen
from flataudit.ledger import AliasTarget, Ledger, LedgerEntry

__all__ = ["Attested", "Fault", "Terms", "Verification", "deciding", "verified"]

_CLOCKS = timedelta(minutes=5)
"""How far two machines' clocks may be apart."""


class Fault(Record):
    """One thing that does not hold."""

    field: str
    """Where: ``subject``, ``signatures[0].sig``, ``ledger``, ``statement.predicate.policy.digest`` …"""
    told: str


@dataclass(frozen=True)
class Attested:
    """What was found of a model, and what is said of it."""

    digest: str
    """Of its bytes, hashed anew."""
    name: str | None = None
    """Registered model that was asked for; None: a folder was."""
    version: str | None = None
    alias: str | None = None
    envelope: bytes | None = None
    entry: LedgerEntry | None = None
    """The decision that it rests on (`deciding`)."""
    ledger: Ledger | None = None
    """None: nobody asked a registry."""
    ledger_run: str | None = None
    found: AliasTarget | None = None
    """What the alias points to."""
    tag: str | None = None
    """What the version's tag says its attestation is."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of what was found of the inputs that a statement names, by the same names."""
    seen: Seen | None = None
    """The newest decision that this machine has seen before."""


@dataclass(frozen=True)
class Terms:
    """What the caller trusts and asks for."""

    now: datetime
    keys: Mapping[str, PublicKey] = field(default_factory=dict)
    policy_digest: str | None = None
    """The policy that must have judged; None: any."""
    minimum: int = 1
    """Lowest number of a decision that is accepted."""
    allow_unsigned: bool = False
    """Whether a statement counts that no trusted key vouches for."""


class Verification(Record):
    """How it ended."""

    result: Literal["verified", "unsigned", "failed"]
    """``unsigned``: all agrees, and nobody whom the caller trusts vouches for it."""
    model: str | None = None
    version: str | None = None
    alias: str | None = None
    digest: str
    faults: tuple[Fault, ...] = ()
    signed_by: tuple[str, ...] = ()
    """Ids of the trusted keys that signed."""
    unchecked: tuple[str, ...] = ()
    """Inputs that the statement names and that were not found here."""
    statement: Statement | None = None


def deciding(ledger: Ledger, *, alias: str | None, version: str) -> LedgerEntry | None:
    """The newest entry that moved the alias (or found it moved); without an alias, that is about the version."""
    for entry in reversed(ledger.entries):
        moved = entry.kind == "drift" or ledger.endings.get(entry.sequence) == "done"
        about = f"models:/{ledger.model}/{version}" in subjects(entry)
        if (entry.alias == alias and moved) if alias is not None else about:
            return entry
    return None


def verified(attested: Attested, terms: Terms) -> Verification:
    """Check everything that was found; all faults are told, not only the first."""
    faults, signed_by = list[Fault](), tuple[str, ...]()
    statement: Statement | None = None
    try:
        envelope, statement = _opened(attested)
        signed_by = signatories(envelope, terms.keys) if envelope else ()
        faults += _signatures(envelope, signed_by, terms) if statement else ()
    except AttestationError as error:
        faults.append(Fault(field=error.field, told=str(error)))
    faults += _envelope(attested)
    faults += _chain(attested)
    if statement is None and not faults:
        faults.append(_fault("statement", "a decision on known bytes", "none", "run the gate again"))
    if statement is not None:
        for check in (_subject, _place, _judged, _in_time, _inputs):
            faults += check(statement, attested, terms)
    return Verification(
        result="failed" if faults or statement is None else "verified" if signed_by else "unsigned",
        model=attested.name or (statement.terms.model if statement else None),
        version=attested.version,
        alias=attested.alias,
        digest=attested.digest,
        faults=tuple(dict.fromkeys(faults)),
        signed_by=signed_by,
        unchecked=tuple(one.uri for one in statement.predicate.input_attestations if one.uri not in attested.inputs)
        if statement
        else (),
        statement=statement,
    )


def _opened(attested: Attested) -> tuple[Envelope | None, Statement | None]:
    """The envelope and its statement; an entry that nobody signed is its own unsigned statement."""
    entry = attested.entry
    if attested.envelope is not None:
        envelope = read_envelope(attested.envelope)
        return envelope, read_statement(envelope.payload)
    if entry is not None and entry.attestation is None:
        return None, statement_of(entry, ledger=attested.ledger_run or "", version="")
    return None, None


def _signatures(envelope: Envelope | None, signed_by: tuple[str, ...], terms: Terms) -> Iterator[Fault]:
    """Zero signatures are not a verified one, and no key is not a reason to believe."""
    if signed_by:
        return
    told = envelope.signatures if envelope else ()
    if not terms.keys and not terms.allow_unsigned:
        got = f"by {', '.join(one.key_id[:16] + '…' for one in told)}, unchecked" if told else "none: it is unsigned"
        remedy = "name the gate's public key with --key, or accept it as it is with --allow-unsigned"
        yield _fault("signatures", "a signature by a key that you trust", got, remedy)
    elif terms.keys and told:
        names = ", ".join(f"{one.key_id[:16]}…" for one in told)
        yield _fault("signatures[0].keyid", "a signature by one of the keys of --key", f"by {names}", "check the key")
    elif terms.keys:
        remedy = "set FLATAUDIT_SIGNING_KEY where the gate runs, and let it decide again"
        yield _fault("signatures", "a signature by one of the keys of --key", "none: it is unsigned", remedy)


def _envelope(attested: Attested) -> Iterator[Fault]:
    """Whether the envelope is the one that the ledger names."""
    entry, envelope = attested.entry, attested.envelope
    if entry is None and envelope is None and attested.ledger is None:
        yield _fault("envelope", "an attestation beside the model", "none", "name its folder with --offline")
    if entry is None:
        return
    if entry.attestation is not None and envelope is None:
        asked = f"the envelope {entry.attestation} of entry {entry.sequence}"
        yield _fault("envelope", asked, "none", "restore the ledger's run from a backup")
    if envelope is not None and entry.attestation is not None:
        found = f"sha256:{hashlib.sha256(envelope).hexdigest()}"
        if found != entry.attestation:
            yield _fault("envelope", f"the envelope {entry.attestation}", found, "restore it from a backup")


def _chain(attested: Attested) -> Iterator[Fault]:
    """The ledger holds together, reaches as far as was seen before, and says why the alias is where it is."""
    ledger, entry = attested.ledger, attested.entry
    if ledger is None:
        return
    for problem in ledger.problems():
        yield _fault("ledger", "an unbroken chain", problem, "do not use the model until it is known who changed it")
    seen = attested.seen
    if seen is not None:
        there = ledger.entries[seen.sequence - 1].digest if len(ledger.entries) >= seen.sequence else None
        if there != seen.digest:
            got = f"{len(ledger.entries)} entries" if there is None else f"another entry {seen.sequence}"
            yield _fault(
                "sequence", f"entry {seen.sequence} as this machine has seen it", got, "find out who changed it"
            )
    if entry is None:
        what = f"{attested.alias!r}" if attested.alias else f"version {attested.version}"
        yield _fault("ledger", f"a decision on {what} of {ledger.model}", "none", "let a gate decide first")
        return
    if entry.moves and ledger.endings.get(entry.sequence) != "done":
        got = ledger.endings.get(entry.sequence, "unfinished")
        yield _fault("ledger", f"entry {entry.sequence}, carried out", got, "finish it with `flataudit resume`")
    if attested.alias is not None and attested.found is not None:
        yield from _aliased(attested, ledger, attested.alias, attested.found)
    known = {one.attestation for one in ledger.entries}
    if attested.tag not in (None, "unsigned", *known):
        yield _fault("tag flataudit.attestation", "an attestation of the ledger", str(attested.tag), "remove the tag")


def _aliased(attested: Attested, ledger: Ledger, alias: str, found: AliasTarget) -> Iterator[Fault]:
    """Whether the alias is where the last decision put it."""
    champion = ledger.champion(alias)
    here = found.model_copy(update={"digest": attested.digest})
    remedy = "find out who moved it; a gate or `flataudit rollback` moves it as a decision"
    entry = attested.entry
    if champion is None or not champion.matches(here):
        said = f"{champion} {champion.digest or ''}".strip() if champion else "nothing"
        yield _fault("alias", f"{alias!r} where the ledger says, {said}", f"{here} {here.digest}", remedy)
    elif entry is not None and entry.kind == "drift":
        yield _fault("alias", f"{alias!r} moved by a decision", f"entry {entry.sequence}: moved by no gate", remedy)


def _subject(statement: Statement, attested: Attested, terms: Terms) -> Iterator[Fault]:
    """The statement is about these very bytes, under this very name."""
    told, name = statement.terms, attested.name
    remedy = "this is not the model that was judged: do not use it"
    if name is not None and told.model != name:
        yield _fault("subject", f"an attestation of {name}", f"one of {told.model}", remedy)
    if attested.alias is not None and told.alias != attested.alias:
        yield _fault("resourceUri", f"an attestation for {attested.alias!r}", f"one for {told.alias!r}", remedy)
    named = f"models:/{name}/{attested.version}"
    if name is not None and attested.version is not None:
        judged = {statement.digest_of(named)}
    else:
        judged = {one.digest.named for one in statement.subject}
    if attested.digest not in judged:
        said = ", ".join(sorted(str(one) for one in judged))
        hint = " (MLflow adds a file registered_model_meta to what it downloads: remove it)" if name is None else ""
        yield _fault("subject", f"bytes with the digest {said}", attested.digest, remedy + hint)


def _place(statement: Statement, attested: Attested, terms: Terms) -> Iterator[Fault]:
    """The statement is what the ledger's entry says, and not an older one than was accepted before."""
    told, remedy = statement.terms, "an older attestation was put in its place: fetch the newest"
    if told.sequence < terms.minimum:
        yield _fault("sequence", f"a decision from number {terms.minimum} on", str(told.sequence), remedy)
    seen = attested.seen
    if attested.ledger is None and seen is not None and (told.sequence, told.entry) != (seen.sequence, seen.digest):
        if told.sequence <= seen.sequence:
            asked = f"a decision after number {seen.sequence}, which this machine has accepted"
            yield _fault("sequence", asked, f"number {told.sequence}", remedy)
    if attested.entry is None or attested.envelope is None:
        return
    version = statement.predicate.verifier.version.get("flataudit", "")
    try:
        wanted = statement_of(attested.entry, ledger=attested.ledger_run or "", version=version)
    except AttestationError as error:
        yield Fault(field="ledger", told=str(error))
        return
    for field_, asked, got in differences(wanted, statement):
        yield _fault(field_, f"{asked}, as entry {attested.entry.sequence} of the ledger says", got, remedy)


def _judged(statement: Statement, attested: Attested, terms: Terms) -> Iterator[Fault]:
    """By which policy, and how."""
    told = statement.predicate
    if told.verification_result != "PASSED":
        got = f"{told.verification_result} ({statement.terms.kind})"
        yield _fault("verificationResult", "PASSED", got, "serve a version that a gate promoted")
    policy = told.policy.digest.named if told.policy.digest else None
    if terms.policy_digest is not None and policy != terms.policy_digest:
        asked = f"a decision by the policy {terms.policy_digest}"
        yield _fault(
            "policy.digest", asked, policy or f"none: it was a {statement.terms.kind}", "judge it by that policy"
        )


def _in_time(statement: Statement, attested: Attested, terms: Terms) -> Iterator[Fault]:
    """Neither expired nor from the future."""
    made = datetime.fromisoformat(statement.predicate.time_verified)
    if made > terms.now + _CLOCKS:
        yield _fault("timeVerified", f"a time before {terms.now.isoformat()}", made.isoformat(), "compare the clocks")
    expires = statement.terms.expires
    if expires is not None and datetime.fromisoformat(expires) <= terms.now:
        yield _fault("expires", f"an attestation that holds at {terms.now.isoformat()}", expires, "run the gate again")


def _inputs(statement: Statement, attested: Attested, terms: Terms) -> Iterator[Fault]:
    """What is here of the evidence is what the decision rested on."""
    for one in statement.predicate.input_attestations:
        found = attested.inputs.get(one.uri)
        wanted = one.digest.named if one.digest else None
        if found is not None and found != wanted:
            yield _fault(f"inputAttestations[{one.uri}]", str(wanted), found, "restore it from the audit's folder")


def _fault(where: str, expected: str, got: str, remedy: str) -> Fault:
    return Fault(field=where, told=f"expected {expected}, got {got}; {remedy}")
