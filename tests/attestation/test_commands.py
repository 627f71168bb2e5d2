"""`keygen` and `verify` on a real registry, after a real gate: each thing that is changed is found, and named."""

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from small_world import World, key

from flataudit import attestation_commands
from flataudit.attestation.keys import generate, signer, trusted
from flataudit.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and torch.export's own


@pytest.fixture
def desk(trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path, trainer, capsys, monkeypatch)
    made.set_up()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trainer.uri)
    monkeypatch.setenv("FLATAUDIT_KEY_PASSPHRASE", "open sesame")
    assert made.attest("keygen", "--out", "gate.key")[0] == 0
    monkeypatch.setenv("FLATAUDIT_SIGNING_KEY_FILE", "gate.key")
    return made


def faults(desk: Desk, *arguments: str) -> tuple[int, set[str]]:
    code, out, _ = desk.attest("verify", *arguments, "--json")
    document = json.loads(out)
    assert document["schema"] == "flataudit/verify/1" and (code == 0) == (document["result"] != "failed")
    return code, {fault["field"] for fault in document["faults"]}


def test_what_a_gate_signs_is_verified_and_what_is_changed_is_named(desk: Desk) -> None:
    code, out, _ = desk.run("gate", "--json", "--engine", "local")
    assert code == 0
    receipt = json.loads(out)["receipt"]
    assert receipt["sequence"] == 1 and receipt["notes"] == []
    (folder,) = (desk.folder / "flataudit-audits").iterdir()
    version = desk.trainer.client.get_model_version("m", "2")
    assert version.tags["flataudit.attestation"] == receipt["attestation"]

    signed, champion = ("--key", "gate.pub"), "models:/m@champion"
    assert faults(desk, champion, *signed, "--policy", "flataudit.yaml") == (0, set())
    assert faults(desk, "models:/m/2", *signed) == (0, set())
    assert "VERIFIED" in desk.attest("verify", champion, *signed)[1]
    assert faults(desk, "models:/m/1", *signed) == (1, {"ledger"})
    assert faults(desk, champion) == (1, {"signatures"})
    assert faults(desk, champion, "--allow-unsigned") == (0, set())
    assert faults(desk, champion, *signed, "--min-sequence", "2") == (1, {"sequence"})
    generate(desk.folder / "other.key", None)
    assert faults(desk, champion, "--key", "other.pub") == (1, {"signatures[0].keyid"})
    assert faults(desk, champion, "--key", ".") == (0, set())  # a folder of keys, one of which signed
    (desk.folder / "other.yaml").write_text(
        (desk.folder / "flataudit.yaml").read_text() + "policy: {band_width: 1.0}\n"
    )
    assert faults(desk, champion, *signed, "--policy", "other.yaml") == (1, {"policy.digest"})

    model = desk.trainer.files_of(version.source.removeprefix("models:/"))
    _offline(desk, folder, model)
    _changed(desk, model, champion, signed)
    _rolled_back(desk, champion, signed)


def _offline(desk: Desk, folder: Path, model: Path) -> None:
    """The audit's folder and the model's files, on a machine without a registry."""
    desk.patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    copy = desk.folder / "served"
    shutil.copytree(model, copy)
    signed = ("--key", "gate.pub", "--offline", str(folder))
    assert faults(desk, str(copy), *signed) == (0, set())
    (copy / "registered_model_meta").write_text("x")
    assert faults(desk, str(copy), *signed) == (1, {"subject"})
    (copy / "registered_model_meta").unlink()
    both = desk.folder / "both"
    shutil.copytree(folder, both)
    shutil.copytree(model, both / "model")
    for name in ("models:/m@champion", "models:/m/2", str(both)):
        place = ("--offline", str(both)) if name.startswith("models:") else ()
        assert faults(desk, name, "--key", "gate.pub", *place) == (0, set()), name
    assert faults(desk, "models:/x@champion", "--key", "gate.pub", "--offline", str(both)) == (1, {"subject"})
    audit = both / "audit.json"
    audit.write_text(audit.read_text().replace('"seed": 0', '"seed": 1'))
    code, found = faults(desk, str(both), "--key", "gate.pub")
    assert code == 1 and "inputAttestations[audit.json]" in found and any("evidence/v" in one for one in found)
    (both / "attestation.dsse.json").unlink()
    assert faults(desk, str(both), "--key", "gate.pub") == (1, {"envelope"})
    desk.patch.setenv("MLFLOW_TRACKING_URI", desk.trainer.uri)


