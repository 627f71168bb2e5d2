"""The module that holds a candidate's weights, made by the code that a policy names: the user's own, never theirs.

That code may import more of its folder when it first answers, inside of a forward, as large libraries are kept out of
an import. So the folder is importable then too, while a call lasts.
"""

import functools
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from flataudit.errors import ConfigurationError
from flataudit.specs import Architecture

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["build"]


def build(architecture: Architecture, artifact: Path) -> nn.Module:
    """The module that the policy's own code makes, in evaluation mode on the CPU; `sys.path` is left as it was.

    Raises:
        ConfigurationError: the folder is the candidate's own, the code cannot be imported, has no such function,
            raises, or makes something else than a module.
    """
    folder = Path(architecture.path or ".").resolve()
    if folder.is_relative_to(artifact.resolve()):
        remedy = "name a folder of your own"
        raise ConfigurationError("an architecture of yours", got="one in the candidate's files", remedy=remedy)
    module_name, _, function = architecture.use.partition(":")
    with _importing_from(folder, module_name.partition(".")[0]):
        try:
            maker = getattr(importlib.import_module(module_name), function)
        except Exception as error:
            got, remedy = f"{_told(error)} (in {folder})", "check `architecture: use` and `path`"
            raise ConfigurationError(f"an architecture at {architecture.use}", got=got, remedy=remedy) from error
        try:
            # What it draws is overwritten by the candidate's weights, and must not move the random state.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)  # the same for every candidate, whatever it leaves to chance
                made = maker(**architecture.params)
        except Exception as error:
            remedy = "check `architecture: params` against its signature"
            expected = f"a module from {architecture.use}"
            raise ConfigurationError(expected, got=_told(error), remedy=remedy) from error
    if not isinstance(made, nn.Module):
        remedy = "return a torch.nn.Module from it"
        raise ConfigurationError(f"a module from {architecture.use}", got=f"a {type(made).__name__}", remedy=remedy)
    for part in made.modules():
        _import_late(part, folder, module_name.partition(".")[0])
    return made.eval()


def _import_late(module: nn.Module, folder: Path, top: str) -> None:
    """Once its forward could not import something it is called with the folder importable.

    Its class changes, not the instance, so that a copy's forward is the copy's own; torch's own classes, which probes
    know by their type, import nothing of the folder.
    """
    plain = type(module)
    if plain.__module__.partition(".")[0] == "torch":
        return
    late = False

    @functools.wraps(plain.forward)
    def forward(self: nn.Module, *args: object, **keywords: object) -> object:
        nonlocal late
        if not late:
            try:
                return plain.forward(self, *args, **keywords)
            except ModuleNotFoundError:
                late = True
        with _importing_from(folder, top):
            return plain.forward(self, *args, **keywords)

    module.__class__ = type(plain.__name__, (plain,), {"forward": forward, "__module__": plain.__module__})


@contextmanager
def _importing_from(folder: Path, top: str) -> Iterator[None]:
    """Imports look into the folder first, leave no bytecode there, and are forgotten afterwards.

    Two policies of one process may both have a ``net.py``: a module of that name from elsewhere is out of the way
    meanwhile, and those that were imported here do not stay.
    """
    path, known, bytecode = list(sys.path), dict(sys.modules), sys.dont_write_bytecode
    for name in [n for n in known if n.partition(".")[0] == top and not _from(known[n], folder)]:
        if (folder / f"{top}.py").exists() or (folder / top).is_dir():
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in [n for n, module in sys.modules.items() if n not in known or module is not known[n]]:
            if name in known:
                sys.modules[name] = known[name]
            elif _from(sys.modules[name], folder):
                del sys.modules[name]


def _from(module: "ModuleType | None", folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).resolve().is_relative_to(folder)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
