"""The process that workers are forked from: it imports what the jobs need, once, and then forks whenever it is told.

It knows no candidate. On its control socket (its standard input) it is told which plugins to import, and then, per
worker, gets five descriptors: request, output, answers and channel, which the fork keeps, and a link to the worker's
supervisor. On the link it says the worker's number, and later its exit code; when the supervisor closes the link, the
worker's group is killed and reaped. When the control socket closes, or the supervisor's thread ends, all is over.

A fork takes one thread along. So it refuses to be used if an import has started threads that cannot stand that.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from flataudit import plugins
from flataudit.errors import FlatauditError
from flataudit.executors.frames import Request
from flataudit.executors.worker import serve
from flataudit.sandbox.kernel import control, threads

__all__ = ["main"]

_PARENT_DEATH_SIGNAL = 1
_STAND_A_FORK = frozenset({"jemalloc_bg_thd"})
"""Threads whose library stops and starts them around a fork (PyArrow's allocator)."""
_LATE = {
    "pytorch": (
        *("torch.export.pt2_archive._package", "torch.export.passes", "torch.export._trace", "torch.export._unlift"),
        *("torch._inductor.sizevars", "torch.utils.serialization.config", "safetensors.torch"),
    )
}
"""What a backend's library imports when it first loads a model, seconds of it; a name that is gone is left out."""


def main() -> None:
    """Import, then fork until the control socket closes."""
    control(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    variables = dict(os.environ)
    told = socket.socket(fileno=os.dup(0))
    _import(json.loads(told.recv(64 * 2**10)))
    gc.collect()
    gc.freeze()
    told.send((_unsafe() or "ready").encode())
    _Nursery(told, variables).run()


def _import(wanted: list[list[str]]) -> None:
    """What is missing or broken is reported by the worker that needs it."""
    for group, name in wanted:
        plugins.names(group)  # type: ignore[arg-type]  # a group of `plugins.GROUPS`
        with suppress(FlatauditError):
            plugins.load(group, name)  # type: ignore[arg-type]
        for module in _LATE.get(name, ()) if group == "backends" else ():
            with suppress(ImportError):
                importlib.import_module(module)


def _unsafe() -> str | None:
    """Why this process must not be forked."""
    tasks = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
    names = {Path(f"/proc/self/task/{task}/comm").read_text(encoding="utf-8").strip() for task in tasks}
    others = sorted(names - _STAND_A_FORK)
    if others:
        return f"threads that an import has started ({', '.join(others)})"
    trial = os.fork()
    if trial == 0:
        os._exit(min(threads(), 99))
    left = os.waitstatus_to_exitcode(os.waitpid(trial, 0)[1])
    return None if left == 1 else f"{left} threads in a fork"


class _Nursery:
    """The workers that are there, each with its link."""

    def __init__(self, told: socket.socket, variables: dict[str, str]) -> None:
        self._told, self._variables = told, variables
        self._links: dict[int, tuple[int, socket.socket]] = {}
        """Process number and link, by the link's descriptor."""
        self._ends: dict[int, int] = {}
        """The link's descriptor, by that of the process."""
        self._poll = select.poll()
        self._poll.register(told, select.POLLIN)

    def run(self) -> None:
        """Until the control socket closes."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._told.fileno():
                    if not self._forked():
                        return
                elif descriptor in self._ends:
                    self._say_code(descriptor)
                elif descriptor in self._links:
                    self._let_go(descriptor)

    def _forked(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._told, 16, 5)
        if not message:
            return False
        *kept, link_end = descriptors
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_worker(kept, zygote, self._variables)
        for each in kept:
            os.close(each)
        link = socket.socket(fileno=link_end)
        process = os.pidfd_open(pid)
        self._links[link_end], self._ends[process] = (pid, link), link_end
        self._poll.register(link_end, 0)
        self._poll.register(process, select.POLLIN)
        with suppress(OSError):
            link.send(str(pid).encode())
        return True

    def _say_code(self, process: int) -> None:
        """It has ended: say how, and keep its number until the supervisor lets go."""
        pid, link = self._links[self._ends.pop(process)]
        self._poll.unregister(process)
        os.close(process)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with suppress(OSError):
            link.send(str(code).encode())

    def _let_go(self, link_end: int) -> None:
        pid, link = self._links.pop(link_end)
        self._poll.unregister(link_end)
        for process in [process for process, end in self._ends.items() if end == link_end]:
            del self._ends[process]
            self._poll.unregister(process)
            os.close(process)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        link.close()


def _be_worker(kept: list[int], zygote: int, variables: dict[str, str]) -> None:
    """Go on as a worker, with nothing of the zygote's but its modules; never return.

    Its variables are those that the zygote was started with: an import may have set others.
    """
    code = 1
    try:
        request, printed, answers, channel = kept
        os.setsid()
        os.dup2(request, 0)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        _close_all_but(0, 1, 2, answers, channel)
        asked = Request.model_validate_json(sys.stdin.buffer.read())
        scratch = asked.reach.scratch
        os.chdir(scratch)
        os.environ.clear()
        os.environ.update(variables, HOME=scratch, TMPDIR=scratch)
        tempfile.tempdir = None
        serve(asked.model_copy(update={"answers": answers, "channel": channel, "parent": zygote}))
        code = 0
    except BaseException as error:  # noqa: BLE001  # there is nobody above to tell
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _close_all_but(*kept: int) -> None:
    """Between those that are kept; an empty range would close all there are (CPython 3.11)."""
    ends = sorted(kept)
    for before, after in pairwise([-1, *ends, os.sysconf("SC_OPEN_MAX")]):
        if before + 1 < after:
            os.closerange(before + 1, after)