def _changed(desk: Desk, model: Path, champion: str, signed: tuple[str, str]) -> None:
    """The tag, the bytes, the alias, the ledger's envelope; each is put back."""
    client = desk.trainer.client
    client.set_model_version_tag("m", "2", "flataudit.attestation", "sha256:" + "0" * 64)
    assert faults(desk, champion, *signed) == (1, {"tag flataudit.attestation"})
    client.delete_model_version_tag("m", "2", "flataudit.attestation")
    program = model / "MLmodel"
    kept = program.read_bytes()
    program.write_bytes(b"\x00" + kept[1:])
    assert faults(desk, champion, *signed) == (1, {"subject", "alias"})
    program.write_bytes(kept)
    client.set_registered_model_alias("m", "champion", "1")
    assert "alias" in faults(desk, champion, *signed)[1]
    client.set_registered_model_alias("m", "champion", "2")
    assert faults(desk, champion, *signed) == (0, set())
    (envelope,) = (desk.folder / "flataudit-artifacts").glob("**/attestations/*.json")
    envelope.write_bytes(envelope.read_bytes().replace(b'"payload"', b'"payl0ad"'))
    assert faults(desk, champion, *signed) == (1, {"envelope"})


def _rolled_back(desk: Desk, champion: str, signed: tuple[str, str]) -> None:
    """A rollback is a signed decision of its own, which no policy made."""
    assert desk.run("rollback", "m", "--reason", "a test")[0] == 0
    version = desk.trainer.client.get_model_version_by_alias("m", "champion")
    assert version.version in (1, "1") and version.tags["flataudit.attestation"].startswith("sha256:")
    code, out, _ = desk.attest("verify", champion, *signed, "--json")
    document = json.loads(out)
    told = document["statement"]["predicate"]
    assert (code, told["verificationResult"], told["flataudit_decision"]["sequence"]) == (0, "PASSED", 2), document
    assert "digest" not in told["policy"]
    assert faults(desk, champion, *signed, "--policy", "flataudit.yaml") == (1, {"policy.digest"})


def test_a_decision_without_a_key_says_that_it_is_unsigned(desk: Desk) -> None:
    desk.patch.delenv("FLATAUDIT_SIGNING_KEY_FILE")
    assert desk.run("gate", "--engine", "local", "-q")[0] == 0
    assert faults(desk, "models:/m@champion", "--key", "gate.pub") == (1, {"signatures"})
    code, out, _ = desk.attest("verify", "models:/m@champion", "--allow-unsigned")
    assert code == 0 and out.startswith("UNSIGNED") and "nobody whom you trust" in out
    assert desk.trainer.client.get_model_version("m", "2").tags["flataudit.attestation"] == "unsigned"
    (folder,) = (desk.folder / "flataudit-audits").iterdir()
    assert json.loads((folder / "attestation.dsse.json").read_text())["signatures"] == []


def test_a_key_that_cannot_be_read_is_no_reason_to_sign_nothing(desk: Desk) -> None:
    desk.patch.setenv("FLATAUDIT_KEY_PASSPHRASE", "close sesame")
    code, _, err = desk.run("gate", "--engine", "local", "-q")
    assert code == 2 and "FLATAUDIT_KEY_PASSPHRASE" in err
    assert "flataudit.decision" not in desk.trainer.client.get_model_version("m", "2").tags


# ── Keys and arguments, without a registry ──


