"""The one folder that a worker may write to, its removal whatever was left in it, and a file that it must not read."""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["canary_file", "remove", "scratch"]

_REMOVAL_SECONDS = 30.0


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder that only this user may enter; removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="flataudit-worker-"))
    try:
        yield folder
    finally:
        # What cannot be removed (a file system gone read-only) must not take the audit with it.
        with suppress(OSError):
            remove(folder)


@contextmanager
def canary_file() -> Iterator[Path]:
    """A file that every user may read, in a folder that every user may write to: only a sandbox keeps one from it."""
    with tempfile.TemporaryDirectory(prefix="flataudit-canary-") as folder:
        os.chmod(folder, 0o777)  # noqa: S103
        canary = Path(folder, "canary")
        canary.write_text(secrets.token_hex(16), encoding="ascii")
        yield canary


def remove(folder: Path, *, seconds: float = _REMOVAL_SECONDS) -> None:
    """Remove a folder and all in it, following no link.

    `shutil.rmtree` recurses: a worker that nests a thousand folders would end the audit with a `RecursionError`. Here
    folders are lifted to the top instead, a level at a time, and the time is bounded, for a process that escaped its
    group may still be writing.

    Raises:
        OSError: something could not be removed in time.
    """
    until = time.monotonic() + seconds
    # The worker may have made any of them unreadable or read-only; then its content could not be listed or moved.
    os.chmod(folder, 0o700)
    while inner := _folders(folder):
        for each in inner:
            if time.monotonic() > until:
                raise TimeoutError(f"{folder} could not be removed within {seconds:g} s")
            os.chmod(each, 0o700)
            for deeper in _folders(each):
                os.chmod(deeper, 0o700)
                os.rename(deeper, folder / secrets.token_hex(16))
            os.rmdir(each)
    os.rmdir(folder)


def _folders(folder: str | Path) -> list[str]:
    """Remove the files in a folder; the paths of the folders in it."""
    with os.scandir(folder) as found:
        entries = list(found)
    folders = []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        else:
            os.unlink(entry.path)
    return folders
