"""What a process finds that it can still do; each attempt is the real thing, not a look at the settings.

It proves nothing about attempts that it does not make. It shows that the layers are there at all: in a container that
answers system calls in another way, under a kernel that has another Landlock, on another system.
"""

import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, ParamSpec

from flataudit.sandbox.kernel import MACHINE

__all__ = ["Grade", "tested"]

Grade = Literal["enforced", "partial", "none"]
_P = ParamSpec("_P")
_LOCAL = getattr(socket, "AF_UNIX", socket.AF_INET)


def tested(canary: Path, *, user: int, memory: int | None) -> dict[str, Grade]:
    """For files, network, processes, memory and user: what this process is kept from.

    Args:
        canary: a file outside of what it may reach, in a folder that its user could write to.
        user: the user of whoever started it.
        memory: bytes that it must not get; None: somebody else watches its memory.
    """
    found = {
        "fs": _graded(_refused(_read, canary), _refused(_write, canary)),
        "net": _graded(*(_refused(_open_socket, family) for family in (socket.AF_INET, socket.AF_INET6, _LOCAL))),
        "proc": _graded(_refused(_fork), _refused(_execute), _refused(_reach_parent)),
        "uid": _user(user),
    }
    if memory is not None:
        found["mem"] = _graded(_refused(_take, memory))
    return found


def _graded(*refused: bool) -> Grade:
    return "enforced" if all(refused) else "partial" if any(refused) else "none"


def _refused(attempt: Callable[_P, None], *arguments: _P.args, **named: _P.kwargs) -> bool:
    try:
        attempt(*arguments, **named)
    except (PermissionError, MemoryError):
        return True
    except OSError:
        return False
    return False


def _read(canary: Path) -> None:
    canary.read_bytes()


def _write(canary: Path) -> None:
    written = canary.with_name(f"{canary.name}-{os.getpid()}")
    written.write_bytes(b"")
    written.unlink()


def _open_socket(family: int) -> None:
    socket.socket(family, socket.SOCK_STREAM).close()


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _execute() -> None:
    """Refused by the filter before anybody looks whether there is such a file."""
    os.execv("/nonexistent", ["nonexistent"])  # noqa: S606


def _reach_parent() -> None:
    os.kill(os.getppid(), 0)


def _take(memory: int) -> None:
    """The kernel hands out addresses without memory behind them, so that nothing is used if it does."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        mmap.mmap(-1, memory, flags).close()
    except OSError as error:
        raise MemoryError from error


def _user(user: int) -> Grade:
    if os.getuid() != user:
        return "enforced"
    if user == 0 and sys.platform == "linux" and MACHINE:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return "partial" if int(status.partition("CapEff:")[2].split()[0], 16) == 0 else "none"
    return "none"
