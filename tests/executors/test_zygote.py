"""Workers that are forked: as confined, as supervised and as short-lived as fresh ones, and sooner there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from flataudit.errors import ModelError
from flataudit.evidence import Outcome
from flataudit.executors import launching
from flataudit.executors.environment import reach, worker_environment, zygote_command
from flataudit.executors.frames import Decoder, Frame, Limits, Request, SelfTest
from flataudit.executors.isolation import enforceable
from flataudit.executors.launching import Zygote
from flataudit.executors.process import ProcessExecutor
from flataudit.executors.supervision import Bounds, Worker
from flataudit.specs import Job

MakeJob = Callable[..., Job]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd and prctl")
IMPORTS = [["data", "npz"]]
_STRANGE = """
import sys
sys.path[:] = sys.argv[1:]
from flataudit.executors import worker, zygote
def answer(job, answers):
    {what}
worker._answer = answer
zygote.main()
"""


def strange(what: str) -> tuple[str, ...]:
    """A zygote whose workers do this instead of an examination."""
    python, isolated, flag, _, *paths = zygote_command()
    return (python, isolated, flag, _STRANGE.format(what=what), *paths)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Zygote]]:
    """Starts zygotes that end with the test."""
    with ExitStack() as stack:
        (tmp_path / "zygote").mkdir()

        def start(command: tuple[str, ...] = zygote_command(), imports: list[list[str]] = IMPORTS) -> Zygote:
            return stack.enter_context(Zygote(command, worker_environment(tmp_path / "zygote", 1, "cpu"), imports))

        yield start


def run(zygote: Zygote, folder: Path, job: Job | None = None) -> tuple[list[Frame], object]:
    """All frames of one forked worker, and how it ended."""
    folder.mkdir()
    canary = folder.parent / "canary"
    canary.write_text("x")
    request = Request(
        nonce="n",
        limits=Limits(address_space=2**32, cpu_seconds=20),
        reach=reach(job, scratch=folder, canary=canary),
        job=job,
    )
    decoder, frames = Decoder("n"), []
    with Worker(zygote.launch, request, scratch=folder) as worker:
        for chunk in worker.answers(Bounds(seconds=20), Event()):
            for frame in decoder.feed(chunk):
                frames.append(frame)
                worker.begin()
        return frames, worker.ending()


def test_a_fork_is_as_confined_as_a_fresh_worker(
    started: Callable[..., Zygote], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    zygote = started()
    zygote.ready()
    for number in range(2):
        (frame,), _ = run(zygote, tmp_path / str(number))
        assert isinstance(frame.content, SelfTest)
        assert set(frame.content.environment) == set(worker_environment(tmp_path, 1, "cpu"))
        kept = enforceable()
        assert frame.content.found == {kind: kept[kind] for kind in ("fs", "net", "proc", "mem", "uid")}


@pytest.mark.parametrize(
    ("what", "ending"),
    [
        ("import os; os._exit(7)", "exit with code 7"),
        ("import os; os.abort()", "crash (SIGABRT)"),
        ("print('last words'); raise ValueError('none')", "it last printed 'ValueError: none'"),
        ("import os; os.kill(os.getpid(), 9)", "death by SIGKILL"),
    ],
)
def test_how_a_fork_ends_is_known(
    what: str, ending: str, started: Callable[..., Zygote], tmp_path: Path, make_job: MakeJob
) -> None:
    zygote = started(strange(what))
    zygote.ready()
    assert ending in str(run(zygote, tmp_path / "scratch", make_job("m"))[1])


def test_a_fork_holds_nothing_of_others(started: Callable[..., Zygote], tmp_path: Path, make_job: MakeJob) -> None:
    look = (
        "import os; print([os.readlink(f'/proc/self/fd/{f}').partition(':')[0] for f in os.listdir('/proc/self/fd') "
        "if os.path.exists(f'/proc/self/fd/{f}') and int(f) > 2], os.environ['HOME'] == os.environ['TMPDIR'] "
        "== os.getcwd(), os.getsid(0) == os.getpid())"
    )
    zygote = started(strange(look))
    zygote.ready()
    _, ending = run(zygote, tmp_path / "scratch", make_job("m"))
    assert "it last printed \"['pipe'] True True\"" in str(ending) or "['pipe'] True True" in str(ending)


def test_an_import_that_starts_a_thread_makes_it_unfit(started: Callable[..., Zygote], make_job: MakeJob) -> None:
    python, isolated, flag, _, *paths = zygote_command()
    threads = (
        "import sys; sys.path[:] = sys.argv[1:]; import threading, time; from flataudit.executors import zygote; "
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); zygote.main()"
    )
    zygote = started((python, isolated, flag, threads, *paths))
    with pytest.raises(ModelError, match=r"got threads that an import has started"):
        zygote.ready()


@pytest.mark.parametrize("command", [("/bin/false",), ("/bin/true",)])
def test_one_that_does_not_come_up_is_said(started: Callable[..., Zygote], command: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="expected a process to fork workers from"):
        started(command).ready()


def test_without_a_zygote_workers_are_started_one_by_one(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    monkeypatch.setattr(launching, "zygote_command", lambda: ("/no/such/python",))
    found = ProcessExecutor().map([make_job("m", version=str(n)) for n in range(2)], lambda *note: None)
    assert {one.evidence.isolation["fs"] for one in found} == {enforceable()["fs"]}
    assert {one.evidence["validation_accuracy"].outcome for one in found} == {Outcome.FAILED}


def test_forks_die_with_the_zygote_and_the_zygote_with_its_parent(tmp_path: Path, make_job: MakeJob) -> None:
    (tmp_path / "job.json").write_text(make_job("m", seconds=100).model_dump_json())
    script = f"""
import sys
from pathlib import Path
from flataudit.executors import launching, process
from flataudit.specs import Job
launching.zygote_command = lambda: {strange("import time; time.sleep(60)")!r}
job = Job.model_validate_json(Path({str(tmp_path / "job.json")!r}).read_bytes())
print("up", flush=True)
process.ProcessExecutor(workers=2).map([job, job], lambda *note: None)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    audit = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        found = _wait_for(lambda: _descendants(audit.pid), 3)
    finally:
        audit.send_signal(signal.SIGKILL)
        audit.wait()
    assert len(found) == 3
    assert _wait_for(lambda: [0] * (not any(map(_alive, found))), 1)


def _wait_for(look: Callable[[], list[int]], number: int) -> list[int]:
    until = time.monotonic() + 30
    while len(found := look()) < number and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir() if Path(f"/proc/{pid}/task").exists() else ():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *_descendants(child)]
    return found
