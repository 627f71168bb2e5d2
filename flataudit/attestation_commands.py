"""What `flataudit keygen`, `sign` and `verify` do, once their arguments are read: find, check, sign, remember."""

import contextlib
import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, cast

from pydantic import JsonValue

from flataudit import __version__, plugins
from flataudit.actor import actor
from flataudit.attestation.approvals import SUFFIX, Approval, ApprovalTerms, approval_of, read_approval
from flataudit.attestation.faults import AttestationError, strict_json
from flataudit.attestation.keys import Signer, generate, signer, signer_at, trusted
from flataudit.attestation.verifying import Attested, Terms, Verification, verified
from flataudit.config import parse_config
from flataudit.errors import ConfigurationError, ModelError, ReportError
from flataudit.evidence import canonical_digest
from flataudit.journal import Journal, state_folder
from flataudit.manifest import file_digest, manifest_digest

__all__ = [
    "Approved",
    "Asked",
    "NewKey",
    "keygen",
    "passphrase",
    "sign",
    "verification_document",
    "verification_exit_code",
    "verify",
]

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_ENVELOPE = "attestation.dsse.json"
_FILES = ("audit.json", "arrays.npz")
_LARGEST = 1 << 30


class _Witness(Protocol):
    """The ability of a registry that keeps attestations."""

    def attested(self, *, version: str | None) -> Attested: ...


@dataclass(frozen=True)
class Asked:
    """What a person wants to have verified."""

    uri: str
    """``models:/name@alias``, ``models:/name/3``, or a folder with the model's files."""
    key: Path | None = None
    policy: Path | None = None
    offline: Path | None = None
    """Folder with the envelope (and the audit's files); nothing is asked of a registry."""
    minimum: int = 1
    allow_unsigned: bool = False
    tracking_uri: str | None = None


@dataclass(frozen=True)
class NewKey:
    """A key pair that was made."""

    private: Path
    public: Path
    key_id: str


def keygen(out: Path, passphrase: str | None) -> NewKey:
    """A new key pair on disk."""
    made, public = generate(out, passphrase)
    return NewKey(out, public, made.key_id)


@dataclass(frozen=True)
class Approved:
    """An approval that was written."""

    file: Path
    approval: Approval
    key_id: str


def sign(
    uri: str,
    *,
    key: Path | None = None,
    out: Path | None = None,
    expires_days: int | None = None,
    tracking_uri: str | None = None,
) -> Approved:
    """Approve that the bytes of a version, hashed anew, or of a folder may run their own code.

    Args:
        uri: ``models:/name/3``, ``models:/name@alias``, or a folder with a model's files.
        key: file of the private key; None: the one of the environment.
        out: a new file, or a folder for it; None: ``approvals``.
        expires_days: days until it approves nothing any more; None: it does not end.
        tracking_uri: registry.

    Raises:
        ConfigurationError: no key, no such model, or a file that is there already.
        RegistryError: the registry failed.
    """
    with_key = signer_at(key, os.environ) if key is not None else signer(os.environ)
    if with_key is None:
        remedy = "name its file with --key, or set FLATAUDIT_SIGNING_KEY_FILE"
        raise ConfigurationError("a private key to sign with", got="none", remedy=remedy)
    name, digest = _bytes_of(uri, tracking_uri)
    now = datetime.now(UTC).replace(microsecond=0)
    ends = None if expires_days is None else (now + timedelta(days=expires_days)).isoformat()
    terms = ApprovalTerms(actor=actor(), created=now.isoformat(), expires=ends, version=__version__)
    return _written(name, digest, terms, with_key, out or Path("approvals"))


def _bytes_of(uri: str, tracking_uri: str | None) -> tuple[str, str]:
    """A name for people, and the digest of the bytes as they are now."""
    found = _URI.fullmatch(uri)
    if found is not None:
        attested = _witness(found, tracking_uri).attested(version=found["version"])
        return f"models:/{attested.name}/{attested.version}", attested.digest
    folder = Path(uri)
    if uri.startswith("models:") or not folder.is_dir():
        remedy = "write models:/name/3, models:/name@alias, or a folder"
        raise ConfigurationError("a model of the registry, or a folder", got=repr(uri), remedy=remedy)
    try:
        return folder.resolve().name, manifest_digest(folder)
    except ModelError as error:
        raise ConfigurationError(f"the files of a model in {folder}", got=error.got, remedy=error.remedy) from error


def _written(name: str, digest: str, terms: ApprovalTerms, by: Signer, out: Path) -> Approved:
    envelope = approval_of(name, digest, terms, by)
    short = digest.removeprefix("sha256:")[:16]
    file = out if out.name.endswith(SUFFIX) else out / f"{short}-{by.key_id[:8]}{SUFFIX}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            stream.write(envelope.to_bytes())
    except OSError as error:
        remedy = "choose another place with --out: an approval is never overwritten"
        raise ConfigurationError(f"to write {file}", got=error.strerror or str(error), remedy=remedy) from error
    return Approved(file, read_approval(envelope.payload), by.key_id)


