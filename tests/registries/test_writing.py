"""What an audit leaves in MLflow, against a real database."""

import json
import re

import pytest

from flataudit.errors import NotFoundError
from flataudit.evidence import Metric
from flataudit.registries.mlflow import MlflowRegistry, rows, writing
from flataudit.specs import Spec

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


def registry(trainer, **params):
    return MlflowRegistry(model="fraud", tracking_uri=trainer.uri, **({"challengers": {"newest": 9}} | params))


@pytest.fixture
def candidates(trainer, tmp_path):
    """Champion, then the only challenger, both fetched."""
    for number in (1, 2):
        trainer.version(
            tmp_path / f"m{number}", "fraud", title=f"run {number}", files={"MLmodel": f"flavors: {{f{number}: {{}}}}"}
        )
    trainer.client.set_registered_model_alias("fraud", "champion", "1")
    found = []
    for candidate in (registry(trainer).champion(), *registry(trainer).challengers()):
        (tmp_path / candidate.label).mkdir()
        found.append(registry(trainer).fetch(candidate, tmp_path / candidate.label))
    return found


def tags(trainer, version):
    every = trainer.client.get_model_version("fraud", version).tags
    return {key.removeprefix("flataudit."): value for key, value in every.items() if key.startswith("flataudit.")}


def test_one_audit_run_for_each_candidate(trainer, candidates, audit, files):
    made = audit(candidates, champion=candidates[0])
    receipt = registry(trainer).record(made, files, promote=False)
    assert set(receipt.audit_runs) == {"v1", "v2"}
    assert (receipt.promoted, receipt.notes) == (None, ())
    run = trainer.client.get_run(receipt.audit_runs["v2"])
    assert trainer.client.get_experiment(run.info.experiment_id).name == "flataudit"
    assert (run.info.run_name, run.info.status) == ("gate fraud v2", "FINISHED")
    assert {
        key: run.data.tags[f"flataudit.{key}"] for key in ("audit", "kind", "decision", "source_run", "digest")
    } == {
        "audit": made.id,
        "kind": "gate",
        "decision": "reject",
        "source_run": candidates[1].run_id,
        "digest": candidates[1].digest,
    }
    assert trainer.client.get_run(receipt.audit_runs["v1"]).data.tags["flataudit.decision"] == "champion"


def test_measured_numbers_are_metrics_and_the_rest_says_why(trainer, candidates, audit, files):
    receipt = registry(trainer).record(audit(candidates, champion=candidates[0]), files, promote=False)
    run = trainer.client.get_run(receipt.audit_runs["v2"])
    expected = {
        "flataudit/validation_accuracy": 0.9375,
        "flataudit/validation_accuracy_lo": 0.91,
        "flataudit/validation_accuracy_hi": 0.96,
        "flataudit/hessian_trace": 12.5,
        "flataudit/hessian_trace_lo": 12.5,
        "flataudit/hessian_trace_hi": 12.5,
        "flataudit/score": 0.75,
    }
    assert run.data.metrics == expected
    params = run.data.params
    assert params["flataudit/lambda_max.outcome"] == "not_converged: no <script>alert(1)</script> | in\n60 steps"
    assert params["flataudit/seed"] == "7"
    assert params["flataudit/data/validation"] == "sha256:" + "c0ffee00" * 8
    assert json.loads(params["flataudit/probe/hessian_trace"]) == {"relative_error": 0.01}
    assert params["flataudit/policy_sha"].startswith("sha256:")
    source = trainer.client.get_run(candidates[1].run_id)
    assert {k: v for k, v in source.data.metrics.items() if k.startswith("flataudit/")} == expected
    model = trainer.client.get_logged_model(candidates[1].model_id)
    assert sorted((m.key, m.value) for m in model.metrics) == sorted(expected.items())
    ((name, digest),) = {(m.dataset_name, m.dataset_digest) for m in model.metrics}
    assert re.fullmatch("validation c0ffee00-[0-9a-f]{8}", name)
    assert digest == ("c0ffee00" * 8)[:36]


def accuracies(trainer, candidate):
    """On the logged model: values by data set name."""
    found = {}
    for metric in trainer.client.get_logged_model(candidate.model_id).metrics:
        if metric.key == "flataudit/validation_accuracy":
            found.setdefault(metric.dataset_name, []).append(metric.value)
    return found


