"""Whatever a worker does becomes evidence about its candidate, within its time, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from flataudit.evidence import Examined, Outcome
from flataudit.executors import process
from flataudit.executors.environment import available_cores, worker_environment
from flataudit.executors.frames import Limits, Request
from flataudit.executors.isolation import enforceable, isolation
from flataudit.executors.launching import fresh
from flataudit.executors.process import ProcessExecutor
from flataudit.executors.supervision import Bounds, Worker, WorkerError
from flataudit.specs import Job

MakeJob = Callable[..., Job]
CANARIES = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "GITHUB_TOKEN", "PYTHONPATH", "LD_PRELOAD_X")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def quiet(label: str, what: str, share: float) -> None:
    pass


def examined(job: Job, **params: object) -> Examined:
    (one,) = ProcessExecutor(**{"grace": 20.0, **params}).map([job], quiet)  # type: ignore[arg-type]
    return one


def seen(one: Examined) -> dict[str, object]:
    return {key: json.loads(str(value)) for key, value in one.evidence["seen"].details.items()}


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made, beside what a job may read; empty again after the test."""
    folder = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


# ── What the worker is kept from ──────────────────────────────────────────────────────────────────


def test_the_worker_sees_no_secret_and_no_descriptor_of_the_parent(
    strange: Path, make_job: MakeJob, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CANARIES:
        monkeypatch.setenv(name, "canary-secret")
    with open("/dev/zero", "rb") as secret:
        os.set_inheritable(secret.fileno(), True)
        one = examined(make_job("look_around"))
    found = seen(one)
    expected = worker_environment(Path(str(found["cwd"])), 1, "cpu")
    assert found["environment"] == expected
    assert sorted(str(found["initial_environment"]).rstrip("\0").split("\0")) == sorted(
        f"{name}={value}" for name, value in expected.items()
    )
    assert "canary-secret" not in one.evidence.model_dump_json()
    descriptors = found["descriptors"]
    assert isinstance(descriptors, list) and [d.partition(":")[0] for d in descriptors] == ["pipe"]
    assert found["leader"] == [True, True]
    assert Path(str(found["cwd"])).parent == scratch
    assert one.evidence.isolation == enforceable()


def test_a_worker_cannot_claim_more_isolation_than_it_has(strange: Path, make_job: MakeJob) -> None:
    one = examined(make_job("claims_isolation"))
    assert one.evidence["seen"].estimate == 1
    assert one.evidence.isolation == isolation("env", "time", "mem")


def test_a_worker_that_does_not_test_itself_first_is_not_believed(strange: Path, make_job: MakeJob) -> None:
    one = examined(make_job("says_nothing_of_itself"))
    reason = str(one.evidence["validation_accuracy"].reason)
    assert reason.startswith("expected a self-test first, got a frame of kind evidence")


def test_a_leaking_environment_is_noticed_by_the_same_test(
    strange: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setattr(process, "worker_environment", lambda *_: dict(os.environ))
    assert "canary-secret" in examined(make_job("look_around")).evidence.model_dump_json()


def test_limits_are_set_before_anything_heavy_is_imported(strange: Path, make_job: MakeJob) -> None:
    found = seen(examined(make_job("look_around", seconds=10, memory=2**32), threads=2, grace=5.0))
    assert found["limits"] == {
        "RLIMIT_AS": [2**32, 2**32],
        "RLIMIT_CPU": [45, 50],
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_FSIZE": [2**30, 2**30],
    }
    assert found["modules"] == []


def test_a_gpu_worker_keeps_its_address_space_and_knows_its_gpus(
    strange: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = seen(examined(make_job("look_around", device="cuda:0")))
    assert found["limits"]["RLIMIT_AS"] == [-1, -1]  # type: ignore[index]
    assert found["environment"]["CUDA_VISIBLE_DEVICES"] == "3"  # type: ignore[index]
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(Path(), 1, "cpu")


def test_relative_paths_mean_in_the_worker_what_they_mean_here(
    strange: Path, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    job = make_job("look_around").model_copy(update={"artifact": tmp_path.name})
    assert seen(examined(job))["argv_file"] == str(tmp_path)


# ── What comes back ───────────────────────────────────────────────────────────────────────────────


def test_arrays_arrive_bit_for_bit_and_progress_is_passed_on(strange: Path, make_job: MakeJob) -> None:
    notes = []
    job = make_job("give_arrays", version="8")
    (one,) = ProcessExecutor().map([job], lambda *note: notes.append(note))
    assert notes == [("v8", "arrays", 0.25)]
    assert {a.format for a in one.arrays.values()} == set("dfqiB?")
    assert one.arrays["set/i"].data == bytes(i % 2 for i in range(24))
    assert one.arrays["large"].shape == (200_000,)


def test_results_are_in_the_order_of_jobs_and_jobs_run_at_the_same_time(strange: Path, make_job: MakeJob) -> None:
    jobs = [make_job("wait_for_other", version=version) for version in "12"]
    found = ProcessExecutor(workers=2).map(jobs, quiet)
    assert [one.evidence.candidate for one in found] == [job.candidate for job in jobs]
    assert all(one.evidence["seen"].estimate == 1 for one in found)


def test_one_at_a_time_is_one_at_a_time(strange: Path, make_job: MakeJob) -> None:
    jobs = [make_job("wait_for_other", version=version, seconds=1) for version in "12"]
    found = ProcessExecutor(workers=1, grace=0.5).map(jobs, quiet)
    assert found[0].evidence["validation_accuracy"].outcome is Outcome.OVER_BUDGET


def test_workers_fit_the_cores() -> None:
    cores = available_cores()
    assert cores >= 1
    assert ProcessExecutor()._at_a_time(1000) == cores
    assert ProcessExecutor(threads=1000)._at_a_time(7) == 1
    assert ProcessExecutor(workers=5)._at_a_time(3) == 3
    assert ProcessExecutor().map([], quiet) == []


# ── What goes wrong ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("crash", "crash (SIGSEGV); it last printed 'about to \\x1b[31mcrash\\u202e'"),
        ("killed", "death by SIGKILL"),
        ("exits", "exit with code 7; it last printed 'last words'"),
        ("garbage", "expected a header of at most"),
        ("half", "exit with code 0"),
        ("other_nonce", "the nonce of the request"),
        ("other_candidate", "evidence about another candidate"),
        ("not_finite", "evidence as flataudit writes it"),
        ("wrong_shape", "16 for shape (3,)"),
        ("digs", "exit with code 4"),
        ("closes", "closed answers without it"),
        ("notes_for_ever", "at most 10000 answers"),
        ("grandchild", "exit with code 3"),
        ("escaped_grandchild", "exit with code 3"),
        ("refuse_data", "expected the same file, got another"),
        ("name_outside", "not a relative name"),
        ("leave", "stopped by SystemExit: I go"),
        ("write_much", "stopped by OSError: [Errno 27] File too large"),
    ],
)
def test_it_becomes_failed_evidence(
    behaviour: str, reason: str, strange: Path, make_job: MakeJob, scratch: Path, tmp_path: Path
) -> None:
    one = examined(make_job(behaviour))
    accuracy = one.evidence["validation_accuracy"]
    assert accuracy.outcome is Outcome.FAILED
    assert reason in str(accuracy.reason)
    assert one.evidence.isolation["env"] == "enforced"
    assert one.arrays == {}
    for pid in pids(tmp_path):
        if behaviour == "escaped_grandchild":
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda pid=pid: not is_alive(pid), 2)


@pytest.mark.parametrize(
    ("behaviour", "seconds"), [("hang", 1.0), ("stops", 1.0), ("prints_for_ever", 1.0), ("cpu_time", 30.0)]
)
def test_too_long_is_over_budget(
    behaviour: str, seconds: float, strange: Path, make_job: MakeJob, scratch: Path, tmp_path: Path
) -> None:
    one = examined(make_job(behaviour, seconds=seconds), grace=1.0)
    accuracy = one.evidence["validation_accuracy"]
    assert accuracy.outcome is Outcome.OVER_BUDGET
    assert accuracy.advice == "raise budget.seconds, or measure less"
    assert not any(is_alive(pid) for pid in pids(tmp_path))


@pytest.mark.parametrize("behaviour", ["exhaust_memory", "exhaust_memory_to_the_last"])
def test_too_much_memory_is_refused_by_the_address_space(behaviour: str, strange: Path, make_job: MakeJob) -> None:
    accuracy = examined(make_job(behaviour, memory=2**28)).evidence["validation_accuracy"]
    assert accuracy.reason == "ran out of memory (limit 0.25 GiB)"
    assert accuracy.advice == "raise budget.memory_bytes"


def test_too_much_resident_memory_is_seen_where_the_address_space_is_free(strange: Path, make_job: MakeJob) -> None:
    accuracy = examined(make_job("touch_memory", memory=300 * 2**20, device="cuda")).evidence["validation_accuracy"]
    assert accuracy.outcome is Outcome.FAILED
    assert str(accuracy.reason).startswith("expected at most 0.293 GiB")


def test_one_hostile_candidate_does_not_stop_the_others(strange: Path, make_job: MakeJob) -> None:
    jobs = [make_job(name, version=name) for name in ("crash", "prints_then_answers", "garbage", "give_arrays")]
    outcomes = [one.evidence.get("seen") is not None for one in ProcessExecutor().map(jobs, quiet)]
    assert outcomes == [False, True, False, True]


def test_a_worker_that_cannot_start_is_evidence(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "worker_command", lambda: ("/no/such/python",))
    reason = examined(make_job("look_around")).evidence["validation_accuracy"].reason
    assert reason == "a worker could not be started: No such file or directory"


def test_of_endless_output_one_mebibyte_is_kept(strange: Path, make_job: MakeJob, tmp_path: Path) -> None:
    request = Request(nonce="n", limits=Limits(address_space=None, cpu_seconds=60), job=make_job("prints_for_ever"))
    with Worker(fresh(process.worker_command(), {}), request, scratch=tmp_path) as worker:
        worker.begin()
        with pytest.raises(WorkerError) as caught:
            list(worker.answers(Bounds(seconds=2), Event()))
        assert len(worker._output) == 2**20
    assert caught.value.outcome is Outcome.OVER_BUDGET


# ── When the audit itself ends ────────────────────────────────────────────────────────────────────


def test_an_error_of_the_progress_display_ends_all_workers(
    strange: Path, make_job: MakeJob, scratch: Path, tmp_path: Path
) -> None:
    def broken(label: str, what: str, share: float) -> None:
        assert wait_until(lambda: len(pids(tmp_path)) == 1)
        raise RuntimeError("no display")

    with pytest.raises(RuntimeError, match="no display"):
        ProcessExecutor(workers=2).map([make_job("hang"), make_job("give_arrays")], broken)
    assert not any(is_alive(pid) for pid in pids(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupt_and_death_of_the_audit_end_all_workers(
    number: signal.Signals, strange: Path, make_job: MakeJob, tmp_path: Path
) -> None:
    (tmp_path / "job.json").write_text(make_job("hang", seconds=100).model_dump_json())
    (tmp_path / "tmp").mkdir()
    script = Path(__file__).with_name("interrupted_audit.py")
    audit = subprocess.Popen(
        [sys.executable, str(script), str(strange), str(tmp_path)],
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
    )
    try:
        assert wait_until(lambda: len(pids(tmp_path)) == 2)
        workers = pids(tmp_path)
        assert all(is_alive(pid) for pid in workers)
        audit.send_signal(number)
        _, printed = audit.communicate(timeout=20)
    finally:
        audit.kill()
    assert wait_until(lambda: not any(is_alive(pid) for pid in workers), 5)
    assert pids(tmp_path) == workers
    if number is signal.SIGINT:
        assert b"KeyboardInterrupt" in printed
        assert list((tmp_path / "tmp").iterdir()) == []
