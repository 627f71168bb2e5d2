"""Weights alone in an architecture of the user's: names, shapes, and no code of the candidate."""

import json
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import (
    ARCHITECTURE,
    examples,
    job,
    network,
    repository,
    safetensors,
    sample,
    seeded,
    state,
)
from torch import Tensor, nn

from flataudit.backends import weights
from flataudit.backends.pytorch import PyTorchBackend
from flataudit.backends.weights import fill, state_of
from flataudit.contracts import Differentiable, Loaded
from flataudit.errors import ConfigurationError, ModelError, UntrustedError


@pytest.fixture
def architecture(tmp_path: Path) -> dict[str, str]:
    """The user's own."""
    return repository(tmp_path / "repository")


def load(path: Path, **fields: object) -> Loaded:
    return PyTorchBackend().load(job(path, **fields), examples())


class Bomb:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_a_state_with_code_in_it_runs_none(tmp_path: Path, architecture: dict[str, str]) -> None:
    marker = tmp_path / "exploded"
    path = state(tmp_path / "m", {**network().state_dict(), "more": Bomb(marker)})
    with pytest.raises(UntrustedError, match="pass --trust"):
        load(path, architecture=architecture)
    assert not marker.exists()


def test_safetensors_whose_header_lies_are_damaged(tmp_path: Path, architecture: dict[str, str]) -> None:
    file = safetensors(tmp_path / "m") / "data" / "model.safetensors"
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["0.weight"]["data_offsets"][1] += 10**9
    longer = json.dumps(header).encode()
    file.write_bytes(len(longer).to_bytes(8, "little") + longer + content[8 + size :])
    with pytest.raises(ModelError, match="a whole safetensors file, got SafetensorError"):
        load(tmp_path / "m", architecture=architecture)
    file.write_bytes((2**60).to_bytes(8, "little") + content[8:])
    with pytest.raises(ModelError, match="a whole safetensors file"):
        load(tmp_path / "m", architecture=architecture)


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda s: s.pop("2.bias"), {}, r"got 1 missing: 2\.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), {}, "got 1 unexpected: extra"),
        (lambda s: None, {"width": 9}, r"of another shape: 0\.weight \(8, 4\) for \(9, 4\)"),
    ],
)
def test_names_and_shapes_that_differ_are_named(
    tmp_path: Path,
    architecture: dict[str, str],
    change: Callable[[dict[str, Tensor]], object],
    params: dict[str, object],
    message: str,
) -> None:
    content = network().state_dict()
    change(content)
    with pytest.raises(ModelError, match=message):
        load(state(tmp_path / "m", content), architecture=architecture | {"params": params})


def test_weights_alone_need_an_architecture(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"declare `architecture: \{use: module:function\}`"):
        load(state(tmp_path / "m"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use": "nets:raises"}, "a module from nets:raises, got RuntimeError: no such data"),
        ({"use": "nets:number"}, "got a int"),
        ({"use": "nets:absent"}, "AttributeError"),
        ({"use": "no_such_module:build"}, "ModuleNotFoundError"),
        ({"params": {"depth": 3}}, "got TypeError: build"),
    ],
)
def test_an_architecture_that_cannot_be_built_says_why(
    tmp_path: Path, architecture: dict[str, str], change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(state(tmp_path / "m"), architecture=architecture | change)


def test_the_candidates_own_code_is_no_architecture(tmp_path: Path) -> None:
    path = state(tmp_path / "m")
    (path / "code").mkdir()
    (path / "code" / "nets.py").write_text(textwrap.dedent(ARCHITECTURE))
    with pytest.raises(ConfigurationError, match="in the candidate's files"):
        load(path, architecture={"use": "nets:build", "path": str(path / "code")})


def test_building_leaves_no_trace_and_two_repositories_do_not_mix(tmp_path: Path, architecture: dict[str, str]) -> None:
    other = repository(tmp_path / "other", width=5)
    mine = state(tmp_path / "m")
    before, path, drawn = set(sys.modules), list(sys.path), torch.random.get_rng_state()
    load(mine, architecture=architecture)
    with pytest.raises(ModelError, match=r"for \(5, 4\)"):
        load(mine, architecture=other)
    assert sys.path == path and not {"nets", "sizes"} & (set(sys.modules) - before)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert not list(tmp_path.rglob("__pycache__"))


LATE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x):
            from sizes import WIDTH
            return self.inner(x) * WIDTH

    def build():
        return nn.Sequential(nn.Identity(), Net())

    class Lacking(Net):
        def forward(self, x):
            import no_such_package
            return self.inner(x)
"""


def test_a_forward_may_import_more_of_the_repository(tmp_path: Path, architecture: dict[str, str]) -> None:
    """Imports inside of a forward happen long after the module was built, and in copies of it too."""
    (tmp_path / "repository" / "nets.py").write_text(textwrap.dedent(LATE))
    inner = seeded(nn.Linear(4, 3))
    content = {f"1.inner.{name}": tensor for name, tensor in inner.state_dict().items()}
    before, path = set(sys.modules), list(sys.path)
    model = load(state(tmp_path / "m", content), architecture=architecture).model
    assert isinstance(model, Differentiable)
    truth = (8 * inner(torch.tensor(sample()))).log_softmax(1).detach().numpy()
    np.testing.assert_allclose(model.predict(sample()), truth, atol=1e-4)
    exact = model.precise()
    assert exact is not None and exact.parameters["1.inner.weight"].dtype == torch.float64
    np.testing.assert_allclose(exact.predict(sample()), truth, atol=1e-4)
    assert sys.path == path and not {"sizes", "nets"} & (set(sys.modules) - before)
    plain = {name.removeprefix("1."): tensor for name, tensor in content.items()}
    with pytest.raises(ModelError, match="No module named 'no_such_package'"):
        load(state(tmp_path / "n", plain), architecture=architecture | {"use": "nets:Lacking"})


def test_tied_weights_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

    module, full = Tied(), Tied().state_dict()
    full.pop("b.weight")
    assert fill(module, full) == "" and torch.equal(module.b.weight, full["a.weight"])


def test_what_counts_as_a_state() -> None:
    weight = torch.zeros(2)
    assert state_of({"weight": weight}) == {"weight": weight}
    assert state_of({"model_state_dict": {"w": weight, "_extra_state": None}, "loss": 0.1}) == {"w": weight}
    assert state_of({}) is None and state_of([weight]) is None and state_of({"epoch": 3, "w": weight}) is None


def test_a_state_is_logged_in_two_lines(tmp_path: Path, architecture: dict[str, str]) -> None:
    mlflow = pytest.importorskip("mlflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own imports
        model = mlflow.models.Model()
        weights.save_model(str(tmp_path / "m"), model, state_dict=network().state_dict())
    loaded = load(tmp_path / "m", architecture=architecture)
    assert loaded.notes == ("weights alone, in nets:build of the policy",) and loaded.trust == "data_only"
