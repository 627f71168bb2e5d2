"""Examines each candidate in a process of its own, confined before it opens anything of the candidate's: the default.

The worker has an environment that is written out here, no descriptors but its own, its own session, limits on time
and memory, and the layers of `flataudit.sandbox`: no file but those that its job names, one folder to write to, no
socket, no other process. A crash, a hang or a lie of one candidate is evidence about that candidate and about no
other. What a machine cannot enforce is said in every record, and refused beforehand if it is demanded.

A candidate that brings code is examined by two workers, one after the other (`flataudit.executors.steps`).
"""

import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import Check, Finished, Progress
from flataudit.errors import FlatauditError, ModelError
from flataudit.evidence import Examined, Record
from flataudit.examination import Refusal
from flataudit.executors.environment import (
    anchored,
    available_cores,
    reach,
    worker_command,
    worker_environment,
)
from flataudit.executors.frames import Decoder, Frame, Limits, Request, Sample, SelfTest
from flataudit.executors.isolation import (
    Kind,
    demand,
    described,
    enforceable,
    lacking_from,
    measured,
    supervised,
)
from flataudit.executors.launching import Launch, fresh, warm_start
from flataudit.executors.received import Received, stamped
from flataudit.executors.scratch import canary_file, scratch
from flataudit.executors.steps import (
    FOUND_LATE,
    Announce,
    DataSets,
    confined_to,
    in_two_steps,
    noted,
    runs_code,
    split,
)
from flataudit.executors.supervision import Bounds, Worker, WorkerError
from flataudit.sandbox.apply import lacking
from flataudit.specs import Budget, Job

__all__ = ["ProcessExecutor"]

