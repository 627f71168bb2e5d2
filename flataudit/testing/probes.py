"""What every probe must keep to: declared metrics, finite numbers, one seed one answer, no trace."""

import json
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from flataudit.contracts import Probe, Reading
from flataudit.evidence import Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.testing.expectations import require
from flataudit.testing.subjects import Subject, data_state, standard_subjects

__all__ = ["check_probe"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-. ]*\Z")
"""What MLflow takes as the part of a metric's name between slashes."""
_LONGEST_NAME = 200
_AMPLE = Budget(passes=10_000.0, seconds=600.0)
_SCARCE = Budget(passes=1e-6, seconds=1e-6)
_SEED = 7


def check_probe(probe: Probe, *, subjects: Sequence[Callable[[], Subject]] | None = None) -> None:
    """Fail unless a probe conforms.

    Declarations: a version, metrics whose names MLflow takes, a frozen `Record` of parameters that survives JSON.
    On every subject: it does not raise, gives each declared metric once and no other, measures each on at least one
    subject, its numbers are finite and its arrays are there; the same seed gives the same numbers (unless it says of
    itself that it is ``timed``); model, data and every global random state are bit-identical afterwards; with hardly
    any budget it still gives each metric.

    Args:
        probe: with the parameters to be tried.
        subjects: makers of a fresh model with its data; by default small models and data of the probe's capability
            and role: classes, values, images, groups, a single example.

    Raises:
        AssertionError: says what was expected, what was got and what to do.
    """
    _check_declarations(probe)
    measured: set[str] = set()
    for make in subjects or list(
        standard_subjects(probe.requires, probe.role, reference=getattr(probe, "reference", None))
    ):
        readings, again = _traceless(probe, make(), _AMPLE), _traceless(probe, make(), _AMPLE)
        name = make().name
        require(
            getattr(probe, "timed", False) or _content(readings) == _content(again),
            f"the same numbers for the same seed on {name}",
            got=_difference(readings, again),
            remedy="draw only from a generator made from the seed",
        )
        _traceless(probe, make(), _SCARCE)
        measured |= {r.measurement.metric for r in readings if r.measurement.outcome is Outcome.MEASURED}
    never = {metric.name for metric in probe.metrics} - {name.partition("/")[0] for name in measured}
    require(
        not never,
        "each declared metric measured on at least one subject",
        got=f"no number for {', '.join(sorted(never))}",
        remedy="give subjects=[…] on which it applies, or do not declare it",
    )


def _check_declarations(probe: Probe) -> None:
    version: object = probe.version
    require(
        isinstance(version, str) and version,
        "a version as a non-empty string",
        got=repr(version),
        remedy='write version: ClassVar[str] = "1", and raise it when the numbers change',
    )
    require(
        probe.role in get_args(Role),
        f"a role among {get_args(Role)}",
        got=repr(probe.role),
        remedy="choose one of them",
    )
    require(probe.metrics, "at least one metric", got="none", remedy="declare what measure() returns")
    names = [metric.name for metric in probe.metrics]
    require(len(set(names)) == len(names), "metrics of different names", got=names, remedy="rename or remove one")
    for name in names:
        require(
            _NAME.match(name) and ".." not in name and len(name) <= _LONGEST_NAME,
            "a metric name of letters, digits, underscores, dashes, periods and spaces, which MLflow takes",
            got=repr(name),
            remedy="rename the metric",
        )
    _check_parameters(probe)


def _check_parameters(probe: Probe) -> None:
    frozen = isinstance(probe, Record) and probe.model_config.get("frozen")
    require(
        frozen,
        "a probe that is a frozen Record",
        got=f"{type(probe).__name__}, which is not",
        remedy="derive it from flataudit.evidence.Record, with its parameters as fields",
    )
    assert isinstance(probe, Record)
    fields = json.loads(probe.model_dump_json())
    again = type(probe)(**fields)
    require(
        again == probe,
        "parameters that survive JSON",
        got=f"{again!r} from {fields}",
        remedy="use plain numbers, strings, tuples and mappings as fields",
    )


