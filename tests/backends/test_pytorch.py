"""Candidates from folders: what loads agrees with eager PyTorch, code is refused, and what lies is caught."""

from pathlib import Path

import numpy as np
import pytest
import torch
from programs import CLASSES, DEVICES, MLMODEL, examples, exported, folder, job, network, pickled, sample
from torch import nn

from flataudit.backends.pytorch import PyTorchBackend
from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import Differentiable, Perturbable, Predictor
from flataudit.curvature.surface import Surface
from flataudit.data.examples import checked
from flataudit.errors import ConfigurationError, ModelError, UntrustedError


def load(path: Path, **fields: object) -> TorchModel:
    return PyTorchBackend().load(job(path, **fields), examples()).model


def eager_log_probabilities(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.eval()(torch.from_numpy(inputs)).double().log_softmax(1).numpy()


@pytest.mark.parametrize("device", DEVICES)
def test_a_program_agrees_with_the_eager_module_for_any_number_of_examples(tmp_path: Path, device: str) -> None:
    net = network(nn.BatchNorm1d(CLASSES), nn.Dropout(0.5))
    loaded = PyTorchBackend().load(job(exported(tmp_path / "m", net), device=device, batch_size=7), examples())
    model, trust = loaded.model, loaded.trust
    assert (trust, model.device.partition(":")[0], model.batch_size) == ("data_only", device, 7)
    for n in (1, 7, 50):
        np.testing.assert_allclose(model.predict(sample(n)), eager_log_probabilities(net, sample(n)), atol=1e-5)
    assert isinstance(model, Predictor) and isinstance(model, Perturbable) and isinstance(model, Differentiable)


def test_float64_is_the_same_function_with_less_rounding(tmp_path: Path) -> None:
    net = network()
    model = load(exported(tmp_path / "m", net), dtype="float64")
    assert model.dtype == "float64"
    exact = net.double()(torch.from_numpy(sample()).double()).log_softmax(1).detach().numpy()
    np.testing.assert_allclose(model.predict(sample()), exact, atol=1e-12)


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path(tmp_path / "exploded").touch, ()

    path = pickled(tmp_path / "m", Bomb())
    with pytest.raises(UntrustedError, match=r"pass --trust"):
        load(path)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(ModelError, match=r"expected a torch\.nn\.Module, got a NoneType"):
        load(path, trust=True)
    assert (tmp_path / "exploded").exists()


def test_a_trusted_pickle_is_loaded_in_evaluation_mode_and_called_code_bearing(tmp_path: Path) -> None:
    net = network(nn.BatchNorm1d(CLASSES), nn.Dropout(0.5)).train()
    loaded = PyTorchBackend().load(job(pickled(tmp_path / "m", net), trust=True), examples())
    model, trust = loaded.model, loaded.trust
    assert trust == "code_bearing"
    np.testing.assert_allclose(model.predict(sample()), eager_log_probabilities(net, sample()), atol=1e-5)


def test_what_is_pickled_must_be_a_module_that_loads(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="got a list"):
        load(pickled(tmp_path / "list", [torch.zeros(1)]), trust=True)
    path = pickled(tmp_path / "cut", network())
    cut_in_half(path / "data" / "model.pth")
    with pytest.raises(ModelError, match="pickled module that loads"):
        load(path, trust=True)


def test_a_cut_off_program_is_damaged(tmp_path: Path) -> None:
    path = exported(tmp_path / "m", network())
    cut_in_half(path / "data" / "model.pt2")
    with pytest.raises(ModelError, match=r"whole \.pt2 archive.*log the model again"):
        load(path)


def cut_in_half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "mlmodel",
    ["", "flavors: {sklearn: {}}\n", "flavors: [\n", MLMODEL.replace("model_data: data", "model_data: ../elsewhere")],
)
def test_a_folder_without_a_pytorch_flavour_inside_is_refused(tmp_path: Path, mlmodel: str) -> None:
    with pytest.raises(ModelError, match="log the model again"):
        load(folder(tmp_path / "m", mlmodel))


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.pt2 or model\.pth in the artifact, or one file .*, got neither"):
        load(folder(tmp_path / "m"))


