"""The filter, run by a small machine of its own for every call on both architectures; then the real one."""

import errno
import os
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from flataudit.sandbox import seccomp
from flataudit.sandbox.kernel import MACHINE
from flataudit.sandbox.syscalls import BY_ARGUMENT, QUIET, REFUSED, number

Inside = Callable[..., Mapping[str, object]]
PID = 4711
ALLOW, KILL, NOTIFY = 0x7FFF0000, 0x80000000, 0x7FC00000
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HARMLESS = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "openat": 257, "futex": 202, "exit_group": 231, "sendmsg": 46},
    "aarch64": {"read": 63, "write": 64, "mmap": 222, "openat": 56, "futex": 98, "exit_group": 94, "sendmsg": 211},
}
MACHINES = ("x86_64", "aarch64")
real = pytest.mark.skipif(not seccomp.available(), reason="no filters of system calls here")


def answer(program: Sequence[tuple[int, int, int, int]], arch: int, called: int, *arguments: int) -> int:
    """What classic BPF makes of a call: loads, jumps and returns, as the kernel's manual has them."""
    data = struct.pack("=iIQ6Q", called, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    at = accumulator = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x06:
            return k
        else:
            held = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += yes if held else no


def judged(machine: str, name: str, *arguments: int) -> int:
    called = number(name, machine)
    assert called is not None
    return answer(seccomp._program(machine, PID, NOTIFY), ARCH[machine], called, *arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_of_the_table_is_refused_and_others_pass(machine: str) -> None:
    for what, calls in REFUSED.items():
        for name in set(calls) - BY_ARGUMENT:
            if number(name, machine) is not None:
                assert judged(machine, name) == (EPERM if what in QUIET else NOTIFY), name
    program = seccomp._program(machine, PID, NOTIFY)
    assert all(answer(program, ARCH[machine], called) == ALLOW for called in HARMLESS[machine].values())


@pytest.mark.parametrize("machine", MACHINES)
def test_some_calls_depend_on_what_they_are_asked(machine: str) -> None:
    thread = 0x3D0F00
    assert judged(machine, "clone", thread) == ALLOW
    assert judged(machine, "clone", thread & ~0x10000) == judged(machine, "clone", 17) == NOTIFY
    assert judged(machine, "clone3", 0) == ENOSYS
    for name in ("kill", "tgkill"):
        assert judged(machine, name, PID, 9) == ALLOW
        assert {judged(machine, name, other, 9) for other in (0, 1, PID + 1, 2**32 - 1)} == {NOTIFY}
    assert judged(machine, "prlimit64", 0) == judged(machine, "prlimit64", PID) == ALLOW
    assert judged(machine, "prlimit64", 1) == NOTIFY
    assert judged(machine, "prctl", 15) == ALLOW
    assert {judged(machine, "prctl", option) for option in (1, 4, 0x59616D61)} == {NOTIFY}


def test_other_architectures_and_numberings_do_not_get_past() -> None:
    program = seccomp._program("x86_64", PID, NOTIFY)
    assert answer(program, 0x40000003, 359) == KILL
    assert answer(program, ARCH["x86_64"], 0x40000000 | 41) == EPERM


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", Path(header).read_text(), re.MULTILINE))
    for calls in REFUSED.values():
        for name in calls:
            if name in known:
                assert number(name, machine) == int(known[name]), name


# ── The kernel's own ──────────────────────────────────────────────────────────────────────────────


@real
def test_the_kernel_answers_not_permitted(inside: Inside) -> None:
    found = inside(
        """
import socket, subprocess, threading, time
found["listener"] = seccomp.install(listen=False)
attempt("socket", socket.socket)
attempt("pair", socket.socketpair)
attempt("fork", os.fork)
attempt("spawn", lambda: subprocess.run(["true"]))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("parent", lambda: os.kill(os.getppid(), 0))
attempt("self", lambda: os.kill(os.getpid(), 0))
attempt("mode", lambda: canary.chmod(0o600))
attempt("times", lambda: os.utime(canary))
attempt("session", os.setsid)
attempt("memory file", lambda: os.memfd_create("x"))
thread = threading.Thread(target=found.update, args=({"thread": "done"},))
thread.start(); thread.join()
time.sleep(0)
"""
    )
    done = {"listener": None, "self": "done", "thread": "done"}
    assert found == dict.fromkeys(found, "EPERM") | done


@real
def test_threads_that_were_there_before_are_an_error(inside: Inside) -> None:
    found = inside(
        """
import threading
end = threading.Event()
threading.Thread(target=end.wait).start()
attempt("install", seccomp.install)
end.set()
"""
    )
    assert found == {"install": "EBUSY"}


@pytest.mark.skipif(not seccomp.tripwire(), reason="refused calls cannot be told here")
def test_refused_calls_are_told_to_who_listens(inside: Inside) -> None:
    found = inside(
        """
import socket
ours, theirs = socket.socketpair()
if not (child := os.fork()):
    listener = seccomp.install()
    socket.send_fds(theirs, [b"l"], [listener])
    os.close(listener)
    for what in (socket.socket, os.fork, lambda: os.kill(1, 9)):
        try:
            what()
        except PermissionError:
            continue
        os._exit(1)
    os._exit(0)
theirs.close()
_, (listener,), _, _ = socket.recv_fds(ours, 16, 1)
found["told"] = [seccomp.noted(listener) for _ in range(3)]
found["code"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    )
    told = ["open a socket (socket)", "start a process (clone)", "look into another process (kill)"]
    assert found == {"told": told, "code": 0}


def test_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "MACHINE", "")
    assert not seccomp.available() and not seccomp.tripwire()


def test_nobody_answers_where_there_is_no_listener() -> None:
    with open(os.devnull, "rb") as stream:
        assert seccomp.noted(stream.fileno()) is None
    assert MACHINE in ARCH or not seccomp.available()
