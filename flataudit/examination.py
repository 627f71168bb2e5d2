"""The worker's half of an audit: one job in, one candidate's evidence out, whatever the candidate does."""

import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flataudit import plugins
from flataudit.contracts import AuditData, Backend, DataSource, Loaded, Predictor, Probe, Reading
from flataudit.errors import DataError, FlatauditError, ModelError, UntrustedError
from flataudit.evidence import AuditProtocol, Cost, Evidence, Examined, Measurement, Metric, Outcome
from flataudit.manifest import manifest_digest
from flataudit.mlmodel import read_mlmodel
from flataudit.specs import Budget, DataSpec, Job, Spec
from flataudit.vocabulary import aligned

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

__all__ = [
    "Refusal",
    "artifact_size",
    "examine",
    "examine_loaded",
    "failed_evidence",
    "libraries",
    "load_data",
    "make_probe",
    "measure_all",
    "merged",
    "opened",
    "sample_of",
    "spoken",
    "told",
]

Announce = Callable[[str, float], None]
ARTIFACT_BYTES = Metric(
    name="artifact_bytes", unit="bytes", better="lower", description="Size of all files of the candidate. Exact."
)
_ARITHMETIC = (
    "torch",
    "numpy",
    "scipy",
    "onnxruntime",
    "scikit-learn",
    "xgboost",
    "lightgbm",
    "transformers",
    "onnx2pytorch",
)


def make_probe(spec: Spec) -> Probe:
    """The probe of a spec, with its parameters checked."""
    return cast("Probe", plugins.make("probes", spec.use, dict(spec.params)))


def load_data(spec: DataSpec) -> AuditData:
    """Read a data set; refuse one that changed since the parent read it.

    Raises:
        DataError: it cannot be used, or its digest is not the one in the spec.
    """
    source = cast("DataSource", plugins.make("data", spec.source.use, dict(spec.source.params)))
    data = source.load(spec.name, spec.role)
    if spec.digest is not None and data.digest != spec.digest:
        raise DataError(
            f"data set {spec.name!r} with digest {spec.digest}",
            got=data.digest,
            remedy="the file changed while the audit ran: start it again",
        )
    return data


@dataclass(frozen=True)
class Refusal:
    """Why no number is taken of a candidate."""

    reason: str
    advice: str | None
    outcome: Outcome = Outcome.FAILED

    def evidence(self, job: Job, data: Sequence[AuditData] = ()) -> Examined:
        """The evidence that says so."""
        return failed_evidence(job, self.reason, self.advice, self.outcome, data)


def examine(job: Job, announce: Announce, finished: Callable[[Examined], None] | None = None) -> Examined:
    """Load the candidate, run every probe, and return the evidence; a candidate's failure is evidence too.

    Args:
        job: what to examine, and how.
        announce: told what is done now.
        finished: given each probe's part of the evidence as soon as it is there.
    """
    data = aligned([load_data(spec) for spec in job.data])
    started = time.monotonic()
    found: Loaded | Examined | Refusal = opened(job, data)
    if isinstance(found, Loaded):
        found = examine_loaded(job, found, data, announce=announce, started=started, finished=finished)
    return found.evidence(job, data) if isinstance(found, Refusal) else found


def opened(job: Job, data: Sequence[AuditData]) -> Loaded | Refusal:
    """The candidate's model, checked on a few of the validation examples, or why there is none."""
    known = plugins.names("backends")
    if job.candidate.flavour not in known:
        reason = f"models of flavour {job.candidate.flavour!r} are not yet audited (only {', '.join(known)})"
        return Refusal(reason, "log the model as PyTorch", Outcome.NOT_APPLICABLE)
    try:
        _verify(job)
        read_mlmodel(Path(job.artifact)).refuse_another_served(job.candidate.flavour)
        backend = cast("Backend", plugins.make("backends", job.candidate.flavour))
        return backend.load(job, sample_of(data))
    except UntrustedError as error:
        return Refusal(str(error), error.remedy)
    except Exception as error:  # noqa: BLE001  # a hostile artifact may raise anything while it loads
        advice = error.remedy if isinstance(error, FlatauditError) else "check that it loads in this environment"
        return Refusal(f"cannot be loaded: {told(error)}", advice)


