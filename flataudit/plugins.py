"""From a name to an object: entry points are the only registry, for built-in plugins as for a third party's."""

import difflib
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from pydantic import JsonValue, ValidationError

from flataudit.errors import PluginError

__all__ = ["GROUPS", "Group", "load", "make", "names", "nearest"]

Group = Literal["probes", "backends", "data", "registries", "executors", "comparers", "reports", "commands"]
GROUPS: tuple[Group, ...] = (
    "probes",
    "backends",
    "data",
    "registries",
    "executors",
    "comparers",
    "reports",
    "commands",
)
_EXTRAS = {
    "torch": "torch",
    "mlflow": "mlflow",
    "jinja2": "report",
    "pandas": "table",
    "pyarrow": "table",
    "onnxruntime": "onnx",
    "tokenizers": "text",
    "cryptography": "attest",
    "sklearn": "sklearn",
    "skops": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy that names the nearest known word, or all of them.

    >>> nearest("acuracy", ["accuracy", "lambda_max"])
    'did you mean accuracy?'
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    return f"did you mean {close[0]}?" if close else f"choose one of {', '.join(options) or '(none installed)'}"


def _entries(group: Group) -> tuple[EntryPoint, ...]:
    return _scanned(group, tuple(_changed(folder) for folder in sys.path))


@lru_cache(maxsize=32)
def _scanned(group: Group, changed: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """Reading the metadata of every installed package takes longer than a small audit: once, until one changes."""
    return tuple(entry_points(group=f"flataudit.{group}"))


def _changed(folder: str) -> tuple[str, int]:
    try:
        return folder, os.stat(folder).st_mtime_ns
    except OSError:
        return folder, 0


def names(group: Group) -> tuple[str, ...]:
    """Names of all installed plugins of a group, sorted."""
    return tuple(sorted({entry.name for entry in _entries(group)}))


def load(group: Group, name: str) -> type:
    """The class (or function) behind a name.

    Raises:
        PluginError: unknown, claimed by two packages, or its import fails.
    """
    found = {entry.value: entry for entry in _entries(group) if entry.name == name}
    if not found:
        raise PluginError(
            f"the name of an installed plugin in flataudit.{group}", got=repr(name), remedy=nearest(name, names(group))
        )
    if len(found) > 1:
        raise PluginError(
            f"one plugin called {name!r} in flataudit.{group}",
            got=" and ".join(sorted(found)),
            remedy="uninstall one of the packages, or ask its author to rename it",
        )
    entry = next(iter(found.values()))
    try:
        return entry.load()  # type: ignore[no-any-return]
    except ImportError as error:
        missing = (getattr(error, "name", None) or "").partition(".")[0]
        remedy = (
            f"pip install 'flataudit[{_EXTRAS[missing]}]'" if missing in _EXTRAS else "reinstall the plugin's package"
        )
        raise PluginError(
            f"plugin {name!r} to import", got=f"{type(error).__name__}: {error}", remedy=remedy
        ) from error


def make(group: Group, name: str, params: "dict[str, JsonValue] | None" = None) -> object:
    """An instance of the plugin with these parameters.

    Raises:
        PluginError: as `load`, or a parameter is unknown or out of range.
    """
    cls = load(group, name)
    try:
        return cls(**(params or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        known = list(getattr(cls, "model_fields", {}))
        hint = nearest(field, known) if first["type"] == "extra_forbidden" else f"its parameters: {', '.join(known)}"
        raise PluginError(
            f"parameters that {name!r} has", got=f"{field}: {first['msg'].lower()}", remedy=hint
        ) from error
    except TypeError as error:
        raise PluginError(f"parameters that {name!r} has", got=str(error), remedy="see `flataudit probes`") from error
