"""The signed envelope: DSSE v1 (Dead Simple Signing Envelope) with Ed25519 signatures, read strictly.

What is signed is the pre-authentication encoding ``PAE(type, body) = "DSSEv1" SP len(type) SP type SP len(body) SP
body`` (secure-systems-lab/dsse, protocol.md), so that neither the type nor where the body ends can be argued about.
An envelope is written without a byte to spare and its base64 is read only as it is written: no byte of it can be
changed without being noticed. An envelope without signatures is a way to carry an unsigned statement; it never counts
as verified.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flataudit.attestation.faults import AttestationError, strict_json
from flataudit.attestation.keys import PublicKey, Signer

__all__ = ["MAX_BYTES", "PAYLOAD_TYPE", "Envelope", "Signature", "pae", "read_envelope", "signatories", "signed"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 1 << 20
"""Of an envelope; one of a gate has some thousands."""
_MAX_SIGNATURES = 16
_KEY_ID = re.compile(r"[\x21-\x7e]{1,256}")
_KEYS = {"payload", "payloadType", "signatures"}


@dataclass(frozen=True)
class Signature:
    """One signature; which key made it is a hint and is checked by trying that key."""

    key_id: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload, what it is, and who signed it."""

    payload: bytes
    signatures: tuple[Signature, ...] = ()
    payload_type: str = PAYLOAD_TYPE

    def to_bytes(self) -> bytes:
        """The envelope as compact ASCII JSON."""
        told = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": s.key_id, "sig": base64.b64encode(s.value).decode()} for s in self.signatures],
        }
        return json.dumps(told, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """``sha256:…`` of those bytes."""
        return f"sha256:{hashlib.sha256(self.to_bytes()).hexdigest()}"


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: the type and the payload, each with its length before it.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def signed(payload: bytes, signers: Sequence[Signer]) -> Envelope:
    """An envelope with a signature of each; of none, it carries an unsigned payload."""
    body = pae(PAYLOAD_TYPE, payload)
    return Envelope(payload, tuple(Signature(signer.key_id, signer.sign(body)) for signer in signers))


def read_envelope(data: bytes) -> Envelope:
    """An envelope from its JSON; no signature is checked.

    Raises:
        AttestationError: too large, malformed, with unknown fields, of another payload type.
    """
    told = strict_json(data, field="envelope", limit=MAX_BYTES)
    if not isinstance(told, dict) or set(told) != _KEYS:
        got = ascii(sorted(told)[:6]) if isinstance(told, dict) else type(told).__name__
        raise AttestationError("envelope", f"the fields {', '.join(sorted(_KEYS))}", got=got[:200])
    if told["payloadType"] != PAYLOAD_TYPE:
        raise AttestationError("payloadType", PAYLOAD_TYPE, got=ascii(told["payloadType"])[:200])
    signatures = told["signatures"]
    if not isinstance(signatures, list) or len(signatures) > _MAX_SIGNATURES:
        raise AttestationError("signatures", f"a list of at most {_MAX_SIGNATURES}", got=type(signatures).__name__)
    return Envelope(
        _decoded(told["payload"], "payload"),
        tuple(_signature(one, f"signatures[{index}]") for index, one in enumerate(signatures)),
    )


def signatories(envelope: Envelope, trusted: Mapping[str, PublicKey]) -> tuple[str, ...]:
    """Ids of the trusted keys that signed; a signature by an unknown key counts for nothing.

    Raises:
        AttestationError: a signature names a trusted key that did not make it.
    """
    body, found = pae(envelope.payload_type, envelope.payload), list[str]()
    for index, signature in enumerate(envelope.signatures):
        key = trusted.get(signature.key_id)
        if key is None:
            continue
        if not key.verifies(signature.value, body):
            asked = f"a signature by the key {signature.key_id[:16]}…"
            raise AttestationError(f"signatures[{index}].sig", asked, got="one that this key did not make")
        found.append(signature.key_id)
    return tuple(dict.fromkeys(found))


def _signature(told: object, field: str) -> Signature:
    if not isinstance(told, dict) or set(told) != {"keyid", "sig"}:
        raise AttestationError(field, "keyid and sig", got="others")
    key_id = told["keyid"]
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise AttestationError(f"{field}.keyid", "the id of a key", got=ascii(key_id)[:80])
    return Signature(key_id, _decoded(told["sig"], f"{field}.sig"))


def _decoded(told: object, field: str) -> bytes:
    """Standard base64 as an encoder writes it: no other alphabet, no white space, no stray bits at the end."""
    if not isinstance(told, str):
        raise AttestationError(field, "base64", got=type(told).__name__)
    try:
        found = base64.b64decode(told.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AttestationError(field, "base64", got=str(error)[:100]) from error
    if base64.b64encode(found).decode() != told:
        raise AttestationError(field, "base64 as an encoder writes it", got="bits after its end")
    return found
