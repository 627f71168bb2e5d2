"""The policy file: what it accepts, and what it says when it does not."""

from pathlib import Path

import pytest

from flataudit import plugins
from flataudit.config import AuditConfig, load_config, parse_config
from flataudit.errors import ConfigurationError
from flataudit.evidence import Candidate
from flataudit.specs import Job, Spec

MINIMAL = "model: m\ndata:\n  validation: {use: npz, path: v.npz}\n"


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text)
    return str(caught.value)


def test_the_contract_s_own_file_is_read() -> None:
    config = parse_config(
        """
model: fraud-detector
champion: champion
challengers: {alias: challenger}
task: multiclass
data:
  train:      {use: npz, path: train.npz, inputs: x, targets: y}
  validation: {use: parquet, path: val, targets: label, groups: region}
  shifted:
    - {name: autumn, use: npz, path: autumn.npz}
  unlabelled:
    - {name: last-week, use: parquet, path: requests}
probes:
  - accuracy
  - {use: hessian_trace, relative_error: 0.01}
  - {use: corruption, kinds: [noise, blur], severities: [1, 3, 5]}
budget: {passes: 150, seconds: 900}
policy:
  non_inferiority: {metric: validation_accuracy, margin: 0.005, confidence: 0.95}
  criteria:
    - {metric: calibration_error_debiased, at_most: 0.05}
    - {metric: corruption_accuracy, no_worse_than: champion, margin: 0.01}
  tie_break: default
  first_promotion: require_criteria
  missing: fail
isolation: {minimum: [fs, net, proc]}
"""
    )
    plan = config.plan()
    assert [(d.role, d.name) for d in plan.data] == [
        ("train", "train"),
        ("validation", "validation"),
        ("shifted", "autumn"),
        ("unlabelled", "last-week"),
    ]
    assert plan.probes[1].use == "hessian_trace" and plan.probes[1].params == {"relative_error": 0.01}
    assert plan.data[1].source.params["groups"] == "region"
    assert config.registry_params("http://x") == {
        "model": "fraud-detector",
        "champion_alias": "champion",
        "challengers": {"alias": "challenger"},
        "tracking_uri": "http://x",
    }


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("polcy: {}", "known key in line 4 of flataudit.yaml, got 'polcy'; did you mean policy?"),
        (
            "policy:\n  criteria:\n    - {metrik: a, at_most: 3}",
            "line 6 of flataudit.yaml, got 'policy.criteria.0.metrik'",
        ),
        ("policy:\n  non_inferiority: {margin: 0.1, confidnce: 0.9}", "did you mean confidence?"),
        ("policy:\n  criteria: [{metric: a}]", "expected one of at_most, at_least, no_worse_than"),
        ("policy:\n  criteria: [{metric: a, at_most: 1, margin: 1}]", "a margin only beside no_worse_than"),
        ("policy: {non_inferiority: {margin: .nan}}", "finite"),
        ("seed: -1", "greater than or equal to 0"),
        ("seed: 0\nseed: 1", "'seed' twice, again in line 5"),
        ("task: [", "YAML in flataudit.yaml"),
        ("challengers: {alias: a, newest: 3}", "keep one of alias, aliases, newest"),
        ("task: *x", "plain YAML"),
        ("isolation: {minimum: [network]}", "'env', 'time', 'mem'"),
        ("isolation:\n  disk_bytes: 12", "'isolation.disk_bytes' in line 5 of flataudit.yaml, got 12"),
        ("isolation:\n  grace_seconds: 0", "line 5 of flataudit.yaml"),
        ("isolation:\n  open_files: many", "line 5 of flataudit.yaml"),
        ("isolation:\n  memory: 1", "known key in line 5 of flataudit.yaml, got 'isolation.memory'"),
        ("isolation: {disk_bytes: 4194304}\nexecutor: {use: process, disk_bytes: 1}", "disk_bytes in isolation and in"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_remedy(extra: str, expected: str) -> None:
    assert expected in refused(MINIMAL + extra)


def test_limits_are_the_executor_s_parameters() -> None:
    text = (
        MINIMAL
        + "isolation: {minimum: [env], grace_seconds: 5, disk_bytes: 4194304}\nexecutor: {use: process, workers: 1}"
    )
    config = parse_config(text)
    assert config.executor_params() == {"workers": 1, "grace": 5.0, "disk_bytes": 4194304, "minimum": ["env"]}
    plugins.make("executors", config.executor.use, config.executor_params())
    again = AuditConfig.model_validate({name: getattr(config, name) for name in AuditConfig.model_fields})
    assert again == config
    debugging = again.model_copy(update={"executor": Spec(use="local")})
    assert debugging.executor_params() == {"minimum": ["env"]}


def test_missing_keys_and_odd_documents() -> None:
    assert "the key 'data'" in refused("model: m")
    assert "keys and values" in refused("- a\n- b")
    assert "keys and values" in refused("")


def test_two_shifted_sets_of_one_name() -> None:
    text = MINIMAL + "  shifted: [{name: a, use: npz}, {name: a, use: npz}]\n"
    assert "'a' twice" in refused(text)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "flataudit.yaml").write_text(MINIMAL)
    config = load_config(tmp_path / "flataudit.yaml")
    assert config.data.validation.params["path"] == str((tmp_path / "v.npz").resolve())


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="flataudit init"):
        load_config(tmp_path / "none.yaml")


def test_the_schema_accepts_what_people_write() -> None:
    schema = AuditConfig.model_json_schema()
    assert schema["properties"]["champion"]["description"] == "Alias of the champion."
    assert schema["additionalProperties"] is False
    probes = schema["properties"]["probes"]["items"]
    assert {"type": "string"} in probes["anyOf"]
    assert schema["$defs"]["DataSection"]["properties"]["shifted"]["items"]["required"] == ["name", "use"]


def test_a_regression_names_its_own_metric() -> None:
    assert "validation_r2" in refused(MINIMAL + "task: regression\n")
    policy = "policy: {non_inferiority: {metric: validation_r2, margin: 0.01}}\n"
    assert parse_config(MINIMAL + "task: regression\n" + policy).task == "regression"


def test_a_declared_loss_travels_to_the_worker() -> None:
    config = parse_config(MINIMAL + "loss: {use: cross_entropy, label_smoothing: 0.1}\n")
    candidate = Candidate(name="m", version="1", uri="models:/m/1")
    job = config.plan().job(candidate, Path("nowhere"))
    assert Job.model_validate_json(job.model_dump_json()).loss == config.loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [("{use: cross_entropy, delta: 2}", "got delta"), ("{use: huber}", "a loss of a multiclass model")],
)
def test_a_loss_that_cannot_be_is_an_error_of_the_file(loss: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_config(f"model: m\nloss: {loss}\ndata: {{validation: {{use: npz, path: v.npz}}}}\n")
