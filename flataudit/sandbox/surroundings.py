"""What Python and its libraries read of a machine: interpreter, packages, shared libraries, clock, processors.

Nothing of a user's: no home, no configuration, no other process. Of a folder on the search path that is not part of
an installation (an editable install), only the packages that are already imported may be read, not all that lies
beside them.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from flataudit.sandbox.landlock import DEVICE, LIST, READ

__all__ = ["code", "graphics", "interpreter", "machine"]

Rule = tuple[Path, int]
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/etc/ld.so.cache")
_CLOCK = ("/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/usr/share/locale", "/etc/locale.alias")
_PROCESSORS = (
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/version"),
    *("/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu", "/sys/devices/system/node"),
    *("/sys/kernel/mm/transparent_hugepage", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max"),
)
_STREAMS = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_DRIVERS = ("/proc/driver/nvidia", "/proc/modules", "/proc/devices", "/sys/bus/pci", "/sys/devices", "/sys/module")
_INSTALLED = ("lib", "lib64", "share", "pyvenv.cfg")
"""Of a prefix; what else lies there (configuration, other environments) is not read by what is already started."""


def machine() -> Iterator[Rule]:
    """Shared libraries, clock and locale, processors, and the streams that hold nothing."""
    for name in (*_LIBRARIES, *_CLOCK, *_PROCESSORS):
        yield Path(name), READ
    for name in _STREAMS:
        yield Path(name), DEVICE


def graphics() -> Iterator[Rule]:
    """NVIDIA's devices and what its driver looks up."""
    for device in Path("/dev").glob("nvidia*"):
        yield device, DEVICE
    for name in _DRIVERS:
        yield Path(name), READ


def interpreter() -> Iterator[Rule]:
    """This Python's installation and its packages."""
    prefixes = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    installed = {prefix / name for prefix in prefixes for name in _INSTALLED}
    for path in installed:
        yield path, READ
    for entry in map(Path, filter(os.path.isabs, sys.path)):
        if entry.name in {"site-packages", "dist-packages"} or entry.is_file():
            yield entry, READ
        elif not any(entry.resolve().is_relative_to(path) for path in installed):
            for package in _imported_from(entry):
                yield package, READ


def code(folder: Path) -> Iterator[Rule]:
    """Python's files and packages of a folder of the user's own, and the names of what else is in it."""
    yield folder, LIST
    try:
        inside = list(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            yield path, READ


def _imported_from(folder: Path) -> set[Path]:
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." not in name and isinstance(file, str) and Path(file).is_relative_to(folder):
            found.add(folder / Path(file).relative_to(folder).parts[0])
    return found