def examine_loaded(
    job: Job,
    loaded: Loaded,
    data: Sequence[AuditData],
    *,
    announce: Announce,
    started: float,
    finished: Callable[[Examined], None] | None = None,
    sample: AuditData | None = None,
) -> Examined | Refusal:
    """Run every probe of a job on a model; a refusal where its answers changed meanwhile.

    Args:
        job: what to examine, and how.
        loaded: its model.
        data: its data sets, aligned.
        announce: told what is done now.
        started: when the time of its budget began, on the monotonic clock.
        finished: given each probe's part of the evidence as soon as it is there.
        sample: on which it must answer the same before and after; None: the first validation examples.
    """
    probes = [(spec.use, make_probe(spec)) for spec in job.probes]
    model, sample = loaded.model, sample or sample_of(data)
    before = _told_by(model, sample)
    protocol = _protocol(job, model.dtype, data)

    def part(readings: Sequence[Reading]) -> Examined:
        measurements = tuple(reading.measurement for reading in readings)
        evidence = Evidence(
            candidate=job.candidate,
            protocol=protocol,
            trust=loaded.trust,
            notes=loaded.notes,
            measurements=measurements,
        )
        return Examined(evidence, {name: array for reading in readings for name, array in reading.arrays.items()})

    found = part(
        measure_all(
            model,
            data,
            probes,
            seed=job.seed,
            budget=job.budget,
            announce=announce,
            started=started,
            finished=None if finished is None else lambda readings: finished(part(readings)),
        )
    )
    apart = _moved(before, _told_by(model, sample))
    if apart is None:
        return found
    reason = f"changed while it was measured: its answers to the same inputs moved by {apart:.3g}"
    return Refusal(reason, "log a model whose answers depend on its inputs alone")


_MOST_MOVED = 1e-3
"""Of a probability, or as a share of the largest value; rounding stays below."""


def _told_by(model: Predictor, sample: AuditData) -> "NDArray[generic] | None":
    """Probabilities or values; None: it does not answer, which every probe will say."""
    try:
        answers = model.predict(sample.inputs)
    except Exception:  # noqa: BLE001  # a model may raise anything
        return None
    # An array knows how to be an exponent without NumPy's being imported here.
    return answers if model.task == "regression" else cast("Any", math.e) ** answers


def _moved(before: "NDArray[generic] | None", after: "NDArray[generic] | None") -> float | None:
    """How far answers moved between the load and the last probe; None: no more than rounding."""
    if before is None or after is None:
        return None
    if before.shape != after.shape:
        return math.inf
    apart = float(abs(cast("Any", before) - after).max())
    return None if apart <= _MOST_MOVED * max(1.0, float(abs(before).max())) else apart


def merged(job: Job, parts: Sequence[Examined]) -> Examined:
    """The parts of one candidate's evidence as one, in the order of the job's probes."""
    order = {spec.use: place for place, spec in enumerate(job.probes)}
    measurements = sorted((m for one in parts for m in one.evidence.measurements), key=lambda m: order.get(m.probe, -1))
    last = parts[-1].evidence
    protocol = last.protocol.model_copy(update={"probes": tuple(spoken(spec) for spec in job.probes)})
    evidence = last.model_copy(update={"protocol": protocol, "measurements": tuple(measurements)})
    return Examined(evidence, {name: array for one in parts for name, array in one.arrays.items()})


