import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flataudit.evidence import Candidate
from flataudit.executors import process
from flataudit.specs import Budget, DataSpec, Job, Spec

STRANGE_WORKER = Path(__file__).with_name("strange_worker.py")
MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """A job of a candidate whose name says how it behaves."""

    def make(name: str, *, version: str = "1", seconds: float = 30.0, memory: int = 8 * 2**30, **more: object) -> Job:
        return Job(
            candidate=Candidate(name=name, version=version, uri="models:/m/1", digest="sha256:0"),
            artifact=str(tmp_path),
            probes=(Spec(use="accuracy"),),
            data=(DataSpec(name="validation", role="validation", source=Spec(use="npz"), digest="sha256:1"),),
            budget=Budget(seconds=seconds, memory_bytes=memory),
            **more,
        )

    return make


@pytest.fixture
def strange(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers are strange ones from here on."""
    monkeypatch.setattr(process, "worker_command", lambda: (sys.executable, "-I", str(STRANGE_WORKER)))
    monkeypatch.setattr(process, "warm_start", lambda *_: None)
    return STRANGE_WORKER
