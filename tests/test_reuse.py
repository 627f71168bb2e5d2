"""What was measured once is not measured again, unless anything that it depends on changed."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined, Measurement, Metric, Outcome
from flataudit.reuse import EvidenceStore, store_folder
from flataudit.specs import DataSpec, Job, Spec

DATA = (DataSpec(name="validation", role="validation", source=Spec(use="npz"), digest="sha256:d"),)
JOB = Job(
    candidate=Candidate(name="m", version="1", uri="models:/m/1", flavour="pytorch", digest="sha256:a"),
    artifact="somewhere",
    probes=(Spec(use="accuracy"), Spec(use="calibration")),
    data=DATA,
)


def part(probe: str, metric: str, outcome: Outcome = Outcome.MEASURED, job: Job = JOB) -> Examined:
    one = Metric(name=metric)
    found: Measurement = one.measured(0.5, samples="a") if outcome is Outcome.MEASURED else one.missing(outcome, "why")
    protocol = AuditProtocol(
        probes=(), data={"validation": "sha256:d"}, seed=0, dtype="float32", device="cpu", libraries={}
    )
    evidence = Evidence(
        candidate=job.candidate, protocol=protocol, measurements=(found.model_copy(update={"probe": probe}),)
    )
    return Examined(evidence, {f"{metric}/a": Array.of([1.0, 2.0])})


def store(folder: Path, **given: object) -> EvidenceStore:
    return EvidenceStore(folder, "process", **given)  # type: ignore[arg-type]


def todo(found: tuple[Examined | None, Sequence[Spec]]) -> list[str]:
    return [spec.use for spec in found[1]]


def test_probe_by_probe(tmp_path: Path) -> None:
    kept = store(tmp_path)
    assert kept.kept(JOB) == (None, JOB.probes)
    kept.keep(JOB, part("calibration", "calibration_error"))
    known, left = kept.kept(JOB)
    assert known is not None and [spec.use for spec in left] == ["accuracy"]
    assert known.evidence["calibration_error"].estimate == 0.5
    assert known.arrays["calibration_error/a"].values() == [1.0, 2.0]
    kept.keep(JOB, part("accuracy", "validation_accuracy"))
    known, left = kept.kept(JOB)
    assert known is not None and not left
    assert [m.probe for m in known.evidence.measurements] == ["accuracy", "calibration"]
    assert [name.partition("@")[0] for name in known.evidence.protocol.probes] == ["accuracy", "calibration"]


def test_the_same_bytes_under_another_version_are_known_and_named_rightly(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.keep(JOB, part("accuracy", "validation_accuracy"))
    other = JOB.model_copy(update={"candidate": JOB.candidate.model_copy(update={"version": "9"})})
    known, _ = kept.kept(other)
    assert known is not None and known.evidence.candidate.label == "v9"


@pytest.mark.parametrize(
    "changed",
    [
        {"candidate": JOB.candidate.model_copy(update={"digest": "sha256:b"})},
        {"candidate": JOB.candidate.model_copy(update={"digest": None})},
        {"seed": 1},
        {"dtype": "float64"},
        {"device": "cuda"},
        {"batch_size": 7},
        {"trust": True},
        {"task": "binary"},
        {"data": (DATA[0].model_copy(update={"digest": "sha256:e"}),)},
        {"budget": JOB.budget.model_copy(update={"passes": 1.0})},
        {"probes": (Spec(use="accuracy"), Spec(use="calibration", params={"bins": 7}))},
    ],
)
def test_anything_that_a_number_depends_on_makes_it_unknown(tmp_path: Path, changed: dict[str, object]) -> None:
    kept = store(tmp_path)
    kept.keep(JOB, part("calibration", "calibration_error"))
    assert todo(kept.kept(JOB)) == ["accuracy"]
    assert todo(kept.kept(JOB.model_copy(update=changed))) == ["accuracy", "calibration"]
    assert todo(EvidenceStore(tmp_path, "local").kept(JOB)) == ["accuracy", "calibration"]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.OVER_BUDGET])
def test_what_failed_is_tried_again(tmp_path: Path, outcome: Outcome) -> None:
    kept = store(tmp_path)
    kept.keep(JOB, part("accuracy", "validation_accuracy", outcome))
    assert todo(kept.kept(JOB)) == ["accuracy", "calibration"]
    kept.keep(JOB, part("accuracy", "validation_accuracy", Outcome.NOT_APPLICABLE))
    assert todo(kept.kept(JOB)) == ["calibration"]


def test_fresh_uses_nothing_and_keeps_everything(tmp_path: Path) -> None:
    store(tmp_path).keep(JOB, part("accuracy", "validation_accuracy"))
    again = store(tmp_path, fresh=True)
    assert todo(again.kept(JOB)) == ["accuracy", "calibration"]
    again.keep(JOB, part("calibration", "calibration_error"))
    assert todo(store(tmp_path).kept(JOB)) == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 50])
def test_a_damaged_entry_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    kept = store(tmp_path)
    for name in ("evidence.json", "arrays.npz"):
        kept.keep(JOB, part("accuracy", "validation_accuracy"))
        (file,) = tmp_path.rglob(name)
        file.write_bytes(damage)
        assert todo(kept.kept(JOB)) == ["accuracy", "calibration"]


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = store(tmp_path / "file")
    kept.keep(JOB, part("accuracy", "validation_accuracy"))
    kept.prune()
    assert todo(kept.kept(JOB)) == ["accuracy", "calibration"]


def test_old_entries_are_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store(tmp_path)
    kept.keep(JOB, part("accuracy", "validation_accuracy"))
    kept.prune()
    assert todo(kept.kept(JOB)) == ["calibration"]
    monkeypatch.setattr("flataudit.reuse.time.time", lambda: 4e9)
    kept.prune()
    assert todo(kept.kept(JOB)) == ["accuracy", "calibration"] and not list(tmp_path.rglob("*.json"))


def test_where_it_is() -> None:
    assert store_folder({"FLATAUDIT_CACHE": "/x"}) == Path("/x")
    assert store_folder({"XDG_CACHE_HOME": "/y"}) == Path("/y/flataudit")
    assert store_folder({}).parts[-2:] == (".cache", "flataudit")


def test_what_a_clock_gave_or_the_budget_cut_short_is_measured_again(tmp_path: Path) -> None:
    kept, timed = store(tmp_path), JOB.model_copy(update={"probes": (Spec(use="footprint"),)})
    kept.keep(timed, part("footprint", "latency_p50", job=timed))
    assert todo(kept.kept(timed)) == ["footprint"]
    cut = part("accuracy", "validation_accuracy")
    hurried = cut.evidence.measurements[0].model_copy(update={"details": {"stopped": "budget"}})
    kept.keep(JOB, Examined(cut.evidence.model_copy(update={"measurements": (hurried,)}), cut.arrays))
    kept.keep(JOB, part("calibration", "calibration_error", Outcome.NOT_CONVERGED))
    assert todo(kept.kept(JOB)) == ["accuracy", "calibration"]


def test_what_a_worker_told_before_it_broke_the_protocol_is_forgotten(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.keep(JOB, part("accuracy", "validation_accuracy"))
    kept.forget(JOB)
    assert todo(kept.kept(JOB)) == ["accuracy", "calibration"]
