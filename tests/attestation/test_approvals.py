"""Approvals that a candidate's own code may run: only a trusted key's, over these very bytes, and not for ever."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small_world import build_key, key

from flataudit.attestation.approvals import (
    APPROVAL_TYPE,
    Approval,
    ApprovalTerms,
    approval_of,
    found_approval,
    read_approval,
)
from flataudit.attestation.dsse import Envelope, Signature, read_envelope, signed
from flataudit.attestation.faults import AttestationError
from flataudit.attestation.statement import read_statement
from flataudit.attestation.trustees import (
    Granted,
    Trust,
    TrustedDigest,
    TrustedRegistry,
    TrustedSigner,
    TrustedVersion,
    granted,
    registry_name,
)
from flataudit.errors import ConfigurationError
from flataudit.evidence import Candidate

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
MINE, ANOTHER = key(1), key(2)
TERMS = ApprovalTerms(actor="ada", created=NOW.isoformat(), version="0.1.0")
CANDIDATE = Candidate(name="fraud", version="8", uri="models:/fraud/8", digest=DIGEST)


def approval(digest: str = DIGEST, *, signer: object = MINE, **terms: object) -> Envelope:
    return approval_of("models:/fraud/8", digest, TERMS.model_copy(update=terms), signer)  # type: ignore[arg-type]


def look(folder: Path, now: datetime = NOW, digest: str = DIGEST) -> tuple[str | None, tuple[str, ...]]:
    found = found_approval(folder, {MINE.key_id: MINE.public}, digest, now)
    return found.key_id, found.refused


def put(folder: Path, envelope: Envelope | bytes, name: str = "a.dsse.json") -> Path:
    content = envelope if isinstance(envelope, bytes) else envelope.to_bytes()
    (folder / name).write_bytes(content)
    return folder


def test_a_trusted_key_s_word_over_these_bytes(tmp_path: Path) -> None:
    put(tmp_path, approval())
    assert look(tmp_path) == look(tmp_path / "a.dsse.json") == (MINE.key_id, ())
    found = read_approval(read_envelope((tmp_path / "a.dsse.json").read_bytes()).payload)
    assert found.digest == DIGEST and found.predicate == TERMS


def test_of_other_bytes_nothing_is_said(tmp_path: Path) -> None:
    put(tmp_path, approval(OTHER))
    assert look(tmp_path) == (None, ())


def relabelled() -> Envelope:
    """Another's signature under the trusted key's id."""
    made = approval(signer=ANOTHER)
    return Envelope(made.payload, (Signature(MINE.key_id, made.signatures[0].value),))


def moved() -> Envelope:
    """The trusted key's signature, of another approval."""
    return Envelope(approval().payload, approval(OTHER).signatures)


def of_another_type() -> Envelope:
    told = json.loads(approval().payload)
    return signed(json.dumps(told | {"predicateType": "https://slsa.dev/verification_summary/v1"}).encode(), [MINE])


def of_two() -> Envelope:
    told = json.loads(approval().payload)
    return signed(json.dumps(told | {"subject": told["subject"] * 2}).encode(), [MINE])


def with_more() -> Envelope:
    told = json.loads(approval().payload)
    told["predicate"]["may"] = "run anything"
    return signed(json.dumps(told).encode(), [MINE])


def expiring(text: str) -> Envelope:
    told = json.loads(approval().payload)
    told["predicate"]["expires"] = text
    return signed(json.dumps(told).encode(), [MINE])


SPOOFS = {
    "by another key": (approval(signer=ANOTHER), "signed by no key that is trusted"),
    "by nobody": (Envelope(approval().payload), "signed by no key that is trusted"),
    "under a false id": (relabelled(), "one that this key did not make"),
    "the signature of another": (moved(), "one that this key did not make"),
    "expired": (approval(expires=NOW.isoformat()), "expired at 2026-06-01"),
    "expired in another zone": (expiring("2026-06-01T01:00:00+02:00"), "expired"),
    "an end without a zone": (expiring("2027-01-01T00:00:00"), "times with their zone"),
    "an end that is none": (expiring("never"), "ISO 8601"),
    "a decision's type": (of_another_type(), "predicateType"),
    "two subjects": (of_two(), "subject"),
    "more than is meant": (with_more(), "predicate.may"),
    "no envelope": (b"{}", "envelope"),
    "too large": (b" " * (2**20 + 2), "at most"),
}


@pytest.mark.parametrize(("envelope", "why"), SPOOFS.values(), ids=SPOOFS)
def test_what_approves_nothing(envelope: Envelope | bytes, why: str, tmp_path: Path) -> None:
    by, refused = look(put(tmp_path, envelope))
    assert by is None and len(refused) == 1 and refused[0].startswith("a.dsse.json: ") and why in refused[0]


def test_a_bad_one_does_not_hide_a_good_one(tmp_path: Path) -> None:
    put(tmp_path, b"{", "0.dsse.json")
    put(tmp_path, approval(expires=(NOW + timedelta(seconds=1)).isoformat()), "b.dsse.json")
    assert look(tmp_path)[0] == MINE.key_id
    assert look(tmp_path, NOW + timedelta(seconds=1))[0] is None
    assert look(tmp_path / "missing") == (None, ("missing: No such file or directory",))