def _traceless(probe: Probe, subject: Subject, budget: Budget) -> list[Reading]:
    """The readings, after a look at everything that must be as before."""
    model, data, process = subject.state(), data_state(subject.data), _process_state()
    try:
        readings = list(probe.measure(subject.model, subject.data, _SEED, budget))
    except Exception as error:
        raise AssertionError(
            f"expected readings on {subject.name}, got {type(error).__name__}: {error}; "
            "return metric.missing(outcome, reason, advice) where it cannot be measured"
        ) from error
    remedy = "work on copies"
    require(
        subject.state() == model, "the model as it was", got=f"other weights or flags on {subject.name}", remedy=remedy
    )
    require(
        data_state(subject.data) == data, "the data as they were", got=f"other bytes on {subject.name}", remedy=remedy
    )
    changed = [name for name, state in _process_state().items() if name in process and process[name] != state]
    require(
        not changed,
        "the global state of the process as it was",
        got=f"another {' and '.join(changed)} on {subject.name}",
        remedy="use numpy.random.default_rng(seed) or a torch.Generator, and restore any flag that you set",
    )
    _check_readings(probe, subject, readings)
    return readings


def _check_readings(probe: Probe, subject: Subject, readings: Sequence[Reading]) -> None:
    named = probe.role in ("shifted", "unlabelled")
    declared = {m.name: m for m in (m.of(subject.data.name) if named else m for m in probe.metrics)}
    families = {m.name: m for m in getattr(probe, "families", ())}
    members = {n: families[n.partition("/")[0]].of(n.partition("/")[2]) for n in _names(readings) if _of(n, families)}
    declared |= members
    given = _names(readings)
    require(
        sorted(given) == sorted(declared),
        f"each declared metric once on {subject.name}: {sorted(declared)}",
        got=sorted(given),
        remedy="return metric.missing(…) for one without a number"
        + ("; name each metric.of(data.name)" if named else ""),
    )
    arrays = [name for reading in readings for name in reading.arrays]
    require(len(set(arrays)) == len(arrays), "arrays of different names", got=arrays, remedy="rename one")
    for reading in readings:
        _check_measurement(reading.measurement, declared[reading.measurement.metric], arrays, subject)


def _names(readings: Sequence[Reading]) -> list[str]:
    return [reading.measurement.metric for reading in readings]


def _of(name: str, families: Mapping[str, Metric]) -> bool:
    """Whether it is a member of a declared family: ``group_accuracy/north``."""
    family, _, member = name.partition("/")
    return bool(member) and family in families


def _check_measurement(measurement: Measurement, metric: Metric, arrays: Sequence[str], subject: Subject) -> None:
    try:
        Measurement.model_validate(measurement.model_dump(warnings="error"))
    except (ValidationError, PydanticSerializationError) as error:
        told = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise AssertionError(
            f"expected a valid, finite measurement of {metric.name} on {subject.name}, got {told}; "
            "give every field through metric.measured(…) or metric.missing(…), which check it (model_copy does not)"
        ) from error
    require(
        (measurement.unit, measurement.better) == (metric.unit, metric.better),
        f"{metric.name} in {metric.unit!r}, {metric.better} is better",
        got=f"{measurement.unit!r}, {measurement.better}",
        remedy="make measurements with metric.measured(…) and metric.missing(…)",
    )
    require(
        measurement.samples is None or measurement.samples in arrays,
        f"the array {measurement.samples!r} that {metric.name} names",
        got=sorted(arrays),
        remedy="return it in Reading.arrays, or leave samples out",
    )


def _content(readings: Sequence[Reading]) -> dict[str, object]:
    """All numbers by name, comparable to the last bit."""
    found: dict[str, object] = {r.measurement.metric: r.measurement.model_dump_json() for r in readings}
    return found | {f"array {name}": array.data for r in readings for name, array in r.arrays.items()}


def _difference(one: Sequence[Reading], other: Sequence[Reading]) -> str:
    a, b = _content(one), _content(other)
    return "other values of " + ", ".join(sorted(name for name in a | b if a.get(name) != b.get(name)))


def _process_state() -> dict[str, object]:
    """What is global and must not move; of torch only once it is imported."""
    legacy = np.random.get_state(legacy=False)
    found: dict[str, object] = {
        "random state of Python": random.getstate(),
        "random state of NumPy": (legacy["state"]["key"].tobytes(), legacy["state"]["pos"], legacy["has_gauss"]),
        "floating-point error handling of NumPy": tuple(np.geterr().items()),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["random state of torch"] = torch.get_rng_state().numpy().tobytes()
        found["gradient mode of torch"] = torch.is_grad_enabled()
        found["default dtype of torch"] = torch.get_default_dtype()
        if torch.cuda.is_initialized():
            found["random state of CUDA"] = tuple(s.numpy().tobytes() for s in torch.cuda.get_rng_state_all())
    return found
