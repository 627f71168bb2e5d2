"""Limits of the kernel's on one process; all are hard, so that none can be raised again."""

import resource
from dataclasses import dataclass

__all__ = ["Limits", "lay"]


@dataclass(frozen=True)
class Limits:
    """What a process may use; None leaves a limit as it is."""

    address_space: int | None
    """Bytes of virtual memory; None for a GPU, whose driver reserves addresses that it does not use."""
    cpu_seconds: int
    """Of all threads together."""
    file_bytes: int
    """Largest file that it may write."""
    open_files: int = 512
    """Bounds, with `file_bytes`, what files without a name may hold."""
    processes: int = 512
    """Threads included; the kernel counts those of the whole user, so it is set for a user of the process's own."""


def lay(limits: Limits, *, own_user: bool = False) -> None:
    """Set the limits; one that is lower already stays."""
    if limits.address_space is not None:
        _set(resource.RLIMIT_AS, limits.address_space)
    # Soft below hard: at the hard limit the kernel sends SIGKILL, which would not tell the reason.
    _set(resource.RLIMIT_CPU, limits.cpu_seconds, slack=5)
    _set(resource.RLIMIT_FSIZE, limits.file_bytes)
    _set(resource.RLIMIT_NOFILE, limits.open_files)
    _set(resource.RLIMIT_CORE, 0)
    if own_user:
        _set(resource.RLIMIT_NPROC, limits.processes)


def _set(which: int, value: int, *, slack: int = 0) -> None:
    ceiling = resource.getrlimit(which)[1]
    hard = value + slack if ceiling == resource.RLIM_INFINITY else min(value + slack, ceiling)
    resource.setrlimit(which, (min(value, hard), hard))
