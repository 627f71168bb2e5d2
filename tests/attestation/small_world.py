"""A model of a few bytes with a ledger of three decisions, in the memory of a registry that is two dictionaries."""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flataudit.attestation.dsse import signed
from flataudit.attestation.keys import Signer
from flataudit.attestation.statement import statement_of
from flataudit.attestation.verifying import Attested, Terms, Verification, deciding, verified
from flataudit.journal import Journal
from flataudit.ledger import AliasTarget, LedgerDraft, LedgerEntry, operation_id
from flataudit.manifest import manifest_digest
from flataudit.registries.mlflow.ledger_run import LedgerRun

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = "sha256:" + "5e" * 32
EVIDENCE = "sha256:" + "e1" * 32
AUDIT = b'{"schema": "flataudit/audit/1",\n "evidences": []}'
FILES = {"MLmodel": b"flavors: {pytorch: {}}\n", "data/model.pt2": b"not pt2.", "extra/notes.txt": b"x" * 40}


def key(seed: int = 1) -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def build_key(file: Path, of: Signer) -> None:
    """Its public half, as a file."""
    file.write_bytes(of.public.pem)


@dataclass
class Memory:
    """What the ledger asks of MLflow's client."""

    params: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    def get_run(self, run_id: str) -> SimpleNamespace:
        return SimpleNamespace(data=SimpleNamespace(params=dict(self.params)))

    def log_param(self, run_id: str, key: str, value: str) -> None:
        assert key not in self.params
        self.params[key] = value

    def log_text(self, run_id: str, text: str, path: str) -> None:
        self.artifacts[path] = text.encode()

    def download_artifacts(self, run_id: str, path: str, into: str) -> str:
        if path not in self.artifacts:
            raise FileNotFoundError(path)
        Path(into, "found").write_bytes(self.artifacts[path])
        return str(Path(into, "found"))


@dataclass
class World:
    """Version 1 was champion, 2 was rejected, 3 promoted, 4 rejected; the bytes of version 3 lie in `model`."""

    folder: Path
    memory: Memory = field(default_factory=Memory)
    signer: Signer | None = field(default_factory=key)
    expires: str | None = None
    audit: bytes = AUDIT
    points_to: str = "3"
    tag: str | None = None

    def __post_init__(self) -> None:
        for name, data in FILES.items():
            (self.model / name).parent.mkdir(parents=True, exist_ok=True)
            (self.model / name).write_bytes(data)

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def book(self) -> LedgerRun:
        def seal(entry: LedgerEntry, run: str) -> bytes | None:
            statement = statement_of(entry, ledger=run, version="0.1.0")
            return signed(statement.to_bytes(), [self.signer]).to_bytes() if statement and self.signer else None

        return LedgerRun(self.memory, "run", "fraud", Journal(self.folder / "state"), seal if self.signer else None)  # type: ignore[arg-type]

    def decide(self, kind: str, version: str, digest: str, **changes: object) -> LedgerEntry:
        ledger = self.book.unverified()
        target = AliasTarget(version=version, digest=digest) if kind in ("promote", "rollback", "drift") else None
        expected = ledger.champion("champion") or AliasTarget(version="1", digest="sha256:" + "01" * 32)
        draft = LedgerDraft(
            model="fraud",
            alias="champion",
            kind=kind,  # type: ignore[arg-type]
            audit=f"audit-{version}",
            operation=operation_id("fraud", "champion", expected=expected, target=target, decision=f"{kind}{version}"),
            created=f"2026-05-0{len(ledger.entries) + 1}T00:00:00+00:00",
            actor="a test",
            policy_digest=POLICY,
            alpha=0.030396355092701332,
            evidence={f"v{version}": EVIDENCE},
            judged={version: digest},
            files={"audit.json": f"sha256:{hashlib.sha256(AUDIT).hexdigest()}"},
            expires=self.expires,
            expected=expected,
            target=target,
        )
        book = self.book
        entry = book.sealed(ledger.followed_by(draft.model_copy(update=changes)))
        assert book.append(entry)
        if entry.moves:
            book.close(entry.sequence, "done")
        return entry

    def attested(self, *, alias: str | None = "champion", version: str = "3") -> Attested:
        book, version = self.book, self.points_to if alias else version
        ledger = book.unverified()
        entry = deciding(ledger, alias=alias, version=version)
        return Attested(
            digest=manifest_digest(self.model),
            name="fraud",
            version=version,
            alias=alias,
            envelope=book.envelope(entry) if entry else None,
            entry=entry,
            ledger=ledger,
            ledger_run="run",
            found=AliasTarget(version=version) if alias else None,
            tag=self.tag,
            inputs={"audit.json": f"sha256:{hashlib.sha256(self.audit).hexdigest()}"},
            seen=book.seen(),
        )

    def verify(self, terms: Terms | None = None, **changes: object) -> Verification:
        return verified(replace(self.attested(), **changes), terms or trusting(key()))


def trusting(*keys: Signer, **more: object) -> Terms:
    return Terms(now=NOW, keys={one.key_id: one.public for one in keys}, **more)  # type: ignore[arg-type]


def fields(found: Verification) -> set[str]:
    return {fault.field for fault in found.faults}


def built(folder: Path, **settings: object) -> World:
    world = World(folder, **settings)  # type: ignore[arg-type]
    digest = manifest_digest(world.model)
    world.decide("reject", "2", "sha256:" + "02" * 32)
    world.decide("promote", "3", digest)
    world.decide("reject", "4", "sha256:" + "04" * 32)
    return world
