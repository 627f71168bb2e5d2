import importlib.util
import json
import os
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import flataudit.demo
from flataudit.data.npz import NpzFile
from flataudit.demo.recipes import Recipe
from flataudit.demo.training import DATA_FILES, accuracy, log_candidates, name_first_champion, train_all, write_data
from flataudit.errors import DataError

with_mlflow = pytest.mark.filterwarnings("ignore")  # its own code warns, of SQLAlchemy and of type hints
QUICK = (
    Recipe(name="quick", optimizer="sgd", learning_rate=0.05, batch_size=32, epochs=2),
    Recipe(
        name="normed", optimizer="adamw", learning_rate=0.005, batch_size=64, epochs=1, batch_norm=True, dropout=0.3
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("work") / "data"
    write_data(place)
    return place


@pytest.fixture(scope="module")
def trained(folder):
    return train_all(folder, recipes=QUICK)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """An empty tracking database; making it takes some ten seconds."""
    place = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{place}/mlflow.db"
    mlflow.MlflowClient(uri).search_experiments()
    return uri, str(place / "artifacts")


def arrays(folder, name):
    with np.load(folder / DATA_FILES[name]) as found:
        return found["x"], found["y"]


# ── Data ──


def test_unseen_writers_are_scikit_learns_digits(folder):
    x, y = arrays(folder, "unseen_writers")
    expected = load_digits()
    assert np.array_equal(x[:, 0] * 16, expected.images) and np.array_equal(y, expected.target)
    assert x.dtype == np.float32 and y.dtype == np.int64 and x.min() == 0 and x.max() == 1


def test_training_and_validation_are_all_thirty_writers_examples_once(folder):
    (train, train_y), (validation, validation_y) = arrays(folder, "train"), arrays(folder, "validation")
    assert train.shape == (2000, 1, 8, 8) and validation.shape == (1823, 1, 8, 8)
    with np.load(Path(flataudit.demo.__file__).parent / "data" / "optdigits8x8.npz") as source:
        expected = np.c_[source["x_train"].reshape(-1, 64), source["y_train"]]
    found = np.c_[np.concatenate([train, validation]).reshape(-1, 64) * 16, np.r_[train_y, validation_y]]
    assert np.array_equal(np.sort(found.astype(np.uint8).view("V65"), axis=0), np.sort(expected.view("V65"), axis=0))


def test_the_same_files_are_left_alone_and_others_replaced(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(write_data(folder).values()) == set(before)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    (tmp_path / "train.npz").write_bytes(b"old")

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_data(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.npz"]
    assert (tmp_path / "train.npz").read_bytes() == b"old"
    monkeypatch.undo()
    write_data(tmp_path)
    assert len(arrays(tmp_path, "train")[0]) == 2000


# ── Training ──


def test_metrics_are_those_of_the_validation_file(folder, trained):
    x, y = arrays(folder, "validation")
    for candidate in trained:
        with torch.no_grad():
            logits = candidate.net(torch.from_numpy(x)).double().numpy()
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        assert candidate.metrics["validation_accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == y))
        assert candidate.metrics["validation_loss"] == pytest.approx(-log_p[np.arange(len(y)), y].mean(), rel=1e-5)
        assert accuracy(candidate.net, folder / "validation.npz") == candidate.metrics["validation_accuracy"]
    assert trained[0].metrics["validation_accuracy"] > 0.85


def test_progress_and_missing_data(folder, tmp_path):
    told = []
    train_all(folder, recipes=[QUICK[0], QUICK[0]], progress=lambda name, share: told.append((name, share)))
    assert told == [("quick", 0.0), ("quick", 0.5)]
    with pytest.raises(DataError, match=r"train\.npz"):
        train_all(tmp_path, recipes=QUICK)


# ── Registry ──


@pytest.fixture(scope="module")
def versions(folder, trained, registry):
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    made = log_candidates(trained, folder, tracking_uri=registry[0], model="digits", artifact_root=registry[1])
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), os.environ.get("MLFLOW_TRACKING_URI")) == before
    return made


@with_mlflow
def test_runs_hold_recipe_metrics_and_data(folder, trained, registry, versions):
    client = mlflow.MlflowClient(registry[0], registry[0])
    assert versions == ("1", "2")
    for candidate, number in zip(trained, versions, strict=True):
        version = client.get_model_version("digits", number)
        run = client.get_run(version.run_id)
        assert version.tags["recipe"] == run.info.run_name == candidate.recipe.name
        assert run.data.params["optimizer"] == candidate.recipe.optimizer and run.data.params["seed"] == "0"
        assert run.data.metrics == pytest.approx(dict(candidate.metrics)) and run.info.status == "FINISHED"
        logged = {one.dataset.name: one for one in run.inputs.dataset_inputs}
        for name in ("train", "validation"):
            data = NpzFile(path=str(folder / DATA_FILES[name])).load(name, name)
            tags = {tag.key: tag.value for tag in logged[name].tags}
            assert tags["flataudit.digest"] == data.digest and tags["mlflow.data.context"] == name
            assert logged[name].dataset.digest == data.digest[7:43]
            assert json.loads(logged[name].dataset.source)["uri"] == str((folder / DATA_FILES[name]).resolve())


@with_mlflow
def test_stored_models_are_programs_without_pickled_code_that_take_any_batch(folder, trained, registry, versions):
    client = mlflow.MlflowClient(registry[0], registry[0])
    x = torch.from_numpy(arrays(folder, "unseen_writers")[0])
    for candidate, number in zip(trained, versions, strict=True):
        source = client.get_model_version("digits", number).source
        logged = client.get_logged_model(source.removeprefix("models:/"))
        place = Path(logged.artifact_location.removeprefix("file://"))
        assert not list(place.rglob("*.p*k*l*")) and not list(place.rglob("*.pth"))
        program = torch.export.load(place / "data" / "model.pt2").module()
        for n in (1, 2, 7, 1797):
            torch.testing.assert_close(program(x[:n]), candidate.net(x[:n]), rtol=1e-5, atol=1e-5)


@with_mlflow
def test_the_first_champion_is_named_once(registry, versions):
    for version in ("2", "1"):
        name_first_champion(registry[0], "digits", version)
    assert mlflow.MlflowClient(registry[0], registry[0]).get_registered_model("digits").aliases == {"champion": 2}


@with_mlflow
def test_the_step_run_again_adds_versions(folder, registry, versions, monkeypatch):
    path = Path(__file__).parents[2] / "pipelines" / "training" / "train.py"
    spec = importlib.util.spec_from_file_location("training_step", path)
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    monkeypatch.setattr(step, "train_all", partial(train_all, recipes=QUICK[:1]))
    app = step.typer.Typer()
    app.command()(step.main)
    result = CliRunner().invoke(app, ["--tracking-uri", registry[0], "--dir", str(folder)])
    assert result.exit_code == 0, result.output
    assert "digits v3  quick  0." in result.stdout and "training quick" in result.stderr
    with pytest.raises(mlflow.exceptions.MlflowException):
        mlflow.MlflowClient(registry[0], registry[0]).get_model_version("digits", "4")
