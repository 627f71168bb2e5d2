"""A file of an artifact, or a member of an archive in it, what is said of it, and what looking at it may take."""

from dataclasses import dataclass, field
from typing import BinaryIO

from flataudit.admission.archives import ArchiveLimits
from flataudit.evidence import Finding

__all__ = ["MOST_DOCUMENT", "MOST_NAMED", "MOST_READ", "ExhaustedError", "Piece", "Work"]

MOST_READ = 64 * 2**20
"""Bytes of a member, or of what was compressed, that are looked at whole."""
MOST_DOCUMENT = 16 * 2**20
"""Bytes of a JSON document; its objects take some thirty times as many."""
MOST_NAMED = 8
"""Names of a pickle or a skops file that are shown."""


class ExhaustedError(Exception):
    """An artifact takes more work to look at than any honest one."""


@dataclass
class Work:
    """What the look at an artifact has taken, all its files together.

    A file of some kilobytes can hold a pickle of millions of operations, and an artifact has thousands of files.
    """

    most_steps: int = 20_000_000
    """Operations of pickles, fields of protocol buffers; some microseconds each."""
    most_unpacked: int = 16 * 2**30
    """Bytes."""
    steps: int = 0
    unpacked: int = 0

    def spend(self, *, steps: int = 0, unpacked: int = 0) -> None:
        """Count some more.

        Raises:
            ExhaustedError: it is too much.
        """
        self.steps, self.unpacked = self.steps + steps, self.unpacked + unpacked
        if self.steps > self.most_steps or self.unpacked > self.most_unpacked:
            raise ExhaustedError


@dataclass(frozen=True)
class Piece:
    """A file, or a member of an archive."""

    path: str
    stream: BinaryIO
    size: int
    raw: bool = False
    depth: int = 0
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    work: Work = field(default_factory=Work)
    cut: bool = False
    """Its end is not here."""

    def code(self, what: str, detail: str = "") -> Finding:
        """A finding that it carries code."""
        return Finding(kind="code", path=_shown(self.path), what=what, detail=_shown(detail))

    def refusal(self, what: str, detail: str = "") -> Finding:
        """A finding that it is no honest file."""
        return Finding(kind="refusal", path=_shown(self.path), what=what, detail=_shown(detail))

    def note(self, what: str, detail: str = "") -> Finding:
        """A finding that changes nothing."""
        return Finding(kind="note", path=_shown(self.path), what=what, detail=_shown(detail))

    def inner(self, name: str, stream: BinaryIO, size: int, *, raw: bool = False, cut: bool = False) -> "Piece":
        """A part of it."""
        return Piece(f"{self.path}!{name}", stream, size, raw, self.depth + 1, self.limits, self.work, cut)


def _shown(text: str) -> str:
    return text[:300].encode("utf-8", "backslashreplace").decode()
