"""One worker process under supervision: its answers, its output, its time, its memory, and its certain end.

The worker may be hostile. So nothing here waits for it: a descriptor that stays open after it has gone (a
grandchild may hold it), output without end, silence, all end at the deadline or before.
"""

import os
import select
import selectors
import signal
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from flataudit.errors import ModelError
from flataudit.evidence import Outcome
from flataudit.executors.frames import Request
from flataudit.executors.launching import Ends, Launch
from flataudit.executors.usage import resident, written
from flataudit.executors.worker import BEGIN
from flataudit.sandbox.seccomp import noted

__all__ = ["Bounds", "Worker", "WorkerError", "ended", "quoted_tail"]

_POLL_SECONDS = 0.05
_CLOSING_SECONDS = 2.0
"""How long a worker that closed its answers may take to exit and so give its exit code."""
_DRAIN_SECONDS = 1.0
"""How long what an exited worker left in its pipes is read; the pipes hold far less than this."""
_CHUNK = 64 * 2**10
_QUOTED = 300
"""Characters of a worker's last line in a message."""
_DISK_SECONDS = 0.5
_KINDS_KEPT = 100
"""Different system calls that are noted."""


class WorkerError(ModelError):
    """A worker gave no evidence; it becomes evidence of `outcome` for its candidate."""

    def __init__(self, expected: str, *, got: str, remedy: str, outcome: Outcome = Outcome.FAILED) -> None:
        super().__init__(expected, got=got, remedy=remedy)
        self.outcome = outcome


@dataclass(frozen=True)
class Bounds:
    """What the supervisor enforces from outside."""

    seconds: float
    """Wall clock since the start."""
    resident_bytes: int | None = None
    """Resident memory, looked at every 50 ms; None where the worker's address space is limited instead."""
    written_bytes: int = 2**30
    """In its folder and in files without a name, looked at twice a second."""
    output_bytes: int = 2**20
    """Of what it prints, the end that is kept; all of it is read."""


