"""What gates, people and crashes leave in the ledger of a model, on SQLite: entries, drift, rollback, resume."""

import pytest
from mlflow.entities import Param

from flataudit.errors import ConfigurationError, ConflictError, NotFoundError, RegistryError, TamperedError
from flataudit.journal import Journal
from flataudit.ledger import LedgerDraft
from flataudit.registries.mlflow import MlflowRegistry
from flataudit.registries.mlflow import ledger_run as runs

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


@pytest.fixture
def registry(trainer):
    return MlflowRegistry(model="fraud", tracking_uri=trainer.uri, challengers={"newest": 9}, mirror=False)


@pytest.fixture
def gate(trainer, registry, audit, files, tmp_path):
    """``gate(promoted="3")``: a gate's decision on champion and challengers as they are now."""
    for number in (1, 2, 3):
        trainer.version(tmp_path / f"m{number}", "fraud", files={"MLmodel": f"flavors: {{f{number}: {{}}}}"})
    trainer.client.set_registered_model_alias("fraud", "champion", "1")
    made = []

    def fetched(candidate):
        folder = tmp_path / f"fetched{len(made)}-{candidate.label}"
        folder.mkdir(exist_ok=True)
        return registry.fetch(candidate, folder)

    def prepared(promoted=None, **options):
        made.append(1)
        champion = registry.champion()
        champion = fetched(champion) if champion else None
        others = registry.challengers()
        winner = next((fetched(c) for c in others if c.version == promoted), None)
        found = ([champion] if champion else []) + ([winner] if winner else [fetched(others[0])])
        return audit(found, champion=champion, promoted=winner, audit_id=f"audit-{len(made)}", **options)

    def run(promoted=None, **options):
        finished = prepared(promoted, **options)
        return registry.record(finished, files, promote=promoted is not None)

    run.prepared = prepared
    return run


def alias(trainer):
    return {k: str(v) for k, v in trainer.client.get_registered_model("fraud").aliases.items()}.get("champion")


def move(trainer, version):
    trainer.client.set_registered_model_alias("fraud", "champion", version)


def kinds(registry):
    found = registry.account()
    assert found.ledger.problems() == ()
    return [(entry.kind, found.ledger.endings.get(entry.sequence)) for entry in found.ledger.entries]


def test_every_decision_is_an_entry(trainer, registry, gate):
    assert registry.history() == ()
    gate(verdict="reject")
    gate(verdict="inconclusive")
    receipt = gate("3")
    gate(verdict="hold")
    assert kinds(registry) == [("reject", None), ("inconclusive", None), ("promote", "done"), ("hold", None)]
    entry = registry.history()[2]
    assert (receipt.sequence, receipt.promoted, alias(trainer)) == (3, "3", "3")
    assert (entry.expected.version, entry.target.version, entry.audit) == ("1", "3", "audit-3")
    assert entry.target.digest.startswith("sha256:") and entry.validation_digest and entry.policy_digest
    assert set(entry.evidence) == {"v1", "v3"}
    assert entry.previous == registry.history()[1].digest


def test_a_model_without_decisions_gets_no_ledger_from_looking(trainer, registry, gate):
    assert registry.account().ledger.entries == () and registry.resume() == []
    with pytest.raises(NotFoundError, match="a ledger"):
        registry.rollback(version=None, reason="", actor="a test")
    assert trainer.client.get_experiment_by_name("flataudit-ledger") is None


def test_one_ledger_a_model(trainer, registry, gate):
    gate(verdict="reject")
    trainer.client.create_registered_model("other")
    first = runs.opened(trainer.client, trainer.uri, "fraud", registry_journal(trainer))
    second = runs.opened(trainer.client, trainer.uri, "other", registry_journal(trainer))
    assert first.run_id == registry.account().ledger_run != second.run_id
    assert runs.directory(trainer.client) == ["fraud", "other"] == list(registry.ledgers())
    assert trainer.client.get_registered_model("fraud").tags["flataudit.ledger"] == first.run_id


def registry_journal(trainer):
    return Journal(trainer.artifacts / "journal")


# ── Drift ──


def test_a_person_moved_the_alias(trainer, registry, gate):
    gate("3")
    move(trainer, "2")
    assert registry.account().drift
    receipt = gate(verdict="reject")
    assert "moved by no gate: the ledger says version 3, it points to version 2" in receipt.notes[0]
    assert alias(trainer) == "2" and not registry.account().drift
    assert kinds(registry) == [("promote", "done"), ("drift", None), ("reject", None)]
    drift = registry.history()[1]
    assert drift.target.digest == gate.prepared().champion.digest
    assert gate(verdict="reject").notes == ()


def test_a_scheduled_audit_reports_it_too(trainer, registry, gate):
    gate("3")
    trainer.client.delete_registered_model_alias("fraud", "champion")
    move(trainer, "1")
    assert "it points to version 1" in gate(kind="audit").notes[0]
    assert kinds(registry) == [("promote", "done"), ("drift", None)]


def test_a_removed_alias_is_a_drift_and_the_next_gate_promotes_from_there(trainer, registry, gate):
    gate("3")
    trainer.client.delete_registered_model_alias("fraud", "champion")
    receipt = gate("2")
    assert "it points to absent" in receipt.notes[0]
    assert (receipt.sequence, alias(trainer)) == (3, "2")


def test_a_move_between_comparison_and_record_is_a_conflict_and_stays(trainer, registry, gate, files):
    gate(verdict="reject")
    made = gate.prepared("3")
    move(trainer, "2")
    for _ in range(2):  # repeating it changes nothing
        with pytest.raises(ConflictError, match="got version 2 when"):
            registry.record(made, files, promote=True)
    assert alias(trainer) == "2"
    assert kinds(registry) == [("reject", None), ("drift", None), ("conflict", None)]


