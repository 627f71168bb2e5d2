"""What a model says of its own certainty against what came true: reliability diagrams, with bands, from arrays.

Classifiers are drawn by the bins of their confidence, regression models by the levels of the quantiles that they state.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flataudit.audit import AuditRecord
from flataudit.evidence import Array, Evidence
from flataudit.report.figures import Axis, Frame, line, svg
from flataudit.report.numbers import number, with_error
from flataudit.report.panels import Figure, Panel
from flataudit.report.standings import Row, rows
from flataudit.report.tables import Cell, Group, Table

__all__ = ["Point", "calibration", "diagram"]

Arrays = Mapping[str, Mapping[str, Array]]
_MOST_CLASSES = 12
_INTRO = {
    "classes": (
        "Accuracy against the model's own confidence: a dot is a bin, its size the answers in it, its line the "
        "interval of the accuracy. Dots below the diagonal: too sure."
    ),
    "levels": (
        "Share of the values at most the stated quantile, against its level: on the diagonal the stated distribution "
        "is right; flatter than it: too sure."
    ),
}
_BAND = "The grey band is where a perfectly calibrated model's dots would fall in 95 of 100 samples of this size."


@dataclass(frozen=True)
class Point:
    """One dot: what was said, what came true, and what is known of both."""

    said: float
    found: float
    count: float
    interval: tuple[float, float] | None = None
    """Of what was found."""
    band: tuple[float, float] | None = None
    """Where a calibrated model's dot would fall in 95 of 100 samples."""


def calibration(record: AuditRecord, arrays: Arrays) -> Panel:
    """A diagram a candidate, and the classes that are calibrated worst."""
    found = [(row, _points(arrays.get(row.candidate.label, {}), _examples(record, row))) for row in rows(record)]
    drawn = [(row, kind, points) for row, (kind, points) in found if points]
    start = _start([points for _, kind, points in drawn if kind == "classes"])
    figures = []
    for index, (row, kind, points) in enumerate(drawn):
        label = row.candidate.label
        title = f"Calibration of {label}"
        low, axes = (start, ("confidence", "accuracy")) if kind == "classes" else (0.0, ("level", "share of values"))
        svg = diagram(f"calibration-{index}", title, _told(points, axes), points=points, axes=axes, start=low)
        note = _note(record.evidence(label), kind)
        figures.append(Figure(f"{label} · {row.verdict}", svg, note))
    kinds = dict.fromkeys(kind for _, kind, _ in drawn)
    intro = " ".join((*(_INTRO[kind] for kind in kinds or ("classes",)), _BAND))
    absent = [row.candidate.label for row, (_, points) in found if not points]
    lacking = "no stated distribution was" if record.plan.task == "regression" else "no calibration bins were"
    missing = f"No figure for {', '.join(absent)}: {lacking} recorded." if absent else ""
    table = _classes({row.candidate.label: _matrix(arrays, row, "calibration/classes", 4) for row, _, _ in drawn})
    return Panel("calibration", "Calibration", intro, tuple(figures), missing, table=table)


def diagram(
    key: str, title: str, description: str, *, points: Sequence[Point], axes: tuple[str, str], start: float = 0.0
) -> str:
    """What came true against what was said: band, diagonal, intervals, dots.

    Args:
        key: unique in the page.
        title: the candidate.
        description: the numbers, in words.
        points: those with numbers that are not finite, or without answers, are left out.
        axes: labels of both.
        start: where both axes begin; what lies below is cut.
    """
    shown = sorted((p for p in points if _finite(p) and p.count > 0), key=lambda p: p.said)
    size = (230.0, 230.0)
    frame = Frame(*size, Axis(axes[0], start, 1.0), Axis(axes[1], start, 1.0))
    body = [frame.axes(), _band(frame, shown, start)]
    body.append(line(frame.px(start), frame.py(start), frame.px(1), frame.py(1), "diagonal"))
    largest = max((p.count for p in shown), default=1.0)
    for p in shown:
        x = frame.px(p.said)
        if p.interval is not None:
            low, high = (frame.py(min(1.0, max(start, end))) for end in p.interval)
            body.append(line(x, low, x, high, "whisker"))
        hint = f"{axes[0]} {p.said:.3f}, {axes[1]} {p.found:.3f}, {p.count:.0f} answers"
        if p.interval is not None:
            hint += f", interval {p.interval[0]:.3f} to {p.interval[1]:.3f}"
        radius = 1.2 + 1.8 * math.sqrt(p.count / largest)
        y = frame.py(max(start, p.found))
        body.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{hint}</title></circle>')
    return svg(key, title, description, size, "".join(body))


