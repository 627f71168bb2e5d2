"""Bytes, flavours and digests of candidates; data sets and descriptions of what was logged."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from mlflow.data.numpy_dataset import from_numpy
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import DatasetInput, InputTag

from flataudit.admission.snapshot import SnapshotLimits
from flataudit.errors import ModelError, NotFoundError, RegistryError
from flataudit.manifest import manifest_digest
from flataudit.registries.mlflow import MlflowRegistry, fetching
from flataudit.testing import check_registry

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


def registry(trainer, model="fraud", **params):
    return MlflowRegistry(model=model, tracking_uri=trainer.uri, **params)


def fetch(trainer, candidate, into: Path):
    into.mkdir()
    return registry(trainer).fetch(candidate, into)


@pytest.fixture
def champion(trainer, tmp_path):
    trainer.version(tmp_path / "logged", "fraud")
    trainer.client.set_registered_model_alias("fraud", "champion", "1")
    return registry(trainer).champion()


def test_the_digest_is_that_of_the_logged_files(trainer, champion, tmp_path):
    found = fetch(trainer, champion, tmp_path / "fetched")
    assert found.digest == manifest_digest(tmp_path / "logged") == manifest_digest(tmp_path / "fetched")
    assert found == champion.model_copy(update={"flavour": "pytorch", "digest": found.digest})


def test_version_and_logged_model_are_the_same_bytes(trainer, champion, tmp_path):
    logged = champion.model_copy(update={"version": None, "uri": f"models:/{champion.model_id}"})
    digests = {fetch(trainer, c, tmp_path / str(i)).digest for i, c in enumerate((champion, champion, logged, logged))}
    assert len(digests) == 1


def test_one_changed_byte_changes_the_digest(trainer, champion, tmp_path):
    before = fetch(trainer, champion, tmp_path / "before").digest
    file = trainer.files_of(champion.model_id) / "data/model.pt2"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert fetch(trainer, champion, tmp_path / "after").digest != before


def test_the_conformance_suite(trainer, champion, tmp_path):
    trainer.version(tmp_path / "second", "fraud", files={"MLmodel": "flavors: {onnx: {}}"})
    check_registry(registry(trainer, challengers={"newest": 3}))


@pytest.mark.parametrize(
    ("mlmodel", "flavour"),
    [
        ("flavors: {python_function: {}, sklearn: {}}", "sklearn"),
        ("flavors: {python_function: {}}", "python_function"),
        ("flavors: {python_function: {}, prophet: {}}", "python_function"),
        ("flavors: {prophet: {}}", "prophet"),
        ("flavors: {onnx: {}, pytorch: {}}", "pytorch"),
    ],
)
def test_flavours(trainer, tmp_path, mlmodel, flavour):
    trainer.version(tmp_path / "logged", "fraud", files={"MLmodel": mlmodel})
    (candidate,) = registry(trainer, challengers={"newest": 1}).challengers()
    assert fetch(trainer, candidate, tmp_path / "fetched").flavour == flavour


@pytest.mark.parametrize(
    "mlmodel",
    [
        "flavors: []",
        "flavors: pytorch",
        "[1, 2]",
        "flavors: {",
        "!!python/object/apply:os.system [true]",
        "[" * 3000,
        "flavors: {a: '" + "x" * 2**20 + "'}",
    ],
)
def test_an_mlmodel_that_cannot_be_read(trainer, tmp_path, mlmodel):
    trainer.version(tmp_path / "logged", "fraud", files={"MLmodel": mlmodel})
    (candidate,) = registry(trainer, challengers={"newest": 1}).challengers()
    with pytest.raises(ModelError, match="MLmodel"):
        fetch(trainer, candidate, tmp_path / "fetched")


def test_files_that_are_gone(trainer, champion, tmp_path):
    shutil.rmtree(trainer.files_of(champion.model_id))
    with pytest.raises(ModelError, match=r"the files of v1|an MLmodel file"):
        fetch(trainer, champion, tmp_path / "fetched")


def test_links_are_refused(trainer, champion, tmp_path):
    (tmp_path / "secret").write_text("a host's file")
    (trainer.files_of(champion.model_id) / "data/extra").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="a link, 'data/extra'"):
        fetch(trainer, champion, tmp_path / "fetched")


def test_a_pipe_neither_holds_the_audit_nor_ends_it(trainer, champion, tmp_path):
    os.mkfifo(trainer.files_of(champion.model_id) / "data/pipe")
    with pytest.raises(ModelError, match="a pipe, socket or device, 'data/pipe'"):
        fetch(trainer, champion, tmp_path / "fetched")


def test_a_name_that_is_no_text(trainer, champion, tmp_path):
    Path(os.fsdecode(os.fsencode(trainer.files_of(champion.model_id) / "data") + b"/\xff")).touch()
    with pytest.raises(ModelError, match="file names of text"):
        fetch(trainer, champion, tmp_path / "fetched")


class Elsewhere:
    """A store of two files that is not on this machine; it says so many bytes of each."""

    def __init__(self, sizes: int) -> None:
        self.sizes = sizes

    def list_artifacts(self, path: str) -> list[SimpleNamespace]:
        names = ("MLmodel", "data/x") if path else ("MLmodel", "data")
        return [SimpleNamespace(path=n, is_dir=n == "data", file_size=self.sizes) for n in names if n.startswith(path)]

    def download_artifacts(self, path: str, into: str) -> None:
        (Path(into) / "data").mkdir()
        (Path(into) / "MLmodel").write_text("flavors: {onnx: {}}")
        (Path(into) / "data/x").write_bytes(bytes(100))


def test_a_store_elsewhere(trainer, champion, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_local", lambda place: None)
    monkeypatch.setattr(fetching, "get_artifact_repository", lambda *_, **__: Elsewhere(10))
    found = fetch(trainer, champion, tmp_path / "fetched")
    assert (found.flavour, found.digest) == ("onnx", manifest_digest(tmp_path / "fetched"))
    assert not list(tmp_path.glob(".arriving-*"))
    assert (tmp_path / "fetched").stat().st_mode & 0o777 == 0o700


def test_too_much_is_refused_before_it_is_fetched_and_when_the_store_lied(trainer, champion, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_local", lambda place: None)
    limits = SnapshotLimits(bytes=110)
    for sizes, told in ((10, "got 119"), (60, "got 120"), (10**12, "got 1,000,000,000,000")):
        monkeypatch.setattr(fetching, "get_artifact_repository", lambda *_, n=sizes, **__: Elsewhere(n))
        (tmp_path / str(sizes)).mkdir()
        with pytest.raises(ModelError, match=told):
            fetching.download(trainer.client, trainer.uri, champion, tmp_path / str(sizes), limits=limits)


# ── Data sets ──


def log_data(trainer, run_id, path, context):
    dataset = from_numpy(
        np.zeros((2, 2)),
        source=LocalArtifactDatasetSource(str(path)),
        name="digits\x1b <b>",
        digest=Path(path).stem[:8],
    )
    entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
    trainer.client.log_inputs(run_id, [entry])


def test_readable_local_files_by_their_context(trainer, tmp_path):
    run_id = trainer.version(tmp_path / "m", "fraud").run_id
    for name, context in (("a.npz", "training"), ("b.parquet", "eval"), ("c.npz", "validation"), ("d.npz", "lottery")):
        (tmp_path / name).touch()
        log_data(trainer, run_id, tmp_path / name, context)
    for params in ({}, {"challengers": {"run": run_id}}):
        found = {spec.role: spec.source for spec in registry(trainer, **params).datasets()}
        assert set(found) == {"train", "validation"}
        assert found["train"].use == "npz"
        assert found["train"].params == {"path": str(tmp_path / "a.npz")}
        assert found["validation"].params["path"] in {str(tmp_path / "b.parquet"), str(tmp_path / "c.npz")}


def test_other_files_are_left_out(trainer, tmp_path):
    run_id = trainer.version(tmp_path / "m", "fraud").run_id
    for name in ("gone.npz", "s3://bucket/x.npz", "https://host/x.csv"):
        log_data(trainer, run_id, name if "://" in name else tmp_path / name, "validation")
    assert list(registry(trainer).datasets()) == []
    with pytest.raises(NotFoundError, match="expected a run"):
        registry(trainer, challengers={"run": "0" * 32}).datasets()


# ── Description ──


def test_a_description_of_clean_lines(trainer, champion, tmp_path):
    run_id = trainer.version(tmp_path / "m2", "fraud", title="second").run_id
    trainer.client.log_param(run_id, "lr", "0.1\n\x1b[31m# model: evil\u202e")
    trainer.client.log_metric(run_id, "accuracy", 0.987654)
    log_data(trainer, run_id, tmp_path / "v.npz", "validation")
    described = registry(trainer).describe()
    assert described.versions == ("2", "1")
    assert described.aliases == ("champion -> version 1",)
    lines = described.lines()
    assert "versions, newest first: 2, 1" in lines
    assert "metrics of that run: accuracy 0.9877" in lines
    assert "params of the newest version's run: lr 0.1 ?[31m# model: evil?" in lines
    assert "data sets of that run: digits? <b> (validation)" in lines
    assert any(line.startswith("signature of the newest version: inputs float32 (-1, ") for line in lines), lines
    assert all(line.isprintable() for line in lines)


def test_a_model_without_versions(trainer):
    trainer.client.create_registered_model("empty")
    lines = registry(trainer, "empty").describe().lines()
    assert all(line.endswith(": none") for line in lines)
    assert mlflow.get_tracking_uri()  # nothing here needs or changes the process's own


def test_a_run_that_was_deleted_for_good(trainer, champion):
    assert registry(trainer).describe().lines()
    trainer.client.delete_run(champion.run_id)
    assert registry(trainer).describe().lines()
    assert registry(trainer).champion() == champion


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), TimeoutError("timed out")])
def test_a_download_that_fails_says_nothing_about_the_model(trainer, champion, tmp_path, monkeypatch, fault):
    """A full disk or a store that is away must not read as a missing or changed model."""

    class Away:
        def list_artifacts(self, path: str) -> list[object]:
            return []

        def download_artifacts(self, path: str, into: str) -> None:
            raise fault

    monkeypatch.setattr(fetching, "_local", lambda place: None)
    monkeypatch.setattr(fetching, "get_artifact_repository", lambda *_, **__: Away())
    with pytest.raises(RegistryError, match="the files of v1"):
        fetch(trainer, champion, tmp_path / "into")
