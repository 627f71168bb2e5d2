"""Lightning: a pickled module, and a checkpoint of its trainer in the architecture of a policy."""

import importlib
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import FEATURES, examples, folder, job, network, pickled, sample
from torch import Tensor, nn

from flataudit.backends.pytorch import PyTorchBackend
from flataudit.contracts import Differentiable
from flataudit.curvature.surface import Surface
from flataudit.errors import UntrustedError

STATE = "flavors:\n  flataudit.state_dict: {model_data: data}\n"
MODULE = """
    import lightning
    from torch import nn

    class Lit(lightning.LightningModule):
        def __init__(self, width=8):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))
            self.loss = nn.CrossEntropyLoss()

        def forward(self, x):
            return self.net(x)
"""


@pytest.fixture(scope="module")
def lightning() -> Any:
    """The package; its import fails where a torchvision is installed that does not fit this torch."""
    try:
        return importlib.import_module("lightning")
    except Exception as error:  # noqa: BLE001  # a torchvision of another build raises anything
        pytest.skip(f"lightning cannot be imported: {type(error).__name__}: {str(error).splitlines()[0]}")


@pytest.fixture
def made(lightning: Any) -> nn.Module:
    """A module with the weights of `network`."""

    class Lit(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    Lit.__qualname__ = "Lit"
    globals()["Lit"] = Lit
    return Lit()


def expected() -> np.ndarray:
    with torch.no_grad():
        return network().eval()(torch.from_numpy(sample())).double().log_softmax(1).numpy()


def test_a_pickled_module_is_a_module(tmp_path: Path, made: nn.Module) -> None:
    path = pickled(tmp_path / "m", made)
    with pytest.raises(UntrustedError, match="pass --trust"):
        PyTorchBackend().load(job(path), examples())
    loaded = PyTorchBackend().load(job(path, trust=True), examples())
    assert isinstance(loaded.model, Differentiable)
    np.testing.assert_allclose(loaded.model.predict(sample()), expected(), atol=1e-5)
    surface = Surface.of(loaded.model, examples())
    assert torch.isfinite(surface.product(surface.origin, torch.ones_like(surface.origin))).all()


@pytest.mark.filterwarnings("ignore")  # what the trainer says of its own settings
def test_a_checkpoint_of_the_trainer_holds_weights(tmp_path: Path, lightning: Any, made: nn.Module) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=0
    )
    trainer.strategy.connect(made)
    own = tmp_path / "repository"
    own.mkdir()
    (own / "lit.py").write_text(textwrap.dedent(MODULE))
    path = folder(tmp_path / "m", STATE)
    trainer.save_checkpoint(path / "data" / "best.ckpt")
    loaded = PyTorchBackend().load(job(path, architecture={"use": "lit:Lit", "path": str(own)}), examples())
    assert loaded.trust == "data_only"
    np.testing.assert_allclose(loaded.model.predict(sample()), expected(), atol=1e-5)
    assert sample().shape[1] == FEATURES
