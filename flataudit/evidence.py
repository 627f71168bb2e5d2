"""What was measured, as records that outlive the process that measured it.

Everything here is frozen, refuses NaN and infinities, and survives a round trip through JSON.
Raw numbers too many for JSON (one per example, say) stay beside the record as `Array`s.
"""

import hashlib
import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeFloat, NonNegativeInt, model_validator

__all__ = [
    "Admission",
    "Array",
    "AuditProtocol",
    "Better",
    "Candidate",
    "Cost",
    "Evidence",
    "Examined",
    "Finding",
    "Measurement",
    "Metric",
    "Outcome",
    "Record",
    "canonical_digest",
]

Better = Literal["higher", "lower", "neither"]
Interval = tuple[float, float]


class Record(BaseModel):
    """The base of all that is written down: frozen, strict about its keys, finite.

    >>> Cost(seconds=float("nan"))
    Traceback (most recent call last):
      ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Cost
    seconds
      Input should be a finite number [type=finite_number, input_value=nan, input_type=float]
    ...
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=False,
        protected_namespaces=(),
    )


def canonical_digest(value: JsonValue) -> str:
    """``sha256:…`` of the value's canonical JSON (sorted keys, no spaces).

    >>> canonical_digest({"b": 1, "a": 2}) == canonical_digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


class Candidate(Record):
    """One model that might be promoted, named as its registry names it and bound to its bytes."""

    name: str
    """Registered model, or the run's name for a model that is not registered."""
    version: str | None = None
    """Version in the registry."""
    run_id: str | None = None
    """Run that logged the model."""
    model_id: str | None = None
    """Logged model behind the version."""
    flavour: str = "unknown"
    """How the model is stored: the name of the backend that loads it."""
    uri: str
    """Where the registry keeps it."""
    digest: str | None = None
    """``sha256:…`` of the manifest of every artifact file; None before the bytes were fetched."""
    step: int | None = None
    """Training step, for checkpoints of one run."""
    title: str | None = None
    """A person's name for it (the run's name); shown, never trusted or compared."""

    @property
    def label(self) -> str:
        """What tells this candidate from the others of the same audit."""
        return f"v{self.version}" if self.version else self.model_id or self.name


class Metric(Record):
    """A name that a probe may measure, with its unit and the direction that is better."""

    name: str
    unit: str = "1"
    better: Better = "neither"
    description: str = ""

    def measured(self, estimate: float, **fields: object) -> "Measurement":
        """A measurement of this metric; `fields` are those of `Measurement`."""
        return Measurement.model_validate(
            {"metric": self.name, "unit": self.unit, "better": self.better, "outcome": Outcome.MEASURED}
            | {"estimate": float(estimate)}
            | fields
        )

    def missing(self, outcome: "Outcome", reason: str, advice: str | None = None) -> "Measurement":
        """The record that this metric has no usable number, and why."""
        return Measurement(
            metric=self.name, unit=self.unit, better=self.better, outcome=outcome, reason=reason, advice=advice
        )

    def of(self, subject: str) -> "Metric":
        """This metric for one named subject (a data set): ``shift_accuracy/autumn``."""
        return self.model_copy(update={"name": f"{self.name}/{subject}"})


class Outcome(StrEnum):
    """How a measurement ended. Only `MEASURED` can ever satisfy a policy."""

    MEASURED = "measured"
    NOT_APPLICABLE = "not_applicable"
    NOT_CONVERGED = "not_converged"
    OVER_BUDGET = "over_budget"
    FAILED = "failed"


class Cost(Record):
    """What a probe used. Passes are over the probe's own data: 1.0 is every example once."""

    forward: NonNegativeFloat = 0.0
    """Forward passes."""
    backward: NonNegativeFloat = 0.0
    """Backward passes."""
    matvecs: NonNegativeFloat = 0.0
    """Hessian-vector products, each over all the data (not counted in `forward` or `backward`)."""
    reused: NonNegativeFloat = 0.0
    """Passes that it was spared, since another probe of the same audit had computed the same."""
    seconds: NonNegativeFloat = 0.0
    """Wall-clock seconds."""
    peak_bytes: NonNegativeInt = 0
    """Growth of the process's peak memory while it ran, in bytes."""

    @property
    def passes(self) -> float:
        """Equivalent forward-and-backward passes: a matvec counts two, a lone half one half."""
        return (self.forward + self.backward) / 2 + 2 * self.matvecs


