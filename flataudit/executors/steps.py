"""A job whose candidate brings code, in two: what is judged from its answers here, and what must be measured beside it.

A process in which a stranger's code runs, and which has the labels, can make any number of them. So the probes that
need answers alone run in this process, on what a worker without labels answers; when that worker has gone, a second one
runs the probes that need more, with the labels. The second can neither reach the first nor speak of what it judged.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

from flataudit.admission.examining import admit
from flataudit.contracts import AuditData, Predictor, Probe
from flataudit.evidence import Array, Evidence, Examined, Measurement, Outcome
from flataudit.examination import Refusal, load_data, make_probe, merged
from flataudit.plugins import names
from flataudit.specs import DataSpec, Job, Spec
from flataudit.vocabulary import aligned

__all__ = [
    "FOUND_LATE",
    "JUDGED",
    "Announce",
    "DataSets",
    "as_said",
    "confined_to",
    "in_two_steps",
    "noted",
    "runs_code",
    "split",
]

Announce = Callable[[str, float], None]
"""``(what is done now, share done)``."""

JUDGED = "its answers were judged by flataudit's own process; the one that gave them had the inputs and no labels"
"""The note of a candidate whose answers came from another process."""
FOUND_LATE = "its files showed no code, and loading it found some: what had been measured beside the labels was dropped"
"""The note of a candidate that was taken for data at first."""
_SAID = "its own process says: "
_OF_ANSWERS = frozenset({"calibration", "intervals", "predictions", "validation_groups", "validation_predictions"})
"""Arrays, and families of arrays, that are looked for by these names whoever left them."""
_CODE_FLAVOURS = frozenset({"python_function"})
"""Flavours that are code, whatever lies in the files."""


class DataSets:
    """The data of an audit's jobs in this process, each read once, however many candidates are judged by them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read: dict[str, list[AuditData]] = {}

    def of(self, specs: Sequence[DataSpec]) -> list[AuditData]:
        """The sets, aligned.

        Raises:
            DataError: one cannot be used, or changed since.
        """
        key = "\n".join(spec.model_dump_json() for spec in specs)
        with self._lock:
            if key not in self._read:
                self._read[key] = aligned([load_data(spec) for spec in specs])
            return self._read[key]


def runs_code(job: Job) -> bool:
    """Whether examining a candidate may run code of its own: it is trusted, and its files are not known to be data."""
    if not job.trust or job.candidate.flavour not in names("backends"):
        return False
    return job.candidate.flavour in _CODE_FLAVOURS or admit(Path(job.artifact)).verdict != "no code found"


def split(job: Job) -> tuple[Job, Job]:
    """The probes that ask a model for answers alone, and those that need more of it or its time."""
    answers = tuple(spec for spec in job.probes if _needs_answers_alone(make_probe(spec)))
    more = tuple(spec for spec in job.probes if spec not in answers)
    return job.model_copy(update={"probes": answers}), job.model_copy(update={"probes": more})


def _needs_answers_alone(probe: Probe) -> bool:
    return probe.requires is Predictor and not getattr(probe, "timed", False)


def in_two_steps(
    job: Job,
    announce: Announce,
    *,
    by_answers: Callable[[Job, Announce], tuple[Examined, Refusal | None]],
    beside_code: Callable[[Job, Announce], Examined],
) -> Examined:
    """The evidence of a candidate that brings code.

    Args:
        job: with all its probes.
        announce: told what is done now.
        by_answers: runs the first step; a refusal is why the candidate is not examined further.
        beside_code: runs the second, with what the first left of the budget.
    """
    first, second = split(job)
    if not first.probes:
        return beside_code(job, announce)
    share, started = len(first.probes) / len(job.probes), time.monotonic()

    def early(what: str, done: float) -> None:
        if done < 1 or not second.probes:
            announce(what, done * share)

    def late(what: str, done: float) -> None:
        announce(what, share + done * (1 - share))

    examined, refusal = by_answers(first, early)
    if not second.probes:
        return examined
    left = _left_for(second, examined, time.monotonic() - started)
    if refusal is None and left is not None:
        return _joined(job, examined, beside_code(left, late))
    return _joined(job, examined, (refusal or _used_up(job)).evidence(second))


def _left_for(job: Job, first: Examined, seconds: float) -> Job | None:
    """A job with what is left of the budget after the first step took these seconds; None: nothing."""
    spent = sum({m.probe: m.cost.passes for m in first.evidence.measurements}.values())
    left = {"passes": job.budget.passes - spent, "seconds": job.budget.seconds - seconds}
    if min(left.values()) <= 0:
        return None
    return job.model_copy(update={"budget": job.budget.model_copy(update=left)})


def _used_up(job: Job) -> Refusal:
    told = f"the candidate's budget ({job.budget.passes:g} passes, {job.budget.seconds:g} s) was used up before"
    return Refusal(told, "raise budget.passes or budget.seconds", Outcome.OVER_BUDGET)


def as_said(notes: Sequence[str]) -> tuple[str, ...]:
    """Notes of a process in which a stranger's code runs: a sentence of theirs must not pass for one of ours.

    >>> as_said(("signed by security",))
    ('its own process says: signed by security',)
    """
    return tuple(_SAID + note for note in notes)


def confined_to(job: Job, examined: Examined) -> Examined:
    """What a worker beside which the candidate's code runs may speak of: the metrics of the probes it was given.

    Its arrays are none of those that stand for answers.
    """
    kept = tuple(m for m in examined.evidence.measurements if _is_of(m, job.probes))
    update: dict[str, object] = {"measurements": kept, "notes": as_said(examined.evidence.notes)}
    if any(m.outcome is Outcome.MEASURED for m in kept):
        update["trust"] = "code_bearing"
    arrays = {name: one for name, one in examined.arrays.items() if name.partition("/")[0] not in _OF_ANSWERS}
    return Examined(examined.evidence.model_copy(update=update), arrays)


def _is_of(measurement: Measurement, specs: Sequence[Spec]) -> bool:
    spec = next((spec for spec in specs if spec.use == measurement.probe), None)
    if spec is None:
        return False
    probe = make_probe(spec)
    metrics = {metric.name for metric in (*probe.metrics, *getattr(probe, "families", ()))}
    return measurement.metric in metrics or measurement.metric.partition("/")[0] in metrics


def _joined(job: Job, first: Examined, second: Examined) -> Examined:
    """Both steps' evidence as one; where both speak of the same thing the first is believed."""
    notes = (*first.evidence.notes, *(note for note in second.evidence.notes if note not in first.evidence.notes))
    evidence = first.evidence.model_copy(update={"notes": notes, "isolation": _weaker(first.evidence, second.evidence)})
    both = merged(job, [second, Examined(evidence)])
    arrays: dict[str, Array] = {**second.arrays, **first.arrays}
    return Examined(both.evidence, arrays)


def noted(examined: Examined, note: str) -> Examined:
    """The evidence with one note more."""
    evidence = examined.evidence
    return Examined(evidence.model_copy(update={"notes": (*evidence.notes, note)}), examined.arrays)


def _weaker(one: Evidence, other: Evidence) -> dict[str, str]:
    """The isolation that both workers had."""
    order = ("none", "partial", "enforced")
    kinds = one.isolation.keys() | other.isolation.keys()
    pairs = {kind: (one.isolation.get(kind, "none"), other.isolation.get(kind, "none")) for kind in sorted(kinds)}
    return {kind: min(grades, key=order.index) for kind, grades in pairs.items()}
