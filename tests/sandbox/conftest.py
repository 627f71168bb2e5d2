"""A fresh interpreter that confines itself, since no test can take a layer off again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Inside = Callable[..., Mapping[str, object]]
_START = """
import errno, json, os, sys
from pathlib import Path
from flataudit.sandbox import apply, identity, landlock, limits, seccomp, selftest, surroundings
outside, scratch, canary = Path("outside").resolve(), Path("scratch").resolve(), Path("outside/canary").resolve()
found = {}
def attempt(name, what):
    try:
        what()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
"""
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """Runs code beside a scratch folder and a canary outside of it; what it put into ``found``."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_text("secret")

    def run(code: str) -> Mapping[str, object]:
        command = [sys.executable, "-c", f"{_START}\n{code}\nprint(json.dumps(found))"]
        environment = _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    return run