def reseeded(audit, seed):
    protocol = audit.evidences[0].protocol.model_copy(update={"seed": seed})
    evidences = tuple(one.model_copy(update={"protocol": protocol}) for one in audit.evidences)
    return audit.model_copy(update={"id": f"seed {seed}", "evidences": evidences})


def test_a_repeated_audit_has_one_cell_and_another_protocol_its_own(trainer, candidates, audit, files):
    """MLflow's table shows the first number of a key and a data set's name: it must never be a stale one."""
    first = audit(candidates, champion=candidates[0])
    again = first.model_copy(update={"id": "again"})
    registry(trainer).record(first, files, promote=False)
    receipt = registry(trainer).record(again, files, promote=False)
    assert list(accuracies(trainer, candidates[1]).values()) == [[0.9375]]
    run = trainer.client.get_run(receipt.audit_runs["v2"])
    assert run.data.metrics["flataudit/validation_accuracy"] == 0.9375
    registry(trainer).record(reseeded(first, 8), files, promote=False)
    assert list(accuracies(trainer, candidates[1]).values()) == [[0.9375], [0.9375]]
    assert accuracies(trainer, candidates[0]).keys() == accuracies(trainer, candidates[1]).keys()


def test_a_logged_model_that_is_gone_does_not_keep_evidence_from_its_run(trainer, candidates, audit, files):
    trainer.client.delete_logged_model(candidates[1].model_id)
    receipt = registry(trainer).record(audit(candidates, champion=candidates[0]), files, promote=False)
    run = trainer.client.get_run(receipt.audit_runs["v2"])
    assert run.data.metrics["flataudit/validation_accuracy"] == 0.9375


def test_without_a_mirror_the_source_run_is_untouched(trainer, candidates, audit, files):
    registry(trainer, mirror=False).record(audit(candidates, champion=candidates[0]), files, promote=False)
    assert trainer.client.get_run(candidates[1].run_id).data.metrics == {}


def test_a_source_run_that_is_gone_becomes_a_note(trainer, candidates, audit, files):
    trainer.client.delete_run(candidates[1].run_id)
    receipt = registry(trainer).record(audit(candidates, champion=candidates[0]), files, promote=False)
    (note,) = receipt.notes
    assert "v2 could not be mirrored" in note


def test_short_tags_are_bound_to_the_bytes(trainer, candidates, audit, files):
    made = audit(candidates, champion=candidates[0], verdict="hold")
    receipt = registry(trainer).record(made, files, promote=False)
    assert tags(trainer, "2") == {
        "decision": "hold",
        "score": "0.750000",
        "audit_run": receipt.audit_runs["v2"],
        "policy_sha": made.policy_digest,
        "digest": candidates[1].digest,
        "subject": f"fraud/2/{candidates[1].digest}",
    }
    assert tags(trainer, "1")["decision"] == "champion"


def test_a_copied_version_copies_tags_but_not_their_subject(trainer, candidates, audit, files):
    registry(trainer).record(audit(candidates, champion=candidates[0], verdict="hold"), files, promote=False)
    copy = trainer.client.copy_model_version("models:/fraud/2", "elsewhere")
    copied = trainer.client.get_model_version("elsewhere", copy.version).tags
    assert copied["flataudit.decision"] == "hold"
    assert copied["flataudit.subject"] != f"elsewhere/{copy.version}/{candidates[1].digest}"


def test_an_older_decision_never_stands_beside_a_newer_subject(trainer, candidates, audit, files, monkeypatch):
    registry(trainer).record(audit(candidates, champion=candidates[0], verdict="hold"), files, promote=False)
    changed = candidates[1].model_copy(update={"digest": "sha256:other"})
    seen = []
    write = writing._tag

    def watched(client, candidate, key, value):
        write(client, candidate, key, value)
        now = tags(trainer, candidate.version)
        seen.append((candidate.version, now["subject"], now["decision"]))

    monkeypatch.setattr(writing, "_tag", watched)
    again = audit([candidates[0], changed], champion=candidates[0], verdict="reject", audit_id="second")
    registry(trainer).record(again, files, promote=False)
    assert ("2", "fraud/2/sha256:other", "reject") in seen
    assert not any(subject.endswith("other") and decision == "hold" for _, subject, decision in seen)


