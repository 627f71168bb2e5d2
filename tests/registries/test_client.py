"""Registries that do not answer, answer oddly, or lose races; secrets in their addresses."""

import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from mlflow.exceptions import MlflowException

from flataudit.errors import ConfigurationError, FlatauditError, RegistryError, UnreachableError
from flataudit.registries.mlflow import MlflowRegistry, client
from flataudit.registries.mlflow.client import retried, shown

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def refused(uri, **params):
    with pytest.raises(FlatauditError) as caught:
        MlflowRegistry(model="fraud", tracking_uri=uri, **params).champion()
    return caught.value


def test_nobody_listens(free_port):
    start = time.monotonic()
    error = refused(f"http://alice:s3cret@127.0.0.1:{free_port}/base?token=t0ken")
    assert isinstance(error, UnreachableError) and time.monotonic() - start < 5
    assert f"http://127.0.0.1:{free_port}/base" in str(error)
    assert not any(secret in str(error) for secret in ("alice", "s3cret", "t0ken"))


def test_somebody_listens_and_never_answers(monkeypatch):
    assert sum(client._HEALTH_SECONDS) <= 10
    monkeypatch.setattr(client, "_HEALTH_SECONDS", (1.0, 1.0))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        error = refused(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert isinstance(error, UnreachableError) and "no answer in time" in str(error)
    assert time.monotonic() - start < 5


class _Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"s3cret alice" if self.status == 200 else b"")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("status", "error"), [(503, UnreachableError), (200, RegistryError), (401, RegistryError)])
def test_others_that_answer(monkeypatch, status, error):
    monkeypatch.setattr(_Answers, "status", status)
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = refused(f"http://alice:s3cret@127.0.0.1:{server.server_port}")
        server.shutdown()
    assert type(found) is error
    assert "s3cret" not in str(found) and "alice" not in str(found)


def test_files_that_are_no_registry(tmp_path):
    absent = tmp_path / "absent.db"
    assert isinstance(refused(f"sqlite:///{absent}"), UnreachableError)
    assert not absent.exists()
    (tmp_path / "text.db").write_text("not a database " * 100)
    assert type(refused(f"sqlite:///{tmp_path}/text.db")) is RegistryError
    assert isinstance(refused("mlruns"), ConfigurationError)
    assert type(refused("ftp://host/x")) is RegistryError


def test_where_the_address_comes_from(trainer, tmp_path, monkeypatch):
    trainer.version(tmp_path / "m", "fraud")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trainer.uri)
    assert MlflowRegistry(model="fraud").champion() is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    # Its whole path: two folders with a database of that name are two registries, for the journal too.
    assert MlflowRegistry(model="fraud").uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert MlflowRegistry(model="fraud", tracking_uri="sqlite:////x/y.db").uri == "sqlite:////x/y.db"
    assert MlflowRegistry(model="fraud", tracking_uri="http://h:1").uri == "http://h:1"


def test_the_users_own_patience_stays(trainer, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    MlflowRegistry(model="unknown", tracking_uri=trainer.uri).check()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("postgresql+psycopg://bob:p@ss@db:5432/mlflow?password=x", "postgresql+psycopg://db:5432/mlflow"),
        ("https://token@host/path", "https://host/path"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_addresses_are_shown_without_secrets(uri, clean):
    assert shown(uri) == clean


def test_a_message_repeats_no_secret_in_any_form():
    uri = "postgresql://bob:p%40ss@db/mlflow?sslpassword=tok"
    told = client._clean("refused bob:p%40ss, p@ss and sslpassword=tok\nsecond line", uri)
    assert told == "refused ***, *** and ***"


# ── Races ──


def test_a_lost_first_write_is_written_again():
    answers = [
        MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: tags"),
        MlflowException("duplicate key"),
    ]
    written = []

    def write():
        if answers:
            raise answers.pop()
        written.append(1)
        return "done"

    assert retried(write) == "done"
    assert written == [1]


def test_other_refusals_are_not_repeated_and_patience_ends():
    tried = []

    def write(text):
        tried.append(text)
        raise MlflowException(text)

    with pytest.raises(MlflowException, match="permission"):
        retried(lambda: write("permission denied"))
    assert len(tried) == 1
    with pytest.raises(MlflowException, match="UNIQUE"):
        retried(lambda: write("UNIQUE constraint"), attempts=3)
    assert len(tried) == 4


# ── Doctor ──


def test_what_doctor_reads(trainer, tmp_path, free_port):
    (lone,) = MlflowRegistry(model="unknown", tracking_uri=trainer.uri).check()
    assert lone.ok and "MLflow 3" in lone.found
    answers, model = MlflowRegistry(model="fraud", tracking_uri=trainer.uri).check()
    assert answers.ok and not model.ok and model.remedy
    trainer.version(tmp_path / "m", "fraud")
    trainer.client.set_registered_model_alias("fraud", "champion", "1")
    assert [check.found for check in MlflowRegistry(model="fraud", tracking_uri=trainer.uri).check()][
        1
    ] == "champion: v1"
    (dead,) = MlflowRegistry(model="fraud", tracking_uri=f"http://u:s3cret@127.0.0.1:{free_port}").check()
    assert not dead.ok and "s3cret" not in dead.model_dump_json()
