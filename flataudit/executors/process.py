"""Examines each candidate in a process of its own, confined before it opens anything of the candidate's: the default.

The worker has an environment that is written out here, no descriptors but its own, its own session, limits on time
and memory, and the layers of `flataudit.sandbox`: no file but those that its job names, one folder to write to, no
socket, no other process. A crash, a hang or a lie of one candidate is evidence about that candidate and about no
other. What a machine cannot enforce is said in every record, and refused beforehand if it is demanded.
"""

import math
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import Check, Finished, Progress
from flataudit.errors import ModelError
from flataudit.evidence import Examined, Record
from flataudit.examination import failed_evidence
from flataudit.executors.environment import (
    anchored,
    available_cores,
    reach,
    worker_command,
    worker_environment,
    zygote_command,
)
from flataudit.executors.frames import Decoder, Limits, Request, SelfTest
from flataudit.executors.isolation import (
    Kind,
    demand,
    described,
    enforceable,
    lacking_from,
    measured,
    supervised,
)
from flataudit.executors.launching import Launch, Zygote, fresh
from flataudit.executors.received import Received, stamped
from flataudit.executors.scratch import scratch
from flataudit.executors.supervision import Bounds, Worker, WorkerError
from flataudit.sandbox.apply import lacking
from flataudit.specs import Budget, Job

__all__ = ["ProcessExecutor", "warm_start"]