def test_the_same_audit_again_writes_nothing_twice(trainer, candidates, audit, files):
    made = audit(candidates, champion=candidates[0])
    first = registry(trainer).record(made, files, promote=False)
    assert registry(trainer).record(made, files, promote=False) == first
    assert registry(trainer).record(made.model_copy(update={"id": "another"}), files, promote=False) != first


def test_hostile_and_very_many_names(trainer, candidates, audit, files):
    names = ["shift_accuracy/<script>|\n", "shift_accuracy/../..", "a//b", "a<", "a>", "é", "x" * 400, "tail/", " "]
    extra = [Metric(name=name).measured(float(i)) for i, name in enumerate(names)]
    extra += [Metric(name=f"many/{i}").measured(float(i), standard_error=0.0) for i in range(400)]
    probes = [Spec(use=f"probe {i} (=)", params={"text": "|\n<b>" * 3000}) for i in range(120)]
    made = audit(candidates, champion=candidates[0], extra={"v2": extra}, probes=probes)
    run = trainer.client.get_run(registry(trainer).record(made, files, promote=False).audit_runs["v2"])
    assert len(run.data.metrics) == 7 + len(names) + 3 * 400
    assert sorted(run.data.metrics.values())[-3:] == [399.0] * 3
    assert len([key for key in run.data.params if key.startswith("flataudit/probe/")]) == 120
    assert all(len(value) <= 6000 for value in run.data.params.values())


def test_names_that_fit_stay_and_others_do_not_collide():
    for name in ("validation_accuracy", "shift_accuracy/autumn 2026", "a.b-c:d"):
        assert rows.fitting(name) == name
    assert len({rows.fitting(name) for name in ("a<", "a>", "a_", "a?")}) == 4


# ── The other kinds of audit ──


def test_a_score_goes_to_the_run_itself(trainer, tmp_path, audit, files):
    run_id = trainer.run("checkpoints")
    for step in (10, 20):
        trainer.logged(tmp_path / f"s{step}", run_id, step=step)
    scoring = registry(trainer, challengers={"run": run_id})
    made = audit(scoring.challengers(), kind="score")
    receipt = scoring.record(made, files, promote=False)
    assert set(receipt.audit_runs.values()) == {run_id}
    history = trainer.client.get_metric_history(run_id, "flataudit/score")
    assert sorted(metric.step for metric in history) == [10, 20]
    for candidate in scoring.challengers():
        keys = [metric.key for metric in trainer.client.get_logged_model(candidate.model_id).metrics]
        assert "flataudit/score" in keys and len(keys) == len(set(keys))
    told = trainer.client.get_run(run_id).data.tags["flataudit/lambda_max.outcome"]
    assert told.count("not_converged") == 2
    assert trainer.client.get_experiment_by_name("flataudit") is None
    scoring.load_audit(run_id, tmp_path / "back")
    assert (tmp_path / "back/audit.json").read_text() == (files / "audit.json").read_text()


def test_a_scheduled_audit_says_whether_the_limits_hold(trainer, candidates, audit, files):
    made = audit(candidates[:1], champion=candidates[0], kind="audit")
    receipt = registry(trainer).record(made, files, promote=False)
    assert trainer.client.get_run(receipt.audit_runs["v1"]).data.tags["flataudit.kind"] == "audit"
    assert tags(trainer, "1")["decision"] == "champion"
    assert tags(trainer, "2") == {}


# ── Reading back ──


def test_a_stored_audit_comes_back(trainer, candidates, audit, files, tmp_path):
    receipt = registry(trainer).record(audit(candidates, champion=candidates[0]), files, promote=False)
    back = tmp_path / "back"
    registry(trainer).load_audit(receipt.audit_runs["v1"], back)
    assert sorted(path.name for path in back.iterdir()) == ["audit.json", "report.html"]
    assert (back / "report.html").read_text() == "<p>a report</p>"
    for wrong in (candidates[0].run_id, "0" * 32, "../../etc"):
        with pytest.raises(NotFoundError):
            registry(trainer).load_audit(wrong, tmp_path / "none")
