"""What every report format must keep to: it draws any audit, the same each time, and no name can steer a reader."""

import json
import unicodedata
from collections.abc import Mapping
from xml.etree import ElementTree

from flataudit.audit import AuditPlan, AuditRecord, DataSummary
from flataudit.contracts import Renderer
from flataudit.decision import Comparison
from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Metric, Outcome
from flataudit.judge import decide, limits
from flataudit.specs import DataSpec, Spec
from flataudit.testing.expectations import require

__all__ = ["HOSTILE", "check_renderer"]

HOSTILE = "<script>alert('x')</script><!--]]>&|`a`\n\x1b[2J\u202egnp\u200b"
"""A name that would run, hide or recolour something wherever it is not escaped."""
_ACCURACY = Metric(name="validation_accuracy", unit="accuracy", better="higher")
_DIGEST = "sha256:" + "0" * 64


def check_renderer(renderer: Renderer) -> None:
    """Fail unless a renderer conforms, on a gate, a score and an audit whose names are hostile.

    It has a suffix, gives the same document for the same records, in UTF-8, without invisible characters; what ends
    in ``html`` or ``md`` holds no markup of a name, what ends in ``xml`` or ``json`` parses.

    Raises:
        AssertionError: says what was expected, what was got and what to do.
    """
    suffix: object = renderer.suffix
    require(
        isinstance(suffix, str) and suffix and not suffix.startswith("."),
        "a suffix without its dot",
        got=repr(suffix),
        remedy='write suffix: ClassVar[str] = "txt"',
    )
    arrays = {label: {"validation_accuracy": Array.of([1.0, 0.0])} for label in ("v1", "v2")}
    for record in _records():
        document = _rendered(renderer, record, arrays)
        require(
            document == _rendered(renderer, record, dict(reversed(arrays.items()))),
            f"the same document for the same {record.kind}",
            got="another",
            remedy="leave out the time, and sort what comes from sets and mappings",
        )
        _check_document(renderer.suffix, record, document)


def _rendered(renderer: Renderer, record: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
    try:
        document: object = renderer.render(record, arrays)
    except Exception as error:
        raise AssertionError(
            f"expected a document for the {record.kind}, got {type(error).__name__}: {error}; "
            "draw what is there, and say what is not"
        ) from error
    require(isinstance(document, str) and document, "a text", got=type(document).__name__, remedy="return str")
    return str(document)


def _check_document(suffix: str, record: AuditRecord, document: str) -> None:
    odd = {c for c in document if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}} - {"\n", "\t", "\r"}
    require(
        not odd,
        f"only visible characters in the {record.kind}",
        got=sorted(f"U+{ord(character):04X}" for character in odd),
        remedy="pass every text of a record through flataudit.report.escaping",
    )
    format_ = suffix.rpartition(".")[2]
    if format_ in ("html", "svg", "md"):
        require(
            "<script>alert(" not in document,
            "no markup from a name",
            got="a script element",
            remedy="pass every text of a record through flataudit.report.escaping",
        )
    try:
        if format_ == "xml":
            ElementTree.fromstring(document)  # noqa: S314  # our own text; to parse is the test
        if format_ in ("json", "sarif"):
            json.loads(document)
    except (ElementTree.ParseError, ValueError) as error:
        raise AssertionError(
            f"expected well-formed {suffix} for the {record.kind}, got {error}; write it with a library"
        ) from error


def _records() -> tuple[AuditRecord, ...]:
    """A gate with a failed challenger, a score, and an audit."""
    found = (_evidence(1, 0.9), _evidence(2, 0.95), _evidence(3, None))
    pair = Comparison(
        metric=_ACCURACY.name,
        champion="v1",
        challenger="v2",
        difference=0.05,
        standard_error=0.01,
        interval=(0.03, 0.07),
        p_value=1e-4,
        n=400,
        method=HOSTILE,
    )
    gate = _record("gate", found, champion=found[0].candidate)
    decision = decide(gate.plan.policy, found, (pair,), champion="v1")
    audit = _record("audit", found[:1], champion=found[0].candidate)
    return (
        gate.model_copy(update={"comparisons": (pair,), "decision": decision}),
        _record("score", found),
        audit.model_copy(update={"alarms": limits(audit.plan.policy, found[0])}),
    )


def _evidence(version: int, accuracy: float | None) -> Evidence:
    measurement = (
        _ACCURACY.missing(Outcome.FAILED, f"cannot be loaded: {HOSTILE}", HOSTILE)
        if accuracy is None
        else _ACCURACY.measured(accuracy, standard_error=0.01, interval=(accuracy - 0.02, accuracy + 0.02), n=400)
    )
    return Evidence(
        candidate=Candidate(name=HOSTILE, version=str(version), uri=HOSTILE, digest=_DIGEST, title=HOSTILE),
        protocol=AuditProtocol(probes=("accuracy@1{}",), data={}, seed=0, dtype="float32", device="cpu", libraries={}),
        measurements=(measurement.model_copy(update={"probe": "accuracy"}),),
    )


def _record(kind: str, evidences: tuple[Evidence, ...], *, champion: Candidate | None = None) -> AuditRecord:
    source = Spec(use="npz", params={"path": HOSTILE})
    plan = AuditPlan(
        model=HOSTILE,
        data=(DataSpec(name=HOSTILE, role="validation", source=source),),
        probes=(Spec(use="accuracy"),),
    )
    data = DataSummary(
        name=HOSTILE, role="validation", n=400, shape=(2,), kind="table", classes=2, groups=None, digest=_DIGEST
    )
    return AuditRecord.model_validate(
        {"id": "20250101T000000Z-000000", "kind": kind, "created": "2025-01-01T00:00:00+00:00", "actor": HOSTILE}
        | {"flataudit_version": "0.1.0", "plan": plan, "data": (data,), "champion": champion, "evidences": evidences}
    )
