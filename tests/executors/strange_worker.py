"""Run in place of a worker: the candidate's name says how it misbehaves (or what it looks at)."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from flataudit.errors import DataError
from flataudit.evidence import Array, AuditProtocol, Evidence, Examined, Metric
from flataudit.executors import worker
from flataudit.executors.frames import ArrayHeader, EvidenceHeader, ProgressNote, Request, SelfTest, encode
from flataudit.sandbox.kernel import control
from flataudit.specs import Job

SEEN = Metric(name="seen")


def answer(job: Job, details: dict[str, object], arrays: dict[str, Array] | None = None) -> Examined:
    """Evidence that carries what was seen."""
    seen = SEEN.measured(1.0, details={key: json.dumps(value) for key, value in details.items()})
    protocol = AuditProtocol(probes=(), data={}, seed=job.seed, dtype="float32", device="cpu", libraries={})
    evidence = Evidence(candidate=job.candidate, protocol=protocol, measurements=(seen,))
    return Examined(evidence, arrays or {})


def evidence_bytes(job: Job) -> bytes:
    return answer(job, {}).evidence.model_dump_json().encode()


# ── Instead of `examine`, inside the real worker ──────────────────────────────────────────────────


def look_around(job: Job, announce: object) -> Examined:
    """All that reached this process."""
    limits = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_CORE", "RLIMIT_FSIZE")
    return answer(
        job,
        {
            "environment": dict(os.environ),
            "initial_environment": Path("/proc/self/environ").read_text(),
            "descriptors": [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 256) if is_open(fd)],
            "leader": [os.getpid() == os.getpgrp(), os.getpid() == os.getsid(0)],
            "cwd": os.getcwd(),
            "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
            "modules": [name for name in ("torch", "mlflow", "numpy") if name in sys.modules],
            "argv_file": job.artifact,
        },
    )


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def give_arrays(job: Job, announce: object) -> Examined:
    announce("arrays", 0.25)  # type: ignore[operator]
    shapes = {"d": 8, "f": 4, "q": 8, "i": 4, "B": 1, "?": 1}
    arrays = {f"set/{k}": Array(k, (2, 3), bytes(i % 2 for i in range(6 * size))) for k, size in shapes.items()}
    arrays["large"] = Array("d", (200_000,), bytes(1_600_000))
    return answer(job, {}, arrays)


def refuse_data(job: Job, announce: object) -> Examined:
    raise DataError("the same file", got="another", remedy="start again")


def exhaust_memory(job: Job, announce: object) -> Examined:
    kept = []
    while True:
        kept.append(bytearray(64 * 2**20))


def exhaust_memory_to_the_last(job: Job, announce: object) -> Examined:
    """In small pieces, so that next to nothing stays free."""
    kept = []
    while True:
        kept.append(bytearray(1000))


def name_outside(job: Job, announce: object) -> Examined:
    return answer(job, {}, {"../../a": Array.of([1.0])})


def touch_memory(job: Job, announce: object) -> Examined:
    kept = bytearray(b"x") * (600 * 2**20)
    time.sleep(60)
    return answer(job, {"size": len(kept)})


def write_much(job: Job, announce: object) -> Examined:
    with open("large", "wb") as stream:
        stream.truncate(2**30 + 1)
    return answer(job, {})


def leave(job: Job, announce: object) -> Examined:
    sys.exit("I go")


def wait_for_other(job: Job, announce: object) -> Examined:
    """Two of these finish only if they run at the same time."""
    here = Path(job.artifact)
    (here / f"{job.candidate.version}.here").touch()
    while not all((here / f"{version}.here").exists() for version in "12"):
        time.sleep(0.01)
    return answer(job, {})


def hang(job: Job, announce: object) -> Examined:
    (Path(job.artifact) / f"{os.getpid()}.pid").touch()
    time.sleep(120)
    return answer(job, {})


# ── Instead of the worker ─────────────────────────────────────────────────────────────────────────


def crash(job: Job, request: Request) -> None:
    print("about to \x1b[31mcrash\u202e", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def killed(job: Job, request: Request) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cpu_time(job: Job, request: Request) -> None:
    os.kill(os.getpid(), signal.SIGXCPU)


def exits(job: Job, request: Request) -> None:
    os.write(2, b"last words\n")
    os._exit(7)


def garbage(job: Job, request: Request) -> None:
    os.write(request.answers, b"HTTP/1.1 200 OK\r\n\r\n" * 10)
    time.sleep(120)


def half(job: Job, request: Request) -> None:
    os.write(request.answers, encode(request.nonce, EvidenceHeader(), evidence_bytes(job))[:-1])


def other_nonce(job: Job, request: Request) -> None:
    os.write(request.answers, encode("0" * 32, EvidenceHeader(), evidence_bytes(job)))
    time.sleep(120)


def other_candidate(job: Job, request: Request) -> None:
    other = job.model_copy(update={"candidate": job.candidate.model_copy(update={"digest": "sha256:forged"})})
    os.write(request.answers, encode(request.nonce, EvidenceHeader(), evidence_bytes(other)))
    time.sleep(120)


def not_finite(job: Job, request: Request) -> None:
    body = evidence_bytes(job).replace(b'"estimate":1.0', b'"estimate":NaN')
    assert b"NaN" in body
    os.write(request.answers, encode(request.nonce, EvidenceHeader(), body))
    time.sleep(120)


def wrong_shape(job: Job, request: Request) -> None:
    os.write(request.answers, encode(request.nonce, ArrayHeader(name="a", format="d", shape=(3,)), bytes(16)))
    time.sleep(120)


def claims_isolation(job: Job, request: Request) -> None:
    forged = dict.fromkeys(("fs", "net", "proc", "uid"), "enforced")
    evidence = answer(job, {}).evidence.model_copy(update={"isolation": forged})
    os.write(request.answers, encode(request.nonce, EvidenceHeader(), evidence.model_dump_json().encode()))


def says_nothing_of_itself(job: Job, request: Request) -> None:
    os.write(request.answers, encode(request.nonce, EvidenceHeader(), evidence_bytes(job)))
    time.sleep(120)


def stops(job: Job, request: Request) -> None:
    (Path(job.artifact) / f"{os.getpid()}.pid").touch()
    os.kill(os.getpid(), signal.SIGSTOP)


def digs(job: Job, request: Request) -> None:
    for _ in range(3000):
        os.mkdir("d")
        os.chdir("d")
    os._exit(4)


def closes(job: Job, request: Request) -> None:
    os.close(request.answers)
    time.sleep(120)


def prints_for_ever(job: Job, request: Request) -> None:
    (Path(job.artifact) / f"{os.getpid()}.pid").touch()
    while True:
        os.write(1, b"spam " * 10_000)


def notes_for_ever(job: Job, request: Request) -> None:
    frame = encode(request.nonce, ProgressNote(what="busy", share=0.5)) * 100
    while True:
        os.write(request.answers, frame)


def prints_then_answers(job: Job, request: Request) -> None:
    for _ in range(100):
        os.write(1, b"noise" * 20_000)
    os.write(request.answers, encode(request.nonce, EvidenceHeader(), evidence_bytes(job)))


def grandchild(job: Job, request: Request, *, session: bool = False) -> None:
    """Dies, while a child of it holds all its descriptors open."""
    command = [sys.executable, "-c", "import time; time.sleep(20)"]
    child = subprocess.Popen(command, close_fds=False, pass_fds=(request.answers,), start_new_session=session)
    (Path(job.artifact) / f"{child.pid}.pid").touch()
    os._exit(3)


def escaped_grandchild(job: Job, request: Request) -> None:
    grandchild(job, request, session=True)


EXAMINERS = {
    f.__name__: f
    for f in (
        look_around,
        give_arrays,
        refuse_data,
        exhaust_memory,
        exhaust_memory_to_the_last,
        name_outside,
        touch_memory,
        write_much,
        leave,
        wait_for_other,
        hang,
    )
}
HOSTILE = {
    f.__name__: f
    for f in (
        crash,
        killed,
        cpu_time,
        exits,
        garbage,
        half,
        other_nonce,
        other_candidate,
        not_finite,
        wrong_shape,
        claims_isolation,
        says_nothing_of_itself,
        stops,
        digs,
        closes,
        prints_for_ever,
        notes_for_ever,
        prints_then_answers,
        grandchild,
        escaped_grandchild,
    )
}


UNCONFINED = {"hang", "wait_for_other"}
"""They leave marks for the test."""
SILENT = {"says_nothing_of_itself"}


def begin(request: Request) -> None:
    """What a worker says before anything else, without doing it."""
    found = SelfTest(environment=tuple(os.environ), found={"mem": "enforced"}, tripwire=False)
    os.write(request.answers, encode(request.nonce, found))
    with socket.socket(fileno=request.channel) as channel:
        channel.recv(1)


def main() -> None:
    raw = sys.stdin.buffer.read()
    request = Request.model_validate_json(raw)
    assert request.job is not None
    name = request.job.candidate.name
    if name in HOSTILE:
        if name not in SILENT:
            begin(request)
        HOSTILE[name](request.job, request)
    else:
        chosen = EXAMINERS[name]
        if name in UNCONFINED:
            worker.apply = lambda *_, **__: control(1, signal.SIGKILL) and None  # type: ignore[assignment]
            worker.tested = lambda *_, **__: {"mem": "enforced"}
        worker.examine = lambda job, announce, finished=None: chosen(job, announce)  # type: ignore[assignment]
        worker.serve(request)


if __name__ == "__main__":
    main()