def test_bytes_of_the_champion_changed_under_its_alias(trainer, registry, gate):
    gate("3")
    (trainer.files_of(registry.champion().model_id) / "MLmodel").write_text("flavors: {evil: {}}")
    receipt = gate("2")
    assert "version 3 was changed under the alias" in receipt.notes[0]
    assert kinds(registry) == [("promote", "done"), ("drift", None), ("promote", "done")]


# ── Rollback ──


def test_rollback_restores_the_one_before_and_again(trainer, registry, gate):
    gate("2")
    gate("3")
    receipt = registry.rollback(version=None, reason="it fails in production", actor="a person")
    assert (receipt.promoted, receipt.sequence, alias(trainer)) == ("2", 3, "2")
    entry = registry.history()[2]
    assert (entry.kind, entry.why, entry.actor) == ("rollback", "it fails in production", "a person")
    assert registry.rollback(version=None, reason="", actor="a person").promoted == alias(trainer) == "1"
    with pytest.raises(ConfigurationError, match="a former champion"):
        registry.rollback(version=None, reason="", actor="a person")
    assert trainer.client.get_model_version("fraud", "1").tags["flataudit.decision"] == "rollback"


def test_rollback_to_a_named_version(trainer, registry, gate):
    gate("2")
    gate("3")
    assert registry.rollback(version="1", reason="", actor="a person").promoted == alias(trainer) == "1"
    assert registry.rollback(version="3", reason="", actor="a person").promoted == alias(trainer) == "3"


@pytest.mark.parametrize("version", ["3", "2", "9"])
def test_rollback_to_what_was_never_champion_is_refused(trainer, registry, gate, version):
    gate("3")
    with pytest.raises(ConfigurationError):
        registry.rollback(version=version, reason="", actor="a person")
    assert alias(trainer) == "3" and len(registry.history()) == 1


def test_rollback_to_other_bytes_is_refused(trainer, registry, gate):
    model_id = registry.champion().model_id
    gate("3")
    (trainer.files_of(model_id) / "more").write_text("")
    with pytest.raises(TamperedError):
        registry.rollback(version=None, reason="", actor="a person")
    assert alias(trainer) == "3" and kinds(registry)[-1] == ("rollback", "tampered")


def test_the_same_gate_after_a_rollback_promotes_anew(trainer, registry, gate):
    gate("3")
    registry.rollback(version=None, reason="", actor="a person")
    assert gate("3").promoted == alias(trainer) == "3"
    assert [kind for kind, _ in kinds(registry)] == ["promote", "rollback", "promote"]


# ── A ledger that somebody changed ──


def test_a_ledger_that_was_cut_back_is_refused(trainer, registry, gate, state, monkeypatch):
    gate(verdict="reject")
    gate(verdict="reject")
    monkeypatch.setattr(runs.time, "sleep", lambda _: None)
    monkeypatch.setattr(
        runs.LedgerRun, "_params", lambda book: dict(list(trainer.client.get_run(book.run_id).data.params.items())[:1])
    )
    with pytest.raises(RegistryError, match="of which this machine has seen 2"):
        gate(verdict="reject")


def test_an_entry_that_was_rewritten_is_refused(trainer, registry, gate, monkeypatch):
    gate(verdict="reject")
    gate("3")

    def rewritten(book):
        params = dict(trainer.client.get_run(book.run_id).data.params)
        return params | {"decision.000001": params["decision.000001"].replace('"reject"', '"hold"')}

    monkeypatch.setattr(runs.LedgerRun, "_params", rewritten)
    with pytest.raises(RegistryError, match="entry 1 was changed"):
        gate(verdict="reject")
    assert "entry 1 was changed" in registry.account().ledger.problems()
    assert alias(trainer) == "3"


def test_a_deleted_ledger_run_is_an_error_not_a_new_ledger(trainer, registry, gate, monkeypatch):
    gate(verdict="reject")
    monkeypatch.setattr(runs.time, "sleep", lambda _: None)
    trainer.client.delete_run(registry.account().ledger_run)
    with pytest.raises(RegistryError):
        gate("3")
    assert alias(trainer) == "1"


def test_an_entry_longer_than_a_param_is_an_artifact(trainer, registry, gate, monkeypatch):
    monkeypatch.setattr(runs, "_PARAM_CHARACTERS", 300)
    gate("3")
    gate(verdict="reject")
    params = trainer.client.get_run(registry.account().ledger_run).data.params
    assert all(len(value) <= 300 for value in params.values())
    assert kinds(registry) == [("promote", "done"), ("reject", None)]
    artifact = next(trainer.artifacts.parent.glob("flataudit-artifacts/**/decisions/*.json"))
    artifact.write_text(artifact.read_text().replace("a test", "a liar"))
    with pytest.raises(RegistryError, match="was changed"):
        gate(verdict="reject")


def test_hundreds_of_decisions(trainer, registry, gate):
    gate(verdict="reject")
    book = runs.located(trainer.client, "fraud", registry_journal(trainer))
    ledger = book.read()
    first = ledger.entries[0].model_dump(include=set(LedgerDraft.model_fields))
    params = []
    for number in range(2, 304):
        entry = ledger.followed_by(LedgerDraft(**first | {"operation": str(number)}))
        params.append(Param(f"decision.{number:06}", entry.compact_json()))
        ledger = ledger.model_copy(update={"entries": (*ledger.entries, entry)})
    for start in range(0, len(params), 100):
        trainer.client.log_batch(book.run_id, params=params[start : start + 100])
    assert gate("3").sequence == 304
    assert [entry.sequence for entry in registry.history()] == list(range(1, 305))
