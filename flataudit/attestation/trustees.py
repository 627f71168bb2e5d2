"""Whom a policy trusts to run code of their own, by name, and which of them a candidate is.

A name is matched whole: the registry that is spoken to, a signature over the very bytes, their digest, or a version's
number. Nothing that a candidate says of itself is asked, and no part of a name stands for the rest of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PositiveInt, ValidationError, field_validator

from flataudit.attestation.approvals import Found, found_approval
from flataudit.attestation.keys import PublicKey, trusted
from flataudit.errors import ConfigurationError
from flataudit.evidence import Candidate, Record

__all__ = [
    "Granted",
    "Trust",
    "TrustedDigest",
    "TrustedRegistry",
    "TrustedSigner",
    "TrustedVersion",
    "granted",
    "registry_name",
]

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:]+:[0-9a-f:.]*")
"""A name or an address, IPv6 included."""


class TrustedDigest(Record):
    """The candidate with these bytes."""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """``sha256:…`` of its manifest, as every report gives it."""


class TrustedVersion(Record):
    """One version of the model; a number is not bound to bytes."""

    version: PositiveInt


class TrustedRegistry(Record):
    """Whatever this registry holds: all who may register there."""

    registry: str
    """Its tracking URI; of a candidate it is the one that flataudit was told to speak to, never what the candidate or
    the registry says."""

    @field_validator("registry")
    @classmethod
    def _names_one(cls, uri: str) -> str:
        named = registry_name(uri)
        if named is None:
            raise ValueError(
                f"expected a registry's whole URI (https://host:port, sqlite:////path/mlflow.db), got {uri!r}"
            )
        return named

    def below(self, base: Path) -> Self:
        """With the path of a database file resolved against a folder."""
        kind, _, path = self.registry.partition(":///")
        if kind != "sqlite" or path.startswith("/"):
            return self
        return self.model_copy(update={"registry": f"sqlite:///{(base / path).resolve()}"})


class TrustedSigner(Record):
    """Whatever bytes this key has approved (`flataudit sign`) and the approval has not expired."""

    signer: str
    """File of its public key, or the key's id (64 hexadecimal digits), whose file then lies beside the approvals."""
    approvals: str = "approvals"
    """An approval, or a folder of them (``*.dsse.json``); both paths are relative to the policy file."""

    @property
    def keys(self) -> Mapping[str, PublicKey]:
        """The key by its id.

        Raises:
            ConfigurationError: there is no such key, or a folder, in which there may be others tomorrow.
        """
        if not _KEY_ID.fullmatch(self.signer):
            if not Path(self.signer).is_file():
                got = "a folder" if Path(self.signer).is_dir() else "no such file"
                remedy = "name the .pub file that `flataudit keygen` made, or the key's id"
                raise ConfigurationError(f"the signer's public key at {self.signer}", got=got, remedy=remedy)
            return trusted(Path(self.signer))
        found = trusted(Path(self.approvals))
        if self.signer not in found:
            remedy = "put the public key beside the approvals, or name its file"
            raise ConfigurationError(f"the key {self.signer} in {self.approvals}", got="others", remedy=remedy)
        return {self.signer: found[self.signer]}

    def below(self, base: Path) -> Self:
        """With its paths resolved against a folder."""
        signer = self.signer if _KEY_ID.fullmatch(self.signer) else str((base / self.signer).resolve())
        return self.model_copy(update={"signer": signer, "approvals": str((base / self.approvals).resolve())})


TrustEntry = TrustedDigest | TrustedVersion | TrustedRegistry | TrustedSigner
_ENTRIES: Mapping[str, type[TrustEntry]] = {
    "digest": TrustedDigest,
    "version": TrustedVersion,
    "registry": TrustedRegistry,
    "signer": TrustedSigner,
}


def _entry(value: object) -> object:
    """One entry as a record; a bare digest or version stands for itself."""
    if isinstance(value, TrustEntry):
        return value
    if isinstance(value, str) and value.startswith("sha256:"):
        value = {"digest": value}
    elif isinstance(value, str) and value.removeprefix("v").isdecimal():
        value = {"version": int(value.removeprefix("v"))}
    kinds = [key for key in _ENTRIES if isinstance(value, Mapping) and key in value]
    if not kinds:
        raise ValueError(_other(value))
    if len(kinds) > 1:
        raise ValueError(f"expected one name an entry, got {' and '.join(kinds)}; write an entry for each that may do")
    try:
        return _ENTRIES[kinds[0]].model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {str(first['msg']).removeprefix('Value error, ')}") from error


