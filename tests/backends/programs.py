"""Model folders as MLflow writes them, made without MLflow: an MLmodel file and one file of data."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from flataudit.contracts import AuditData
from flataudit.data.examples import checked
from flataudit.evidence import Candidate
from flataudit.specs import Job

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FEATURES, CLASSES = 4, 3
MLMODEL = "flavors:\n  pytorch: {model_data: data, pytorch_version: 2.6.0}\n"
STATE = "flavors:\n  flataudit.state_dict: {model_data: data}\n"
ARCHITECTURE = """
    from torch import nn
    from sizes import WIDTH

    def build(width=WIDTH, classes=3):
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, classes))

    def raises():
        raise RuntimeError("no such data")

    def number():
        return 7
"""


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights from a seeded generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def network(*extra: nn.Module, outputs: int = CLASSES) -> nn.Sequential:
    """A small net whose last layers are `extra`."""
    return seeded(nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, outputs), *extra))  # type: ignore[return-value]


def examples(n: int = 64, features: int = FEATURES) -> AuditData:
    """`sample` with class numbers."""
    return checked("validation", "validation", sample(n, features), np.arange(n) % 3, source="test")


def sample(n: int = 64, features: int = FEATURES) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((n, features)).astype(np.float32)


def folder(path: Path, mlmodel: str = MLMODEL) -> Path:
    """A model folder without data."""
    (path / "data").mkdir(parents=True)
    (path / "MLmodel").write_text(mlmodel)
    return path


def exported(path: Path, module: nn.Module, *, train: bool = False, batch: int | None = None) -> Path:
    """The module as a `.pt2` program: of any batch size, or of one."""
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the module is in training mode, where a test wants it so
        program = torch.export.export(module.train(train), (torch.zeros(batch or 2, FEATURES),), dynamic_shapes=dynamic)
    torch.export.save(program, folder(path) / "data" / "model.pt2")
    return path


def pickled(path: Path, thing: object) -> Path:
    """Anything as a pickled `model.pth`."""
    torch.save(thing, folder(path) / "data" / "model.pth")
    return path


def repository(path: Path, width: int = 8) -> dict[str, str]:
    """A user's own code: one module that imports another; the `architecture` that names it."""
    path.mkdir()
    (path / "nets.py").write_text(textwrap.dedent(ARCHITECTURE))
    (path / "sizes.py").write_text(f"WIDTH = {width}\n")
    return {"use": "nets:build", "path": str(path)}


def state(path: Path, content: object = None, name: str = "state_dict.pth") -> Path:
    """A state as MLflow names it."""
    torch.save(network().state_dict() if content is None else content, folder(path, STATE) / "data" / name)
    return path


def safetensors(path: Path) -> Path:
    package = pytest.importorskip("safetensors.torch")
    package.save_file(network().state_dict(), folder(path) / "data" / "model.safetensors")
    return path


def job(artifact: Path, **fields: object) -> Job:
    """A job on that folder, of no probes."""
    probes: Sequence[object] = ()
    candidate = Candidate(name="net", version="1", flavour="pytorch", uri="memory:")
    return Job.model_validate(
        {"candidate": candidate, "artifact": str(artifact), "probes": probes, "data": ()} | fields
    )
