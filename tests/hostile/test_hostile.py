"""Each hostile candidate ends as expected, within its limits, without a mark, a secret or a connection; honest ones
answer inside as outside, bit for bit."""

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hostile_suite as suite
import pytest
from hostile_suite import CASES, Outside

from flataudit.admission.examining import admit
from flataudit.evidence import Examined
from flataudit.executors.isolation import enforceable
from flataudit.executors.local import UNJUDGED, LocalExecutor
from flataudit.sandbox import seccomp
from flataudit.specs import Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")
CONTROLS = ("control", "nothing by pickled")
NOBODY = 65534
_READ_ANYTHING = 2
_SECONDS_OF_ORPHANS = 3.5


@pytest.fixture(scope="module")
def traps() -> Iterator[Outside]:
    with suite.outside() as found:
        yield found


@pytest.fixture(scope="module")
def audit(traps: Outside, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Job], list[Examined]]:
    """All candidates in one audit."""
    if {enforceable()[kind] for kind in ("fs", "net", "proc")} != {"enforced"}:
        pytest.skip(f"this machine cannot hold them: {enforceable()}")
    todo = suite.jobs(CASES, tmp_path_factory.mktemp("artifacts"), traps)
    before = [_bytes_of(job) for job in todo]
    started = time.monotonic()
    found = suite.audited(todo, minimum=("env", "time", "mem", "fs", "net", "proc"))
    time.sleep(max(0.0, _SECONDS_OF_ORPHANS - (time.monotonic() - started)))
    assert [_bytes_of(job) for job in todo] == before
    return todo, found


def _bytes_of(job: Job) -> dict[str, tuple[int, int, int]]:
    """Size, mode and time of every file: contents are what the manifest's digest holds."""
    found = {path: path.lstat() for path in sorted(Path(job.artifact).rglob("*"))}
    return {str(path): (stat.st_size, stat.st_mode, stat.st_mtime_ns) for path, stat in found.items()}


def test_there_are_enough() -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) >= 40


@pytest.mark.parametrize("number", range(len(CASES)), ids=[ascii(case.name) for case in CASES])
def test_it_ends_as_expected(number: int, audit: tuple[list[Job], list[Examined]], traps: Outside) -> None:
    case, one = CASES[number], audit[1][number]
    assert suite.wrong(case, one, told=seccomp.tripwire()) is None
    assert one.evidence.candidate == audit[0][number].candidate
    assert traps.secret not in one.evidence.model_dump_json()


@pytest.mark.parametrize("number", range(len(CASES)), ids=[ascii(case.name) for case in CASES])
def test_the_parent_s_look_before(number: int, audit: tuple[list[Job], list[Examined]], traps: Outside) -> None:
    """It executes nothing, and no candidate that runs code is called one without."""
    case = CASES[number]
    found = admit(Path(audit[0][number].artifact))
    assert traps.secret not in found.model_dump_json()
    assert found.verdict == case.admission, found


def test_nothing_is_left_behind(audit: tuple[list[Job], list[Examined]], traps: Outside) -> None:
    assert traps.look() == []
    assert not Path("/tmp/hostile-yaml").exists()


def test_each_found_itself_confined_before_it_began(audit: tuple[list[Job], list[Examined]]) -> None:
    assert {json.dumps(dict(one.evidence.isolation)) for one in audit[1]} == {json.dumps(enforceable())}


def test_an_honest_candidate_answers_the_same_inside_and_outside(audit: tuple[list[Job], list[Examined]]) -> None:
    for case, job, inside in zip(CASES, *audit, strict=True):
        if case.name in CONTROLS:
            (there,) = LocalExecutor().map([job], lambda *note: None)
            assert there.arrays and there.arrays == inside.arrays
            # What a process with code of its own says is told as its word; and where its answers were judged.
            inside_notes = {note.removeprefix("its own process says: ") for note in inside.evidence.notes}
            assert set(there.evidence.notes) - {UNJUDGED} <= inside_notes


def test_the_traps_work(tmp_path: Path) -> None:
    """Without a sandbox the same programs do mark, read and connect."""
    from hostile_attacks import source

    with suite.outside() as open_to_all:
        port = open_to_all.server.getsockname()[1]
        where = str(open_to_all.folder / "canary"), str(open_to_all.folder / "markers"), port, str(tmp_path), "", "x"
        for attack in ("read_files", "open_sockets", "run_programs"):
            command = [sys.executable, "-I", "-c", source(attack, where)]
            ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert attack == "run_programs" or "leaked" in ran.stderr, (attack, ran.stderr)
        assert {"marker touched", "marker shell", "a connection"} <= set(open_to_all.look())


# ── As a user without rights ──────────────────────────────────────────────────────────────────────


def _become_nobody() -> None:
    """Keep one capability where this Python lies in a folder that only root may enter: to read."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(8, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    if not os.access(os.path.realpath(sys.executable), os.X_OK):
        head = (ctypes.c_uint32 * 2)(0x20080522, 0)
        mask = 1 << _READ_ANYTHING
        libc.capset(head, (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0))
        libc.prctl(47, 2, _READ_ANYTHING, 0, 0)


def test_it_holds_as_an_unprivileged_user_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("this user is unprivileged, so all of the above already were")
    folder = tmp_path_factory.mktemp("nobody")
    os.chown(folder, NOBODY, NOBODY)
    command = [sys.executable, str(Path(suite.__file__)), str(folder)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    ran = subprocess.run(
        command, cwd=folder, env=environment, preexec_fn=_become_nobody, capture_output=True, text=True, timeout=300
    )
    if "Permission denied" in ran.stderr and ran.returncode:
        pytest.skip(f"nobody cannot start this Python: {ran.stderr.strip().splitlines()[-1]}")
    told = json.loads(ran.stdout.strip().splitlines()[-1])
    assert told["user"] == NOBODY
    assert told["faults"] == [] and told["leaked"] == []
    assert [json.loads(one)["fs"] for one in told["kept"]] == ["enforced"]
    assert [json.loads(one)["uid"] for one in told["kept"]] == ["none"]
