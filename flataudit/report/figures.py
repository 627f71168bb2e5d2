"""Small pure functions that draw: numbers in, SVG markup out, with every label escaped.

Colours, strokes and type come from the page's style sheet through classes, so that a figure is right in dark,
in light and on paper. Every figure is an image with a title and a description for those who do not see it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flataudit.report.escaping import html_text
from flataudit.report.numbers import number

__all__ = ["Axis", "Frame", "Interval", "Series", "interval_plot", "line", "line_chart", "svg", "ticks"]

Point = tuple[float, float]
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 10.0, 38.0
_ROW = 26.0


@dataclass(frozen=True)
class Axis:
    """A label and the range that is shown."""

    label: str
    low: float
    high: float

    @classmethod
    def around(cls, label: str, values: Iterable[float], *, margin: float = 0.06) -> "Axis":
        """The range of the finite values, with some air; one unit wide where they do not differ."""
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        air = (high - low) * margin or max(abs(low) * 0.1, 1e-9)
        return cls(label, low - air, high + air)


@dataclass(frozen=True)
class Series:
    """One line: ``style`` is a class of the style sheet (``champion``, ``chosen``, ``other``, ``mean``)."""

    name: str
    points: Sequence[Point]
    style: str = "other"


@dataclass(frozen=True)
class Interval:
    """One row of an interval plot; ``style`` is the verdict's class."""

    name: str
    value: float
    low: float
    high: float
    text: str
    style: str = "other"


@dataclass(frozen=True)
class Frame:
    """From data to pixels."""

    width: float
    height: float
    x: Axis
    y: Axis

    def px(self, value: float) -> float:
        """Where a value of x lies."""
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def py(self, value: float) -> float:
        """Where a value of y lies."""
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)

    def axes(self) -> str:
        """Both axes with their ticks, names and grid."""
        bottom, middle = self.height - _BOTTOM, (_TOP + self.height - _BOTTOM) / 2
        parts = []
        for tick in ticks(self.y.low, self.y.high):
            parts.append(line(_LEFT, self.py(tick), self.width - _RIGHT, self.py(tick), "grid"))
            parts.append(_text(_LEFT - 6, self.py(tick) + 4, number(tick), anchor="end"))
        for tick in ticks(self.x.low, self.x.high):
            parts.append(line(self.px(tick), bottom, self.px(tick), bottom + 4, "axis"))
            parts.append(_text(self.px(tick), bottom + 16, number(tick), anchor="middle"))
        parts.append(line(_LEFT, bottom, self.width - _RIGHT, bottom, "axis"))
        parts.append(_text((_LEFT + self.width - _RIGHT) / 2, self.height - 4, self.x.label, "label", anchor="middle"))
        turned = f'transform="rotate(-90 10 {middle:.1f})"'
        parts.append(_text(10, middle, self.y.label, "label", anchor="middle", more=turned))
        return "".join(parts)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within the range, at most so many, in steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.5, 1.0]
    >>> ticks(0.93, 0.981)
    [0.94, 0.96, 0.98]
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * k for k in (1, 2, 5, 10) if span / (power * k) <= most - 1e-9)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def line_chart(
    key: str, title: str, description: str, *, series: Sequence[Series], x: Axis, y: Axis, size: Point = (300, 210)
) -> str:
    """Lines over a common frame; points that are not finite interrupt their line."""
    frame = Frame(*size, x, y)
    body = [frame.axes()]
    for one in series:
        name = f"<title>{html_text(one.name)}</title>"
        body.append(f'<g class="series {one.style}">{name}')
        for run in _runs(one.points):
            path = " ".join(f"{frame.px(a):.1f},{frame.py(b):.1f}" for a, b in run)
            body.append(f'<polyline points="{path}"/>')
            body += [f'<circle cx="{frame.px(a):.1f}" cy="{frame.py(b):.1f}" r="2.4"/>' for a, b in run]
        body.append("</g>")
    return svg(key, title, description, size, "".join(body))


def interval_plot(
    key: str, title: str, description: str, *, rows: Sequence[Interval], label: str, marks: Sequence[tuple[float, str]]
) -> str:
    """A row an interval, dot and whiskers, over vertical marks (no difference; the margin)."""
    left, right, width = 84.0, 186.0, 570.0
    plot, height = width - left - right, 30 + _ROW * len(rows) + 40
    axis = Axis.around(label, [v for r in rows for v in (r.low, r.high)] + [m for m, _ in marks])

    def px(value: float) -> float:
        return left + (value - axis.low) / (axis.high - axis.low) * plot

    bottom = height - 40
    body = [line(left, bottom, left + plot, bottom, "axis")]
    for tick in ticks(axis.low, axis.high):
        body.append(line(px(tick), bottom, px(tick), bottom + 4, "axis"))
        body.append(_text(px(tick), bottom + 17, number(tick, sign=tick != 0), anchor="middle"))
    for value, name in marks:
        body.append(line(px(value), 22, px(value), bottom, "zero" if value == 0 else "mark"))
        outer = value == min(mark for mark, _ in marks)
        body.append(_text(px(value) + (2 if outer else -2), 14, name, "label", anchor="end" if outer else "start"))
    body.append(_text(left + plot / 2, height - 4, label, "label", anchor="middle"))
    for index, row in enumerate(rows):
        body.append(_interval_row(row, 22 + _ROW * (index + 0.5), px, left, left + plot))
    return svg(key, title, description, (width, height), "".join(body))


def _interval_row(row: Interval, y: float, px: Callable[[float], float], left: float, right: float) -> str:
    low, high = px(row.low), px(row.high)
    shown = row.name if len(row.name) <= 12 else row.name[:11] + "…"
    whisker = line(low, y, high, y, "whisker") + line(low, y - 4, low, y + 4, "whisker")
    whisker += line(high, y - 4, high, y + 4, "whisker")
    dot = f'<circle class="dot" cx="{px(row.value):.1f}" cy="{y:.1f}" r="4.5"/>'
    texts = _text(left - 10, y + 4, shown, "name", anchor="end") + _text(right + 14, y + 4, row.text, "value")
    return (
        f'<g class="v-{row.style}"><title>{html_text(row.name)}: {html_text(row.text)}</title>{whisker}{dot}{texts}</g>'
    )


def svg(key: str, title: str, description: str, size: Point, body: str) -> str:
    """A picture with its title and its description in words; ``key`` is unique in the page."""
    width, height = size
    return (
        f'<svg role="img" aria-labelledby="{key}-t {key}-d" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"><title id="{key}-t">{html_text(title)}</title>'
        f'<desc id="{key}-d">{html_text(description)}</desc>{body}</svg>'
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """One line, in pixels, of a class of the style sheet."""
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str = "tick", *, anchor: str = "start", more: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html_text(text)}</text>'


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Stretches of finite points."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if all(math.isfinite(value) for value in point):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
