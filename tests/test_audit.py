"""The order of the six hops, with parts that write down what was asked of them."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from flataudit import archive
from flataudit.audit import AuditKind, AuditPlan, AuditRecord, Occasion, Parts, run
from flataudit.contracts import Finished, Progress, Receipt
from flataudit.decision import Comparison, Selection
from flataudit.errors import ConfigurationError, ConflictError, DataError, ModelError, NotFoundError, ReportError
from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined, Metric
from flataudit.ledger import LedgerEntry
from flataudit.policy import Policy
from flataudit.specs import DataSpec, Job, Spec

ACCURACY = Metric(name="validation_accuracy", better="higher")
OCCASION = Occasion(id="20260101T000000Z-abcdef", created="2026-01-01T00:00:00+00:00", actor="t", flataudit_version="0")


class Book:
    """Registry, executor, comparer and publisher in one; `told` holds what was asked, in order."""

    def __init__(self, folder: Path, accuracies: dict[str, float], champion: str | None = "1") -> None:
        self.folder, self.accuracies, self.champion_version = folder, accuracies, champion
        self.told: list[str] = []
        self.entries: list[LedgerEntry] = []
        self.unfetchable: set[str] = set()
        self.recording: Exception | None = None
        self.publishing: Exception | None = None

    def candidate(self, version: str) -> Candidate:
        return Candidate(name="m", version=version, uri=f"models:/m/{version}", flavour="pytorch")

    def champion(self) -> Candidate | None:
        self.told.append("champion")
        return self.candidate(self.champion_version) if self.champion_version else None

    def challengers(self) -> Sequence[Candidate]:
        self.told.append("challengers")
        return [self.candidate(v) for v in self.accuracies if v != self.champion_version]

    def fetch(self, candidate: Candidate, into: Path) -> Candidate:
        assert list(into.iterdir()) == []
        (into / "MLmodel").write_text("flavors: {pytorch: {}}")
        self.told.append(f"fetch {candidate.label}")
        if candidate.version in self.unfetchable:
            raise ModelError("files", got="none", remedy="log it again")
        return candidate.model_copy(update={"digest": f"sha256:{candidate.version}"})

    def datasets(self) -> Sequence[DataSpec]:
        return []

    def history(self) -> Sequence[LedgerEntry]:
        return self.entries

    def map(self, jobs: Sequence[Job], progress: Progress, finished: Finished | None = None) -> Iterable[Examined]:
        for job in jobs:
            self.told.append(f"examine {job.candidate.label}")
            version = job.candidate.version or ""
            measured = ACCURACY.measured(self.accuracies[version], standard_error=0.0, samples="a")
            protocol = AuditProtocol(
                probes=(),
                data={d.name: d.digest or "" for d in job.data},
                seed=0,
                dtype="f",
                device="cpu",
                libraries={},
            )
            yield Examined(
                Evidence(candidate=job.candidate, protocol=protocol, measurements=(measured,)), {"a": Array.of([1.0])}
            )

    def score(self, examined: Sequence[Examined], policy: Policy) -> Sequence[Examined]:
        self.told.append("score")
        return examined

    def compare(self, examined: Sequence[Examined], policy: Policy) -> Sequence[Comparison]:
        self.told.append("compare")
        first = examined[0].evidence
        found = []
        for other in (e.evidence for e in examined[1:]):
            measured = other.get("validation_accuracy"), first.get("validation_accuracy")
            if any(m is None or m.estimate is None for m in measured):
                continue
            gain = self.accuracies[other.candidate.version or ""] - self.accuracies[first.candidate.version or ""]
            found.append(
                Comparison(
                    metric="validation_accuracy",
                    champion=first.candidate.label,
                    challenger=other.candidate.label,
                    difference=gain,
                    standard_error=0.001,
                    interval=(gain - 0.002, gain + 0.002),
                    p_value=0.001,
                    n=100,
                )
            )
        return found

    def selection(self, examined: Sequence[Examined], policy: Policy) -> Selection | None:
        return None

    def publish(self, record: AuditRecord, arrays: archive.Arrays) -> Path:
        self.told.append("publish")
        if self.publishing:
            raise self.publishing
        return archive.publish(record, arrays, self.folder / "report", ())

    def record(self, audit: AuditRecord, files: Path, *, promote: bool) -> Receipt:
        self.told.append(f"record promote={promote}")
        if self.recording:
            raise self.recording
        return Receipt(promoted=audit.decision.promoted if promote and audit.decision else None)


@pytest.fixture
def plan(tmp_path: Path) -> AuditPlan:
    np.savez(tmp_path / "v.npz", x=np.zeros((20, 3)), y=np.zeros(20, dtype=int))
    source = Spec(use="npz", params={"path": str(tmp_path / "v.npz")})
    data = (DataSpec(name="validation", role="validation", source=source),)
    return AuditPlan(model="m", data=data, probes=(Spec(use="accuracy"),))


def ran(book: Book, plan: AuditPlan, kind: AuditKind = "gate", *, dry_run: bool = False) -> AuditRecord:
    work = book.folder / "work"
    work.mkdir()
    parts = Parts(book, book, book, book.publish, lambda *_: None, work)
    return run(kind, plan, parts, dataclasses.replace(OCCASION, dry_run=dry_run))


def test_the_six_hops_in_order(tmp_path: Path, plan: AuditPlan) -> None:
    book = Book(tmp_path, {"1": 0.9, "2": 0.95})
    record = ran(book, plan)
    assert book.told == [
        "champion",
        "challengers",
        "fetch v1",
        "fetch v2",
        "examine v1",
        "examine v2",
        "score",
        "compare",
        "publish",
        "record promote=True",
    ]
    assert record.decision is not None and record.decision.promoted == "v2"
    assert record.champion is not None and record.champion.digest == "sha256:1"
    assert record.plan.data[0].digest is not None and record.data[0].n == 20


def test_a_dry_run_only_reads_the_registry(tmp_path: Path, plan: AuditPlan) -> None:
    book = Book(tmp_path, {"1": 0.9, "2": 0.95})
    record = ran(book, plan, dry_run=True)
    assert record.decision is not None and record.decision.decision == "promote" and record.receipt is None
    assert not any(told.startswith("record") for told in book.told)


def test_a_rejection_is_recorded_and_promotes_nothing(tmp_path: Path, plan: AuditPlan) -> None:
    book = Book(tmp_path, {"1": 0.9, "2": 0.8})
    assert ran(book, plan).receipt == Receipt()
    assert book.told[-1] == "record promote=False"


def test_score_needs_no_champion_and_audit_no_challengers(tmp_path: Path, plan: AuditPlan) -> None:
    scored = ran(Book(tmp_path, {"1": 0.9}, champion=None), plan, "score")
    assert scored.decision is None and len(scored.evidences) == 1
    (tmp_path / "again").mkdir()
    book = Book(tmp_path / "again", {"1": 0.9, "2": 0.8})
    audited = ran(book, plan, "audit")
    assert [v.verdict for v in audited.alarms] == ["pass"] and "challengers" not in book.told


def test_outputs_declared_of_nobody_are_noted(tmp_path: Path, plan: AuditPlan) -> None:
    declared = {"v1": "logits", "pytorch": "logits", "v9": "probabilities"}
    declared_plan = AuditPlan.model_validate(plan.model_dump() | {"outputs": declared})
    for evidence in ran(Book(tmp_path, {"1": 0.8, "2": 0.9}), declared_plan).evidences:
        (note,) = evidence.notes
        assert "v9" in note and "v1" not in note and "check the spelling" in note


def test_what_cannot_be_fetched_is_evidence(tmp_path: Path, plan: AuditPlan) -> None:
    book = Book(tmp_path, {"1": 0.9, "2": 0.95, "3": 0.96})
    book.unfetchable = {"3"}
    record = ran(book, plan)
    assert record.decision is not None and record.decision.promoted == "v2"
    assert "expected files" in (record.evidence("v3").measurements[0].reason or "")


def test_a_report_that_cannot_be_written_leaves_the_registry_alone(tmp_path: Path, plan: AuditPlan) -> None:
    book = Book(tmp_path, {"1": 0.9, "2": 0.95})
    book.publishing = ReportError("room", got="a full disk", remedy="free some")
    with pytest.raises(ReportError):
        ran(book, plan)
    assert book.told[-1] == "publish"


def test_a_conflict_is_the_caller_s_to_see(tmp_path: Path, plan: AuditPlan) -> None:
    book = Book(tmp_path, {"1": 0.9, "2": 0.95})
    book.recording = ConflictError("v1", got="v7", remedy="start again")
    with pytest.raises(ConflictError):
        ran(book, plan)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"probes": (Spec(use="accuracy"), Spec(use="accuracy"))}, "'accuracy' twice"),
        ({"probes": ()}, "at least one probe"),
        ({"probes": (Spec(use="acuracy"),)}, "did you mean accuracy"),
        ({"data": ()}, "validation data"),
    ],
)
def test_an_impossible_plan_starts_nothing(
    tmp_path: Path, plan: AuditPlan, change: dict[str, object], expected: str
) -> None:
    book = Book(tmp_path, {"1": 0.9})
    with pytest.raises(ConfigurationError, match=expected):
        ran(book, plan.model_copy(update=change))
    assert book.told == []


def test_bad_data_stops_before_the_registry_is_asked(tmp_path: Path, plan: AuditPlan) -> None:
    (tmp_path / "v.npz").unlink()
    book = Book(tmp_path, {"1": 0.9})
    with pytest.raises(DataError, match=r"v\.npz"):
        ran(book, plan)
    assert book.told == []


def test_nobody_to_audit(tmp_path: Path, plan: AuditPlan) -> None:
    with pytest.raises(NotFoundError, match="register a version"):
        ran(Book(tmp_path, {}, champion=None), plan)
