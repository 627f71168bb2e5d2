"""A proxy between gate and server that loses answers, refuses, dawdles and tells what was true before."""

import contextlib
import random
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flataudit.errors import RegistryError
from flataudit.journal import Journal
from flataudit.registries.mlflow import MlflowRegistry
from flataudit.registries.mlflow import promotion as promoting
from flataudit.registries.mlflow.carrying import carried, resumed
from flataudit.registries.mlflow.ledger_run import opened
from flataudit.registries.mlflow.promotion import Promoter

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns, of SQLAlchemy and of type hints
]

FAULTS = ("500 before", "500 after", "lost", "late", "stale")
SHARE = 0.15
TIMEOUT = 1


class Proxy(ThreadingHTTPServer):
    """Hands requests on; of some, what comes back is not what happened."""

    daemon_threads = True

    def __init__(self, upstream):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.generator, self.share = upstream, random.Random(0), 0.0
        self.told, self.answers = dict.fromkeys(FAULTS, 0), {}

    def fault(self, path):
        if "/api/" not in path or self.generator.random() >= self.share:
            return None
        return self.generator.choice(FAULTS)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _hand_on(self):
        fault, server = self.server.fault(self.path), self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
        if fault == "500 before":
            server.told[fault] += 1
            return self._answer(500, b"{}")
        status, answer = self._upstream(body)
        if self.command == "GET":
            before, server.answers[self.path] = server.answers.get(self.path), (status, answer)
            if fault == "stale" and before:
                server.told[fault] += 1
                return self._answer(*before)
        if fault in ("500 after", "lost", "late"):
            server.told[fault] += 1
        if fault == "500 after":
            return self._answer(500, b"{}")
        if fault == "lost":
            self.close_connection = True
            return None
        if fault == "late":
            time.sleep(TIMEOUT * 1.3)
        return self._answer(status, answer)

    def _upstream(self, body):
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(
            self.server.upstream + self.path, data=body, headers=headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                return found.status, found.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def _answer(self, status, answer):
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _hand_on

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def proxy(server):
    with Proxy(server.uri) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield made
        made.shutdown()


def test_nothing_is_lost_and_nothing_happens_twice(server, proxy, promotion, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setattr(promoting, "request_seconds", lambda uri: 0.2)  # nobody else is there to be waited for
    name, uri = "faults", f"http://127.0.0.1:{proxy.server_port}"
    for number in (1, 2, 3):
        server.version(tmp_path / f"m{number}", name, files={"MLmodel": f"flavors: {{f{number}: {{}}}}"})
    registry = MlflowRegistry(model=name, tracking_uri=server.uri, challengers={"newest": 3})
    found = []
    for candidate in reversed(registry.challengers()):
        (tmp_path / candidate.label).mkdir()
        found.append(registry.fetch(candidate, tmp_path / candidate.label))

    def promoter(to):
        client = MlflowClient(to, registry_uri=to)
        return Promoter(opened(client, to, name, Journal(tmp_path / "state")), to, 0.5)

    clean = promoter(server.uri)
    champion, interrupted = None, 0
    for number in range(14):
        challenger = found[number % 3]
        draft = promotion(name, challenger, champion, f"decision {number}")
        proxy.share = SHARE
        try:
            carried(promoter(uri), draft)
        except (MlflowException, RegistryError):
            interrupted += 1
        proxy.share = 0.0
        resumed(promoter(uri))
        ledger = clean.book.read()
        assert ledger.problems() == () and ledger.unfinished() == ()
        if ledger.find(draft.operation) is None:  # it was never entered, nor was an intent: the pipeline repeats it
            carried(clean, draft)
        ledger = clean.book.read()
        assert [entry.kind for entry in ledger.entries] == ["promote"] * (number + 1)
        assert set(ledger.endings.values()) == {"done"} and len(ledger.endings) == number + 1
        assert registry.champion().version == challenger.version
        champion = challenger
    assert interrupted and min(proxy.told.values()) > 0