def _entries(value: object) -> object:
    """No other value stands for a truth: ``trust: 1`` may have meant a version, and would name all."""
    if isinstance(value, list | tuple):
        return tuple(_entry(one) for one in value)
    if not isinstance(value, bool):
        raise ValueError(_other(value))
    return value


def _other(value: object) -> str:
    return (
        "expected true, false, or a list of {registry: URI}, {signer: key file}, {digest: sha256:…} and "
        f"{{version: 8}}, got {str(value)[:80]!r}"
    )


Trust = Annotated[bool | tuple[TrustEntry, ...], BeforeValidator(_entries)]
"""Whether loading may run the candidates' own code: of all, of none, or of those that an entry names."""


@dataclass(frozen=True)
class Granted:
    """By which entry a candidate may run its own code."""

    by: str | None = None
    """The entry in words; None: none names it."""
    refused: tuple[str, ...] = ()
    """Why approvals that name its bytes do not count."""


def granted(trust: Trust, candidate: Candidate, *, registry: str | None = None, now: datetime | None = None) -> Granted:
    """The first entry that names a fetched candidate.

    Args:
        trust: of the policy.
        candidate: as it was fetched: its digest is that of the bytes that were copied here.
        registry: the URI that was connected to; None: none is known.
        now: None: this machine's clock.

    Raises:
        ConfigurationError: a signer's key cannot be read.
    """
    if isinstance(trust, bool):
        return Granted("trust: true, which names every candidate" if trust else None)
    refused: list[str] = []
    for entry in trust:
        if isinstance(entry, TrustedSigner):
            found = _approved(entry, candidate, now or datetime.now(UTC))
            refused += found.refused
            by = f"signer {found.key_id}, in {found.file}" if found.key_id else None
        else:
            by = _named(entry, candidate, registry)
        if by is not None:
            return Granted(by)
    return Granted(refused=tuple(refused))


def _approved(entry: TrustedSigner, candidate: Candidate, now: datetime) -> Found:
    if candidate.digest is None:
        return Found()
    return found_approval(Path(entry.approvals), entry.keys, candidate.digest, now)


def _named(
    entry: TrustedDigest | TrustedVersion | TrustedRegistry, candidate: Candidate, registry: str | None
) -> str | None:
    if isinstance(entry, TrustedDigest):
        return f"digest {entry.digest}" if candidate.digest == entry.digest else None
    if isinstance(entry, TrustedVersion):
        return f"version {entry.version}" if candidate.version == str(entry.version) else None
    spoken_to = registry_name(registry) if registry is not None else None
    if spoken_to is not None:  # a database beside which the audit runs is the default
        spoken_to = TrustedRegistry(registry=spoken_to).below(Path.cwd()).registry
    return f"registry {entry.registry}" if spoken_to == entry.registry else None


def registry_name(uri: str) -> str | None:
    r"""A registry's URI in the one form that is compared, without credentials; None: it has none.

    Scheme and host in small letters, the scheme's own port left out, no slash at the end. What parsers of URIs read
    differently (backslashes, spaces, escapes in a host) has no form, and is trusted by no entry.

    >>> registry_name("HTTPS://user:pw@ML.example:443/"), registry_name("sqlite:////data/mlflow.db")
    ('https://ml.example', 'sqlite:////data/mlflow.db')
    >>> registry_name(r"https://evil.example\@good.example"), registry_name("good.example")
    (None, None)
    """
    if not uri.isascii() or not uri.isprintable() or set(uri) & set("\\ <>\"'`{}|^"):
        return None
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or ".." in parts.path.split("/"):
        return None
    if not parts.netloc:
        return f"{parts.scheme}:{uri.partition(':')[2].partition('?')[0]}"
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or parts.netloc.count("@") > 1:
        return None
    shown = f"[{host}]" if ":" in host else host
    shown += f":{port}" * (port is not None and port != {"http": 80, "https": 443}.get(parts.scheme))
    return f"{parts.scheme}://{shown}{parts.path.rstrip('/')}"
