"""The panel of calibration: what is drawn where, from arrays of this version, of older ones, and of none."""

import math
import xml.etree.ElementTree as ET
from types import ModuleType

import pytest

from flataudit.evidence import Array, Metric
from flataudit.report.reliability import Point, calibration, diagram

AXES = ("confidence", "accuracy")


def _parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.find("title") is not None and root.find("desc") is not None
    return root


def _shaped(rows: list[list[float]]) -> Array:
    return Array("d", (len(rows), len(rows[0])), Array.of([value for row in rows for value in row]).data)


def test_dots_intervals_and_band_lie_where_the_numbers_are() -> None:
    points = [
        Point(1.0, 0.5, 100, (0.25, 0.75), (0.9, 1.0)),
        Point(0.5, 1.0, 25, (0.9, 1.0), (0.4, 0.6)),
        Point(0.7, 0.7, 0),
        Point(math.nan, 0.5, 9),
        Point(0.6, 0.5, 9, (0.4, 0.6), (0.5, math.inf)),
    ]
    root = _parsed(diagram("k", "v8", "d", points=points, axes=AXES))
    dots = sorted((float(c.get("cx", 0)), float(c.get("cy", 0)), float(c.get("r", 0))) for c in root.iter("circle"))
    # The frame runs from 46 to 218 and, upside down, from 192 to 10.
    assert dots == [(132.0, 10.0, pytest.approx(2.1, abs=0.05)), (218.0, 101.0, pytest.approx(3.0, abs=0.05))]
    whiskers = [line for line in root.iter("line") if line.get("class") == "whisker"]
    assert {(line.get("y1"), line.get("y2")) for line in whiskers} == {("28.2", "10.0"), ("146.5", "55.5")}
    band = next(root.iter("polyline"))
    assert band.get("points") == "132.0,82.8 218.0,10.0 218.0,28.2 132.0,119.2"


def test_what_lies_below_the_start_is_cut() -> None:
    points = [Point(0.9, 0.5, 10, (0.4, 0.95), (0.7, 1.0))]
    root = _parsed(diagram("k", "v8", "d", points=points, axes=AXES, start=0.8))
    assert next(root.iter("circle")).get("cy") == "192.0"
    assert next(root.iter("rect")).get("class") == "band", "one bin has a bar"


def test_nothing_is_still_an_image() -> None:
    assert not list(_parsed(diagram("k", "v8", "d", points=[], axes=AXES)).iter("circle"))


def test_this_versions_arrays_have_intervals_and_older_ones_a_band(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    bins = arrays["v7"]["calibration/bins"].values()
    bands = [[max(0.0, c - 0.1), min(1.0, c + 0.1), max(0.0, a - 0.2), min(1.0, a + 0.2)] for c, a, _ in bins]
    new = {**arrays, "v7": {**arrays["v7"], "calibration/bands": _shaped(bands)}}
    figures = {figure.caption.split(" ")[0]: _parsed(figure.svg) for figure in calibration(record, new).figures}
    assert set(figures) == {f"v{k}" for k in range(7, 14)}
    for label, root in figures.items():
        assert len(list(root.iter("polyline"))) == 1 and len(list(root.iter("circle"))) == 14
        assert bool([line for line in root.iter("line") if line.get("class") == "whisker"]) is (label == "v7")


def test_the_worst_classes_first(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    classes = {"v7": [[0.01, 0.01, 0.5, 0.5], [0.02, 0.01, 0.5, 0.5]], "v8": [[0.09, 0.01, 0.5, 0.5]] * 2}
    new = {label: dict(found) for label, found in arrays.items()}
    for label, rows in classes.items():
        new[label]["calibration/classes"] = _shaped(rows)
    table = calibration(record, new).table
    assert table is not None and table.columns == ("Class", "v8", "v7")
    assert [row[0].text for row in table.groups[0].rows] == ["class 0", "class 1"]
    assert [cell.text for cell in table.groups[0].rows[1]] == ["class 1", "0.0900", "0.0200"]
    new["v7"]["calibration/classes"] = _shaped([[0.01 * k, 0.0, 0.5, 0.5] for k in range(20)])
    table = calibration(record, {"v7": new["v7"]}).table
    assert table is not None and "worst 12 of 20" in table.caption
    assert table.groups[0].rows[0][0].text == "class 19"
    assert calibration(record, arrays).table is None


def test_quantiles_and_advice(audits: ModuleType) -> None:
    """A regression model is drawn by its levels; a classifier's note tells what a temperature would leave."""
    record, arrays = audits.rich_gate()
    told = [
        Metric(name="quantile_calibration_error").measured(0.05, n=400, details={"calibrated_p95": 0.02}),
        Metric(name="temperature").measured(1.75),
        Metric(name="calibration_error_after_temperature").measured(0.012),
    ]
    evidences = tuple(one.with_measurements(told) for one in record.evidences)
    new = {"v7": {"intervals/levels": _shaped([[0.1, 0.2, 0.15, 0.25], [0.9, 0.8, 0.7, 0.85]])}, "v8": arrays["v8"]}
    panel = calibration(record.model_copy(update={"evidences": evidences}), new)
    by_label = {figure.caption.split(" ")[0]: figure for figure in panel.figures}
    assert "chance alone gives up to 0.0200" in by_label["v7"].note
    assert "at temperature 1.75 it would be 0.0120" in by_label["v8"].note
    assert "level" in by_label["v7"].svg and len(list(_parsed(by_label["v7"].svg).iter("polyline"))) == 1
    assert "too sure" in panel.intro and panel.missing.startswith("No figure for")


def test_nothing_recorded_is_said(audits: ModuleType) -> None:
    record, _ = audits.rich_gate()
    panel = calibration(record, {})
    assert panel.figures == () and "no calibration bins were recorded" in panel.missing
    values = record.model_copy(update={"plan": record.plan.model_copy(update={"task": "regression"})})
    assert "no stated distribution was recorded" in calibration(values, {}).missing
