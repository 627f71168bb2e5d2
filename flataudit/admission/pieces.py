"""A file of an artifact, or a member of an archive in it, and what is said of it."""

from dataclasses import dataclass, field
from typing import BinaryIO

from flataudit.admission.archives import ArchiveLimits
from flataudit.evidence import Finding

__all__ = ["MOST_NAMED", "MOST_READ", "Piece"]

MOST_READ = 64 * 2**20
"""Bytes of a member, or of what was compressed, that are looked at whole."""
MOST_NAMED = 8
"""Names of a pickle or a skops file that are shown."""


@dataclass(frozen=True)
class Piece:
    """A file, or a member of an archive."""

    path: str
    stream: BinaryIO
    size: int
    raw: bool = False
    depth: int = 0
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)

    def code(self, what: str, detail: str = "") -> Finding:
        """A finding that it carries code."""
        return Finding(kind="code", path=_shown(self.path), what=what, detail=_shown(detail))

    def refusal(self, what: str, detail: str = "") -> Finding:
        """A finding that it is no honest file."""
        return Finding(kind="refusal", path=_shown(self.path), what=what, detail=_shown(detail))

    def note(self, what: str, detail: str = "") -> Finding:
        """A finding that changes nothing."""
        return Finding(kind="note", path=_shown(self.path), what=what, detail=_shown(detail))

    def inner(self, name: str, stream: BinaryIO, size: int, *, raw: bool = False) -> "Piece":
        """A part of it."""
        return Piece(f"{self.path}!{name}", stream, size, raw, self.depth + 1, self.limits)


def _shown(text: str) -> str:
    return text[:300].encode("utf-8", "backslashreplace").decode()
