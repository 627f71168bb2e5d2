"""The main path and its accidents against a real tracking server, over HTTP."""

import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
import torch
from mlflow.exceptions import RestException

from flataudit.errors import ConflictError, NotFoundError, TamperedError
from flataudit.evidence import Candidate
from flataudit.registries.mlflow import MlflowRegistry, writing
from flataudit.registries.mlflow.client import connect
from flataudit.testing import check_registry

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns, of SQLAlchemy and of type hints
]


@pytest.fixture
def name(request):
    """The server is shared, so each test has a model of its own."""
    return request.node.name.replace("[", "-").strip("]")


@pytest.fixture
def registry(server, name, tmp_path):
    for number in (1, 2, 3):
        server.version(tmp_path / f"m{number}", name, files={"MLmodel": f"flavors: {{f{number}: {{}}}}", "data/x": "y"})
    server.client.set_registered_model_alias(name, "champion", "1")
    return MlflowRegistry(model=name, tracking_uri=server.uri, challengers={"newest": 9})


@pytest.fixture
def candidates(registry, tmp_path):
    found = []
    for candidate in (registry.champion(), *registry.challengers()):
        (tmp_path / candidate.label).mkdir()
        found.append(registry.fetch(candidate, tmp_path / candidate.label))
    return found


def champion_of(server, name):
    return str(server.client.get_registered_model(name).aliases["champion"])


def test_measured_promoted_and_read_back(server, name, registry, candidates, audit, files, tmp_path):
    check_registry(registry)
    champion, three, _ = candidates
    receipt = registry.record(audit(candidates, champion=champion, promoted=three), files, promote=True)
    assert receipt.promoted == champion_of(server, name) == "3"
    assert receipt.notes == ()
    tags = server.client.get_model_version(name, "3").tags
    assert (tags["flataudit.decision"], tags["flataudit.subject"]) == ("promote", f"{name}/3/{three.digest}")
    model = server.client.get_logged_model(three.model_id)
    assert "flataudit/hessian_trace" in {metric.key for metric in model.metrics}
    registry.load_audit(receipt.audit_runs["v3"], tmp_path / "back")
    assert (tmp_path / "back/audit.json").read_bytes() == (files / "audit.json").read_bytes()
    assert all(check.ok for check in registry.check())


def test_what_is_not_there(server, name, registry):
    assert MlflowRegistry(model=name, tracking_uri=server.uri, champion_alias="none").champion() is None
    for params in ({"alias": "none"}, {"versions": [9]}, {"tag": {"a": "b"}}, {"run": "0" * 32}):
        with pytest.raises(NotFoundError):
            MlflowRegistry(model=name, tracking_uri=server.uri, challengers=params).challengers()
    with pytest.raises(NotFoundError, match=f"did you mean {name}"):
        MlflowRegistry(model=name + "x", tracking_uri=server.uri).champion()


def test_an_alias_moved_between_comparison_and_record(server, name, registry, candidates, audit, files):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    server.client.set_registered_model_alias(name, "champion", "2")
    with pytest.raises(ConflictError, match="got version 2"):
        registry.record(made, files, promote=True)
    assert champion_of(server, name) == "2"
    assert server.client.get_model_version(name, "3").tags["flataudit.decision"] == "conflict"


def test_a_file_changed_on_the_servers_disk(server, name, registry, candidates, audit, files):
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    (server.files_of(candidates[1].model_id) / "data/x").write_text("z")
    with pytest.raises(TamperedError):
        registry.record(made, files, promote=True)
    assert champion_of(server, name) == "1"
    assert server.client.get_model_version(name, "3").tags["flataudit.decision"] == "tampered"


def test_first_writes_at_the_same_moment(server, name, registry, candidates):
    """The server answers a few of such writes 400 (UNIQUE constraint), which its client does not repeat."""
    racers, keys = 8, 6
    barrier, candidate = threading.Barrier(racers, timeout=60), candidates[1]

    def race(index):
        client = connect(server.uri)
        for key in range(keys):
            barrier.wait()
            writing._tag(client, candidate, f"flataudit.race{key}", str(index))

    with ThreadPoolExecutor(racers) as pool:
        list(pool.map(race, range(racers)))
    tags = server.client.get_model_version(name, candidate.version).tags
    assert {key for key in tags if "race" in key} == {f"flataudit.race{key}" for key in range(keys)}


def test_a_write_that_lost_its_race_is_repeated(server, name, registry, candidates, audit, files, monkeypatch):
    """Each first write of a tag and of the alias is refused once, in the words of a real server."""
    refused = set()

    def losing(method):
        write = getattr(mlflow.MlflowClient, method)

        def lose_once(client, *args):
            if (method, args[:3]) not in refused:
                refused.add((method, args[:3]))
                text = "(sqlite3.IntegrityError) UNIQUE constraint failed: model_version_tags.key"
                raise RestException({"error_code": "BAD_REQUEST", "message": text})
            return write(client, *args)

        monkeypatch.setattr(mlflow.MlflowClient, method, lose_once)

    losing("set_model_version_tag")
    losing("set_registered_model_alias")
    made = audit(candidates, champion=candidates[0], promoted=candidates[1])
    assert registry.record(made, files, promote=True).promoted == champion_of(server, name) == "3"
    assert server.client.get_model_version(name, "3").tags["flataudit.decision"] == "promote"
    assert {method for method, _ in refused} == {"set_model_version_tag", "set_registered_model_alias"}


def test_nothing_is_printed_on_standard_output(registry, candidates, audit, files, capfd):
    capfd.readouterr()
    registry.record(audit(candidates, champion=candidates[0]), files, promote=False)
    assert capfd.readouterr().out == ""


def test_a_real_module_is_a_program_without_pickle(server, name, tmp_path):
    mlflow.set_tracking_uri(server.uri)
    try:
        with mlflow.start_run(experiment_id=server.experiment()):
            logged = mlflow.pytorch.log_model(
                torch.nn.Linear(1, 2), name="m", input_example=torch.zeros(2, 1).numpy(), pip_requirements=["torch"]
            )
    finally:
        mlflow.set_tracking_uri(None)
    candidate = Candidate(name=name, model_id=logged.model_id, uri=logged.model_uri)
    found = MlflowRegistry(model=name, tracking_uri=server.uri).fetch(candidate, tmp_path)
    assert found.flavour == "pytorch"
    assert (tmp_path / "data/model.pt2").is_file()
