"""Two ways to a worker's process: a fresh interpreter, or a fork of one that has imported everything already.

The second saves the seconds that PyTorch takes to import, for every candidate but the first. The process that is
forked (`flataudit.executors.zygote`) is given descriptors, never a request or a candidate's bytes, and holds nothing
that a worker could not have.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from threading import Lock
from types import TracebackType
from typing import Protocol, Self

from flataudit.errors import ModelError
from flataudit.executors.environment import zygote_command
from flataudit.specs import Job

__all__ = ["Child", "Ends", "Forked", "Fresh", "Launch", "Zygote", "fresh", "warm_start"]

_READY_SECONDS = 180.0
_FORK_SECONDS = 20.0


@dataclass(frozen=True)
class Ends:
    """A worker's ends of what joins it to its supervisor."""

    request: int
    """What it reads as its standard input."""
    printed: int
    """Its standard output and error."""
    answers: int
    channel: int


class Child(Protocol):
    """A worker's process; its number names its group, and is its own until `close`."""

    pid: int

    def exited(self) -> bool:
        """Whether it has gone; it is not reaped by that."""
        ...

    def code(self, seconds: float) -> int | None:
        """Its exit code, or minus the signal that ended it; None: still there after these seconds."""
        ...

    def kill(self) -> None:
        """Kill the whole group."""
        ...

    def signal(self, number: Signals) -> None:
        """Send a signal to the whole group, if it is there."""
        ...

    def close(self) -> None:
        """Let go of it, dead by now or not."""
        ...


Launch = Callable[[Ends, Path], Child]
"""``(ends, scratch folder) -> process``."""


class Fresh:
    """A process of our own in its own session."""

    def __init__(self, command: Sequence[str], ends: Ends, *, environment: Mapping[str, str], scratch: Path) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=ends.request,
            stdout=ends.printed,
            stderr=subprocess.STDOUT,
            cwd=scratch,
            env=dict(environment),
            pass_fds=(ends.answers, ends.channel),
            start_new_session=True,
        )
        self.pid = self._process.pid

    def exited(self) -> bool:
        """As `Child.exited`."""
        if hasattr(os, "waitid"):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return self._process.returncode is not None or os.waitid(os.P_PID, self.pid, flags) is not None
        return self._process.poll() is not None

    def code(self, seconds: float) -> int | None:
        """As `Child.code`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def kill(self) -> None:
        """As `Child.kill`."""
        self.signal(Signals.SIGKILL)

    def signal(self, number: Signals) -> None:
        """As `Child.signal`."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def close(self) -> None:
        """As `Child.close`."""
        self.code(10.0)


class Forked:
    """A fork of the zygote's, which reaps it only when told to, so that its number stays its own."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._code: int | None = None
        link.settimeout(_FORK_SECONDS)
        told = link.recv(100)
        if not told:
            raise OSError("the process that workers are forked from has gone")
        self.pid = int(told)

    def exited(self) -> bool:
        """As `Child.exited`."""
        return self.code(0.0) is not None

    def code(self, seconds: float) -> int | None:
        """As `Child.code`; a zygote that has gone has taken its workers along."""
        if self._code is None:
            self._link.settimeout(seconds)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                told = self._link.recv(100)
                self._code = int(told) if told else -signal.SIGKILL
        return self._code

    def kill(self) -> None:
        """As `Child.kill`."""
        self.signal(Signals.SIGKILL)

    def signal(self, number: Signals) -> None:
        """As `Child.signal`."""
        if not self._gone():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def close(self) -> None:
        """As `Child.close`."""
        self.code(10.0)
        self._link.close()

    def _gone(self) -> bool:
        """Whether the zygote is no more, and the number so perhaps another's."""
        self._link.settimeout(0)
        try:
            return not self._link.recv(100, socket.MSG_PEEK)
        except BlockingIOError:
            return False


def fresh(command: Sequence[str], environment: Mapping[str, str]) -> Launch:
    """Workers that are each an interpreter of their own."""

    def launch(ends: Ends, scratch: Path) -> Child:
        return Fresh(command, ends, environment=environment, scratch=scratch)

    return launch


class Zygote:
    """The process that workers are forked from; it ends with this context, and with this process.

    It must be entered by the thread that outlives all workers: the kernel ends it with that thread.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], imports: Sequence[Sequence[str]]
    ) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=environment["HOME"],
                    env=dict(environment),
                    start_new_session=True,
                )
            except BaseException:
                self._control.close()
                raise
        self._imports = imports

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ready(self) -> None:
        """Wait until it has imported.

        Raises:
            ModelError: it cannot be forked safely (an import started threads), or has gone.
        """
        remedy = "workers are started one by one instead, which takes longer"
        started = time.monotonic()
        self._control.settimeout(_READY_SECONDS)
        try:
            self._control.send(json.dumps(self._imports).encode())
            told = self._control.recv(2000).decode()
        except OSError as error:
            told = f"{type(error).__name__} after {time.monotonic() - started:.0f} s"
        if told != "ready":
            raise ModelError("a process to fork workers from", got=told or "its end", remedy=remedy)

    def launch(self, ends: Ends, _: Path) -> Child:
        """Fork a worker."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, self._lock:
                descriptors = [ends.request, ends.printed, ends.answers, ends.channel, theirs.fileno()]
                socket.send_fds(self._control, [b"fork"], descriptors)
            return Forked(ours)
        except BaseException:
            ours.close()
            raise


def warm_start(stack: contextlib.ExitStack, jobs: Sequence[Job], environment: Mapping[str, str]) -> Launch | None:
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
