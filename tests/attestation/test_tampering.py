"""A whole gate whose candidate is exchanged between the audit and the promotion: it is noticed, and nothing moves."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, program

from flataudit import archive
from flataudit.audit import AuditRecord

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and torch.export's own


@pytest.fixture
def desk(trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path, trainer, capsys, monkeypatch)
    made.set_up()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trainer.uri)
    monkeypatch.setenv("FLATAUDIT_STATE", str(tmp_path / "state"))
    return made


def files_of(desk: Desk, version: str) -> Path:
    source = desk.trainer.client.get_model_version("m", version).source
    return Path(desk.trainer.files_of(source.removeprefix("models:/")))


def champion(desk: Desk) -> str | None:
    found: str | None = desk.trainer.client.get_registered_model("m").aliases.get("champion")
    return found and str(found)


def gated(desk: Desk, meanwhile: Callable[[], None]) -> tuple[int, str]:
    """A gate that decides to promote version 2, with something that happens once its report is written."""
    publish = archive.publish
    promoted: list[str | None] = []

    def published(record: AuditRecord, *arguments: Any) -> Path:
        folder = publish(record, *arguments)
        promoted.append(record.decision.promoted if record.decision else None)
        meanwhile()
        return folder

    desk.patch.setattr(archive, "publish", published)
    code, _, err = desk.run("gate", "--engine", "local", "--quiet")
    desk.patch.setattr(archive, "publish", publish)
    assert promoted == ["v2"]
    return code, err


def test_without_a_change_it_moves(desk: Desk) -> None:
    assert gated(desk, lambda: None)[0] == 0 and champion(desk) == "2"


def exchanged(desk: Desk) -> None:
    (files_of(desk, "2") / "data/model.pt2").write_bytes(program(poor=True))


def linked(desk: Desk) -> None:
    """The same bytes, elsewhere."""
    file = files_of(desk, "2") / "data/model.pt2"
    shutil.move(file, desk.folder / "elsewhere")
    file.symlink_to(desk.folder / "elsewhere")


@pytest.mark.parametrize("change", [exchanged, linked])
def test_changed_bytes(change: Callable[[Desk], None], desk: Desk) -> None:
    code, err = gated(desk, lambda: change(desk))
    assert (code == 3 and "bytes that were audited" in err.replace("\n", " ")) or "digest" in err
    assert champion(desk) == "1"
    assert desk.trainer.client.get_model_version("m", "2").tags["flataudit.decision"] == "tampered"
    assert desk.run("resume")[0] == 0 and champion(desk) == "1"


def test_a_version_deleted_and_made_again(desk: Desk) -> None:
    """The same numbers and the same bytes, of other runs: nobody audited them."""

    def again() -> None:
        desk.trainer.client.delete_registered_model("m")
        desk.register(program(poor=True), "poor again")
        desk.trainer.client.set_registered_model_alias("m", "champion", "1")
        desk.register(program(), "good again")

    code, err = gated(desk, again)
    assert code == 3 and "nothing was promoted" in err
    assert champion(desk) == "1"
