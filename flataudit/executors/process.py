"""Examines each candidate in a fresh process of its own: the default.

The worker has an environment that is written out here, no descriptors but its own, its own session, and limits on
time and memory; a crash, a hang or a lie of one candidate is evidence about that candidate and about no other.
What is not enforced here, and is said so in every record: it may read files (this process's ``/proc`` among them),
open sockets and start processes with this user's rights. Code of a candidate that is not trusted therefore has no
place here (``trust: false``).
"""

import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from pydantic import PositiveFloat, PositiveInt, ValidationError

from flataudit.contracts import Budget, Check, DataSpec, Finished, Job, Progress
from flataudit.errors import ModelError
from flataudit.evidence import Array, Evidence, Examined, Record
from flataudit.examination import failed_evidence, merged
from flataudit.executors.frames import (
    ArrayHeader,
    Decoder,
    EvidenceHeader,
    Failure,
    Frame,
    Limits,
    ProgressNote,
    Request,
    SelfTest,
)
from flataudit.executors.isolation import Kind, demand, described, isolation
from flataudit.executors.scratch import scratch
from flataudit.executors.supervision import Bounds, Worker, WorkerError

__all__ = ["ProcessExecutor", "available_cores", "enforceable", "worker_command", "worker_environment"]

# The whole search path is given: the worker finds what this process finds (an editable install, a user site, a
# zip), and nothing through its environment or current folder.
_START = "import sys; sys.path[:] = sys.argv[1:]; from flataudit.executors.worker import main; main()"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
Announce = Callable[[str, float], None]