def test_live_dropout_is_caught(tmp_path: Path) -> None:
    path = exported(tmp_path / "m", network(nn.Dropout(0.5)), train=True)
    with pytest.raises(ModelError, match=r"same answer twice.*model\.eval\(\)"):
        load(path)


@pytest.mark.parametrize("batch_size", [None, 2, 32])
def test_train_mode_batch_norm_is_caught_at_any_batch_size(tmp_path: Path, batch_size: int | None) -> None:
    path = exported(tmp_path / "m", network(nn.BatchNorm1d(CLASSES)), train=True)
    with pytest.raises(ModelError, match=r"do not depend on the other examples.*model\.eval\(\)"):
        load(path, batch_size=batch_size)


def test_a_program_of_one_batch_size_is_fed_such_batches(tmp_path: Path) -> None:
    """64 examples in batches of 5, the last filled up; numbers and derivatives are those of the free program."""
    fixed, free = load(exported(tmp_path / "m", network(), batch=5)), load(exported(tmp_path / "f", network()))
    np.testing.assert_allclose(fixed.predict(sample()), free.predict(sample()), atol=1e-6)
    found = []
    for model in (fixed, free):
        surface = Surface.of(model, checked("train", "train", sample(), np.arange(64) % 3, source="test"))
        found.append(surface.product(surface.origin, torch.ones_like(surface.origin)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_another_number_of_features_is_the_models_error(tmp_path: Path) -> None:
    path = exported(tmp_path / "m", network())
    with pytest.raises(ModelError, match=r"shape \(n, 9\)"):
        PyTorchBackend().load(job(path), examples(features=9))


def test_nan_is_never_an_answer(tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"finite outputs, got 100% NaN"):
        load(exported(tmp_path / "m", net))


def test_probabilities_are_found_and_logits_must_not_be_called_so(tmp_path: Path) -> None:
    net = network(nn.Softmax(dim=1))
    path = exported(tmp_path / "probabilities", net)
    with pytest.raises(ModelError, match="declare `outputs: probabilities`"):
        load(path, outputs="logits")
    expected = net(torch.from_numpy(sample())).detach().double().log().numpy()
    for outputs in (None, "probabilities"):
        np.testing.assert_allclose(load(path, outputs=outputs).predict(sample()), expected, atol=1e-5)
    with pytest.raises(ModelError, match="declare `outputs: logits`"):
        load(exported(tmp_path / "logits", network()), outputs="probabilities")


def test_a_sigmoid_column_is_not_taken_for_logits(tmp_path: Path) -> None:
    path = exported(tmp_path / "m", network(nn.Sigmoid(), outputs=1))
    with pytest.raises(ModelError, match="declare `outputs: probabilities`, or `outputs: logits`"):
        load(path, task="binary")
    assert load(path, task="binary", outputs="logits").predict(sample(3)).shape == (3, 2)
    found = np.exp(load(path, task="binary", outputs="probabilities").predict(sample(3)))
    expected = network(nn.Sigmoid(), outputs=1)(torch.from_numpy(sample(3))).detach()[:, 0]
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "fields", "message"),
    [
        (1, {"task": "multiclass"}, "declare `task: binary`"),
        (3, {"task": "binary"}, "declare `task: multiclass`"),
        (3, {"task": "regression"}, "declare another task"),
    ],
)
def test_the_task_and_the_columns_must_agree(
    tmp_path: Path, outputs: int, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(exported(tmp_path / "m", network(outputs=outputs)), **fields)


@pytest.mark.parametrize(
    "fields",
    [{"task": "regression", "outputs": "logits"}, {"task": "binary", "outputs": "values"}],
)
def test_what_is_not_yet_audited_says_so(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        load(exported(tmp_path / "m", network()), **fields)


def test_doctor_names_the_version_and_the_devices() -> None:
    (check,) = PyTorchBackend().check()
    assert check.ok and torch.__version__ in check.found and "cpu" in check.found
