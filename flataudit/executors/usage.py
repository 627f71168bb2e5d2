"""What a worker holds, seen from outside: resident memory, and bytes on disk."""

import os
import stat
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

__all__ = ["MOST_FILES", "resident", "written"]

MOST_FILES = 20_000
"""Files in one folder tree; more count as more than any limit, since looking at them takes as long."""


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0: it has gone, or this is not Linux."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def written(folder: Path, pid: int) -> int:
    """Bytes on disk beneath a folder, and in the open files without a name of a process."""
    total = 0
    for seen, found in enumerate(chain(_beneath(folder), _nameless(pid))):
        if seen >= MOST_FILES:
            return 2**62
        total += found.st_blocks * 512
    return total


def _beneath(folder: Path) -> Iterator[os.stat_result]:
    """Links are not followed; what vanishes meanwhile, or cannot be listed, holds nothing."""
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    yield entry.stat(follow_symlinks=False)
        except OSError:
            continue


def _nameless(pid: int) -> Iterator[os.stat_result]:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for descriptor in descriptors:
        try:
            found = os.stat(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
            yield found
