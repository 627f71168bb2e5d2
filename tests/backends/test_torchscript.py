"""Scripts: the curvature of their modules, or a reason; and why they are code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from programs import CLASSES, FEATURES, examples, folder, job, sample
from test_architectures import ARCHITECTURES, agrees, dense, made, measured
from torch import Tensor, nn

import flataudit
from flataudit.backends.pytorch import PyTorchBackend
from flataudit.contracts import Loaded, Perturbable
from flataudit.errors import ConfigurationError, UntrustedError
from flataudit.evidence import Outcome

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def scripted(path: Path, net: nn.Module) -> Path:
    torch.jit.save(torch.jit.script(net), folder(path) / "data" / "model.pth")
    return path


def load(path: Path, **fields: object) -> Loaded:
    return PyTorchBackend().load(job(path, **fields), examples())


SCRIPTED = ["mlp", "multi-head attention", "lstm", "tied embedding", "depthwise"]
"""Recurrent layers hold their parameters a second time, in a list."""


@pytest.mark.parametrize("kind", SCRIPTED)
def test_scripts_have_the_curvature_of_their_modules_and_are_left_as_they_were(kind: str) -> None:
    module, x = made(kind), ARCHITECTURES[kind][1]
    script = torch.jit.script(module)
    before = {name: tensor.clone() for name, tensor in script.state_dict().items()}
    agrees(measured(script, x), dense(module, x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in script.state_dict().items())


def test_a_script_whose_second_derivatives_are_wrong_or_missing_says_so() -> None:
    """What is rewritten in a module is out of reach in its script: the self-check, or torch itself, tells."""
    for kind, told in (("old weight norm", "agree with the loss"), ("embedding bag", "not implemented")):
        script = torch.jit.trace(made(kind), torch.tensor(ARCHITECTURES[kind][1]), check_trace=False)
        found = measured(script, ARCHITECTURES[kind][1])["lambda_max"]
        assert found.outcome is Outcome.FAILED and told in (found.reason or ""), found


class Writer(nn.Module):
    """A script may read and write files: what it names is made when it is called."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file, self.head = file, nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + torch.from_file(self.file, True, 3, dtype=torch.float32).sum() * 0


def test_why_a_script_is_code(tmp_path: Path) -> None:
    """Nothing in its archive is Python, and still it writes where it likes; so it is not opened untrusted."""
    marker = tmp_path / "written"
    path = scripted(tmp_path / "m", Writer(str(marker)))
    with pytest.raises(UntrustedError, match="TorchScript program, whose interpreter may read and write files"):
        load(path)
    assert not marker.exists()
    load(path, trust=True)
    assert marker.exists()


class Hiding(nn.Module):
    """Uses its parameter through a dictionary that holds it too."""

    table: dict[str, Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(0)))
        self.table = {"weight": self.weight}

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.table["weight"]


def test_a_script_that_hides_its_parameters_still_predicts(tmp_path: Path) -> None:
    loaded = load(scripted(tmp_path / "m", Hiding()), trust=True)
    assert not isinstance(loaded.model, Perturbable)
    expected = (sample() @ Hiding().weight.detach().numpy()).astype(np.float64)
    np.testing.assert_allclose(loaded.model.predict(sample()), torch.tensor(expected).log_softmax(1).numpy(), atol=1e-5)
    assert any("predictions alone" in note for note in loaded.notes)


def test_a_script_that_hides_its_parameters_is_no_function_of_them() -> None:
    with pytest.raises(ConfigurationError, match=r"export it with torch\.export"):
        flataudit.measure(torch.jit.script(Hiding()), sample(), np.arange(64) % 3)
