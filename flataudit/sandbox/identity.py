"""Another user for the worker, and none of root's capabilities, where the worker starts as root.

Each worker gets a user number of its own (out of those that systemd also hands out on the fly), so that workers share
nothing with each other either. It must still read the files that the job names, which may be root's alone. So where
Landlock decides what is readable, the one capability to read past a file's mode is kept; otherwise the user is
changed only if the files are readable to all.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from flataudit.sandbox.kernel import MACHINE, call, control

__all__ = ["become_nobody"]

_CAPSET = {"x86_64": 126, "aarch64": 91}
_VERSION_3 = 0x20080522
_KEEP_CAPABILITIES, _BOUNDING_DROP = 8, 24
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_LAST_CAPABILITY = 63
_FIRST_USER, _USERS = 61184, 4336


def become_nobody(scratch: Path, readable: Iterable[Path], *, confined: bool) -> bool:
    """Change the user, and drop all capabilities but that to read (which Landlock then bounds, if ``confined``).

    The scratch folder becomes the new user's. Nothing happens where this process is not root; where the user cannot
    be changed, the capabilities go all the same.

    Returns:
        Whether the user is another now.
    """
    if MACHINE not in _CAPSET or os.geteuid() != 0:
        return False
    user = _FIRST_USER + os.getpid() % _USERS
    kept = _may_keep() if confined else 0
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            control(_BOUNDING_DROP, capability)
        except OSError:  # above the last one that this kernel knows, or not allowed to
            break
    if kept or _readable_to(user, [scratch.parent, *readable]):
        _change_user(user, scratch)
    changed = os.geteuid() != 0
    _keep_only(kept if changed else 0)
    return changed


def _change_user(user: int, scratch: Path) -> None:
    try:
        os.chown(scratch, user, user)
        control(_KEEP_CAPABILITIES, 1)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:  # a user namespace that has no such number
        return


def _may_keep() -> int:
    """The capability to read, or what contains it; none if a container has taken both away."""
    for capability in (_DAC_READ_SEARCH, _DAC_OVERRIDE):
        if _permitted() >> capability & 1:
            return 1 << capability
    return 0


def _permitted() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("CapPrm:")[2].split()[0], 16)


def _keep_only(capabilities: int) -> None:
    head = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    sets = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    call(_CAPSET[MACHINE], head, sets)


def _readable_to(user: int, paths: Iterable[Path]) -> bool:
    present = [(path, os.R_OK | (os.X_OK if path.is_dir() else 0)) for path in paths if path.exists()]
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    try:
        return all(os.access(path, mode, effective_ids=True) for path, mode in present)
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
