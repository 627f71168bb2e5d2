"""The tables of what was measured and on what: every number, what has none, cost and provenance."""

from collections.abc import Iterable, Sequence

from flataudit.audit import AuditRecord
from flataudit.evidence import Cost, Evidence, Measurement, Outcome
from flataudit.report import numbers
from flataudit.report.standings import measured, rows
from flataudit.report.tables import Cell, Group, Table, number_cell

__all__ = ["candidates", "costs", "data_sets", "measurements", "missing", "score_parts"]


def measurements(record: AuditRecord) -> Table:
    """Every metric of every candidate that has any number, the metrics of a probe together."""
    ordered = [record.evidence(row.candidate.label) for row in rows(record)]
    ordered = [evidence for evidence in ordered if measured(evidence)]
    probes: dict[str, dict[str, None]] = {}
    for m in (m for evidence in ordered for m in evidence.measurements):
        probes.setdefault(m.probe, {})[m.metric] = None
    groups = tuple(Group(tuple(_measurement_row(metric, ordered) for metric in named)) for named in probes.values())
    columns = ("Metric", *(evidence.candidate.label for evidence in ordered))
    return Table("measurements", "Every number, with its interval", columns, groups)


def missing(record: AuditRecord) -> Table:
    """What has no number, and why; the metrics that share a reason share a row."""
    shared: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows(record):
        for m in record.evidence(row.candidate.label).measurements:
            if m.outcome is not Outcome.MEASURED:
                key = (row.candidate.label, m.outcome.replace("_", " "), m.reason or "", m.advice or "")
                shared.setdefault(key, []).append(m.metric)
    made = tuple(
        (Cell(label), Cell(outcome, "missing"), Cell(", ".join(metrics)), Cell(reason, note=advice))
        for (label, outcome, reason, advice), metrics in shared.items()
    )
    return Table(
        "missing", "What has no number", ("Candidate", "Outcome", "Metrics", "Reason and advice"), (Group(made),)
    )


def score_parts(record: AuditRecord) -> Table:
    """What each score is made of."""
    scores = [(row.candidate.label, row.score) for row in rows(record) if row.score and row.score.details]
    names = list(dict.fromkeys(name for _, score in scores for name in score.details))
    made = tuple(
        (Cell(label), number_cell(score), *(_detail(score, name) for name in names)) for label, score in scores
    )
    return Table("score", "What the score is made of", ("Candidate", "score", *names), (Group(made),))


def costs(record: AuditRecord) -> Table:
    """Cost of each probe: passes for one candidate, seconds for all, largest growth of memory."""
    spent: dict[str, dict[str, list[Cost]]] = {}
    for evidence in record.evidences:
        for probe, found in _runs(evidence).items():
            spent.setdefault(probe, {})[evidence.candidate.label] = found
    made = [_cost_row(probe, list(by_label.values())) for probe, by_label in spent.items()]
    everything = [[cost for found in _runs(e).values() for cost in found] for e in record.evidences]
    if made:
        made.append(_cost_row("all probes", [costs for costs in everything if costs]))
    columns = ("Probe", "Passes per candidate", "Seconds per candidate", "Seconds in all", "Memory growth, largest")
    return Table("costs", "Cost of each probe", columns, (Group(tuple(made)),))


def candidates(record: AuditRecord) -> Table:
    """Which bytes were audited, and how far they were trusted."""
    made = tuple(
        (
            Cell(evidence.candidate.label, note=evidence.candidate.title or ""),
            Cell(evidence.candidate.flavour, note="; ".join(evidence.notes)),
            Cell(evidence.candidate.run_id or "–", "code"),
            Cell(evidence.candidate.digest or "not fetched", "code", note=evidence.candidate.uri),
            Cell(evidence.trust.replace("_", " "), note=_marked(evidence)),
            _admitted(evidence),
            Cell(", ".join(f"{kind} {how}" for kind, how in evidence.isolation.items()) or "none recorded"),
        )
        for evidence in (record.evidence(row.candidate.label) for row in rows(record))
    )
    columns = ("Candidate", "Flavour", "Run", "Digest and place", "Trust", "Admission", "Isolation")
    return Table("candidates", "What was audited", columns, (Group(made),))


