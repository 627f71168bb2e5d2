"""The figures of a report, from records and arrays: what can be drawn is, what cannot is told in a sentence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flataudit.audit import AuditRecord
from flataudit.decision import Comparison
from flataudit.evidence import Array, Measurement
from flataudit.report.figures import Axis, Interval, Point, Series, interval_plot, line_chart
from flataudit.report.numbers import gain, number
from flataudit.report.standings import Row, accuracy_metric, rows
from flataudit.report.tables import Cell, Group, Table, with_champion

__all__ = ["Figure", "Panel", "corruption", "differences", "landscape"]

Arrays = Mapping[str, Mapping[str, Array]]
Matrix = list[list[float]]


@dataclass(frozen=True)
class Figure:
    """One drawing with its caption."""

    caption: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """The drawings of one question, what to read in them, and what could not be drawn."""

    key: str
    heading: str
    intro: str
    figures: tuple[Figure, ...] = ()
    missing: str = ""
    legend: bool = False
    table: Table | None = None


def differences(record: AuditRecord) -> Panel:
    """Gain over the champion in accuracy and in score, each with its interval."""
    metric, policy = accuracy_metric(record), record.plan.policy
    pairs = {(pair.metric, pair.challenger): pair for pair in with_champion(record)}
    figures: list[Figure] = []
    for name, marks in (
        (metric, ((0.0, "equal"), (-policy.non_inferiority.margin, "margin"))),
        ("score", ((0.0, "equal"), (policy.score_lead, "lead"))),
    ):
        drawn = [_interval(row, pairs.get((name, row.candidate.label))) for row in rows(record)]
        shown = [row for row in drawn if row is not None]
        if shown:
            told = "; ".join(f"{row.name} {row.text}" for row in shown)
            title = f"Gain in {name} over {record.champion.label if record.champion else 'the champion'}"
            svg = interval_plot(
                f"gain-{len(figures)}", title, told, rows=shown, label=f"gain in {name} (better →)", marks=marks
            )
            figures.append(Figure(title, svg))
    if record.champion is None:
        absent = "There was no champion to compare with."
    else:
        absent = "" if figures else "No challenger could be compared with the champion."
    intro = "Paired on the same examples; the dot is the estimate, the line its interval. Right of zero is better."
    return Panel("differences", "Gain over the champion", intro, tuple(figures), absent)


def corruption(record: AuditRecord, arrays: Arrays) -> Panel:
    """Accuracy against severity: the mean over all kinds, then each kind."""
    found: dict[str, tuple[Row, Matrix]] = {}
    named: tuple[list[str], list[float]] | None = None
    absent = []
    for row in rows(record):
        label = row.candidate.label
        grid, names = _matrix(arrays, label, "corruption/accuracy"), _corruption_names(record, label)
        if grid is None or names is None or (len(grid), len(grid[0])) != (len(names[0]), len(names[1])):
            absent.append(label)
        elif named is None or names == named:
            named, found[label] = names, (row, grid)
    told = _absent("accuracies under corruption", absent)
    intro = "Accuracy as graded corruptions of the validation inputs grow more severe."
    if named is None:
        return Panel("corruption", "Robustness to corruption", intro, missing=told)
    kinds, severities = named
    means = {
        label: [_mean([line[s] for line in grid]) for s in range(len(severities))] for label, (_, grid) in found.items()
    }
    lines = {"mean of all kinds": means} | {
        kind: {label: grid[k] for label, (_, grid) in found.items()} for k, kind in enumerate(kinds)
    }
    y = Axis.around("accuracy", [v for by_label in lines.values() for line in by_label.values() for v in line])
    x = Axis.around("severity", severities)
    figures = [
        Figure(kind, _severity_chart(f"corruption-{index}", kind, found, by_label, severities, x, y))
        for index, (kind, by_label) in enumerate(lines.items())
    ]
    table = _severity_table(means, severities)
    return Panel("corruption", "Robustness to corruption", intro, tuple(figures), told, legend=True, table=table)


def landscape(record: AuditRecord, arrays: Arrays) -> Panel:
    """Loss along random filter-normalised directions, on one scale for all candidates."""
    found: list[tuple[Row, list[float], Matrix]] = []
    absent = []
    for row in rows(record):
        label = row.candidate.label
        steps, curves = _vector(arrays, label, "landscape/steps"), _matrix(arrays, label, "landscape/curves")
        if steps is None or curves is None or any(len(curve) != len(steps) for curve in curves):
            absent.append(label)
        else:
            found.append((row, steps, curves))
    intro = (
        "Loss along random filter-normalised directions (Li et al. 2018), a thin line a direction, the thick line "
        "their mean; all candidates share one scale. A wide, low bowl is flat. Random directions miss sharp ones."
    )
    told = _absent("loss curves", absent)
    if not found:
        return Panel("landscape", "Loss around the weights", intro, missing=told)
    x = Axis.around("step, relative to the weights", [s for _, steps, _ in found for s in steps], margin=0.0)
    y = Axis.around("loss", [v for _, _, curves in found for curve in curves for v in curve])
    figures = [_bowl(index, row, steps, curves, x, y) for index, (row, steps, curves) in enumerate(found)]
    return Panel("landscape", "Loss around the weights", intro, tuple(figures), told)


def _interval(row: Row, pair: Comparison | None) -> Interval | None:
    if pair is None or pair.gain is None or pair.gain_interval is None:
        return None
    return Interval(pair.challenger, pair.gain, *pair.gain_interval, gain(pair), row.verdict)


def _bowl(index: int, row: Row, steps: list[float], curves: Matrix, x: Axis, y: Axis) -> Figure:
    mean = [_mean([curve[k] for curve in curves]) for k in range(len(steps))]
    lines = [Series(f"direction {k + 1}", _points(steps, curve), "thin") for k, curve in enumerate(curves)]
    lines.append(Series("mean", _points(steps, mean), "mean"))
    finite = [value for value in mean if math.isfinite(value)]
    told = f"Mean loss from {number(min(finite, default=0.0))} to {number(max(finite, default=0.0))}"
    title = f"Loss around the weights of {row.candidate.label}"
    svg = line_chart(f"landscape-{index}", title, told, series=lines, x=x, y=y, size=(230, 190))
    return Figure(_caption(row), svg)


def _severity_chart(
    key: str,
    kind: str,
    found: Mapping[str, tuple[Row, Matrix]],
    by_label: Mapping[str, Sequence[float]],
    severities: Sequence[float],
    x: Axis,
    y: Axis,
) -> str:
    lines = [Series(label, _points(severities, by_label[label]), _style(row)) for label, (row, _) in found.items()]
    lines.sort(key=lambda line: ("other", "champion", "chosen").index(line.style))
    told = "; ".join(f"{label}: " + ", ".join(f"{v:.3f}" for v in line) for label, line in by_label.items())
    return line_chart(key, f"Accuracy under {kind}", told, series=lines, x=x, y=y, size=(260, 200))


def _severity_table(means: Mapping[str, Sequence[float]], severities: Sequence[float]) -> Table:
    made = tuple(
        (Cell(label), *(Cell(number(value, 4) if math.isfinite(value) else "–", "number") for value in line))
        for label, line in means.items()
    )
    columns = ("Candidate", *(f"severity {severity:g}" for severity in severities))
    return Table("severity", "Mean accuracy over all kinds, by severity", columns, (Group(made),))


def _corruption_names(record: AuditRecord, label: str) -> tuple[list[str], list[float]] | None:
    details = _details(record.evidence(label).get("corruption_accuracy"))
    kinds, severities = details.get("kinds"), details.get("severities")
    if not isinstance(kinds, str) or severities is None:
        return None
    try:
        return [kind.strip() for kind in kinds.split(",")], [float(s) for s in str(severities).split(",")]
    except ValueError:
        return None


def _details(measurement: Measurement | None) -> Mapping[str, float | str | None]:
    return measurement.details if measurement else {}


def _style(row: Row) -> str:
    return {"promote": "chosen", "champion": "champion"}.get(row.verdict, "other")


def _caption(row: Row) -> str:
    return f"{row.candidate.label} · {row.verdict}"


def _absent(what: str, labels: Sequence[str]) -> str:
    return f"No figure for {', '.join(labels)}: no {what} were recorded." if labels else ""


def _points(xs: Sequence[float], ys: Sequence[float]) -> list[Point]:
    return list(zip(xs, ys, strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _matrix(arrays: Arrays, label: str, name: str) -> Matrix | None:
    """A two-dimensional array, or None where there is none of that shape."""
    array = arrays.get(label, {}).get(name)
    return cast("Matrix", array.values()) if array is not None and len(array.shape) == 2 else None


def _vector(arrays: Arrays, label: str, name: str) -> list[float] | None:
    array = arrays.get(label, {}).get(name)
    return array.values() if array is not None and len(array.shape) == 1 else None
