"""Ed25519 keys: made, kept where only their owner reads them, and found again; by `cryptography`.

The private key is PKCS#8 in PEM, encrypted with a passphrase. A gate finds it in ``FLATAUDIT_SIGNING_KEY`` (the PEM
text, from a secret store) or ``FLATAUDIT_SIGNING_KEY_FILE``; its passphrase in ``FLATAUDIT_KEY_PASSPHRASE``, or it
asks where a person sits at the terminal. No message, record or representation here holds any of it.
"""

import getpass
import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flataudit.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["PublicKey", "Signer", "generate", "signer", "signer_at", "trusted"]

_TEXT, _FILE, _PASSPHRASE = "FLATAUDIT_SIGNING_KEY", "FLATAUDIT_SIGNING_KEY_FILE", "FLATAUDIT_KEY_PASSPHRASE"
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with."""

    key: "Ed25519PublicKey" = field(repr=False)

    @property
    def key_id(self) -> str:
        """SHA-256 of the key's DER encoding (SubjectPublicKeyInfo), in hex."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return hashlib.sha256(self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @property
    def pem(self) -> bytes:
        """As a file holds it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key made the signature of the data."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """A key that signs."""

    key: "Ed25519PrivateKey" = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """What its signatures are checked with."""
        return PublicKey(self.key.public_key())

    @property
    def key_id(self) -> str:
        """Of its public key."""
        return self.public.key_id

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature; the same data has the same one."""
        return self.key.sign(data)


def generate(path: Path, passphrase: str | None) -> tuple[Signer, Path]:
    """A new key pair: the private key at ``path``, readable by its owner alone, the public one beside it.

    Args:
        path: of the private key; nothing may be there.
        passphrase: that encrypts it; None: it is not encrypted.

    Returns:
        The key, and where its public half is.

    Raises:
        ConfigurationError: something is there already, or the folder cannot be written.
    """
    _require()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    made = Signer(Ed25519PrivateKey.generate())
    lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    public = path.with_name(f"{path.name.removesuffix('.key')}.pub")
    for one in (path, public):
        if one.exists() or one.is_symlink():
            remedy = "choose another place with --out: a key is never overwritten"
            raise ConfigurationError(f"nothing at {one}", got="a file", remedy=remedy)
    _write_new(path, made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock), 0o600)
    _write_new(public, made.public.pem, 0o644)
    return made, public


def signer(environ: Mapping[str, str]) -> Signer | None:
    """The key that this environment signs with; None: it has none, and decisions are unsigned.

    Raises:
        ConfigurationError: a key is named that cannot be read. Nothing is unsigned by mistake.
    """
    text, file = environ.get(_TEXT), environ.get(_FILE)
    if text and file:
        raise ConfigurationError(f"{_TEXT} or {_FILE}", got="both", remedy="unset one of them")
    if not text and not file:
        return None
    _require()
    data = text.encode() if text else _read(Path(str(file)), _FILE)
    return _private(data, _TEXT if text else f"{_FILE}={file}", environ)


def signer_at(path: Path, environ: Mapping[str, str]) -> Signer:
    """The private key of a file; its passphrase is this environment's, or asked for.

    Raises:
        ConfigurationError: it cannot be read.
    """
    _require()
    return _private(_read(path, "--key"), f"--key={path}", environ)


def trusted(path: Path) -> dict[str, PublicKey]:
    """Public keys by their ids, from a file or from all ``*.pub`` and ``*.pem`` of a folder.

    Raises:
        ConfigurationError: there is none, or one cannot be read. No key is not a reason to trust.
    """
    _require()
    files = sorted([*path.glob("*.pub"), *path.glob("*.pem")]) if path.is_dir() else [path]
    found = [_public(file) for file in files]
    if not found:
        remedy = "put the public keys there that `flataudit keygen` made, or name one of them"
        raise ConfigurationError(f"public keys (*.pub, *.pem) in {path}", got="none", remedy=remedy)
    return {key.key_id: key for key in found}


def _private(data: bytes, where: str, environ: Mapping[str, str]) -> Signer:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    locked = b"ENCRYPTED" in data
    try:
        key = load_pem_private_key(data, password=_passphrase(where, environ).encode() if locked else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What cryptography says may quote the key: it is told nowhere.
        remedy = f"check the file, and {_PASSPHRASE}" if locked else "make one with `flataudit keygen`"
        asked = f"an Ed25519 private key (PKCS#8, PEM) in {where.partition('=')[0]}"
        raise ConfigurationError(asked, got="something that cannot be read", remedy=remedy) from None
    if not isinstance(key, Ed25519PrivateKey):
        remedy = "make one with `flataudit keygen`"
        raise ConfigurationError(f"an Ed25519 key in {where}", got="a key of another kind", remedy=remedy)
    return Signer(key)


def _public(file: Path) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(file, "--key"))
    except (ValueError, UnsupportedAlgorithm):
        remedy = "name the .pub file that `flataudit keygen` made"
        raise ConfigurationError(f"a public key (PEM) at {file}", got="something else", remedy=remedy) from None
    if not isinstance(key, Ed25519PublicKey):
        remedy = "name the .pub file that `flataudit keygen` made"
        raise ConfigurationError(f"an Ed25519 public key at {file}", got="a key of another kind", remedy=remedy)
    return PublicKey(key)


def _passphrase(where: str, environ: Mapping[str, str]) -> str:
    given = environ.get(_PASSPHRASE)
    if given:
        return given
    if not sys.stdin.isatty():
        raise ConfigurationError(f"the passphrase of {where}", got="none", remedy=f"set {_PASSPHRASE}")
    return getpass.getpass(f"passphrase of {where}: ")


def _read(path: Path, asked_by: str) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES)
    except OSError as error:
        got = f"{path}: {error.strerror or error}"
        raise ConfigurationError(f"a readable key file in {asked_by}", got=got, remedy="correct the path") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
    except OSError as error:
        remedy = "choose another place with --out: a key is never overwritten"
        raise ConfigurationError(f"to write {path}", got=error.strerror or str(error), remedy=remedy) from error


def _require() -> None:
    """Say which extra is missing, before anything is imported from it."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        remedy = "install it: pip install 'flataudit[attest]'"
        raise ConfigurationError("the package cryptography, to sign and verify", got="none", remedy=remedy) from error