Told = Callable[[Examined | None], None]
Step = Callable[[Worker, Iterator[bytes], Iterator[Frame]], Examined | Refusal]
"""What is done with a worker that has begun: ``(worker, what it writes, the same as frames of its request)``."""


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
    open_files: PositiveInt = 512
    """Descriptors of a worker at a time."""
    processes: PositiveInt = 512
    """Threads of a worker that has a user of its own."""
    output_bytes: PositiveInt = 2**20
    """Of what a worker prints, the end that is kept."""
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
        stop, sets = Event(), DataSets()

        coded = [runs_code(job) for job in jobs]

        def supervise(job: Job, code: bool) -> Examined:
            def announce(what: str, share: float) -> None:
                notes.put(partial(progress, job.candidate.label, what, share))

            def part(examined: Examined | None) -> None:
                if finished is not None:
                    notes.put(partial(finished, job, examined))

            try:
                examine = self._in_two_steps if code else self._in_one
                return examine(job, announce, part, _Around(launch, canary, stop, sets))
            finally:
                notes.put(None)

        with (
            canary_file() as canary,
            self._launcher(jobs, coded) as launch,
            ThreadPoolExecutor(self._at_a_time(len(jobs)), "flataudit-worker") as pool,
        ):
            try:
                futures = [pool.submit(supervise, *one) for one in zip(jobs, coded, strict=True)]
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

    def _in_one(self, job: Job, announce: Announce, finished: Told, around: "_Around") -> Examined:
        """In one step, unless code shows itself that no look at the files has found: then from the start, in two."""
        received = self._received(job, announce, finished)
        examined, _ = self._ran(received, around, partial(_listened, received, to_code=False))
        if received.ran_code and job.trust:
            return noted(self._in_two_steps(job, announce, finished, around), FOUND_LATE)
        return examined

    def _in_two_steps(self, job: Job, announce: Announce, finished: Told, around: "_Around") -> Examined:
        return in_two_steps(
            job,
            announce,
            by_answers=lambda first, said: self._by_answers(first, said, finished, around),
            beside_code=lambda second, said: self._beside_code(second, said, finished, around),
        )

    def _by_answers(
        self, job: Job, announce: Announce, finished: Told, around: "_Around"
    ) -> tuple[Examined, Refusal | None]:
        """Probes of answers run here, on what a worker without labels says; why there is nothing more to ask it."""
        from flataudit.executors.judging import judged, sample_without_labels  # NumPy
        from flataudit.executors.remote import Conversation

        received = self._received(job, announce, finished)
        try:
            data = around.sets.of(job.data)
        except FlatauditError as error:
            refusal = Refusal(str(error), error.remedy)
            return stamped(refusal.evidence(job), received.kept), refusal

        def step(worker: Worker, chunks: Iterator[bytes], _: Iterator[Frame]) -> Examined | Refusal:
            return judged(job, data, Conversation(worker, chunks), announce, received.keep)

        return self._ran(received, around, step, sample_without_labels(data))

    def _beside_code(self, job: Job, announce: Announce, finished: Told, around: "_Around") -> Examined:
        """Probes that need more than answers, in a worker where the candidate's code may forge them."""
        received = self._received(job, announce, lambda part: finished(part and confined_to(job, part)))
        return confined_to(job, self._ran(received, around, partial(_listened, received))[0])

    def _received(self, job: Job, announce: Announce, finished: Told) -> Received:
        return Received(job, announce, finished, kept=supervised(watches_memory=_on_gpu(job.device)))

    def _ran(
        self, received: Received, around: "_Around", step: Step, sample: Sample | None = None
    ) -> tuple[Examined, Refusal | None]:
        """One worker's evidence, whatever befell it, and why nothing of its candidate is taken any more."""
        job = received.job
        attempts: list[str] = []
        refusal = None
        try:
            found = self._supervised(received, around, step, sample, attempts)
            refusal = found if isinstance(found, Refusal) else None
            examined = found.evidence(job) if isinstance(found, Refusal) else found
        except WorkerError as error:
            refusal = Refusal(str(error), error.remedy, error.outcome)
            examined = received.with_the_rest(refusal.evidence(job))
        except ModelError as error:  # it broke the protocol: nothing that it said is believed
            received.finished(None)
            refusal = Refusal(str(error), error.remedy)
            examined = refusal.evidence(job)
        except OSError as error:
            reason = f"a worker could not be started: {error.strerror or error}"
            refusal = Refusal(reason, "look at the limits on processes, files and memory")
            examined = received.with_the_rest(refusal.evidence(job))
        return stamped(examined, received.kept, attempts), refusal

    def _supervised(
        self, received: Received, around: "_Around", step: Step, sample: Sample | None, attempts: list[str]
    ) -> Examined | Refusal:
        job = anchored(received.job)
        if sample is not None:  # neither the labels nor where they lie
            job = job.model_copy(update={"data": (), "probes": ()})
        with scratch() as folder:
            request, bounds = self._request(job, job.budget, job.device, folder, around.canary)
            request = request.model_copy(update={"sample": sample})
            decoder = Decoder(request.nonce)
            with Worker(around.launch or self._fresh(folder, job.device), request, scratch=folder) as worker:
                chunks = worker.answers(bounds, around.stop)
                frames = (frame for chunk in chunks for frame in decoder.feed(chunk))
                try:
                    if (found := next(frames, None)) is None:
                        raise worker.ending()
                    received.take_self_test(found, variables=self._variables(job.device), minimum=self.minimum)
                    worker.begin()
                    return step(worker, chunks, frames)
                finally:
                    attempts += worker.attempts

    def _self_tested(self) -> SelfTest:
        with scratch() as folder, canary_file() as canary:
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
    def _launcher(self, jobs: Sequence[Job], coded: Sequence[bool]) -> Iterator[Launch | None]:
        """The zygote's, where it is worth its start and can be had; None: a fresh interpreter for each."""
        with ExitStack() as stack:
            launch = None
            workers = sum(
                sum(bool(step.probes) for step in split(job)) if code else 1
                for job, code in zip(jobs, coded, strict=True)
            )
            if self.warm and workers > 1:
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
            open_files=self.open_files,
            processes=self.processes,
        )
        bounds = reach(job, scratch=folder, canary=canary)
        request = Request(nonce=secrets.token_hex(16), limits=limits, reach=bounds, job=job)
        resident = budget.memory_bytes if watched else None
        return request, Bounds(seconds, resident, self.disk_bytes, self.output_bytes)


@dataclass(frozen=True)
class _Around:
    """What the workers of one call have in common."""

    launch: Launch | None
    canary: Path
    stop: Event
    sets: DataSets


def _listened(
    received: Received, worker: Worker, _: Iterator[bytes], frames: Iterator[Frame], *, to_code: bool = True
) -> Examined:
    """What a worker that examines says; ``to_code``: also beside code of the candidate's own.

    Raises:
        WorkerError: it has gone.
        ModelError: such code runs in it unexpectedly: nothing of this is believed.
    """
    for frame in frames:
        examined = received.take(frame)
        if received.ran_code and not to_code:
            got = "code of its own that no look at its files found"
            raise ModelError("data", got=got, remedy="log it in a format of data, or let the policy's `trust` name it")
        if examined is not None:
            return examined
    raise worker.ending()


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