def _witness(found: "re.Match[str]", tracking_uri: str | None) -> _Witness:
    params: dict[str, JsonValue] = {"model": found["name"]}
    params |= {"champion_alias": found["alias"]} if found["alias"] else {}
    params |= {"tracking_uri": tracking_uri} if tracking_uri else {}
    return cast("_Witness", plugins.make("registries", "mlflow", params))


def verify(asked: Asked) -> Verification:
    """Check a model's bytes and what is said of them; what was verified is remembered against older attestations.

    Raises:
        ConfigurationError: the URI, a key or the policy cannot be used, or there is no such model.
        RegistryError: the registry failed.
    """
    if asked.key is not None and asked.allow_unsigned:
        raise ConfigurationError("--key or --allow-unsigned", got="both", remedy="leave one of them out")
    terms = Terms(
        now=datetime.now(UTC),
        keys=trusted(asked.key) if asked.key else {},
        policy_digest=_policy(asked.policy) if asked.policy else None,
        minimum=asked.minimum,
        allow_unsigned=asked.allow_unsigned,
    )
    found = _URI.fullmatch(asked.uri)
    if found is None and asked.uri.startswith("models:"):
        remedy = "write models:/name@alias or models:/name/3"
        raise ConfigurationError("a model of the registry", got=repr(asked.uri), remedy=remedy)
    if found is None or asked.offline is not None:
        return _offline(asked, found, terms)
    attested = _witness(found, asked.tracking_uri).attested(version=found["version"])
    ended = verified(attested, terms)
    if ended.result != "failed" and attested.ledger is not None and attested.ledger.head is not None:
        head = attested.ledger.head
        _remember(str(attested.ledger_run), head.sequence, head.digest)
    return ended


def verification_exit_code(found: Verification) -> int:
    """0 verified (or unsigned where that is allowed), 1 it does not verify."""
    return 1 if found.result == "failed" else 0


def verification_document(found: Verification, uri: str) -> dict[str, JsonValue]:
    """The same as one JSON document."""
    told = found.model_dump(mode="json", exclude={"statement"})
    statement = found.statement
    return {
        "schema": "flataudit/verify/1",
        "uri": uri,
        **told,
        "statement": statement.model_dump(mode="json", exclude_none=True) if statement else None,
    }


def _offline(asked: Asked, found: "re.Match[str] | None", terms: Terms) -> Verification:
    """A folder with the model's files (or with ``model/``), and one with the envelope."""
    beside = asked.offline or Path(asked.uri)
    model = beside if found else Path(asked.uri)
    for folder in (beside, model):
        if not folder.is_dir():
            remedy = "name models:/name@alias, or a folder"
            raise ConfigurationError(f"a folder {folder}", got="none", remedy=remedy)
    model = model / "model" if (model / "model").is_dir() else model
    try:
        digest = manifest_digest(model)
    except ModelError as error:
        raise ConfigurationError(f"the files of a model in {model}", got=error.got, remedy=error.remedy) from error
    attested = Attested(
        digest=digest,
        name=found["name"] if found else None,
        version=found["version"] if found else None,
        alias=found["alias"] if found else None,
        envelope=_bytes(beside / _ENVELOPE),
        inputs=_inputs(beside),
    )
    first = verified(attested, terms)
    if attested.alias is None or first.statement is None or not first.signed_by:
        return first
    told = first.statement.terms
    name = f"offline {told.ledger} {told.alias}"  # only what a trusted key signed is remembered, or compared
    with contextlib.suppress(OSError):
        attested = replace(attested, seen=Journal(state_folder()).seen(name))
    ended = verified(attested, terms)
    if ended.result == "verified":
        _remember(name, told.sequence, told.entry)
    return ended


def _inputs(folder: Path) -> dict[str, str]:
    """Digests of the audit's files that are there, and of each candidate's evidence as ``audit.json`` holds it."""
    found = {name: f"sha256:{file_digest(folder / name)}" for name in _FILES if (folder / name).is_file()}
    data = _bytes(folder / "audit.json")
    with contextlib.suppress(AttestationError, KeyError, TypeError):  # then its own digest says that it was changed
        told = cast("dict[str, list[dict[str, dict[str, str]]]]", strict_json(data or b"", field="", limit=_LARGEST))
        for evidence in told["evidences"]:
            candidate = evidence["candidate"]
            version = candidate.get("version")
            label = f"v{version}" if version else candidate.get("model_id") or candidate["name"]
            found[f"evidence/{label}"] = canonical_digest(cast("JsonValue", evidence))
    return found


def _bytes(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        got = error.strerror or str(error)
        raise ReportError(f"a readable file {file}", got=got, remedy="check its permissions") from error


def _policy(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "name the policy file that the gate uses"
        raise ConfigurationError(f"a policy file at {file}", got=str(error), remedy=remedy) from error
    return parse_config(text, name=str(file)).policy.digest


def _remember(name: str, sequence: int, digest: str) -> None:
    with contextlib.suppress(OSError):  # a machine that may write nothing remembers nothing: give --min-sequence
        Journal(state_folder()).reached(name, sequence, digest)


def passphrase() -> str | None:
    """Of a new key, from the environment; None: nobody set one."""
    return os.environ.get("FLATAUDIT_KEY_PASSPHRASE") or None