def failed_evidence(
    job: Job, reason: str, advice: str | None, outcome: Outcome = Outcome.FAILED, data: Sequence[AuditData] = ()
) -> Examined:
    """Evidence that nothing could be measured on this candidate, metric by metric."""
    measurements = [
        metric.missing(outcome, reason, advice).model_copy(update={"probe": spec.use})
        for spec in job.probes
        for metric in _declared(make_probe(spec), job.data)
    ]
    evidence = Evidence(
        candidate=job.candidate, protocol=_protocol(job, job.dtype or "float32", data), measurements=tuple(measurements)
    )
    return Examined(evidence)


_SHARE = 0.25
"""Of the seconds that are left, what one run may take while several wait."""


def measure_all(
    model: Predictor,
    data: Sequence[AuditData],
    probes: Sequence[tuple[str, Probe]],
    *,
    seed: int,
    budget: Budget,
    announce: Announce,
    started: float | None = None,
    finished: Callable[[Sequence[Reading]], None] | None = None,
) -> list[Reading]:
    """Run every probe on every data set of its role, within the budget that is left.

    A run may take a quarter of the seconds that are left, or an even share of them where that is more: a slow probe
    leaves time to those after it, and a quick one leaves them what it did not need.
    """
    started = time.monotonic() if started is None else started
    waiting = sum(len(_subjects(probe, data)) or 1 for _, probe in probes)
    readings: list[Reading] = []
    spent = 0.0
    for index, (name, probe) in enumerate(probes):
        announce(name, index / len(probes))
        subjects: Sequence[AuditData | None] = _subjects(probe, data) or (None,)
        before = len(readings)
        for subject in subjects:
            seconds = budget.seconds - (time.monotonic() - started)
            left = (budget.passes - spent, seconds * max(_SHARE, 1 / waiting))
            waiting -= 1
            ran = _run(name, probe, model, subject, seed, budget, left)
            spent += ran[0].measurement.cost.passes if ran else 0.0
            readings.extend(ran)
        if finished is not None:
            finished(readings[before:])
    announce("done", 1.0)
    return readings


def _run(
    name: str,
    probe: Probe,
    model: Predictor,
    data: AuditData | None,
    seed: int,
    budget: Budget,
    left: tuple[float, float],
) -> list[Reading]:
    metrics = [m.of(data.name) if data and _named(probe) else m for m in probe.metrics]
    if data is None:
        outcome, reason, advice = Outcome.NOT_APPLICABLE, f"no {probe.role} data", f"declare data: {probe.role}: …"
    elif not isinstance(model, probe.requires):
        because = getattr(model, "no_curvature_because", None)
        what = because or f"the model is not {probe.requires.__name__.lower()}"
        outcome, reason, advice = Outcome.NOT_APPLICABLE, what, None
    elif min(left) <= 0:
        spent = f"the candidate's budget ({budget.passes:g} passes, {budget.seconds:g} s) was used up before"
        outcome, reason, advice = Outcome.OVER_BUDGET, spent, "raise budget.passes or budget.seconds"
    else:
        return _measured(
            name, probe, model, data, seed, budget.model_copy(update={"passes": left[0], "seconds": left[1]})
        )
    return [Reading(m.missing(outcome, reason, advice).model_copy(update={"probe": name})) for m in metrics]


def _measured(name: str, probe: Probe, model: Predictor, data: AuditData, seed: int, budget: Budget) -> list[Reading]:
    before, peak, clock = copy(model.meter), _peak_bytes(), time.monotonic()
    metrics = [m.of(data.name) if _named(probe) else m for m in probe.metrics]
    try:
        readings = list(probe.measure(model, data, seed, budget))
    except Exception as error:  # noqa: BLE001  # a probe's or a model's failure is an outcome of this candidate
        advice = error.remedy if isinstance(error, FlatauditError) else None
        readings = [Reading(m.missing(Outcome.FAILED, told(error), advice)) for m in metrics]
    spoken = {reading.measurement.metric for reading in readings}
    silent = [m for m in metrics if m.name not in spoken]
    readings += [Reading(m.missing(Outcome.FAILED, f"probe {name} gave no number for it")) for m in silent]
    cost = model.meter.cost(before, len(data)).model_copy(
        update={"seconds": time.monotonic() - clock, "peak_bytes": max(0, _peak_bytes() - peak)}
    )
    return [_stamped(reading, name, cost) for reading in readings]


