"""What is signed of a decision: an in-toto Statement v1 with SLSA's verification summary v1 as its predicate.

A statement follows from an entry of the ledger and nothing else, so that whoever has the entry can say what must stand
in it. SLSA's fields say what its readers expect: which bytes, by which policy, on what evidence, passed or failed.
``flataudit_decision`` says where the decision stands among all decisions: its number, the digest of the entry before
it, and the digest of its own entry, which covers all the rest. A signature on the newest decision is thereby one on
every decision before it.

https://in-toto.io/Statement/v1, https://slsa.dev/verification_summary/v1
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, PositiveInt, StringConstraints, ValidationError

from flataudit.attestation.dsse import MAX_BYTES
from flataudit.attestation.faults import AttestationError, first_fault, strict_json
from flataudit.evidence import Record
from flataudit.ledger import LedgerEntry

__all__ = [
    "PREDICATE_TYPE",
    "STATEMENT_TYPE",
    "DecisionTerms",
    "Resource",
    "Statement",
    "Subject",
    "Summary",
    "Verifier",
    "differences",
    "read_statement",
    "refuse_other_type",
    "statement_of",
    "subjects",
]

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://slsa.dev/verification_summary/v1"] = "https://slsa.dev/verification_summary/v1"
_VERIFIER = "pkg:pypi/flataudit"
_PASSING = ("promote", "rollback")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")

Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(max_length=4096)]


def _instant(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("expected a time with its zone")
    return text


class Digests(Record):
    """The digests of one thing; SHA-256 alone."""

    sha256: Hex

    @property
    def named(self) -> str:
        """``sha256:…``."""
        return f"sha256:{self.sha256}"


class Subject(Record):
    """A version, and the digest of its manifest (paths, sizes and SHA-256 of all its files)."""

    name: Text
    """``models:/fraud/8``."""
    digest: Digests


class Resource(Record):
    """Something else that the statement refers to."""

    uri: Text
    digest: Digests | None = None


class Verifier(Record):
    """Who says so."""

    id: Text
    version: Mapping[str, Text]


class DecisionTerms(Record):
    """Where a decision stands among all of its model."""

    model: Text
    alias: Text
    kind: Text
    audit: Text
    actor: Text
    """As it says itself."""
    ledger: Text
    """The run that keeps the ledger: two registries may hold models of one name."""
    sequence: PositiveInt
    previous: Sha256 | None = None
    """Digest of the entry before."""
    entry: Sha256
    """`LedgerEntry.attested_digest`."""
    expires: Text | None = None


class Summary(Record):
    """SLSA's verification summary."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    verifier: Verifier
    time_verified: Text = Field(alias="timeVerified")
    resource_uri: Text = Field(alias="resourceUri")
    """``models:/fraud@champion``: where the decision is about."""
    policy: Resource
    input_attestations: tuple[Resource, ...] = Field(alias="inputAttestations")
    """Evidence (digest of its canonical JSON), and the audit's files (digest of their bytes)."""
    verification_result: Literal["PASSED", "FAILED"] = Field(alias="verificationResult")
    verified_levels: tuple[Text, ...] = Field((), alias="verifiedLevels")
    """None: what was judged is the model, not how it was built."""
    terms: DecisionTerms = Field(alias="flataudit_decision")


