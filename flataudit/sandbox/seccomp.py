"""Seccomp: the system calls that a candidate has no business with answer "not permitted", and somebody is told.

The filter is assembled here, for x86_64 and aarch64; it is never lifted. Where the kernel can (Linux 5.0), a refused
call waits until whoever holds the `install`ed listener has noted it (`noted`), so that "the model tried to open a
socket" becomes known outside of the process that tried. Otherwise the calls are refused all the same, silently.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence

from flataudit.sandbox.kernel import MACHINE, call, control, threads
from flataudit.sandbox.syscalls import BY_ARGUMENT, QUIET, REFUSED, number

__all__ = ["available", "install", "noted", "tripwire"]

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
"""Calls of x86_64 under their other numbers start here."""
_SET_FILTER, _ACTION_AVAILABLE = 1, 2
_NEW_LISTENER = 1 << 3
_NO_NEW_PRIVS = 38

_KILL, _ERRNO, _NOTIFY, _ALLOW = 0x80000000, 0x00050000, 0x7FC00000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x10000
_OWN_FATE = (1, 4, 0x59616D61)
"""``prctl`` options: the signal of the parent's death, whether the parent may look in, who else may."""
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")

Instruction = tuple[int, int, int, int]
"""What to do, where to go if so and if not, and with which number."""


def available() -> bool:
    """Whether this kernel filters system calls, on a machine whose numbers are known."""
    return _knows(_ERRNO)


def tripwire() -> bool:
    """Whether refused calls can be told of outside."""
    return _knows(_NOTIFY)


def install(*, listen: bool = True) -> int | None:
    """Refuse from here on; a descriptor to hear of what was refused (`noted`), or None.

    ``no_new_privs`` is set, which a filter without privileges needs. With a descriptor, refused calls wait for it to
    be answered: give it to another process first thing.

    Raises:
        OSError: the kernel has no filters.
    """
    control(_NO_NEW_PRIVS, 1)
    if threads() > 1:
        raise OSError(errno.EBUSY, "threads that are already there would stay outside of the filter")
    if listen and tripwire():
        try:
            return _load(_program(MACHINE, os.getpid(), _NOTIFY), _NEW_LISTENER)
        except OSError:  # a filter around this process holds the one listener that there may be
            pass
    _load(_program(MACHINE, os.getpid(), _ERRNO | errno.EPERM), 0)
    return None


def noted(listener: int) -> str | None:
    """Answer one refused call with "not permitted", and say what it would have done; None: its process has gone."""
    notice = bytearray(_NOTICE.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notice)
        identity, _, _, called, _, _, *_ = _NOTICE.unpack(notice)
        fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(identity, 0, -errno.EPERM, 0)))
    except OSError:
        return None
    known = ((what, name) for what, calls in REFUSED.items() for name in calls if number(name, MACHINE) == called)
    what, name = next(known, ("make a system call of another kind", str(called)))
    return f"{what} ({name})"


def _knows(action: int) -> bool:
    if MACHINE not in _SECCOMP:
        return False
    try:
        call(_SECCOMP[MACHINE], _ACTION_AVAILABLE, 0, ctypes.create_string_buffer(struct.pack("=I", action)))
    except OSError:
        return False
    return True


def _load(program: Sequence[Instruction], flags: int) -> int:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    return call(_SECCOMP[MACHINE], _SET_FILTER, flags, head)


def _program(machine: str, pid: int, refuse: int) -> list[Instruction]:
    """The filter, whole: ``refuse`` is what happens to a call that is not permitted."""
    quietly = _ERRNO | errno.EPERM
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),  # 32-bit calls have other numbers
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, quietly)]
    for what, calls in REFUSED.items():
        for name in calls:
            called = number(name, machine)
            if called is not None:
                action = quietly if what in QUIET else refuse
                own = list(_judged(name, pid, refuse)) if name in BY_ARGUMENT else [(_RETURN, 0, 0, action)]
                program += [(_EQUAL, 0, len(own), called), *own]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _judged(name: str, pid: int, refuse: int) -> Iterator[Instruction]:
    """What a call is refused for, by its first argument (whose low word alone the kernel reads)."""
    if name == "clone3":
        # Its flags lie in memory, where no filter looks; the C library goes on with `clone`.
        yield (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
        return
    yield (_LOAD, 0, 0, _ARGUMENTS)
    if name == "clone":
        yield (_ANY_BIT, 1, 0, _CLONE_THREAD)
    elif name == "prctl":
        yield from _none_of(_OWN_FATE, refuse)
        return
    else:
        if name == "prlimit64":
            yield (_EQUAL, 2, 0, 0)
        yield (_EQUAL, 1, 0, pid)
    yield (_RETURN, 0, 0, refuse)
    yield (_RETURN, 0, 0, _ALLOW)


def _none_of(options: Sequence[int], refuse: int) -> Iterator[Instruction]:
    for option in options:
        yield (_EQUAL, 0, 1, option)
        yield (_RETURN, 0, 0, refuse)
    yield (_RETURN, 0, 0, _ALLOW)
