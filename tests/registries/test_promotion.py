"""The alias moves only for bytes that were audited and only from the champion that was compared."""

import shutil

import pytest
from mlflow.exceptions import MlflowException

from flataudit.errors import ConflictError, TamperedError
from flataudit.registries.mlflow import MlflowRegistry, promotion, writing
from flataudit.registries.mlflow.ledger_run import LedgerRun

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


@pytest.fixture
def registry(trainer):
    return MlflowRegistry(model="fraud", tracking_uri=trainer.uri, challengers={"newest": 9})


@pytest.fixture
def candidates(trainer, registry, tmp_path):
    """Champion v1, challengers v3 and v2, all fetched."""
    for number in (1, 2, 3):
        trainer.version(tmp_path / f"m{number}", "fraud", files={"MLmodel": f"flavors: {{f{number}: {{}}}}"})
    trainer.client.set_registered_model_alias("fraud", "champion", "1")
    found = []
    for candidate in (registry.champion(), *registry.challengers()):
        (tmp_path / candidate.label).mkdir()
        found.append(registry.fetch(candidate, tmp_path / candidate.label))
    return found


def champion_of(trainer):
    return str(trainer.client.get_registered_model("fraud").aliases.get("champion"))


def decision_of(trainer, version):
    return trainer.client.get_model_version("fraud", version).tags.get("flataudit.decision")


def run_decisions(trainer):
    experiment = trainer.client.get_experiment_by_name("flataudit").experiment_id
    runs = trainer.client.search_runs([experiment])
    return {run.data.tags["flataudit.candidate"]: run.data.tags["flataudit.decision"] for run in runs}


def test_the_alias_moves_and_everything_says_so(trainer, registry, candidates, audit, files):
    champion, three, _ = candidates
    receipt = registry.record(audit(candidates, champion=champion, promoted=three), files, promote=True)
    assert receipt.promoted == champion_of(trainer) == "3"
    assert [decision_of(trainer, v) for v in "123"] == ["champion", "reject", "promote"]
    assert run_decisions(trainer) == {"v1": "champion", "v2": "reject", "v3": "promote"}


def test_a_repetition_changes_nothing(trainer, registry, candidates, audit, files):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    first = registry.record(made, files, promote=True)
    assert registry.record(made, files, promote=True) == first
    assert (champion_of(trainer), decision_of(trainer, "3")) == ("3", "promote")


def test_the_first_champion(trainer, registry, candidates, audit, files):
    trainer.client.delete_registered_model_alias("fraud", "champion")
    receipt = registry.record(audit(candidates, champion=None, promoted=candidates[1]), files, promote=True)
    assert receipt.promoted == champion_of(trainer) == "3"


def test_without_leave_nothing_moves(trainer, registry, candidates, audit, files):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    assert registry.record(made, files, promote=False).promoted is None
    assert (champion_of(trainer), decision_of(trainer, "3")) == ("1", "pending")


@pytest.mark.parametrize("moved_to", ["2", None])
def test_a_champion_that_moved_is_left_alone(trainer, registry, candidates, audit, files, moved_to):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    if moved_to:
        trainer.client.set_registered_model_alias("fraud", "champion", moved_to)
    else:
        trainer.client.delete_registered_model_alias("fraud", "champion")
    with pytest.raises(ConflictError, match="version 1, which was compared"):
        registry.record(made, files, promote=True)
    assert champion_of(trainer) == str(moved_to)
    assert decision_of(trainer, "3") == run_decisions(trainer)["v3"] == "conflict"


def test_a_first_champion_that_appeared_meanwhile(trainer, registry, candidates, audit, files):
    with pytest.raises(ConflictError, match="absent, which was compared, got version 1"):
        registry.record(audit(candidates, champion=None, promoted=candidates[1]), files, promote=True)
    assert champion_of(trainer) == "1"


def test_an_alias_moved_right_after_the_write_is_reported(trainer, registry, candidates, audit, files, monkeypatch):
    def interfere(seconds):
        trainer.client.set_registered_model_alias("fraud", "champion", "2")

    monkeypatch.setattr(promotion, "sleep", interfere)
    with pytest.raises(ConflictError, match="after it was set, got version 2"):
        registry.record(audit(candidates, champion=candidates[0], promoted=candidates[1]), files, promote=True)
    assert (champion_of(trainer), decision_of(trainer, "3")) == ("2", "conflict")


def change(trainer, candidate):
    (trainer.files_of(candidate.model_id) / "MLmodel").write_text("flavors: {evil: {}}")


def add(trainer, candidate):
    (trainer.files_of(candidate.model_id) / "more").write_text("")


def remove(trainer, candidate):
    shutil.rmtree(trainer.files_of(candidate.model_id))


def delete_version(trainer, candidate):
    trainer.client.delete_model_version("fraud", candidate.version)


@pytest.mark.parametrize("tamper", [change, add, remove])
def test_changed_bytes_are_never_promoted(trainer, registry, candidates, audit, files, tamper):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    tamper(trainer, candidates[1])
    with pytest.raises(TamperedError, match=f"digest {candidates[1].digest}"):
        registry.record(made, files, promote=True)
    assert champion_of(trainer) == "1"
    assert decision_of(trainer, "3") == run_decisions(trainer)["v3"] == "tampered"


def test_a_version_made_again_under_its_number_is_another(trainer, registry, candidates, audit, files, tmp_path):
    """The same bytes, but another run: the number says nothing."""
    made = audit(candidates, champion=None, promoted=candidates[1])
    trainer.client.delete_registered_model("fraud")
    for number in (1, 2, 3):
        trainer.version(tmp_path / f"again{number}", "fraud", files={"MLmodel": f"flavors: {{f{number}: {{}}}}"})
    with pytest.raises(TamperedError, match="version 3 to be run"):
        registry.record(made, files, promote=True)
    assert trainer.client.get_registered_model("fraud").aliases == {}