class ProcessExecutor(Record):
    """One process per candidate, several at a time.

    ``env``: the worker's environment holds nothing of this process's but ``PATH`` (and, for a GPU,
    ``CUDA_VISIBLE_DEVICES``). ``time``: the whole process group is killed `grace` seconds after the budget's.
    ``mem``: on CPU the address space is limited; a GPU's driver reserves address space without using it, so there
    the resident memory is watched and the worker killed when it exceeds the budget (the GPU's own memory is not
    limited). ``fs``, ``net``, ``proc``, ``uid``: the layers of `flataudit.sandbox`, as far as this machine has them;
    each worker tries them before it begins, and what it found is in its evidence.
    """

    workers: PositiveInt | None = None
    """Processes at a time; None: as many as there are cores for their threads, at most one a job."""
    threads: PositiveInt = 1
    """Arithmetic threads of each worker; fixed, so that sums do not depend on the machine's cores."""
    grace: PositiveFloat = 60.0
    """Seconds beyond the budget's, for starting and for a probe that is about to stop."""
    disk_bytes: PositiveInt = 2**30
    """What a worker may hold on disk, all of it in its own folder, which is removed."""
    warm: bool = True
    """Fork the workers of several jobs from one process that has imported what they need."""
    minimum: tuple[Kind, ...] = ("env", "time", "mem")
    """Isolation that is demanded; what cannot be enforced is an error before anything starts."""

    def map(self, jobs: Sequence[Job], progress: Progress, finished: Finished | None = None) -> list[Examined]:
        """One result per job, in order; whatever befalls a worker becomes evidence. Interrupts end all workers.

        Raises:
            ConfigurationError: isolation is demanded that this version or machine cannot enforce.
        """
        demand(self.minimum, enforceable(), where="a worker process on this machine", remedies=lacking())
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
                watches = _on_gpu(job.device)
                received = Received(job, announce, part, kept=supervised(watches_memory=watches))
                return self._examined(received, launch, canary, stop)
            finally:
                notes.put(None)

        with (
            _canary() as canary,
            self._launcher(jobs) as launch,
            ThreadPoolExecutor(self._at_a_time(len(jobs)), "flataudit-worker") as pool,
        ):
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
        try:
            found = self._self_tested()
        except (ModelError, OSError) as error:
            remedy = error.remedy if isinstance(error, ModelError) else "look at the limits on processes and files"
            return [Check(name="worker process", ok=False, found=str(error), remedy=remedy)]
        answers = f"answers in {time.monotonic() - started:.1f} s"
        told = "refused calls are told" if found.tripwire else "refused calls are not told"
        have = measured(supervised(watches_memory=False), found, self._variables("cpu"))
        return [
            Check(name="worker process", ok=True, found=answers),
            Check(
                name="worker isolation",
                ok=not lacking_from(self.minimum, have),
                found=f"{described(have)}; {told}",
                remedy=_more(self.minimum, have),
            ),
        ]

    def _at_a_time(self, jobs: int) -> int:
        return min(jobs, self.workers or max(1, available_cores() // self.threads))

    def _examined(self, received: Received, launch: Launch | None, canary: Path, stop: Event) -> Examined:
        job = received.job
        attempts: list[str] = []
        try:
            examined = self._supervised(received, launch, canary, stop, attempts)
        except WorkerError as error:
            examined = received.with_the_rest(failed_evidence(job, str(error), error.remedy, error.outcome))
        except ModelError as error:  # it broke the protocol: nothing that it said is believed
            received.finished(None)
            examined = failed_evidence(job, str(error), error.remedy)
        except OSError as error:
            reason = f"a worker could not be started: {error.strerror or error}"
            failed = failed_evidence(job, reason, "look at the limits on processes, files and memory")
            examined = received.with_the_rest(failed)
        return stamped(examined, received.kept, attempts)

    def _supervised(
        self, received: Received, launch: Launch | None, canary: Path, stop: Event, attempts: list[str]
    ) -> Examined:
        job = anchored(received.job)
        with scratch() as folder:
            request, bounds = self._request(job, job.budget, job.device, folder, canary)
            decoder = Decoder(request.nonce)
            with Worker(launch or self._fresh(folder, job.device), request, scratch=folder) as worker:
                try:
                    for chunk in worker.answers(bounds, stop):
                        for frame in decoder.feed(chunk):
                            if not received.tested:
                                received.take_self_test(
                                    frame, variables=self._variables(job.device), minimum=self.minimum
                                )
                                worker.begin()
                            elif (examined := received.take(frame)) is not None:
                                return examined
                    raise worker.ending()
                finally:
                    attempts += worker.attempts

    def _self_tested(self) -> SelfTest:
        with scratch() as folder, _canary() as canary:
            request, bounds = self._request(None, Budget(seconds=10), "cpu", folder, canary)
            decoder = Decoder(request.nonce)
            with Worker(self._fresh(folder, "cpu"), request, scratch=folder) as worker:
                for chunk in worker.answers(bounds, Event()):
                    for frame in decoder.feed(chunk):
                        if isinstance(frame.content, SelfTest):
                            return frame.content
                raise worker.ending()

    def _variables(self, device: str) -> frozenset[str]:
        return frozenset(worker_environment(Path(), self.threads, device))

    def _fresh(self, folder: Path, device: str) -> Launch:
        return fresh(worker_command(), worker_environment(folder, self.threads, device))

    @contextmanager
    def _launcher(self, jobs: Sequence[Job]) -> Iterator[Launch | None]:
        """The zygote's, where it is worth its start and can be had; None: a fresh interpreter for each."""
        with ExitStack() as stack:
            launch = None
            if self.warm and len(jobs) > 1:
                folder = stack.enter_context(scratch())
                launch = warm_start(stack, jobs, worker_environment(folder, self.threads, _device(jobs)))
            yield launch

    def _request(
        self, job: Job | None, budget: Budget, device: str, folder: Path, canary: Path
    ) -> tuple[Request, Bounds]:
        seconds = budget.seconds + self.grace
        watched = _on_gpu(device)
        limits = Limits(
            address_space=None if watched else budget.memory_bytes,
            cpu_seconds=math.ceil(seconds * (self.threads + 1)),
            file_bytes=self.disk_bytes,
        )
        bounds = reach(job, scratch=folder, canary=canary)
        request = Request(nonce=secrets.token_hex(16), limits=limits, reach=bounds, job=job)
        return request, Bounds(seconds, budget.memory_bytes if watched else None, self.disk_bytes)


def warm_start(stack: ExitStack, jobs: Sequence[Job], environment: "dict[str, str]") -> Launch | None:
    """What forks workers from one process that has imported the plugins of all jobs; None: it cannot be had."""
    wanted = {("backends", job.candidate.flavour) for job in jobs}
    wanted |= {("probes", spec.use) for job in jobs for spec in job.probes}
    wanted |= {("data", spec.source.use) for job in jobs for spec in job.data}
    try:
        zygote = stack.enter_context(Zygote(zygote_command(), environment, sorted(wanted)))
        zygote.ready()
    except (ModelError, OSError):
        return None
    return zygote.launch


@contextmanager
def _canary() -> Iterator[Path]:
    """A file that every user may read, in a folder that every user may write to: only a sandbox keeps one from it."""
    with tempfile.TemporaryDirectory(prefix="flataudit-canary-") as folder:
        os.chmod(folder, 0o777)  # noqa: S103
        canary = Path(folder, "canary")
        canary.write_text(secrets.token_hex(16), encoding="ascii")
        yield canary


def _on_gpu(device: str) -> bool:
    return device.partition(":")[0] != "cpu"


def _device(jobs: Sequence[Job]) -> str:
    return next((job.device for job in jobs if _on_gpu(job.device)), "cpu")


def _more(minimum: Sequence[Kind], have: "dict[str, str]") -> str | None:
    """What to change for more isolation, first of all for what is demanded and lacks."""
    missing = lacking_from(minimum, have)
    first = (f"leave {', '.join(missing)} out of isolation.minimum",) if missing else ()
    told = (*first, *(f"for {kind}: {how}" for kind, how in lacking().items()))
    return "; ".join(told) or None
