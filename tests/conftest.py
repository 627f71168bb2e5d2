"""MLflow for the tests: a migrated database to copy, a real server, and a trainer that logs tiny models to either."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_MIGRATE = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments(max_results=1)"
_START_SECONDS = 90
_MLMODEL = """\
flavors:
  pytorch: {model_data: data, pytorch_version: 2.6.0}
  python_function: {loader_module: mlflow.pytorch}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
"""


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another measured, or left half-done."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("FLATAUDIT_CACHE", str(folder / "cache"))
    monkeypatch.setenv("FLATAUDIT_STATE", str(folder / "state"))


@dataclass(frozen=True)
class Trainer:
    """Logs runs, models and versions as a training script does, with files of a few bytes."""

    uri: str
    artifacts: Path
    """Where a new experiment keeps its files; those of a server lie where the server put them."""

    @property
    def client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(self.uri, registry_uri=self.uri)

    def experiment(self, name: str = "training") -> str:
        found = self.client.get_experiment_by_name(name)
        location = self.artifacts.as_uri() if self.uri.startswith("sqlite") else None
        return found.experiment_id if found else self.client.create_experiment(name, artifact_location=location)

    def run(self, name: str = "sgd", metrics: Mapping[str, float] | None = None) -> str:
        run = self.client.create_run(self.experiment(), run_name=name)
        for key, value in (metrics or {}).items():
            self.client.log_metric(run.info.run_id, key, value)
        return run.info.run_id

    def logged(
        self, folder: Path, run_id: str, *, step: int | None = None, files: Mapping[str, str | bytes] | None = None
    ) -> str:
        """A logged model of that run, of these files (an MLmodel of PyTorch's and eight bytes by default)."""
        from mlflow.entities import LoggedModelOutput

        folder.mkdir(parents=True)
        for name, text in (files if files is not None else {"MLmodel": _MLMODEL, "data/model.pt2": "not pt2."}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        model = self.client.create_logged_model(self.experiment(), name="model", source_run_id=run_id)
        self.client.log_model_artifacts(model.model_id, str(folder))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step or 0)])
        return str(model.model_id)

    def version(
        self,
        folder: Path,
        name: str,
        *,
        title: str = "sgd",
        tags: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | None = None,
    ) -> "ModelVersion":
        """A registered version with a run and a logged model of its own."""
        from mlflow.exceptions import MlflowException

        run_id = self.run(title)
        model_id = self.logged(folder, run_id, files=files)
        with contextlib.suppress(MlflowException):
            self.client.create_registered_model(name)
        source = f"models:/{model_id}"
        with _globally(self.uri):
            return self.client.create_model_version(
                name, source, run_id=run_id, tags=dict(tags or {}), model_id=model_id
            )

    def files_of(self, model_id: str) -> Path:
        """Where the files of a logged model lie on this disk."""
        if self.uri.startswith("sqlite"):
            return Path(self.client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
        return next(self.artifacts.glob(f"**/{model_id}/artifacts"))


@contextlib.contextmanager
def _globally(uri: str) -> Iterator[None]:
    """MLflow looks a logged model up at the whole process's URI, whatever the client's; it is unset afterwards."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None unsets it


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking database with all of MLflow's tables, which take some ten seconds: copy it."""
    file = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    command = [sys.executable, "-c", _MIGRATE, f"sqlite:///{file}"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | _ENVIRONMENT, timeout=_START_SECONDS)
    return file


@pytest.fixture
def trainer(migrated: Path, tmp_path: Path) -> Trainer:
    """A trainer with an empty database of its own."""
    file = shutil.copy(migrated, tmp_path / "mlflow.db")
    return Trainer(f"sqlite:///{file}", tmp_path / "artifacts")


@pytest.fixture(scope="session")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """A trainer beside a real tracking server, which all tests share: choose a model's name of your own."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | _ENVIRONMENT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, folder / "log")
            yield Trainer(f"http://127.0.0.1:{port}", folder / "files")
        finally:
            _stop(process)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the tracking server did not start: {log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its worker, which share a process group of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
