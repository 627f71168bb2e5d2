"""One worker process under supervision: its answers, its output, its time, its memory, and its certain end.

The worker may be hostile. So nothing here waits for it: a descriptor that stays open after it has gone (a
grandchild may hold it), output without end, silence, all end at the deadline or before.
"""

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from flataudit.errors import ModelError
from flataudit.evidence import Outcome
from flataudit.executors.frames import Request

__all__ = ["Bounds", "Worker", "WorkerError", "quoted_tail"]

_POLL_SECONDS = 0.05
_CLOSING_SECONDS = 2.0
"""How long a worker that closed its answers may take to exit and so give its exit code."""
_DRAIN_SECONDS = 1.0
"""How long what an exited worker left in its pipes is read; the pipes hold far less than this."""
_CHUNK = 64 * 2**10
_KEPT_OUTPUT = 2**20
_QUOTED = 300
"""Characters of a worker's last line in a message."""


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


class Worker:
    """A process in its own session and process group; leaving the context kills the group and reaps it."""

    def __init__(
        self, command: Sequence[str], request: Request, *, environment: Mapping[str, str], scratch: Path
    ) -> None:
        self._started = time.monotonic()
        self._output = bytearray()
        self._closed: float | None = None
        # Made first: once there is a process, nothing may fail before its end is somebody's duty.
        self._selector = selectors.DefaultSelector()
        self._answers, writing = os.pipe()
        try:
            with tempfile.TemporaryFile() as stdin:
                stdin.write(request.model_copy(update={"answers": writing}).model_dump_json().encode())
                stdin.seek(0)
                self._process = subprocess.Popen(
                    command,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=scratch,
                    env=dict(environment),
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._answers)
            self._selector.close()
            raise
        finally:
            os.close(writing)
        assert self._process.stdout is not None
        self._printed = self._process.stdout
        for descriptor in (self._answers, self._printed.fileno()):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._selector.close()
        self._printed.close()
        os.close(self._answers)

    def answers(self, bounds: Bounds, stop: Event) -> Iterator[bytes]:
        """What the worker writes to its answers, piece by piece, until it has gone.

        Raises:
            WorkerError: it exceeded its bounds, closed its answers and stayed, or ``stop`` was set.
        """
        while not self._exited():
            self._refuse(bounds, stop)
            yield from self._read(_POLL_SECONDS)
        # Not yet reaped, so its number, which names the group, cannot have been given to another process.
        self._kill()
        until = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < until and self._selector.select(0):
            yield from self._read(0)

    def ending(self) -> WorkerError:
        """How a worker that has gone without evidence ended."""
        code = self._process.wait()
        tail = quoted_tail(bytes(self._output))
        printed = f"; it last printed {tail}" if tail else ""
        expected = "evidence from the worker"
        if code == -signal.SIGXCPU:
            remedy = "raise budget.seconds, or measure less"
            return WorkerError(
                expected, got="the end of its CPU time" + printed, remedy=remedy, outcome=Outcome.OVER_BUDGET
            )
        if code == -signal.SIGKILL:
            got = "its death by SIGKILL, as the system kills when memory runs out"
            return WorkerError(expected, got=got + printed, remedy="run fewer workers, or lower batch_size")
        if code < 0:
            got = f"its crash ({_signal_name(-code)})"
            remedy = "check that the model loads in this environment; raise budget.memory_bytes if it ran out"
            return WorkerError(expected, got=got + printed, remedy=remedy)
        return WorkerError(
            expected,
            got=f"its exit with code {code}" + printed,
            remedy="check that the model loads in this environment",
        )

    def _read(self, timeout: float) -> Iterator[bytes]:
        for key, _ in self._selector.select(timeout):
            try:
                chunk = os.read(key.fd, _CHUNK)
            except BlockingIOError:
                continue
            if not chunk:
                self._selector.unregister(key.fd)
            if key.fd != self._answers:
                self._output += chunk
                del self._output[:-_KEPT_OUTPUT]
            elif chunk:
                yield chunk
            else:
                self._closed = time.monotonic()

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
        if bounds.resident_bytes is not None and self._resident() > bounds.resident_bytes:
            remedy = "raise budget.memory_bytes, or lower batch_size"
            raise WorkerError(
                f"at most {bounds.resident_bytes / 2**30:.3g} GiB", got="more; the worker was killed", remedy=remedy
            )

    def _resident(self) -> int:
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _exited(self) -> bool:
        if hasattr(os, "waitid"):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return self._process.returncode is not None or os.waitid(os.P_PID, self._process.pid, flags) is not None
        return self._process.poll() is not None

    def _kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


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