def _stamped(reading: Reading, probe: str, cost: Cost) -> Reading:
    measurement: Measurement = reading.measurement.model_copy(update={"probe": probe, "cost": cost})
    return Reading(measurement, reading.arrays)


def _subjects(probe: Probe, data: Sequence[AuditData]) -> list[AuditData]:
    found = [d for d in data if d.role in _roles(probe)]
    if not found and probe.role == "train":
        found = [d for d in data if d.role == "validation"]
    reference = next((d for d in data if d.role == getattr(probe, "reference", None)), None)
    return found if reference is None else [replace(d, reference=reference) for d in found]


def _roles(probe: Probe) -> tuple[str, ...]:
    """Its own, and those that it also runs on."""
    return (probe.role, *getattr(probe, "also", ()))


def sample_of(data: Sequence[AuditData]) -> AuditData:
    """The few validation examples on which a model is tried."""
    return next(d for d in data if d.role == "validation").head(64)


def _named(probe: Probe) -> bool:
    """Probes of shifted and unlabelled sets run once a set and carry its name in their metrics."""
    return probe.role in ("shifted", "unlabelled")


def _declared(probe: Probe, data: Sequence[DataSpec]) -> Iterator[Metric]:
    sets = [spec.name for spec in data if spec.role in _roles(probe)] if _named(probe) else []
    for metric in probe.metrics:
        yield from (metric.of(name) for name in sets) if sets else (metric,)


def artifact_size(artifact: Path) -> Measurement:
    """Bytes of all files of a candidate: what it takes to store and to ship it."""
    total = sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file())
    return ARTIFACT_BYTES.measured(float(total), standard_error=0.0)


def _verify(job: Job) -> None:
    found = manifest_digest(Path(job.artifact))
    if job.candidate.digest is not None and found != job.candidate.digest:
        raise ModelError(
            f"files with digest {job.candidate.digest}", got=found, remedy="the files changed: start the audit again"
        )


def spoken(spec: Spec) -> str:
    """``name@version{parameters}``: all that a probe's numbers depend on beside model, data and seed."""
    probe = make_probe(spec)
    fields = getattr(probe, "model_dump_json", lambda: "{}")()
    return f"{spec.use}@{probe.version}{fields}"


def _protocol(job: Job, dtype: str, data: Sequence[AuditData]) -> AuditProtocol:
    return AuditProtocol(
        probes=tuple(spoken(spec) for spec in job.probes),
        data={d.name: d.digest for d in data} or {d.name: d.digest or "" for d in job.data},
        seed=job.seed,
        loss="default" if job.loss is None else job.loss.model_dump_json(exclude_unset=True),
        tokenizer=_tokenizer(job),
        dtype=dtype,
        device=job.device.partition(":")[0],
        libraries=libraries(),
    )


def _tokenizer(job: Job) -> str:
    """The tokenizer without the place where its file lies."""
    if job.tokenizer is None:
        return "none"
    return job.tokenizer.model_dump_json(exclude_defaults=True, exclude={"path"})


@cache
def libraries() -> Mapping[str, str]:
    """Versions of Python and of what does the arithmetic."""
    found = {"python": platform.python_version()}
    for name in _ARITHMETIC:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def told(error: BaseException) -> str:
    """An error in a line: flataudit's own as it stands, another with its kind."""
    text = str(error).strip().splitlines()
    line = text[0] if text else "no message"
    return line if isinstance(error, FlatauditError) else f"{type(error).__name__}: {line}"[:500]


def _peak_bytes() -> int:
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
