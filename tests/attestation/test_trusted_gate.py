"""A gate on a real registry whose challenger is pickled: who vouches for it decides whether it runs, on record."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from desk import CENTRES, POLICY, Desk
from torch import nn

from flataudit.attestation.keys import generate

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and torch.export's own
PICKLED = {
    "MLmodel": "flavors:\n  pytorch: {model_data: data, code: null}\n",
    "data/pickle_module_info.txt": "mlflow.pytorch.pickle_module",
}


def pickled() -> bytes:
    net = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(CENTRES))
    buffer = io.BytesIO()
    torch.save(net.eval(), buffer)
    return buffer.getvalue()


@pytest.fixture
def desk(trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Version 3 is a good model, pickled."""
    made = Desk(tmp_path, trainer, capsys, monkeypatch)
    made.set_up()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trainer.uri)
    files = PICKLED | {"data/model.pth": pickled()}
    assert trainer.version(tmp_path / "third", "m", title="third", files=files).version == 3
    return made


def audited(desk: Desk, trust: str) -> dict[str, Any]:
    """Evidence on version 3 of a gate whose policy trusts so."""
    number = len(list(desk.folder.glob("audit-*")))
    policy = POLICY.format(model="m").replace("{newest: 9}", "{versions: [3]}")
    (desk.folder / "flataudit.yaml").write_text(f"{policy}trust: {trust}\n")
    folder = desk.folder / f"audit-{number}"
    code, _, err = desk.run("gate", "--dry-run", "--engine", "local", "--out", str(folder), "--quiet")
    assert code in (0, 1, 3), err
    evidences = json.loads((folder / "audit.json").read_text())["evidences"]
    found: dict[str, Any] = next(one for one in evidences if one["candidate"]["version"] == "3")
    return found


def ran(evidence: dict[str, Any]) -> str | None:
    """What let its code run; None: it was refused, and the reason says so."""
    notes = [one["detail"] for one in evidence["admission"]["findings"] if one["path"] == "trust"]
    accuracy = next(one for one in evidence["measurements"] if one["metric"] == "validation_accuracy")
    if accuracy["outcome"] != "measured":
        assert "a format that is data only" in accuracy["reason"] and not notes
        return None
    assert evidence["trust"] == "code_bearing"
    return str(notes[0])


def test_by_the_registry_that_is_spoken_to(desk: Desk) -> None:
    here = desk.trainer.uri
    assert ran(audited(desk, json.dumps([{"registry": here}]))) == f"registry {here}"
    assert ran(audited(desk, json.dumps([{"registry": here + "x"}, {"registry": "https://good.example"}]))) is None
    # The candidate and its registry may say what they like.
    desk.trainer.client.set_model_version_tag("m", "3", "registry", "https://good.example")
    desk.trainer.client.set_model_version_tag("m", "3", "mlflow.source.name", "https://good.example")
    assert ran(audited(desk, '[{registry: "https://good.example"}]')) is None


def test_by_who_signed_the_bytes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ada", "eve"):
        generate(desk.folder / f"{name}.key", None)
    trust = "[{signer: ada.pub}]"
    assert ran(audited(desk, trust)) is None  # no approval yet
    assert desk.attest("sign", "models:/m/3", "--key", "eve.key")[0] == 0
    assert "no key that is trusted" in str(audited(desk, trust)["measurements"])
    assert desk.attest("sign", "models:/m/2", "--key", "ada.key")[0] == 0
    assert ran(audited(desk, trust)) is None
    code, out, _ = desk.attest("sign", "models:/m/3", "--key", "ada.key", "--expires-days", "30", "--json")
    told = json.loads(out)
    assert code == 0 and told["name"] == "models:/m/3" and told["expires"]
    evidence = audited(desk, trust)
    assert told["digest"] == evidence["candidate"]["digest"]
    assert ran(evidence) == f"signer {told['key_id']}, in {Path(told['file']).name}"
    version = desk.trainer.client.get_model_version("m", "3")
    model = desk.trainer.files_of(version.source.removeprefix("models:/"))
    with (model / "MLmodel").open("a") as file:
        file.write("# changed after it was approved\n")
    assert ran(audited(desk, trust)) is None


def test_what_cannot_be_signed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.attest("sign", "models:/m/3")[0] == 2  # no key
    generate(desk.folder / "ada.key", None)
    monkeypatch.setenv("FLATAUDIT_SIGNING_KEY_FILE", "ada.key")
    for uri in ("models:/m/33", "models:/other/1", "models:/m", "nowhere"):
        assert desk.attest("sign", uri)[0] == 2, uri
    version = desk.trainer.client.get_model_version("m", "3")
    model = str(desk.trainer.files_of(version.source.removeprefix("models:/")))
    assert desk.attest("sign", model, "--out", "one.dsse.json")[0] == 0
    assert desk.attest("sign", model, "--out", "one.dsse.json")[0] == 2
    (desk.folder / "link.dsse.json").symlink_to(desk.folder / "elsewhere")
    assert desk.attest("sign", model, "--out", "link.dsse.json")[0] == 2 and not (desk.folder / "elsewhere").exists()
