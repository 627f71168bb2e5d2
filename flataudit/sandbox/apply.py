"""All layers, one upon the other, in the order in which each still allows the next.

Limits first; then another user, while this one may still change; the parent's death, which a change of user forgets;
Landlock; and the filter of system calls last, since what the others need is among the calls that it refuses.
What a kernel lacks is not done without silently: `lacking` says it beforehand, and `flataudit.sandbox.selftest` finds
out afterwards.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flataudit.sandbox import landlock, limits, seccomp, surroundings
from flataudit.sandbox.identity import become_nobody
from flataudit.sandbox.kernel import control, threads

__all__ = ["Confinement", "apply", "lacking"]

_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVS = 1, 38


@dataclass(frozen=True)
class Confinement:
    """What one process may still reach."""

    scratch: Path
    """The only folder that it may write to."""
    limits: limits.Limits
    readable: tuple[Path, ...] = ()
    """Files and folders, beside what Python itself needs."""
    code: tuple[Path, ...] = ()
    """Folders whose Python files it may read, and no others."""
    graphics: bool = False
    """Whether it computes on a GPU."""


def apply(confinement: Confinement, *, parent: int, listen: bool = True) -> int | None:
    """Lay every layer that there is; the listener of refused calls (`seccomp.noted`), or None.

    Args:
        confinement: what stays within reach.
        parent: the process to die with.
        listen: whether somebody will hear of refused calls.

    Raises:
        OSError: there are other threads already, which would stay free, or the parent has gone.
    """
    if sys.platform != "linux":
        limits.lay(confinement.limits)
        return None
    if threads() > 1:
        raise OSError(16, "threads that were started before the sandbox would stay outside of it")
    control(_NO_NEW_PRIVS, 1)
    confined = landlock.abi() > 0
    own = become_nobody(confinement.scratch, (*confinement.readable, *confinement.code), confined=confined)
    limits.lay(confinement.limits, own_user=own)
    control(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        raise OSError(3, "the parent has gone")
    if confined:
        landlock.restrict(_rules(confinement))
    return seccomp.install(listen=listen) if seccomp.available() else None


def lacking() -> Mapping[str, str]:
    """Of files, network, processes and user: what this machine cannot keep a process from, and what to change."""
    if sys.platform != "linux":
        other = "run on Linux: other systems have no sandbox that needs no privilege"
        return dict.fromkeys(("fs", "net", "proc", "uid"), other)
    found = {}
    version = landlock.abi()
    if version < 3:
        found["fs"] = f"run on Linux 6.2 or later: version {version} of Landlock cannot deny truncation"
    if version == 0:
        found["fs"] = "run on Linux 6.2 or later with landlock in its `lsm=` list, and a container that permits it"
    if not seccomp.available():
        filters = "run on Linux for x86_64 or aarch64, in a container that permits seccomp(2)"
        found |= {"net": filters, "proc": filters}
    if os.geteuid() != 0:
        found["uid"] = "start flataudit as root (in a container of its own) to run workers as another user"
    return found


def _rules(confinement: Confinement) -> Iterator[tuple[Path, int]]:
    yield confinement.scratch, landlock.WRITE
    yield from surroundings.machine()
    yield from surroundings.interpreter()
    for path in confinement.readable:
        yield path, landlock.READ
    for folder in confinement.code:
        yield from surroundings.code(folder)
    if confinement.graphics:
        yield from surroundings.graphics()
