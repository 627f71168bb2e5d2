"""What lies behind the curvature numbers: which layers add what, and which measures stand still under rescaling."""

from collections.abc import Mapping

from flataudit.audit import AuditRecord
from flataudit.evidence import Array
from flataudit.report.numbers import number
from flataudit.report.panels import Panel
from flataudit.report.standings import rows
from flataudit.report.tables import Cell, Group, Table

__all__ = ["invariance", "layers"]

Arrays = Mapping[str, Mapping[str, Array]]
_MOST_LAYERS = 40
_CHANGES = {
    "invariance_rescaling": "a layer × {factor}, the next ÷ {factor}",
    "invariance_batch_norm": "weights before batch norm × {factor}",
    "invariance_temperature": "logits × {factor}",
}


def layers(record: AuditRecord, arrays: Arrays) -> Panel:
    """What each layer adds to the trace of the Hessian, a column a candidate."""
    shares = {
        row.candidate.label: {
            name.removeprefix("layer "): value
            for name, value in (found.details if found else {}).items()
            if name.startswith("layer ") and isinstance(value, float)
        }
        for row in rows(record)
        for found in [record.evidence(row.candidate.label).get("hessian_trace")]
    }
    shown = {label: share for label, share in shares.items() if share}
    absent = [label for label in shares if label not in shown]
    names = sorted({name for share in shown.values() for name in share}, key=_natural)
    made = tuple((Cell(name), *(_share(share, name) for share in shown.values())) for name in names[:_MOST_LAYERS])
    more = f" The first {_MOST_LAYERS} of {len(names)} layers." if len(names) > _MOST_LAYERS else ""
    return Panel(
        "layers",
        "Curvature by layer",
        f"What each layer adds to the trace of the Hessian. Rescaling moves curvature between layers.{more}",
        missing=f"No layers for {', '.join(absent)}: no trace was measured." if absent else "",
        table=Table("layers", "Trace of the Hessian by layer", ("Layer", *shown), (Group(made),)) if made else None,
    )


def invariance(record: AuditRecord, arrays: Arrays) -> Panel:
    """How far each measure moved when the same classifier was written with other parameters."""
    groups = []
    for row in rows(record):
        evidence = record.evidence(row.candidate.label)
        moves = {name: found for name in _CHANGES if (found := evidence.get(name)) and found.estimate is not None}
        measures = list(dict.fromkeys(k for m in moves.values() for k, v in m.details.items() if _is_move(k, v)))
        made = tuple(
            (Cell(measure), *(_move(moves[n].details.get(measure) if n in moves else None) for n in _CHANGES))
            for measure in measures
        )
        if made:
            groups.append(Group(made, heading=row.candidate.label))
    factors = [f.details.get("factor") for e in record.evidences for n in _CHANGES if (f := e.get(n))]
    factor = next((number(value) for value in factors if isinstance(value, float)), "α")
    columns = ("Candidate", "Measure", *(text.format(factor=factor) for text in _CHANGES.values()))
    return Panel(
        "invariance",
        "What stands still",
        "Change of each measure when the same classifier is written with other parameters. A measure that moves here "
        "says something about the way of writing, and must not rank candidates of different scale.",
        missing="" if groups else "The invariance probe did not run.",
        table=Table("invariance", "Movement of each measure", columns[1:], tuple(groups)) if groups else None,
    )


def _share(share: Mapping[str, float], name: str) -> Cell:
    return Cell(number(share[name]), "number") if name in share else Cell("–", "number")


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """2 before 10, part by part."""
    parts = name.split(".")
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def _is_move(name: str, value: float | str | None) -> bool:
    return isinstance(value, float) and name != "factor"


def _move(value: float | str | None) -> Cell:
    if not isinstance(value, float):
        return Cell("–", "number")
    return Cell("0" if abs(value) < 1e-3 else f"{number(100 * value, 1, sign=True)} %", "number")