def _marked(evidence: Evidence) -> str:
    """What to think of numbers that a candidate's own code stood beside."""
    marked = sum(m.details.get("trust") == "code_bearing" for m in evidence.measurements)
    told = "numbers need more of it than answers: its own code ran beside the probes and could have forged them"
    return f"{marked} {told}" if marked else ""


def _admitted(evidence: Evidence) -> Cell:
    """What was found in its files before they were loaded."""
    admission = evidence.admission
    if admission is None:
        return Cell("not looked at")
    found = "; ".join(filter(None, (admission.listed(kind) for kind in ("refusal", "code", "note"))))
    return Cell(admission.verdict, note=found)


def data_sets(record: AuditRecord) -> Table:
    """The audit's data."""
    made = tuple(
        (
            Cell(data.name),
            Cell(data.role),
            Cell(data.kind, note="declared" if data.declared else "inferred"),
            Cell(numbers.count(data.n), "number"),
            Cell(" × ".join(str(size) for size in data.shape) or "1", "number"),
            Cell(numbers.count(data.classes), "number"),
            Cell(numbers.count(data.groups), "number"),
            Cell(data.digest, "code"),
        )
        for data in record.data
    )
    return Table(
        "data",
        "What it was measured on",
        ("Set", "Role", "Kind", "Examples", "Shape", "Classes", "Groups", "Digest"),
        (Group(made),),
    )


def _measurement_row(metric: str, ordered: Sequence[Evidence]) -> tuple[Cell, ...]:
    found = [evidence.get(metric) for evidence in ordered]
    unit = next((m.unit for m in found if m is not None), "1")
    better = next((m.better for m in found if m is not None), "neither")
    told = [unit] if unit != "1" else []
    told += [f"{better} is better"] if better != "neither" else []
    return (Cell(metric, note=", ".join(told)), *(number_cell(m) for m in found))


def _detail(score: Measurement, name: str) -> Cell:
    value = score.details.get(name)
    return Cell(value) if isinstance(value, str) else Cell("–" if value is None else numbers.number(value), "number")


def _runs(evidence: Evidence) -> dict[str, list[Cost]]:
    """The cost of every run of every probe: the metrics of one run share one, and sets have their own.

    By the clock, which no two runs share to the last digit; a cost without one goes by the metric's set.
    """
    seen: dict[str, dict[tuple[str, Cost], Cost]] = {}
    for m in evidence.measurements:
        if m.probe and m.cost != Cost():
            run = "" if m.cost.seconds > 0 else m.metric.partition("/")[2]
            seen.setdefault(m.probe, {})[run, m.cost] = m.cost
    return {probe: list(costs.values()) for probe, costs in seen.items()}


def _cost_row(probe: str, by_candidate: Iterable[Sequence[Cost]]) -> tuple[Cell, ...]:
    spent = list(by_candidate)
    passes = [sum(cost.passes for cost in costs) for costs in spent]
    spared = [sum(cost.reused for cost in costs) for costs in spent]
    took = [sum(cost.seconds for cost in costs) for costs in spent]
    peak = max((cost.peak_bytes for costs in spent for cost in costs), default=0)
    reused = f"and {_ends(spared)} reused" if any(value >= 0.01 for value in spared) else ""
    return (
        Cell(probe),
        Cell(_ends(passes), "number", note=reused),
        Cell(_range([numbers.seconds(value) for value in (min(took, default=0.0), max(took, default=0.0))]), "number"),
        Cell(numbers.seconds(sum(took)), "number"),
        Cell(numbers.memory(peak), "number"),
    )


def _ends(values: Sequence[float]) -> str:
    return _range([numbers.number(value) for value in (min(values, default=0.0), max(values, default=0.0))])


def _range(ends: Sequence[str]) -> str:
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"
