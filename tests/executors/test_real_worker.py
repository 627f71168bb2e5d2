"""The real worker on real files gives what the examination gives in this process."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from flataudit.errors import PluginError
from flataudit.evidence import Candidate, Examined, Outcome
from flataudit.executors.local import LocalExecutor
from flataudit.executors.process import ProcessExecutor
from flataudit.manifest import manifest_digest
from flataudit.specs import DataSpec, Job, Spec

Notes = list[tuple[str, str, float]]


def job_on(folder: Path, *, flavour: str) -> Job:
    """A job on the files of ``folder / "model"`` and a small data set."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(60, 4)).astype(np.float32)
    np.savez(folder / "validation.npz", x=inputs, y=(inputs[:, 0] > 0).astype(np.int64))
    artifact = folder / "model"
    candidate = Candidate(name="m", version="1", uri="models:/m/1", flavour=flavour, digest=manifest_digest(artifact))
    source = Spec(use="npz", params={"path": str(folder / "validation.npz")})
    return Job(
        candidate=candidate,
        artifact=str(artifact),
        probes=(Spec(use="accuracy"),),
        data=(DataSpec(name="validation", role="validation", source=source),),
    )


def both(job: Job) -> tuple[Examined, Examined, Notes, Notes]:
    here: Notes = []
    there: Notes = []
    (local,) = LocalExecutor().map([job], lambda *note: here.append(note))
    (isolated,) = ProcessExecutor().map([job], lambda *note: there.append(note))
    return local, isolated, here, there


def without_cost(examined: Examined) -> object:
    record = examined.evidence.model_dump(mode="json", exclude={"isolation"})
    return record | {"measurements": [m | {"cost": None} for m in record["measurements"]]}


@pytest.fixture
def unknown_model(tmp_path: Path) -> Job:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}")
    return job_on(tmp_path, flavour="fortran")


def test_a_flavour_that_nobody_loads_is_the_same_evidence(unknown_model: Job) -> None:
    local, isolated, _, _ = both(unknown_model)
    assert without_cost(local) == without_cost(isolated)
    assert isolated.evidence["validation_accuracy"].outcome is Outcome.NOT_APPLICABLE
    assert set(local.evidence.isolation.values()) == {"none"}
    assert isolated.evidence.isolation["mem"] == "enforced"


def test_data_that_changed_is_evidence_in_both(unknown_model: Job) -> None:
    data = (unknown_model.data[0].model_copy(update={"digest": "sha256:before"}),)
    local, isolated, _, _ = both(unknown_model.model_copy(update={"data": data}))
    reason = local.evidence["validation_accuracy"].reason
    assert reason == isolated.evidence["validation_accuracy"].reason
    assert "with digest sha256:before" in str(reason)


@pytest.mark.parametrize("executor", [LocalExecutor(), ProcessExecutor()])
def test_a_probe_that_is_not_installed_is_a_mistake_of_the_plan(
    unknown_model: Job, executor: LocalExecutor | ProcessExecutor
) -> None:
    job = unknown_model.model_copy(update={"probes": (Spec(use="acuracy"),)})
    with pytest.raises(PluginError, match="did you mean accuracy"):
        executor.map([job], lambda *note: None)


def test_a_relative_path_of_data_is_found(unknown_model: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Spec(use="npz", params={"path": "validation.npz"})
    data = (unknown_model.data[0].model_copy(update={"source": source}),)
    (one,) = ProcessExecutor().map([unknown_model.model_copy(update={"data": data})], lambda *note: None)
    assert one.evidence["validation_accuracy"].outcome is Outcome.NOT_APPLICABLE


# ── A real model ──────────────────────────────────────────────────────────────────────────────────

needs_pytorch = pytest.mark.skipif(
    importlib.util.find_spec("flataudit.backends.pytorch") is None, reason="the PyTorch backend is not there"
)
MLMODEL = """\
flavors:
  pytorch:
    code: null
    model_data: data
    pytorch_version: {version}
mlflow_version: 3.17.2
"""


@pytest.fixture
def exported_model(tmp_path: Path) -> Job:
    """A network that knows the answer, exported as MLflow keeps it."""
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[-3.0, 0, 0, 0], [3.0, 0, 0, 0]]))
        network[0].bias.zero_()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(network.eval(), (torch.zeros(3, 4),), dynamic_shapes=({0: batch},))
    (tmp_path / "model" / "data").mkdir(parents=True)
    torch.export.save(program, tmp_path / "model" / "data" / "model.pt2")
    (tmp_path / "model" / "MLmodel").write_text(MLMODEL.format(version=torch.__version__))
    return job_on(tmp_path, flavour="pytorch")


@needs_pytorch
def test_a_real_model_measures_the_same_in_the_worker(exported_model: Job) -> None:
    local, isolated, here, there = both(exported_model)
    accuracy = isolated.evidence["validation_accuracy"]
    assert accuracy.outcome is Outcome.MEASURED, accuracy.reason
    assert accuracy.estimate == 1.0
    assert isolated.evidence.trust == "data_only"
    assert here == there == [("v1", "accuracy", 0.0), ("v1", "done", 1.0)]
    assert isolated.arrays["validation_accuracy"].values() == [1.0] * 60
    assert local.arrays == isolated.arrays
    assert without_cost(local) == without_cost(isolated)


@needs_pytorch
def test_a_real_model_that_was_exchanged_is_not_loaded(exported_model: Job) -> None:
    file = Path(exported_model.artifact) / "data" / "model.pt2"
    file.write_bytes(file.read_bytes() + b"\0")
    (one,) = ProcessExecutor().map([exported_model], lambda *note: None)
    accuracy = one.evidence["validation_accuracy"]
    assert accuracy.outcome is Outcome.FAILED
    assert "the files changed" in str(accuracy.reason)
