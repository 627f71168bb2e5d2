"""One network in every form that people save: the same numbers, or the reason why not; and no code of a candidate."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_models
import pytest
import torch
from programs import FEATURES, examples, exported, folder, job, network, pickled, repository, safetensors, state
from torch import nn

from flataudit.backends.onnx import OnnxBackend
from flataudit.backends.pytorch import PyTorchBackend
from flataudit.contracts import Differentiable, Loaded
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Measurement
from flataudit.examination import measure_all
from flataudit.probes.accuracy import Accuracy
from flataudit.probes.hessian_trace import HessianTrace
from flataudit.probes.sharpness import Sharpness
from flataudit.probes.spectrum import Spectrum
from flataudit.specs import Budget

quiet = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def architecture(tmp_path: Path) -> dict[str, str]:
    """The user's own."""
    return repository(tmp_path / "repository")


def checkpoint(path: Path) -> Path:
    """As Lightning writes them: the state among other things, its names with the attribute of the network."""
    inner = {f"model.{name}": tensor for name, tensor in network().state_dict().items()}
    return state(path, {"epoch": 3, "state_dict": inner, "hyper_parameters": {"width": 8}}, "best.ckpt")


def scripted(path: Path, net: nn.Module | None = None) -> Path:
    torch.jit.save(torch.jit.script(net or network()), folder(path) / "data" / "model.pth")
    return path


def traced(path: Path) -> Path:
    torch.jit.save(torch.jit.trace(network(), torch.zeros(2, FEATURES)), folder(path) / "data" / "model.pt")
    return path


def to_onnx(path: Path, *, dynamo: bool) -> Path:
    """By one of torch's two exporters."""
    path.mkdir()
    (path / "MLmodel").write_text("flavors:\n  onnx: {data: model.onnx}\n")
    (path / "model.onnx").write_bytes(onnx_models.exported(network(), examples(), dynamo=dynamo))
    return path


FORMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "eager": (lambda path: pickled(path, network()), "code_bearing"),
    "compiled": (lambda path: pickled(path, torch.compile(network(), backend="eager")), "code_bearing"),
    "pt2": (lambda path: exported(path, network()), "data_only"),
    "pt2 of one batch size": (lambda path: exported(path, network(), batch=6), "data_only"),
    "script": (scripted, "code_bearing"),
    "traced script": (traced, "code_bearing"),
    "state_dict": (state, "data_only"),
    "state_dict in model.pth": (lambda path: pickled(path, network().state_dict()), "data_only"),
    "checkpoint": (checkpoint, "data_only"),
    "safetensors": (safetensors, "data_only"),
    "ONNX, TorchScript exporter": (lambda path: to_onnx(path, dynamo=False), "data_only"),
    "ONNX, dynamo exporter": (lambda path: to_onnx(path, dynamo=True), "data_only"),
}
PROBES = {
    "accuracy": Accuracy(),
    "hessian_trace": HessianTrace(relative_error=0.02),
    "spectrum": Spectrum(relative_error=1e-4),
    "sharpness": Sharpness(),
}


def load(path: Path, **fields: object) -> Loaded:
    backend = OnnxBackend() if (path / "model.onnx").exists() else PyTorchBackend()
    return backend.load(job(path, **fields), examples())


def measured(loaded: Loaded) -> dict[str, Measurement]:
    readings = measure_all(
        loaded.model, [examples()], list(PROBES.items()), seed=0, budget=Budget(), announce=lambda what, share: None
    )
    return {r.measurement.metric: r.measurement for r in readings}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measurement]:
    """Of the eager network, in float64."""
    path = pickled(tmp_path_factory.mktemp("reference") / "m", network())
    return measured(load(path, trust=True, dtype="float64"))


@quiet
@pytest.mark.parametrize("form", FORMS)
def test_all_measurements_agree_in_every_form(
    form: str, tmp_path: Path, architecture: dict[str, str], reference: dict[str, Measurement]
) -> None:
    make, trust = FORMS[form]
    loaded = load(make(tmp_path / "m"), trust=trust == "code_bearing", architecture=architecture, dtype="float64")
    assert loaded.trust == trust and isinstance(loaded.model, Differentiable)
    found = measured(loaded)
    assert set(found) == set(reference)
    exact = ("validation_accuracy", "validation_loss", "lambda_max", *(m.name for m in Sharpness.metrics))
    for metric in exact:
        assert found[metric].estimate == pytest.approx(reference[metric].estimate, rel=2e-3), metric
    trace, truth = found["hessian_trace"], reference["hessian_trace"]
    assert trace.estimate is not None and truth.estimate is not None
    error = 4 * np.hypot(trace.standard_error or 0, truth.standard_error or 0)
    assert trace.estimate == pytest.approx(truth.estimate, abs=error + 1e-6)


@quiet
def test_code_asks_for_trust_and_data_does_not(tmp_path: Path, architecture: dict[str, str]) -> None:
    for number, (make, trust) in enumerate(FORMS.values()):
        path = make(tmp_path / str(number))
        if trust == "data_only":
            load(path, architecture=architecture)
        else:
            with pytest.raises(UntrustedError, match="pass --trust"):
                load(path, architecture=architecture)


@pytest.mark.parametrize("names", [("a.pth", "b.pth"), ("model.pt2", "model.pth"), ("a.txt",), ()])
def test_a_folder_with_no_or_several_models_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = folder(tmp_path / "m") / "data"
    for name in names:
        (data / name).touch()
    with pytest.raises(ModelError, match=r"one file that ends in \.pt2, \.pth"):
        load(tmp_path / "m")
