"""A PostgreSQL cluster and a tracking server over it, for as long as a test needs them."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_SECONDS = 120
_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=16MB")


def lacking() -> str | None:
    """Why there can be no such server here; None where there can."""
    if _binaries() is None:
        return "no PostgreSQL server is installed (Debian: postgresql)"
    if importlib.util.find_spec("psycopg2") is None:
        return "no driver is installed (pip install psycopg2-binary)"
    if os.getuid() == 0 and _owner() is None:
        return "PostgreSQL refuses to run as root, and there is no user postgres or nobody"
    return None


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """An empty database of its own, on a free port; its URI."""
    binaries, owner = _binaries(), _owner() if os.getuid() == 0 else None
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="flataudit-pg-"))
    port = _free_port()
    try:
        if owner:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        account = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
        command = [binaries / "initdb", "-D", folder / "data", "-A", "trust", "-U", "mlflow", "--no-sync", "-E", "UTF8"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=_SECONDS, **account)
        settings = [part for setting in _QUICK for part in ("-c", setting)]
        command = [binaries / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*command, *settings], cwd=folder, stdout=log, stderr=log, **account)
        try:
            _wait(lambda: _answers(binaries, port), process, folder / "log")
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(3)  # SIGQUIT: at once, by this very process's id
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def tracking_server(database: str, folder: Path) -> Iterator[str]:
    """A real tracking server over a database; its URI."""
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "files")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(lambda: _healthy(port), process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    place = shutil.which("initdb")
    return found[-1].parent if found else Path(place).parent if place else None


def _owner() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(binaries: Path, port: int) -> bool:
    command = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow"]
    return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
        return True
    return False


def _wait(ready, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.2)
    raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-2000:]}")