def test_a_version_that_goes_while_it_is_promoted(trainer, registry, candidates, audit, files, monkeypatch):
    append = LedgerRun.append

    def interfere(book, entry):
        delete_version(trainer, candidates[1])
        return append(book, entry)

    monkeypatch.setattr(LedgerRun, "append", interfere)
    with pytest.raises(TamperedError, match="no such version any more"):
        registry.record(audit(candidates, champion=candidates[0], promoted=candidates[1]), files, promote=True)
    assert champion_of(trainer) == "1"


def test_evidence_that_cannot_be_written_promotes_nothing(trainer, registry, candidates, audit, files, monkeypatch):
    monkeypatch.setattr(writing.rows, "params", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        registry.record(audit(candidates, champion=candidates[0], promoted=candidates[1]), files, promote=True)
    assert champion_of(trainer) == "1"
    experiment = trainer.client.get_experiment_by_name("flataudit").experiment_id
    assert [run.info.status for run in trainer.client.search_runs([experiment])] == ["FAILED"]


def test_tags_that_fail_after_the_move_are_a_note(trainer, registry, candidates, audit, files, monkeypatch):
    def fail(*_):
        raise MlflowException("disk full")

    monkeypatch.setattr(writing, "settle", fail)
    receipt = registry.record(audit(candidates, champion=candidates[0], promoted=candidates[1]), files, promote=True)
    assert receipt.promoted == champion_of(trainer) == "3"
    assert "tags still say pending: disk full" in receipt.notes[0]
    assert decision_of(trainer, "3") == "pending"


def test_a_winner_that_is_not_registered_is_a_note(trainer, candidates, audit, files, tmp_path):
    run_id = trainer.run()
    trainer.logged(tmp_path / "logged", run_id)
    chosen = MlflowRegistry(model="fraud", tracking_uri=trainer.uri, challengers={"run": run_id})
    (winner,) = chosen.challengers()
    made = audit([candidates[0], winner], champion=candidates[0], promoted=winner)
    receipt = chosen.record(made, files, promote=True)
    assert receipt.promoted is None
    assert "register it, choose it by its version" in receipt.notes[0]
    assert champion_of(trainer) == "1"
    assert run_decisions(trainer)[winner.label] == "unregistered"


# ── Records that do not hold together ──


def with_evidence(made, index, **changes):
    evidences = list(made.evidences)
    evidences[index] = evidences[index].model_copy(update=changes)
    return made.model_copy(update={"evidences": tuple(evidences)})


@pytest.mark.parametrize("index", [0, 1], ids=["champion", "winner"])
def test_evidence_on_other_data_promotes_nothing(trainer, registry, candidates, audit, files, index):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    other = made.evidences[index].protocol.model_copy(update={"data": {"validation": "sha256:other"}})
    with pytest.raises(TamperedError, match=r"data 'validation'.*got sha256:other"):
        registry.record(with_evidence(made, index, protocol=other), files, promote=True)
    assert champion_of(trainer) == "1" and registry.history() == ()


def test_evidence_on_other_bytes_promotes_nothing(trainer, registry, candidates, audit, files):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    other = candidates[1].model_copy(update={"digest": "sha256:other"})
    with pytest.raises(TamperedError, match="the bytes that were judged"):
        registry.record(with_evidence(made, 1, candidate=other), files, promote=True)
    assert champion_of(trainer) == "1" and registry.history() == ()


def test_a_decision_by_another_policy_promotes_nothing(trainer, registry, candidates, audit, files):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    decision = made.decision.model_copy(update={"policy_digest": "sha256:other"})
    with pytest.raises(TamperedError, match="a decision by policy"):
        registry.record(made.model_copy(update={"decision": decision}), files, promote=True)
    assert champion_of(trainer) == "1" and registry.history() == ()


def test_a_validation_set_that_others_used_meanwhile(trainer, registry, candidates, audit, files):
    """Two gates that both believe to be its first use would both spend the share of the first."""
    first = with_evidence(audit(candidates, champion=candidates[0], verdict="reject"), 0, trust="code_bearing")
    made = audit(candidates, champion=candidates[0], promoted=candidates[1], audit_id="second")
    decision = made.decision.model_copy(update={"validation_use": 1, "alpha": 0.03})
    made = made.model_copy(update={"decision": decision})
    registry.record(first, files, promote=False)
    with pytest.raises(ConflictError, match="decided as question 1 to this validation set, and is its question 2"):
        registry.record(made, files, promote=True)
    assert champion_of(trainer) == "1"
    assert [(e.kind, e.alpha) for e in registry.history()] == [("reject", None), ("conflict", 0.03)]
    again = made.model_copy(
        update={"id": "third", "decision": decision.model_copy(update={"validation_use": 2, "alpha": 0.003})}
    )
    assert registry.record(again, files, promote=True).promoted == champion_of(trainer) == "3"


def test_a_question_that_was_asked_before_keeps_its_number_and_its_promotion(
    trainer, registry, candidates, audit, files
):
    """Held, held again for nothing, then a better one: as a scheduled gate lives, and none is locked out."""
    held = with_evidence(audit(candidates, champion=candidates[0], verdict="hold"), 0, trust="code_bearing")
    for name in ("one", "two"):
        use = held.decision.model_copy(update={"validation_use": 1})
        registry.record(held.model_copy(update={"id": name, "decision": use}), files, promote=False)
    made = audit(candidates, champion=candidates[0], promoted=candidates[1], audit_id="three")
    use = made.decision.model_copy(update={"validation_use": 2})
    registry.record(made.model_copy(update={"decision": use}), files, promote=True)
    assert champion_of(trainer) == "3"