def test_a_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    made, public = generate(tmp_path / "gate.key", "secret")
    assert stat.S_IMODE((tmp_path / "gate.key").stat().st_mode) == 0o600
    assert b"ENCRYPTED" in (tmp_path / "gate.key").read_bytes()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        generate(tmp_path / "gate.key", "secret")
    (tmp_path / "new.pub").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="never overwritten"):
        generate(tmp_path / "new.key", "secret")
    assert not (tmp_path / "new.key").exists()
    assert list(trusted(public)) == [made.key_id]
    environ = {"FLATAUDIT_SIGNING_KEY_FILE": str(tmp_path / "gate.key"), "FLATAUDIT_KEY_PASSPHRASE": "secret"}
    found = signer(environ)
    assert found is not None and found.key_id == made.key_id
    text = {"FLATAUDIT_SIGNING_KEY": (tmp_path / "gate.key").read_text(), "FLATAUDIT_KEY_PASSPHRASE": "secret"}
    assert (again := signer(text)) is not None and again.key_id == made.key_id
    assert signer({}) is None


def test_the_id_of_a_key_is_the_digest_of_its_der(tmp_path: Path) -> None:
    """Against the bytes of RFC 8410: the prefix of an Ed25519 SubjectPublicKeyInfo, then the 32 bytes of the key."""
    import hashlib

    raw = key().public.key.public_bytes_raw()
    assert key().key_id == hashlib.sha256(bytes.fromhex("302a300506032b6570032100") + raw).hexdigest()


@pytest.mark.parametrize(
    "environ",
    [
        {"FLATAUDIT_SIGNING_KEY": "x", "FLATAUDIT_SIGNING_KEY_FILE": "y"},
        {"FLATAUDIT_SIGNING_KEY": "canary-canary"},
        {"FLATAUDIT_SIGNING_KEY_FILE": "/nowhere"},
        {"FLATAUDIT_SIGNING_KEY": "-----BEGIN ENCRYPTED PRIVATE KEY-----", "FLATAUDIT_KEY_PASSPHRASE": "canary"},
    ],
)
def test_a_key_that_cannot_be_used_is_an_error_without_its_text(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        signer(environ)
    assert "canary" not in str(caught.value)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ConfigurationError, match="another kind"):
        signer({"FLATAUDIT_SIGNING_KEY": pem})
    (tmp_path / "a.pub").write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigurationError, match="another kind"):
        trusted(tmp_path)
    (tmp_path / "a.pub").write_text("no key")
    with pytest.raises(ConfigurationError, match="a public key"):
        trusted(tmp_path / "a.pub")
    (tmp_path / "a.pub").unlink()
    with pytest.raises(ConfigurationError, match="public keys"):
        trusted(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        {"uri": "models:/m"},
        {"uri": "models:/m@a/3"},
        {"uri": "nowhere"},
        {"uri": "models:/m/1", "allow_unsigned": True},
    ],
)
def test_bad_arguments_are_usage_errors(arguments: dict[str, Any], tmp_path: Path) -> None:
    _, public = generate(tmp_path / "gate.key", None)
    more = {"key": public} if "allow_unsigned" in arguments else {}
    with pytest.raises(ConfigurationError):
        attestation_commands.verify(attestation_commands.Asked(**arguments, **more))


def test_an_older_attestation_is_refused_where_a_newer_one_was_accepted(world: World, tmp_path: Path) -> None:
    """Offline, the machine remembers the highest number that it accepted for the alias."""
    older, digest = world.attested().envelope, world.attested().digest
    world.decide("rollback", "1", "sha256:" + "01" * 32)
    world.decide("promote", "3", digest)
    (tmp_path / "key.pub").write_bytes(key().public.pem)
    asked = attestation_commands.Asked("models:/fraud@champion", tmp_path / "key.pub", offline=world.folder)
    beside = world.folder / "attestation.dsse.json"
    for envelope, result in ((older, "verified"), (world.attested().envelope, "verified"), (older, "failed")):
        beside.write_bytes(envelope or b"")
        found = attestation_commands.verify(asked)
        assert found.result == result, found.faults
    assert [fault.field for fault in found.faults] == ["sequence"]
    assert os.listdir(Path(os.environ["FLATAUDIT_STATE"]) / "ledgers")
