"""Landlock (Linux 5.13): from here on only the named files may be read, one folder written, and no TCP port used.

Its rules hold for this thread and all that it starts, are never lifted, and need no privilege. What a version of the
kernel cannot deny yet is not denied: `abi` says which version it is. ABI 2 denies moves between folders, 3
truncation, 4 TCP, 5 ``ioctl`` of devices, 6 signals and abstract sockets to the outside.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from flataudit.sandbox.kernel import call

__all__ = ["DEVICE", "LIST", "READ", "WRITE", "abi", "restrict"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TCP = 0b11
_SCOPES = 0b11

LIST = _READ_DIR
"""Names of what is in a folder."""
READ = _READ_DIR | _READ_FILE
WRITE = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
"""Files and folders; no links, sockets, pipes or devices. Execution is granted nowhere."""
DEVICE = READ | _WRITE_FILE | _IOCTL_DEV


def abi() -> int:
    """The kernel's version of Landlock; 0: it has none, or it is switched off."""
    try:
        return call(_CREATE, 0, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(rules: Iterable[tuple[Path, int]]) -> None:
    """Deny this thread all files but those beneath the rules' paths, and TCP, signals and sockets to the outside.

    A path that does not exist is left out. ``no_new_privs`` must be set before.

    Raises:
        OSError: the kernel has no Landlock.
    """
    handled = _handled(abi())
    attributes = ctypes.create_string_buffer(b"".join(struct.pack("=Q", word) for word in handled.values()))
    ruleset = call(_CREATE, attributes, 8 * len(handled), 0)
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & handled["fs"])
        call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _handled(version: int) -> Mapping[str, int]:
    """All that this version can deny, in the order of the kernel's structure."""
    # The bits came in order: 13 rights at first, then moving, truncation, and ioctl of devices.
    files = (1 << 13 + (version >= 2) + (version >= 3) + (version >= 5)) - 1
    return {
        "fs": files,
        **({"net": _TCP} if version >= 4 else {}),
        **({"scoped": _SCOPES} if version >= 6 else {}),
    }


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        if rights:
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened))
            call(_ADD, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(opened)
