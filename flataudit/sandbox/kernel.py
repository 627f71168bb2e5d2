"""System calls by number, for those that the standard library does not know."""

import ctypes
import os
import platform
import sys

__all__ = ["MACHINE", "call", "control", "threads"]

MACHINE = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}.get(platform.machine(), "")
"""``x86_64``, ``aarch64``, or nothing where the numbers of system calls are not known."""
_PRCTL = {"x86_64": 157, "aarch64": 167}


def call(number: int, *arguments: "int | ctypes.Array[ctypes.c_char]") -> int:
    """The answer of a system call; a buffer goes in by its address.

    Raises:
        OSError: the kernel refused, or this is not Linux.
    """
    if sys.platform != "linux":
        raise OSError(38, "system calls by number are known for Linux alone")
    words = [ctypes.c_long(a if isinstance(a, int) else ctypes.addressof(a)) for a in arguments]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    answer = int(libc.syscall(ctypes.c_long(number), *words))
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


def control(option: int, *arguments: int) -> int:
    """``prctl(option, …)``, all its five words given.

    Raises:
        OSError: the kernel refused, or the machine is not known.
    """
    if MACHINE not in _PRCTL:
        raise OSError(38, f"prctl is not known for {platform.machine()}")
    return call(_PRCTL[MACHINE], option, *arguments, *[0] * (4 - len(arguments)))


def threads() -> int:
    """Threads of this process; what confines a thread does not confine one that was there before."""
    return len(os.listdir("/proc/self/task"))