class Measurement(Record):
    """One number about one candidate, with its error, its cost and what it is a bound of."""

    metric: str
    """Name, with the data set's after a slash where there are several: ``shift_accuracy/autumn``."""
    outcome: Outcome
    unit: str = "1"
    better: Better = "neither"
    probe: str = ""
    """The probe that gave it; `examine` fills this in."""
    estimate: float | None = None
    standard_error: NonNegativeFloat | None = None
    """None means unknown; 0 means exact."""
    interval: Interval | None = None
    """Two-sided, at `confidence`; in the metric's unit."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    bound: Literal["estimate", "lower", "upper"] = "estimate"
    """`lower`: the truth may be higher (gradient ascent, Lanczos from below)."""
    n: NonNegativeInt | None = None
    """Examples (or replicates) behind it."""
    samples: str | None = None
    """Name of the `Array` with one value per example or replicate."""
    details: Mapping[str, float | str | None] = Field(default_factory=dict)
    """Further scalars that explain the number (residual, steps, method)."""
    cost: Cost = Cost()
    """Cost of the probe run that gave it, shared by all metrics of that run."""
    reason: str | None = None
    """Why there is no usable number."""
    advice: str | None = None
    """What the user could do about it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.outcome is Outcome.MEASURED and self.estimate is None:
            raise ValueError(f"{self.metric} is called measured and has no estimate")
        if self.outcome is not Outcome.MEASURED and not self.reason:
            raise ValueError(f"{self.metric} is {self.outcome} and gives no reason")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"{self.metric} has an interval whose ends are exchanged: {self.interval}")
        return self

    @property
    def limits(self) -> Interval | None:
        """The interval; a point for an exact number; None where the error is unknown."""
        if self.interval is None and self.standard_error == 0 and self.estimate is not None:
            return (self.estimate, self.estimate)
        return self.interval


class AuditProtocol(Record):
    """How a candidate was measured. Two candidates compare only if these agree."""

    probes: tuple[str, ...]
    """``name@version{parameters}`` of each probe."""
    data: Mapping[str, str]
    """Digest of each data set, by its name."""
    seed: int
    loss: str = "default"
    """The loss that was differentiated: the task's own, or the declared one as JSON."""
    tokenizer: str = "none"
    """What stood between texts and the model, as JSON."""
    dtype: str
    device: str
    """Kind of device: ``cpu``, ``cuda``."""
    libraries: Mapping[str, str]
    """Versions of what did the arithmetic."""

    @property
    def digest(self) -> str:
        """``sha256:…`` over all of it."""
        return canonical_digest(self.model_dump(mode="json"))

    def differences(self, other: "AuditProtocol", *, of_answers: bool = False) -> tuple[str, ...]:
        """The fields in which two protocols differ, each as ``field: ours / theirs``.

        With ``of_answers``, those that matter to a comparison of answers: the precision in which a model computes them
        is its own affair.
        """
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        apart = [key for key in mine if mine[key] != theirs[key] and not (of_answers and key == "dtype")]
        return tuple(f"{key}: {mine[key]} / {theirs[key]}" for key in apart)


class Finding(Record):
    """One thing that a look at a candidate's files found, before anything of it was loaded."""

    kind: Literal["refusal", "code", "note"]
    """`refusal`: no honest artifact has it. `code`: who loads this runs what its author wrote. `note`: known data, or a
    setting that is not followed."""
    path: str
    """File of the artifact; of a member in an archive, ``file!member``."""
    what: str
    """A few words: ``a pickle``, ``a shared library``, ``a path``."""
    detail: str = ""

    @property
    def told(self) -> str:
        """All of it in a line.

        >>> Finding(kind="code", path="data/model.pth", what="a pickle", detail="names os.system").told
        'data/model.pth: a pickle (names os.system)'
        """
        return f"{self.path}: {self.what}" + f" ({self.detail})" * bool(self.detail)