class Worker:
    """A process in its own session and process group; leaving the context kills the group and reaps it."""

    def __init__(self, launch: Launch, request: Request, *, scratch: Path) -> None:
        self._started = self._looked = time.monotonic()
        self._scratch = scratch
        self._output, self._kept = bytearray(), Bounds.output_bytes
        self._closed: float | None = None
        self._attempts: Counter[str] = Counter()
        self._begun, self._awaited = False, True
        self._outgoing: deque[memoryview] = deque()
        self._listener: int | None = None
        self._listening = select.poll()
        # Made first: once there is a process, nothing may fail before its end is somebody's duty.
        self._selector = selectors.DefaultSelector()
        self._answers, answering = os.pipe()
        self._printed, printing = os.pipe()
        self._channel, theirs = socket.socketpair()
        try:
            with theirs, tempfile.TemporaryFile() as stdin:
                ends = Ends(stdin.fileno(), printing, answering, theirs.fileno())
                told = {"answers": ends.answers, "channel": ends.channel, "parent": os.getpid()}
                stdin.write(request.model_copy(update=told).model_dump_json().encode())
                stdin.seek(0)
                self._child = launch(ends, scratch)
        except BaseException:
            self._close()
            raise
        finally:
            os.close(answering)
            os.close(printing)
        for descriptor in (self._answers, self._printed):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._channel.setblocking(False)
        self._watch_channel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.close()
        self._close()

    @property
    def attempts(self) -> tuple[str, ...]:
        """What it tried since it began and was refused, each once, with how often."""
        found = self._attempts if self._begun else {}
        return tuple(f"{what}, {times} times" if times > 1 else what for what, times in found.items())

    def begin(self) -> None:
        """Let it touch the candidate; what it tried before was its self-test."""
        self._attempts.clear()
        self._begun = True
        with suppress(OSError):
            self._channel.send(BEGIN)

    def post(self, *pieces: memoryview) -> None:
        """Bytes for a worker that listens; they are written as it takes them, while its `answers` are read."""
        self._child.signal(signal.SIGCONT)
        self._outgoing.extend(pieces)
        self._watch_channel()

    def rest(self) -> None:
        """Stop it until the next `post`: nobody watches what it writes meanwhile."""
        self._child.signal(signal.SIGSTOP)

    def answers(self, bounds: Bounds, stop: Event) -> Iterator[bytes]:
        """What the worker writes to its answers, piece by piece, until it has gone.

        Raises:
            WorkerError: it exceeded its bounds, closed its answers and stayed, or ``stop`` was set.
        """
        self._kept = bounds.output_bytes
        while not self._child.exited():
            self._refuse(bounds, stop)
            yield from self._read(_POLL_SECONDS)
        # Not yet reaped, so its number, which names the group, cannot have been given to another process.
        self._child.kill()
        until = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < until and self._selector.select(0):
            yield from self._read(0)

    def ending(self) -> WorkerError:
        """How a worker that has gone without evidence ended."""
        tail = quoted_tail(bytes(self._output))
        return ended(self._child.code(_CLOSING_SECONDS), f"; it last printed {tail}" if tail else "")

    def _read(self, timeout: float) -> Iterator[bytes]:
        for key, events in self._selector.select(timeout):
            if key.fd == self._listener:
                self._note()
            elif key.fd == self._channel.fileno():
                if events & selectors.EVENT_READ:
                    self._take_listener()
                if events & selectors.EVENT_WRITE:
                    self._write()
            else:
                yield from self._read_pipe(key.fd)

    def _read_pipe(self, descriptor: int) -> Iterator[bytes]:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._selector.unregister(descriptor)
        if descriptor != self._answers:
            self._output += chunk
            del self._output[: -self._kept]
        elif chunk:
            yield chunk
        else:
            self._closed = time.monotonic()

    def _watch_channel(self) -> None:
        """For the listener that is to come, and for room where something is to be written."""
        wanted = selectors.EVENT_READ * self._awaited | selectors.EVENT_WRITE * bool(self._outgoing)
        if self._channel in self._selector.get_map():
            self._selector.unregister(self._channel)
        if wanted:
            self._selector.register(self._channel, wanted)

    def _write(self) -> None:
        """As much as there is room for."""
        try:
            while self._outgoing:
                piece = self._outgoing[0]
                written = self._channel.send(piece)
                self._outgoing[0] = piece[written:]
                if written == len(piece):
                    self._outgoing.popleft()
        except BlockingIOError:
            return
        except OSError:  # nobody is there to read it, which `answers` will tell
            self._outgoing.clear()
        self._watch_channel()

    def _take_listener(self) -> None:
        """Of refused calls, once; whatever else comes this way is of no interest."""
        self._awaited = False
        self._watch_channel()
        with suppress(OSError):
            _, descriptors, _, _ = socket.recv_fds(self._channel, 16, 1)
            for descriptor in descriptors:
                self._listener = descriptor
                self._listening.register(descriptor, select.POLLIN)
                self._selector.register(descriptor, selectors.EVENT_READ)

    def _note(self) -> None:
        """To take a note where there is none would block: its process may have gone since."""
        assert self._listener is not None
        for _, event in self._listening.poll(0):
            if event & select.POLLIN:
                what = noted(self._listener)
                if what is not None and (what in self._attempts or len(self._attempts) < _KINDS_KEPT):
                    self._attempts[what] += 1
            else:
                self._selector.unregister(self._listener)

    def _refuse(self, bounds: Bounds, stop: Event) -> None:
        now = time.monotonic()
        if stop.is_set():
            raise WorkerError("the audit to go on", got="an interrupt", remedy="start it again")
        if now - self._started > bounds.seconds:
            got, remedy = "none; the worker was killed", "raise budget.seconds, or measure less"
            raise WorkerError(
                f"an answer within {bounds.seconds:g} s", got=got, remedy=remedy, outcome=Outcome.OVER_BUDGET
            )
        if self._closed is not None and now - self._closed > _CLOSING_SECONDS:
            got, remedy = "closed answers without it", "check that the model loads in this environment"
            raise WorkerError("evidence from the worker", got=got, remedy=remedy)
        if bounds.resident_bytes is not None and resident(self._child.pid) > bounds.resident_bytes:
            raise _too_much(bounds.resident_bytes, "", "raise budget.memory_bytes, or lower batch_size")
        if now - self._looked > _DISK_SECONDS:
            self._looked = now
            if written(self._scratch, self._child.pid) > bounds.written_bytes:
                raise _too_much(bounds.written_bytes, " on disk", "look at what the candidate writes")

    def _close(self) -> None:
        self._selector.close()
        self._channel.close()
        for descriptor in (self._answers, self._printed, self._listener):
            if descriptor is not None:
                os.close(descriptor)


def ended(code: int | None, printed: str = "") -> WorkerError:
    """What an exit code (or minus a signal's number) without evidence means."""
    expected, remedy = "evidence from the worker", "check that the model loads in this environment"
    if code == -signal.SIGXCPU:
        remedy = "raise budget.seconds, or measure less"
        return WorkerError(
            expected, got="the end of its CPU time" + printed, remedy=remedy, outcome=Outcome.OVER_BUDGET
        )
    if code == -signal.SIGKILL:
        got = "its death by SIGKILL, as the system kills when memory runs out"
        return WorkerError(expected, got=got + printed, remedy="run fewer workers, or lower batch_size")
    if code is not None and code < 0:
        remedy += "; raise budget.memory_bytes if it ran out"
        return WorkerError(expected, got=f"its crash ({_signal_name(-code)})" + printed, remedy=remedy)
    return WorkerError(expected, got=f"its exit with code {code}" + printed, remedy=remedy)


def _too_much(most: int, where: str, remedy: str) -> WorkerError:
    return WorkerError(f"at most {most / 2**30:.3g} GiB{where}", got="more; the worker was killed", remedy=remedy)


def quoted_tail(output: bytes, *, width: int = _QUOTED) -> str:
    r"""The last line of a worker's output, fit to stand in a message: escaped, and its end if it is long.

    >>> quoted_tail(b"three\nfour \x1b[31mred\n \n")
    "'four \\x1b[31mred'"
    """
    text = output[-4 * width :].decode("utf-8", errors="backslashreplace")
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    shown = escaped if len(escaped) <= width else "…" + escaped[1 - width :]
    return f"'{shown}'" if shown else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