def _band(frame: Frame, points: Sequence[Point], start: float) -> str:
    """A closed shape through the ends of the bands; a bar where there is only one."""
    ends = [(p.said, *(min(1.0, max(start, end)) for end in p.band)) for p in points if p.band is not None]
    if not ends:
        return ""
    if len(ends) == 1:
        said, low, high = ends[0]
        x, y, tall = frame.px(said), frame.py(high), max(frame.py(low) - frame.py(high), 2.0)
        return f'<rect class="band" x="{x - 3:.1f}" y="{y:.1f}" width="6" height="{tall:.1f}"/>'
    around = [(said, high) for said, _, high in ends] + [(said, low) for said, low, _ in reversed(ends)]
    shape = " ".join(f"{frame.px(a):.1f},{frame.py(b):.1f}" for a, b in around)
    return f'<polyline class="band" points="{shape}"/>'


def _examples(record: AuditRecord, row: Row) -> int:
    """Behind the quantiles' shares; 0: unknown."""
    measurement = record.evidence(row.candidate.label).get("quantile_calibration_error")
    return (measurement.n if measurement else None) or 0


def _points(found: Mapping[str, Array], examples: int) -> tuple[str, list[Point]]:
    """Of the bins of confidence, or of the levels of stated quantiles."""
    bins, bands = _read(found.get("calibration/bins"), 3), _read(found.get("calibration/bands"), 4)
    if bins is None:
        levels = _read(found.get("intervals/levels"), 4) or []
        return "levels", [Point(p, share, max(examples, 1), (a, b), _normal(p, examples)) for p, share, a, b in levels]
    if bands is None or len(bands) != len(bins):
        return "classes", [Point(c, a, n, band=_normal(c, n)) for c, a, n in bins]
    return "classes", [
        Point(c, a, n, (low, high), (null_low, null_high))
        for (c, a, n), (null_low, null_high, low, high) in zip(bins, bands, strict=True)
    ]


def _normal(confidence: float, count: float) -> tuple[float, float] | None:
    """The band of a binomial share, for records without one."""
    if not (count > 0 and 0 <= confidence <= 1):
        return None
    half = 1.96 * math.sqrt(confidence * (1 - confidence) / count)
    return max(0.0, confidence - half), min(1.0, confidence + half)


def _classes(tables: Mapping[str, list[list[float]] | None]) -> Table | None:
    """The classes whose error is farthest above what a calibrated model would show, worst first."""
    known = {label: table for label, table in tables.items() if table is not None}
    if not known:
        return None
    count = max(len(table) for table in known.values())
    excess = {k: max(table[k][0] - table[k][1] for table in known.values() if k < len(table)) for k in range(count)}
    worst = sorted(excess, key=lambda k: (-excess[k], k))[:_MOST_CLASSES]
    made = tuple((Cell(f"class {k}"), *(_class_cell(table, k) for table in known.values())) for k in worst)
    more = f", the worst {_MOST_CLASSES} of {count}" if count > _MOST_CLASSES else ""
    caption = f"Calibration error of each class{more}; beneath, what a calibrated model would show on average"
    return Table("classes", caption, ("Class", *known), (Group(made),))


def _class_cell(table: list[list[float]], k: int) -> Cell:
    if k >= len(table):
        return Cell("–", "number")
    return Cell(number(table[k][0], 4), "number", number(table[k][1], 4))


def _note(evidence: Evidence, kind: str) -> str:
    """The number of the diagram, what chance alone gives, and the advice."""
    error = evidence.get("calibration_error" if kind == "classes" else "quantile_calibration_error")
    if error is None or error.estimate is None:
        return ""
    parts = [f"error {with_error(error)}"]
    null = evidence.get("calibration_null_p95") if kind == "classes" else None
    chance = null.estimate if null is not None else error.details.get("calibrated_p95")
    if isinstance(chance, float):
        parts.append(f"chance alone gives up to {number(chance, 4)}")
    temperature, after = evidence.get("temperature"), evidence.get("calibration_error_after_temperature")
    if temperature and temperature.estimate is not None and after and after.estimate is not None:
        parts.append(f"at temperature {number(temperature.estimate, 2)} it would be {number(after.estimate, 4)}")
    return "; ".join(parts)


def _told(points: Sequence[Point], axes: tuple[str, str]) -> str:
    return "; ".join(f"{axes[0]} {p.said:.2f} {axes[1]} {p.found:.2f} ({p.count:.0f})" for p in points if p.count > 0)


def _start(diagrams: Sequence[Sequence[Point]]) -> float:
    """A fifth below all that is drawn: one scale for all diagrams."""
    shown = [value for points in diagrams for p in points if p.count > 0 and _finite(p) for value in (p.said, p.found)]
    lowest = min(shown, default=0.0)
    return 0.0 if lowest < 0.4 else min(0.8, math.floor(lowest * 5) / 5)


def _finite(point: Point) -> bool:
    numbers = (point.said, point.found, point.count, *(point.interval or ()), *(point.band or ()))
    return all(math.isfinite(value) for value in numbers)


def _matrix(arrays: Arrays, row: Row, name: str, columns: int) -> list[list[float]] | None:
    return _read(arrays.get(row.candidate.label, {}).get(name), columns)


def _read(array: Array | None, columns: int) -> list[list[float]] | None:
    """A table of that many columns, or None where there is none such."""
    if array is None or len(array.shape) != 2 or array.shape[1] != columns:
        return None
    return cast("list[list[float]]", array.values())