def test_decisions_and_approvals_are_not_each_other(tmp_path: Path) -> None:
    with pytest.raises(AttestationError, match="verification_summary"):
        read_statement(approval().payload)
    assert Approval.model_validate_json(approval().payload).predicate_type == APPROVAL_TYPE


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    raw = approval().to_bytes()
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        assert look(put(tmp_path, bytes(changed)))[0] is None, place


# ── Entries of a policy ──


def grant(*entries: object, registry: str | None = None, candidate: Candidate = CANDIDATE) -> str | None:
    trust: Trust = entries  # type: ignore[assignment]
    return granted(trust, candidate, registry=registry, now=NOW).by


GOOD = TrustedRegistry(registry="https://good.example/mlflow")


@pytest.mark.parametrize(
    "uri", ["https://good.example/mlflow", "https://good.example:443/mlflow/", "HTTPS://u:p@GOOD.example/mlflow?x=1"]
)
def test_a_registry_by_its_whole_name(uri: str) -> None:
    assert grant(GOOD, registry=uri) == "registry https://good.example/mlflow"


@pytest.mark.parametrize(
    "uri",
    [
        *("https://good.example.evil/mlflow", "https://good.example@evil/mlflow", "https://evil/good.example/mlflow"),
        *("http://good.example/mlflow", "https://good.example:8443/mlflow", "https://good.example/mlflow2"),
        *("https://good.example", "https://good.example/mlflow/../evil", "https://good.example/mlflow/x"),
        *("https://evil.example\\@good.example/mlflow", "https://good.example\\.evil/mlflow", "https://good%2eexample"),
        *("https://a@evil@good.example/mlflow", "https://good.example /mlflow", "https://good.example\n/mlflow"),
        *("https://gооd.example/mlflow", "https:/good.example/mlflow", "good.example/mlflow", "", "https://[::1/x"),
        *("https://good.example:99999/mlflow", "https://good.example./mlflow", "https://evil#@good.example/mlflow"),
    ],
)  # fmt: skip
def test_what_only_looks_like_it(uri: str) -> None:
    assert grant(GOOD, registry=uri) is None
    assert grant(GOOD) is None


def test_what_a_candidate_says_of_its_registry_is_not_asked() -> None:
    candidate = CANDIDATE.model_copy(update={"uri": GOOD.registry, "title": GOOD.registry, "name": GOOD.registry})
    assert grant(GOOD, registry="https://evil.example", candidate=candidate) is None


def test_databases_and_addresses() -> None:
    for uri in ("sqlite:////data/mlflow.db", "https://[2001:db8::1]:5000/x", "http://127.0.0.1:5000", "databricks://a"):
        assert registry_name(uri) == uri
    assert registry_name("http://127.0.0.1:80") == "http://127.0.0.1"
    assert TrustedRegistry(registry="sqlite:///a.db").below(Path("/data")).registry == "sqlite:////data/a.db"
    with pytest.raises(ValueError, match="whole URI"):
        TrustedRegistry(registry="good.example")


def test_digests_and_versions() -> None:
    assert grant(TrustedDigest(digest=DIGEST)) == f"digest {DIGEST}"
    assert grant(TrustedDigest(digest=OTHER)) is None
    assert grant(TrustedVersion(version=8)) == "version 8"
    assert grant(TrustedVersion(version=80)) is None
    unfetched = Candidate(name="fraud", uri="runs:/x")
    assert grant(TrustedDigest(digest=DIGEST), TrustedVersion(version=8), candidate=unfetched) is None
    assert grant(TrustedVersion(version=9), TrustedDigest(digest=DIGEST)) == f"digest {DIGEST}"
    assert granted(True, unfetched) == Granted("trust: true, which names every candidate")
    assert granted(False, CANDIDATE) == granted((), CANDIDATE) == Granted()


def test_a_signer_by_file_and_by_id(tmp_path: Path) -> None:
    (tmp_path / "approvals").mkdir()
    put(tmp_path / "approvals", approval())
    build_key(tmp_path / "mine.pub", MINE)
    by_file = TrustedSigner(signer="mine.pub").below(tmp_path)
    assert grant(by_file) == f"signer {MINE.key_id}, in a.dsse.json"
    unfetched = CANDIDATE.model_copy(update={"digest": None})
    assert grant(by_file, candidate=unfetched) is None
    assert grant(by_file, candidate=CANDIDATE.model_copy(update={"digest": OTHER})) is None
    by_id = TrustedSigner(signer=MINE.key_id).below(tmp_path)
    with pytest.raises(ConfigurationError, match="public keys"):
        grant(by_id)
    build_key(tmp_path / "approvals/another.pub", ANOTHER)
    with pytest.raises(ConfigurationError, match=MINE.key_id):
        grant(by_id)
    build_key(tmp_path / "approvals/mine.pub", MINE)
    assert grant(by_id) == grant(by_file)
    not_mine = TrustedSigner(signer=ANOTHER.key_id).below(tmp_path)
    found = granted((not_mine,), CANDIDATE, now=NOW)
    assert found == Granted(refused=("a.dsse.json: signed by no key that is trusted",))
