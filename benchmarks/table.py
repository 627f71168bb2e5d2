"""The comparison as records, and as text that reads well in a terminal and in a README."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Row", "bars", "printed", "rows_table"]


@dataclass(frozen=True)
class Row:
    """One thing measured by us and by one peer, at one accuracy."""

    what: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    fb_seconds: float
    """One forward and backward pass over the same examples."""
    ours_error: str
    """Error reached, as said in the column's cell."""
    peer_error: str
    target: float | None = None
    """The peer's time over ours must be at least this; None: no target."""
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times longer the peer takes."""
        return self.peer_seconds / self.ours_seconds

    @property
    def reached(self) -> str:
        """Yes, NO, or nothing where there is no target."""
        return "" if self.target is None else "yes" if self.ratio >= self.target else "NO"


def rows_table(rows: Sequence[Row]) -> str:
    """Every row, with seconds, passes, ratio and target."""
    header = (
        "what",
        "peer",
        "ours",
        "peer's",
        "ours fb",
        "peer's fb",
        "ratio",
        "target",
        "reached",
        "error: ours, peer's",
    )
    lines = [
        (
            row.what,
            row.peer,
            spoken(row.ours_seconds),
            spoken(row.peer_seconds),
            f"{row.ours_seconds / row.fb_seconds:.3g}",
            f"{row.peer_seconds / row.fb_seconds:.4g}",
            f"{row.ratio:.3g}×",
            "" if row.target is None else f"≥ {row.target:g}×",
            row.reached,
            f"{row.ours_error}; {row.peer_error}" + (f" ({row.note})" if row.note else ""),
        )
        for row in rows
    ]
    return printed(header, lines)


def printed(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    whole = [list(header), *[list(line) for line in lines]]
    widths = [max(len(line[i]) for line in whole) for i in range(len(header))]
    told = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in whole
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([told[0], rule, *told[1:]])


def bars(values: Sequence[float], width: int = 30) -> list[str]:
    """A bar for each value, in proportion to the largest."""
    most = max(values)
    return ["█" * max(1, round(width * value / most)) for value in values]


def spoken(seconds: float) -> str:
    """With the unit that suits the size."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
