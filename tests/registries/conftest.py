"""Small audits, made by hand, of candidates that a registry gave."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from flataudit.audit import AuditKind, AuditPlan, AuditRecord, DataSummary
from flataudit.decision import Decision, DecisionKind, Standing
from flataudit.evidence import AuditProtocol, Candidate, Evidence, Measurement, Metric, Outcome
from flataudit.ledger import LedgerDraft, operation_id
from flataudit.registries.mlflow.entering import pointing_at, stamped
from flataudit.specs import DataSpec, Spec

sys.path.insert(0, str(Path(__file__).parent))  # the small MLflow is importable by the tests beside

DIGEST = "sha256:" + "c0ffee00" * 8
ACCURACY = Metric(name="validation_accuracy", better="higher")
TRACE = Metric(name="hessian_trace", unit="loss/parameter²", better="lower")
SCORE = Metric(name="score", better="higher")
MEASURED = (
    ACCURACY.measured(0.9375, interval=(0.91, 0.96), n=400),
    TRACE.measured(12.5, standard_error=0.0),
    SCORE.measured(0.75),
    Metric(name="lambda_max").missing(Outcome.NOT_CONVERGED, "no <script>alert(1)</script> | in\n60 steps"),
)

MakeAudit = Callable[..., AuditRecord]


def _audit(
    candidates: Sequence[Candidate],
    *,
    champion: Candidate | None = None,
    promoted: Candidate | None = None,
    kind: AuditKind = "gate",
    verdict: DecisionKind = "reject",
    measurements: Sequence[Measurement] = MEASURED,
    extra: Mapping[str, Sequence[Measurement]] | None = None,
    probes: Sequence[Spec] = (Spec(use="accuracy"), Spec(use="hessian_trace", params={"relative_error": 0.01})),
    audit_id: str = "20260101T000000Z-abcdef",
) -> AuditRecord:
    plan = AuditPlan(
        model=candidates[0].name,
        data=(
            DataSpec(name="validation", role="validation", source=Spec(use="npz", params={"path": "validation.npz"})),
        ),
        probes=tuple(probes),
    )
    protocol = AuditProtocol(
        probes=("accuracy@1{}",), data={"validation": DIGEST}, seed=7, dtype="float32", device="cpu", libraries={}
    )
    standings = tuple(
        Standing(
            candidate=candidate.label,
            version=candidate.version,
            digest=candidate.digest,
            verdict="promote" if candidate == promoted else verdict,
            verdicts=(),
        )
        for candidate in candidates
        if candidate != champion
    )
    decision = Decision(
        decision="promote" if promoted else verdict,
        promoted=promoted.label if promoted else None,
        champion=champion.label if champion else None,
        why="because",
        standings=standings,
        policy_digest=plan.policy.digest,
    )
    return AuditRecord(
        id=audit_id,
        kind=kind,
        created="2026-01-01T00:00:00+00:00",
        actor="a test",
        flataudit_version="0",
        plan=plan,
        data=(
            DataSummary(
                name="validation",
                role="validation",
                n=400,
                shape=(2,),
                kind="table",
                classes=2,
                groups=None,
                digest=DIGEST,
            ),
        ),
        champion=champion,
        evidences=tuple(
            Evidence(
                candidate=candidate,
                protocol=protocol,
                measurements=(*measurements, *(extra or {}).get(candidate.label, ())),
            )
            for candidate in candidates
        ),
        decision=decision if kind == "gate" else None,
    )


@pytest.fixture
def audit() -> MakeAudit:
    """``audit(candidates, champion=…, promoted=…)``: a finished audit of fetched candidates."""
    return _audit


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A published audit's folder."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "audit.json").write_text('{"schema": "flataudit/audit/1"}', encoding="utf-8")
    (folder / "report.html").write_text("<p>a report</p>", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's journal, of this test alone."""
    monkeypatch.setenv("FLATAUDIT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def _promotion(model: str, candidate: Candidate, champion: Candidate | None, audit_id: str) -> LedgerDraft:
    expected, target = pointing_at(champion), pointing_at(candidate)
    return LedgerDraft(
        model=model,
        alias="champion",
        kind="promote",
        audit=audit_id,
        operation=operation_id(model, "champion", expected=expected, target=target, decision=audit_id),
        created=stamped(),
        actor="a test",
        validation_digest=DIGEST,
        expected=expected,
        target=target,
        why="because",
    )


@pytest.fixture
def promotion() -> Callable[..., LedgerDraft]:
    """``promotion(model, candidate, champion, audit_id)``: a decision as a gate drafts it, without its audit."""
    return _promotion
