"""Credentials of the gate's environment are found nowhere afterwards: in no file, output, run, tag or message."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from desk import Desk

from flataudit.attestation.keys import generate

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]  # MLflow's and torch.export's own

PASSWORD, USER = "canary-password-1f7a", "canary-user-2b8c"
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "canary-tracking-3c9d",
    "MLFLOW_TRACKING_TOKEN": "",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-4d0e",
    "AWS_SESSION_TOKEN": "canary-session-5e1f",
    "FLATAUDIT_KEY_PASSPHRASE": "canary-passphrase-6f2a",
}


@pytest.fixture
def desk(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterable[Desk]:
    (tmp_path / "work").mkdir()
    made = Desk(tmp_path / "work", server, capsys, monkeypatch, model=f"canaries-{tmp_path.name}")
    made.set_up()
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    pem = tmp_path / "kept" / "gate.key"
    pem.parent.mkdir()
    generate(pem, SECRETS["FLATAUDIT_KEY_PASSPHRASE"])
    monkeypatch.setenv("FLATAUDIT_SIGNING_KEY", pem.read_text())
    yield made


def canaries() -> list[bytes]:
    pem = os.environ["FLATAUDIT_SIGNING_KEY"].splitlines()[1:-1]
    return [text.encode() for text in (PASSWORD, USER, *SECRETS.values(), *pem) if text]


def leaks(places: Iterable[Path]) -> list[str]:
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    assert len(files) > 10
    return [f"{file}: {one.decode()}" for file in files for one in canaries() if one in file.read_bytes()]


def told(*texts: str) -> list[str]:
    return [one.decode() for one in canaries() for text in texts if one.decode() in text]


def with_credentials(uri: str) -> str:
    return uri.replace("http://", f"http://{USER}:{PASSWORD}@")


def test_no_credential_is_written_or_told(desk: Desk, server: Any) -> None:
    """A gate with a good model, one that cannot be loaded, and one whose archive breaks the worker's loader."""
    desk.register(b"not a program: cannot be loaded", "broken")
    desk.register(b"PK\x03\x04" + bytes(range(256)) * 8, "archive")
    desk.patch.setenv("MLFLOW_TRACKING_URI", with_credentials(server.uri))
    code, out, err = desk.run("gate", "--json")
    document = json.loads(out)
    assert (code, document["promoted"], len(document["candidates"])) == (0, "2", 4), err
    assert document["receipt"]["attestation"]
    shown = desk.run("gate", "-q", "--engine", "local")[1:]
    version = desk.trainer.client.get_model_version(desk.model, "2")
    run = desk.trainer.client.get_run(version.tags["flataudit.audit_run"])
    registry = json.dumps([run.to_dictionary(), dict(version.tags)], default=str)
    history = desk.run("history", desk.model, "--json")
    doctor = desk.run("doctor", "--json")
    verified = desk.attest("verify", f"models:/{desk.model}@champion", "--allow-unsigned", "--json")
    assert verified[0] == 0, verified[1]
    assert told(out, err, *shown, registry, *history[1:], *doctor[1:], *verified[1:]) == []
    state = Path(os.environ["FLATAUDIT_STATE"])
    assert leaks([desk.folder, state.parent, server.artifacts.parent]) == []
    (desk.folder / "planted").write_text(f"x{PASSWORD}x")
    assert len(leaks([desk.folder])) == 1  # the search itself finds what is there


@pytest.mark.parametrize("kind", ["nobody", "refused", "unknown"])
def test_a_registry_that_fails_is_told_without_credentials(desk: Desk, kind: str, server: Any) -> None:
    places = {
        "nobody": f"http://{USER}:{PASSWORD}@127.0.0.1:9/?token={PASSWORD}",
        "refused": f"{with_credentials(server.uri)}/no-such-prefix?token={PASSWORD}",
        "unknown": f"ftp://{USER}:{PASSWORD}@127.0.0.1:9",
    }
    desk.patch.setenv("MLFLOW_TRACKING_URI", places[kind])
    for arguments in (["gate", "--json"], ["history", desk.model], ["audit", "-q"], ["doctor"]):
        code, out, err = desk.run(*arguments)
        assert code != 0 and told(out, err) == [], (arguments, out, err)
    code, out, err = desk.attest("verify", f"models:/{desk.model}@champion", "--allow-unsigned")
    assert code in (2, 3) and told(out, err) == []


def test_a_key_that_cannot_be_used_is_told_without_its_text(desk: Desk, server: Any) -> None:
    desk.patch.setenv("MLFLOW_TRACKING_URI", server.uri)
    desk.patch.setenv("FLATAUDIT_KEY_PASSPHRASE", "another-canary-7a3b")
    code, out, err = desk.run("gate", "-q")
    assert code == 2 and told(out, err) == [] and "another-canary" not in out + err
