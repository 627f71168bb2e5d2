"""A signed word that a candidate's own code may run: an in-toto statement about the digest of its manifest.

It is of a type of its own: no attestation of a decision is an approval, and no approval says that a model passed. What
counts is the digest of the bytes alone; the name beside it is for people.

https://in-toto.io/Statement/v1
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from flataudit.attestation.dsse import MAX_BYTES, Envelope, read_envelope, signatories, signed
from flataudit.attestation.faults import AttestationError, first_fault
from flataudit.attestation.keys import PublicKey, Signer
from flataudit.attestation.statement import STATEMENT_TYPE, Digests, Subject, Text, refuse_other_type
from flataudit.errors import ReportError
from flataudit.evidence import Record

__all__ = ["APPROVAL_TYPE", "SUFFIX", "Approval", "ApprovalTerms", "approval_of", "found_approval", "read_approval"]

APPROVAL_TYPE: Literal["https://pypi.org/project/flataudit/approval/v1"] = (
    "https://pypi.org/project/flataudit/approval/v1"
)
SUFFIX = ".dsse.json"
_MOST_FILES = 10_000


class ApprovalTerms(Record):
    """What is approved, by whom and for how long."""

    may: Literal["run its own code"] = "run its own code"
    actor: Text
    """Who signed, as they say themselves; the signature says which key."""
    created: Text
    """UTC, ISO 8601."""
    expires: Text | None = None
    """From then on it approves nothing; None: for ever, of these bytes."""
    version: Text
    """Of flataudit."""


class Approval(Record):
    """The statement, whole."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT_TYPE, alias="_type")
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Literal["https://pypi.org/project/flataudit/approval/v1"] = Field(
        APPROVAL_TYPE, alias="predicateType"
    )
    predicate: ApprovalTerms

    @property
    def digest(self) -> str:
        """``sha256:…`` of the manifest that it is about."""
        return self.subject[0].digest.named

    def to_bytes(self) -> bytes:
        """The statement as compact ASCII JSON with sorted keys."""
        told = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(told, separators=(",", ":"), sort_keys=True).encode()

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.predicate.expires is not None and datetime.fromisoformat(self.predicate.expires) <= now


def approval_of(name: str, digest: str, terms: ApprovalTerms, signer: Signer) -> Envelope:
    """The signed approval of some bytes.

    Args:
        name: for people: ``models:/fraud/8``, or a folder's name.
        digest: ``sha256:…`` of the manifest.
        terms: who, when and until when.
        signer: whose word it is.
    """
    subject = Subject(name=name, digest=Digests(sha256=digest.removeprefix("sha256:")))
    return signed(Approval(subject=(subject,), predicate=terms).to_bytes(), [signer])


def read_approval(payload: bytes) -> Approval:
    """An approval from an envelope's payload.

    Raises:
        AttestationError: another type of statement or predicate, or fields that are missing, unknown or impossible.
    """
    refuse_other_type(payload, APPROVAL_TYPE)
    try:
        found = Approval.model_validate_json(payload, strict=True)
        times = [datetime.fromisoformat(time) for time in (found.predicate.created, found.predicate.expires) if time]
    except ValidationError as error:
        field, why = first_fault(error, root="statement")
        raise AttestationError(field, "an approval", got=why) from error
    except ValueError as error:
        raise AttestationError("statement.predicate", "times in ISO 8601", got=str(error)[:200]) from error
    if any(time.tzinfo is None for time in times):
        raise AttestationError("statement.predicate", "times with their zone", got="one without")
    return found


@dataclass(frozen=True)
class Found:
    """What a look for an approval of some bytes came to."""

    key_id: str | None = None
    """Of the trusted key that approved them; None: none did."""
    file: str = ""
    refused: tuple[str, ...] = ()
    """Why files that name these bytes approve nothing, a line each."""


def found_approval(where: Path, keys: Mapping[str, PublicKey], digest: str, now: datetime) -> Found:
    """The first approval of some bytes by a trusted key, from a file or from all ``*.dsse.json`` of a folder.

    A file that cannot be read, is none, or is of other bytes approves nothing and is passed over.

    Args:
        where: a file or a folder of the user's own.
        keys: those that are trusted, by their ids.
        digest: of the bytes.
        now: with its zone.
    """
    refused: list[str] = []
    for file in _files(where):
        try:
            envelope = read_envelope(_read(file))
            approval = read_approval(envelope.payload)
            if approval.digest != digest:
                continue
            by = signatories(envelope, keys)
        except AttestationError as error:
            refused.append(f"{file.name}: {error.field}: expected {error.expected}, got {error.got}")
            continue
        except OSError as error:
            refused.append(f"{file.name}: {error.strerror or error}")
            continue
        if by and not approval.expired(now):
            return Found(by[0], file.name)
        why = f"expired at {approval.predicate.expires}" if by else "signed by no key that is trusted"
        refused.append(f"{file.name}: {why}")
    return Found(refused=tuple(refused))


def _files(where: Path) -> Iterator[Path]:
    if not where.is_dir():
        yield where
        return
    found = sorted(where.glob(f"*{SUFFIX}"))
    if len(found) > _MOST_FILES:
        remedy = "remove those that are of no candidate any more"
        raise ReportError(f"at most {_MOST_FILES:,} approvals in {where}", got=f"{len(found):,}", remedy=remedy)
    yield from found


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)
