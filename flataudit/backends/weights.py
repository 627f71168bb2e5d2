"""Weights alone, as ``state_dict`` files and safetensors hold them, put into a module of the same architecture.

A state is logged in two lines, without MLflow's help and without a pickled class::

    from flataudit.backends import weights
    mlflow.models.Model.log(artifact_path=None, name="net", flavor=weights, state_dict=net.state_dict())
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from flataudit.errors import ModelError

__all__ = ["FLAVOUR", "fill", "read_safetensors", "save_model", "state_of"]

FLAVOUR = "flataudit.state_dict"
_SHOWN = 6
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, `torch.compile` and the usual Lightning module put before each name."""


def save_model(path: str, mlflow_model: object = None, *, state_dict: Mapping[str, Tensor], **settings: object) -> None:
    """Write a model folder of weights alone; `mlflow.models.Model.log` calls it where ``flavor`` is this module.

    Args:
        path: the folder, not yet there.
        mlflow_model: an `mlflow.models.Model`, which learns the flavour and is saved as ``MLmodel``.
        state_dict: tensors by name.
        settings: ``signature``, kept; whatever else MLflow passes is left out.
    """
    data = Path(path) / "data"
    data.mkdir(parents=True)
    torch.save(dict(state_dict), data / "state_dict.pth")
    model = cast("_MlflowModel", mlflow_model)
    if settings.get("signature") is not None:
        model.signature = settings["signature"]
    model.add_flavor(FLAVOUR, model_data="data", torch_version=str(torch.__version__))
    model.save(str(Path(path) / "MLmodel"))


class _MlflowModel:
    """What is used of MLflow's class."""

    signature: object

    def add_flavor(self, name: str, **settings: object) -> None: ...

    def save(self, path: str) -> None: ...


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU.

    Raises:
        ModelError: the file is damaged, or the package is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        remedy = "pip install 'flataudit[safetensors]'"
        raise ModelError("the package safetensors for this candidate", got=str(error), remedy=remedy) from error
    try:
        return dict(load_file(file))
    except Exception as error:
        remedy = "the file is damaged: log the model again"
        raise ModelError("a whole safetensors file", got=_told(error), remedy=remedy) from error


def state_of(loaded: object) -> dict[str, Tensor] | None:
    """The tensors by name in what a file held: a state itself, or one under ``state_dict``; None: neither.

    >>> state_of({"epoch": 3, "state_dict": {"weight": torch.zeros(1)}})
    {'weight': tensor([0.])}
    """
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            return state_of(loaded[key])
    if not isinstance(loaded, Mapping) or not loaded:
        return None
    state = {str(name): value for name, value in loaded.items() if not str(name).endswith("_extra_state")}
    return state if all(isinstance(value, Tensor) for value in state.values()) else None


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Put a state into a module; how, in words where it was not as it is.

    A prefix that all names have, and without which they fit, is taken off. A name that is missing may be that of a
    tensor which the module has under another name too (tied weights, which safetensors stores once).

    Raises:
        ModelError: names that are missing or unexpected, or shapes that differ.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    found, told = _without_prefix(dict(state), own)
    aliases = _aliases(own)
    missing = [name for name in own if not found.keys() & aliases[name]]
    unexpected = [name for name in found if name not in own]
    shapes = {name: (tuple(value.shape), tuple(own[name].shape)) for name, value in found.items() if name in own}
    differ = [f"{name} {given} for {wanted}" for name, (given, wanted) in shapes.items() if given != wanted]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", differ)):
        if names:
            got = f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
            remedy = "name the architecture that these weights were trained with, and its `params`"
            raise ModelError("weights that fit the architecture", got=got, remedy=remedy)
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    return told


def _aliases(own: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """All names of each name's tensor."""
    places: dict[tuple[object, ...], set[str]] = {}
    for name, value in own.items():
        place = (value.data_ptr(), tuple(value.shape), value.stride()) if value.numel() else (name,)
        places.setdefault(place, set()).add(name)
    return {name: group for group in places.values() for name in group}


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    for prefix in _PREFIXES:
        if not state.keys() & own.keys() and all(name.startswith(prefix) for name in state):
            shorter = {name.removeprefix(prefix): value for name, value in state.items()}
            if shorter.keys() & own.keys():
                return shorter, f"the prefix {prefix!r} of all its names was taken off"
    return state, ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