class Admission(Record):
    """What the parent found in a candidate's files; it says what was found, never that nothing else is there."""

    verdict: Literal["refused", "carries code", "no code found"]
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, findings: Sequence[Finding]) -> Self:
        """With the verdict that follows from the findings, refusals first.

        >>> Admission.of([]).verdict
        'no code found'
        """
        order = ("refusal", "code", "note")
        ordered = tuple(sorted(findings, key=lambda finding: order.index(finding.kind)))
        worst = ordered[0].kind if ordered else "note"
        verdict = {"refusal": "refused", "code": "carries code", "note": "no code found"}[worst]
        return cls.model_validate({"verdict": verdict, "findings": ordered})

    def listed(self, kind: Literal["refusal", "code", "note"], most: int = 5) -> str:
        """The findings of a kind in one line, those beyond ``most`` counted."""
        told = [finding.told for finding in self.findings if finding.kind == kind]
        return "; ".join(told[:most]) + f"; and {len(told) - most} more" * (len(told) > most)


class Evidence(Record):
    """All that an audit measured on one candidate."""

    candidate: Candidate
    protocol: AuditProtocol
    trust: Literal["data_only", "code_bearing", "unknown"] = "unknown"
    """`data_only`: only flataudit's code ran. `code_bearing`: the candidate's own code ran beside the probes. It is
    what its worker said, unless the parent's admission found code."""
    admission: Admission | None = None
    """What the parent found in the candidate's files; None: it did not look (a live model)."""
    notes: tuple[str, ...] = ()
    """How the model was read and what was checked on the way, a sentence each."""
    isolation: Mapping[str, str] = Field(default_factory=dict)
    """What the worker was kept from, by kind: ``enforced``, ``partial`` or ``none``."""
    measurements: tuple[Measurement, ...]

    @property
    def digest(self) -> str:
        """``sha256:…`` over all of it; a decision names the evidence that it rests on."""
        return canonical_digest(self.model_dump(mode="json"))

    def __getitem__(self, metric: str) -> Measurement:
        found = self.get(metric)
        if found is None:
            raise KeyError(f"{metric!r} was not measured; measured: {[m.metric for m in self.measurements]}")
        return found

    def get(self, metric: str) -> Measurement | None:
        """The measurement of that name, or None where no probe spoke of it."""
        return next((m for m in self.measurements if m.metric == metric), None)

    def with_measurements(self, extra: Sequence[Measurement]) -> "Evidence":
        """A copy with more measurements; one of the same name replaces the old."""
        names = {m.metric for m in extra}
        kept = tuple(m for m in self.measurements if m.metric not in names)
        return self.model_copy(update={"measurements": kept + tuple(extra)})


_ITEM_BYTES = {"d": 8, "f": 4, "q": 8, "i": 4, "B": 1, "?": 1}


@dataclass(frozen=True)
class Array:
    """Raw numbers beside a record: a struct format, a shape, C-ordered bytes. Needs no numpy.

    ``numpy.asarray(array.view())`` reads it without a copy; `pack` takes anything with a buffer.

    >>> Array.of([1.0, 2.5]).values()
    [1.0, 2.5]
    """

    format: str
    """One of ``d f q i B ?`` (`struct` letters: float64, float32, int64, int32, uint8, bool)."""
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.format not in _ITEM_BYTES or any(size < 1 for size in self.shape):
            raise ValueError(f"expected a format in {set(_ITEM_BYTES)} and a shape without zeros, got {self}")
        if math.prod(self.shape) * _ITEM_BYTES[self.format] != len(self.data):
            raise ValueError(f"expected {self.shape} values of {self.format!r}, got {len(self.data)} bytes")

    @classmethod
    def pack(cls, buffer: object) -> "Array":
        """Copy a numpy array (or any C-ordered buffer) of a supported format."""
        view = memoryview(buffer)  # type: ignore[arg-type]  # numpy arrays are buffers; typing.Buffer needs 3.12
        letter = {"l": "q"}.get(view.format, view.format)
        return cls(letter, tuple(view.shape or ()), view.tobytes())

    @classmethod
    def of(cls, values: Sequence[float]) -> "Array":
        """A float64 vector from plain numbers."""
        return cls.pack(array("d", values))

    def view(self) -> memoryview:
        """A read-only multi-dimensional view of the bytes."""
        return memoryview(self.data).cast("B").cast(self.format, self.shape)  # type: ignore[call-overload, no-any-return]

    def values(self) -> list[float]:
        """The numbers as nested lists."""
        return self.view().tolist()  # type: ignore[return-value]


@dataclass(frozen=True)
class Examined:
    """One candidate's evidence with the arrays that its measurements name."""

    evidence: Evidence
    arrays: Mapping[str, Array] = field(default_factory=dict)