class ProcessExecutor(Record):
    """One process per candidate, several at a time.

    ``env``: the worker's environment holds nothing of this process's but ``PATH`` (and, for a GPU,
    ``CUDA_VISIBLE_DEVICES``). ``time``: the whole process group is killed `grace` seconds after the budget's.
    ``mem``: on CPU the address space is limited; a GPU's driver reserves address space without using it, so there
    the resident memory is watched and the worker killed when it exceeds the budget (the GPU's own memory is not
    limited). Both hold for one process: a candidate that starts others is stopped only where ``proc`` is enforced.
    """

    workers: PositiveInt | None = None
    """Processes at a time; None: as many as there are cores for their threads, at most one a job."""
    threads: PositiveInt = 1
    """Arithmetic threads of each worker; fixed, so that sums do not depend on the machine's cores."""
    grace: PositiveFloat = 60.0
    """Seconds beyond the budget's, for starting and for a probe that is about to stop."""
    minimum: tuple[Kind, ...] = ("env", "time", "mem")
    """Isolation that is demanded; what cannot be enforced is an error before anything starts."""

    def map(self, jobs: Sequence[Job], progress: Progress, finished: Finished | None = None) -> list[Examined]:
        """One result per job, in order; whatever befalls a worker becomes evidence. Interrupts end all workers.

        Raises:
            ConfigurationError: isolation is demanded that this version or machine cannot enforce.
        """
        demand(self.minimum, enforceable(), where="a worker process")
        if not jobs:
            return []
        # Only this thread speaks to whoever called.
        notes: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        stop = Event()

        def supervise(job: Job) -> Examined:
            def announce(what: str, share: float) -> None:
                notes.put(partial(progress, job.candidate.label, what, share))

            def part(examined: Examined | None) -> None:
                if finished is not None:
                    notes.put(partial(finished, job, examined))

            try:
                return self._examined(_Received(job, announce, part), stop)
            finally:
                notes.put(None)

        with ThreadPoolExecutor(self._at_a_time(len(jobs)), "flataudit-worker") as pool:
            try:
                futures = [pool.submit(supervise, job) for job in jobs]
                for _ in jobs:
                    while (note := notes.get()) is not None:
                        note()
                return [future.result() for future in futures]
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def check(self) -> list[Check]:
        """Start a worker that says what it finds itself kept from."""
        started = time.monotonic()
        have = enforceable()
        try:
            found = self._self_tested()
        except (ModelError, OSError) as error:
            remedy = error.remedy if isinstance(error, ModelError) else "look at the limits on processes and files"
            return [Check(name="worker process", ok=False, found=str(error), remedy=remedy)]
        seconds = time.monotonic() - started
        leaked = set(found.environment) - set(worker_environment(Path(), self.threads, "cpu"))
        held = not leaked and found.memory_bounded == (have["mem"] == "enforced")
        lacking = [kind for kind in self.minimum if have[kind] != "enforced"]
        remedy = f"leave {', '.join(lacking)} out of isolation.minimum" if lacking else "report this with your platform"
        return [
            Check(name="worker process", ok=True, found=f"answers in {seconds:.1f} s"),
            Check(
                name="worker isolation",
                ok=held and not lacking,
                found=described(have) if held else f"a limit did not hold (leaked: {', '.join(sorted(leaked)) or '-'})",
                remedy=None if held and not lacking else remedy,
            ),
        ]

    def _at_a_time(self, jobs: int) -> int:
        return min(jobs, self.workers or max(1, available_cores() // self.threads))

    def _examined(self, received: "_Received", stop: Event) -> Examined:
        job = received.job
        try:
            return _isolated(self._supervised(received, stop))
        except WorkerError as error:
            failed = failed_evidence(job, str(error), error.remedy, error.outcome)
        except ModelError as error:  # it broke the protocol: nothing that it said is believed
            received.finished(None)
            return _isolated(failed_evidence(job, str(error), error.remedy))
        except OSError as error:
            reason = f"a worker could not be started: {error.strerror or error}"
            failed = failed_evidence(job, reason, "look at the limits on processes, files and memory")
        return _isolated(received.with_the_rest(failed))

    def _supervised(self, received: "_Received", stop: Event) -> Examined:
        job = received.job
        request, bounds = self._request(_anchored(job), job.budget, job.device)
        decoder = Decoder(request.nonce)
        with scratch() as folder, self._worker(request, folder, job.device) as worker:
            for chunk in worker.answers(bounds, stop):
                for frame in decoder.feed(chunk):
                    if (examined := received.take(frame)) is not None:
                        return examined
            raise worker.ending()

    def _self_tested(self) -> SelfTest:
        request, bounds = self._request(None, Budget(seconds=10), "cpu")
        decoder = Decoder(request.nonce)
        with scratch() as folder, self._worker(request, folder, "cpu") as worker:
            for chunk in worker.answers(bounds, Event()):
                for frame in decoder.feed(chunk):
                    if isinstance(frame.content, SelfTest):
                        return frame.content
            raise worker.ending()

    def _worker(self, request: Request, folder: Path, device: str) -> Worker:
        environment = worker_environment(folder, self.threads, device)
        return Worker(worker_command(), request, environment=environment, scratch=folder)

    def _request(self, job: Job | None, budget: Budget, device: str) -> tuple[Request, Bounds]:
        seconds = budget.seconds + self.grace
        on_cpu = device.partition(":")[0] == "cpu"
        limits = Limits(
            address_space=budget.memory_bytes if on_cpu else None,
            cpu_seconds=math.ceil(seconds * (self.threads + 1)),
        )
        request = Request(nonce=secrets.token_hex(16), limits=limits, job=job)
        return request, Bounds(seconds, None if on_cpu else budget.memory_bytes)


def enforceable() -> dict[str, str]:
    """What a worker is kept from, by kind, on this machine."""
    # Elsewhere than on Linux the address space cannot be limited, nor the resident memory be watched.
    return isolation("env", "time", "mem") if sys.platform == "linux" else isolation("env", "time")


def worker_command() -> tuple[str, ...]:
    """How a worker is started: isolated from user site, ``PYTHON*`` variables and current folder."""
    return (sys.executable, "-I", "-c", _START, *(path for path in sys.path if os.path.isabs(path)))


def worker_environment(home: Path, threads: int, device: str) -> dict[str, str]:
    """All variables of a worker."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        # Without it ``cuda:0`` would be another GPU than this process's.
        **({"CUDA_VISIBLE_DEVICES": visible} if visible is not None and device.startswith("cuda") else {}),
    }


def available_cores() -> int:
    """Cores that this process may use: its affinity, and its control group's quota (version 2)."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _anchored(job: Job) -> Job:
    """The same job with absolute paths: the worker runs in its scratch folder."""

    def anchored(spec: DataSpec) -> DataSpec:
        path = spec.source.params.get("path")
        if not isinstance(path, str) or "://" in path:
            return spec
        source = spec.source.model_copy(update={"params": dict(spec.source.params) | {"path": os.path.abspath(path)}})
        return spec.model_copy(update={"source": source})

    return job.model_copy(
        update={"artifact": os.path.abspath(job.artifact), "data": tuple(anchored(spec) for spec in job.data)}
    )


class _Received:
    """What one worker has said so far; of a worker that dies, what its finished probes found."""

    def __init__(self, job: Job, announce: Announce, finished: Callable[[Examined | None], None]) -> None:
        self.job, self.finished, self._announce = job, finished, announce
        self._arrays: dict[str, Array] = {}
        self._fresh: dict[str, Array] = {}
        """Since the last probe ended."""
        self._parts: list[Examined] = []

    def take(self, frame: Frame) -> Examined | None:
        """Take one frame in; the result, once it is the last."""
        content = frame.content
        if isinstance(content, ProgressNote):
            self._announce(content.what, content.share)
        elif isinstance(content, ArrayHeader):
            self._arrays[content.name] = self._fresh[content.name] = frame.array
        elif isinstance(content, EvidenceHeader):
            evidence = _evidence(frame.body, self.job)
            if content.last:
                return Examined(evidence, self._arrays)
            part = _isolated(Examined(evidence, self._fresh))
            self._fresh = {}
            self._parts.append(part)
            self.finished(part)
        elif isinstance(content, Failure):
            return self.with_the_rest(failed_evidence(self.job, content.reason, content.advice))
        else:
            raise ModelError("evidence from the worker", got=f"a {content.kind} frame", remedy="reinstall flataudit")
        return None

    def with_the_rest(self, failed: Examined) -> Examined:
        """What the finished probes found, and the failure for all others."""
        if not self._parts:
            return failed
        done = {m.probe for part in self._parts for m in part.evidence.measurements}
        rest = tuple(m for m in failed.evidence.measurements if m.probe not in done)
        evidence = self._parts[-1].evidence.model_copy(update={"measurements": rest})
        return merged(self.job, [*self._parts, Examined(evidence)])


def _isolated(examined: Examined) -> Examined:
    return Examined(examined.evidence.model_copy(update={"isolation": enforceable()}), examined.arrays)


def _evidence(body: bytes, job: Job) -> Evidence:
    remedy = "the worker's answer cannot be trusted: examine this candidate by hand"
    try:
        evidence = Evidence.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        got = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        raise ModelError("evidence as flataudit writes it", got=got, remedy=remedy) from error
    if evidence.candidate != job.candidate:
        raise ModelError(f"evidence about {job.candidate.label}", got="evidence about another candidate", remedy=remedy)
    return evidence
