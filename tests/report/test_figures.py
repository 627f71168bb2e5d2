import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flataudit.report.figures import Axis, Interval, Series, interval_plot, line_chart, ticks

HOSTILE = "</title><script>alert(1)</script>\x1b"


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    ids = (root.get("aria-labelledby") or "").split()
    assert root.get("role") == "img" and len(ids) == 2
    assert {child.get("id") for child in root if child.get("id")} == set(ids)
    assert root.find("title") is not None and root.find("desc") is not None
    assert not list(root.iter("script"))
    return root


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    slack = 1e-6 * max(abs(low), span)
    assert len(found) <= 6 and all(low - slack <= tick <= low + span + slack for tick in found)


@pytest.mark.parametrize("values", [[], [0.0], [0.97, 0.97], [math.nan, math.inf], [1e-12, 2e-12]])
def test_an_axis_is_never_empty(values: list[float]) -> None:
    axis = Axis.around("x", values)
    assert axis.low < axis.high and math.isfinite(axis.high - axis.low)


def test_points_that_are_not_finite_break_the_line() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.inf), (3.0, 1.0), (4.0, 1.5)]
    svg = line_chart("k", HOSTILE, HOSTILE, series=[Series(HOSTILE, points)], x=Axis("x", 0, 4), y=Axis(HOSTILE, 0, 2))
    root = parsed(svg)
    assert len(list(root.iter("polyline"))) == 2 and len(list(root.iter("circle"))) == 4
    assert "nan" not in svg and "inf" not in svg


def test_lines_lie_where_the_numbers_are() -> None:
    series = [Series("a", [(0.0, 0.0), (10.0, 1.0)])]
    root = parsed(line_chart("k", "t", "d", series=series, x=Axis("x", 0, 10), y=Axis("y", 0, 1), size=(300, 200)))
    line = next(root.iter("polyline"))
    assert line.get("points") == "46.0,162.0 288.0,10.0"


def test_an_interval_plot_shows_each_row_and_mark() -> None:
    rows = [Interval(HOSTILE, 0.01, -0.01, 0.03, HOSTILE, "hold"), Interval("v9", 0.0, 0.0, 0.0, "+0", "promote")]
    root = parsed(interval_plot("k", "t", "d", rows=rows, label="gain", marks=((0.0, "equal"), (-0.005, "margin"))))
    assert len(list(root.iter("circle"))) == 2
    assert [text.text for text in root.iter("text") if text.get("class") == "label"] == ["equal", "margin", "gain"]
    dot = next(circle for circle in root.iter("circle"))
    zero = next(line for line in root.iter("line") if line.get("class") == "zero")
    assert float(dot.get("cx", 0)) > float(zero.get("x1", 0)), "a gain lies right of no difference"