class Statement(Record):
    """The whole."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT_TYPE, alias="_type")
    subject: Annotated[tuple[Subject, ...], Field(min_length=1)]
    predicate_type: Literal["https://slsa.dev/verification_summary/v1"] = Field(PREDICATE_TYPE, alias="predicateType")
    predicate: Summary

    @property
    def terms(self) -> DecisionTerms:
        """Where the decision stands."""
        return self.predicate.terms

    def to_bytes(self) -> bytes:
        """The statement as compact ASCII JSON with sorted keys."""
        told = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(told, separators=(",", ":"), sort_keys=True).encode()

    def digest_of(self, name: str) -> str | None:
        """The digest of the subject of that name."""
        return next((one.digest.named for one in self.subject if one.name == name), None)


def subjects(entry: LedgerEntry) -> Mapping[str, str]:
    """The versions that a decision is about, with their digests: the one that moves, else all that were judged."""
    if entry.kind in ("hold", "reject", "inconclusive"):
        found = entry.judged or {}
    else:
        target = entry.target
        found = {target.version: target.digest} if target and target.version and target.digest else {}
    known = {version: digest for version, digest in sorted(found.items()) if _digests(digest)}
    return {f"models:/{entry.model}/{version}": digest for version, digest in known.items()}


def statement_of(entry: LedgerEntry, *, ledger: str, version: str) -> Statement | None:
    """What there is to sign of an entry; None where it is about no known bytes.

    Args:
        entry: in its place.
        ledger: run that keeps the ledger.
        version: of flataudit.

    Raises:
        AttestationError: the entry was changed into one that cannot be.
    """
    about = subjects(entry)
    if not about:
        return None
    try:
        return _written(entry, about, ledger, version)
    except ValidationError as error:
        field, why = first_fault(error, root=f"ledger entry {entry.sequence}")
        raise AttestationError(field, "an entry of a ledger", got=why) from error


def _written(entry: LedgerEntry, about: Mapping[str, str], ledger: str, version: str) -> Statement:
    return Statement(
        subject=tuple(
            Subject(name=name, digest=Digests(sha256=digest.removeprefix("sha256:"))) for name, digest in about.items()
        ),
        predicate=Summary(
            verifier=Verifier(id=_VERIFIER, version={"flataudit": version}),
            time_verified=entry.created,
            resource_uri=f"models:/{entry.model}@{entry.alias}",
            policy=_policy(entry),
            input_attestations=tuple(_inputs(entry)),
            verification_result="PASSED" if entry.kind in _PASSING else "FAILED",
            terms=DecisionTerms(
                **{name: getattr(entry, name) for name in ("model", "alias", "kind", "audit", "actor", "sequence")},
                previous=entry.previous,
                ledger=ledger,
                entry=entry.attested_digest,
                expires=entry.expires,
            ),
        ),
    )


def refuse_other_type(payload: bytes, predicate: str) -> None:
    """Refuse a payload that is no in-toto statement with this type of predicate.

    Raises:
        AttestationError: with the field that says something else.
    """
    told = strict_json(payload, field="statement", limit=MAX_BYTES)
    if not isinstance(told, dict):
        raise AttestationError("statement", "an object", got=type(told).__name__)
    for field, wanted in (("_type", STATEMENT_TYPE), ("predicateType", predicate)):
        if told.get(field) != wanted:
            raise AttestationError(field, wanted, got=ascii(told.get(field))[:200])


def read_statement(payload: bytes) -> Statement:
    """A statement from an envelope's payload.

    Raises:
        AttestationError: another type of statement or predicate, or fields that are missing, unknown or impossible.
    """
    refuse_other_type(payload, PREDICATE_TYPE)
    try:
        found = Statement.model_validate_json(payload, strict=True)
        for time in (found.predicate.time_verified, found.terms.expires):
            _instant(time or "2000-01-01T00:00:00+00:00")
    except ValidationError as error:
        field, why = first_fault(error, root="statement")
        raise AttestationError(field, "a verification summary", got=why) from error
    except ValueError as error:
        raise AttestationError("statement.predicate.timeVerified", "times in ISO 8601", got=str(error)[:200]) from error
    return found


def differences(wanted: Statement | None, found: Statement) -> Iterator[tuple[str, str, str]]:
    """Fields in which a statement is not the wanted one: which, what was wanted, what was found."""
    if wanted is None:
        yield "statement", "nothing to attest", "a statement"
        return
    mine = dict(_leaves(wanted.model_dump(mode="json", exclude_none=True), ""))
    theirs = dict(_leaves(found.model_dump(mode="json", exclude_none=True), ""))
    for key in sorted({*mine, *theirs}):
        if mine.get(key) != theirs.get(key):
            yield f"statement.{key}", str(mine.get(key))[:200], str(theirs.get(key))[:200]


def _leaves(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _policy(entry: LedgerEntry) -> Resource:
    if entry.policy_digest is None:
        return Resource(uri=f"flataudit:{entry.kind}")
    return Resource(uri="flataudit:policy", digest=_digests(entry.policy_digest))


def _inputs(entry: LedgerEntry) -> Iterator[Resource]:
    for name, digest in sorted((entry.files or {}).items()):
        yield Resource(uri=name, digest=_digests(digest))
    for label, digest in sorted(entry.evidence.items()):
        yield Resource(uri=f"evidence/{label}", digest=_digests(digest))


def _digests(named: str) -> Digests | None:
    """None for what is no SHA-256, which no verifier could compare."""
    return Digests(sha256=named.removeprefix("sha256:")) if _SHA256.fullmatch(named) else None
