"""What `flataudit keygen` and `verify` do, once their arguments are read: find the records, check them, remember."""

import contextlib
import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from pydantic import JsonValue

from flataudit import plugins
from flataudit.attestation.faults import AttestationError, strict_json
from flataudit.attestation.keys import generate, trusted
from flataudit.attestation.verifying import Attested, Terms, Verification, verified
from flataudit.config import parse_config
from flataudit.errors import ConfigurationError, ModelError, ReportError
from flataudit.evidence import canonical_digest
from flataudit.journal import Journal, state_folder
from flataudit.manifest import file_digest, manifest_digest

__all__ = ["Asked", "NewKey", "keygen", "passphrase", "verification_document", "verification_exit_code", "verify"]

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
    params: dict[str, JsonValue] = {"model": found["name"]}
    params |= {"champion_alias": found["alias"]} if found["alias"] else {}
    params |= {"tracking_uri": asked.tracking_uri} if asked.tracking_uri else {}
    witness = cast("_Witness", plugins.make("registries", "mlflow", params))
    attested = witness.attested(version=found["version"])
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
