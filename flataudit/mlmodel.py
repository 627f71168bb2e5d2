"""The MLmodel file that says what an artifact is: read by our own rules, believed in nothing that leaves its folder."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from flataudit.errors import ModelError
from flataudit.evidence import Record

__all__ = ["MLModel", "Signature", "SignatureField", "kind_of", "read_mlmodel"]

_BYTES = 2**20
_DEPTH = 32
_LONG_NUMBER = re.compile(r"[-+0-9_:.]{100,}")
"""YAML reads a number in base 60 in quadratic time."""
_REMEDY = "log the model again"


class SignatureField(Record):
    """One input or output as the model's signature declares it."""

    name: str | None = None
    dtype: str
    """A column's type (``double``, ``long``, ``string`` …) or a tensor's (``float32`` …)."""
    shape: tuple[int, ...] | None = None
    """Of a tensor, with -1 where any size will do, batch first; None: a column."""
    required: bool = True

    @property
    def told(self) -> str:
        """Name, type and shape in a few characters.

        >>> SignatureField(name="x", dtype="float32", shape=(-1, 8)).told, SignatureField(dtype="double").told
        ('x: float32 (-1, 8)', 'double')
        """
        return f"{self.name}: " * (self.name is not None) + self.dtype + f" {self.shape}" * (self.shape is not None)


class Signature(Record):
    """What goes in and what comes out."""

    inputs: tuple[SignatureField, ...] = ()
    outputs: tuple[SignatureField, ...] = ()


class MLModel(Record):
    """An MLmodel file."""

    folder: str
    flavours: Mapping[str, Mapping[str, JsonValue]]
    signature: Signature | None = None
    metadata: Mapping[str, JsonValue] = Field(default_factory=dict)

    def flavour(self, name: str) -> Mapping[str, JsonValue]:
        """The settings of one flavour.

        Raises:
            ModelError: the file has no such flavour.
        """
        if name not in self.flavours:
            got = f"only {', '.join(sorted(self.flavours)) or 'none'}"
            raise ModelError(f"a flavour {name!r} in the MLmodel file", got=got, remedy=_REMEDY)
        return self.flavours[name]

    def refuse_another_served(self, flavour: str) -> None:
        """Refuse an artifact whose general call (``python_function``) answers with other files than this flavour.

        What is audited would not be what is served.

        Raises:
            ModelError: another loader, or another file.
        """
        served = self.flavours.get("python_function")
        if served is None or flavour == "python_function":
            return
        own, loader = self.flavour(flavour), served.get("loader_module")
        remedy = "log the model again: what is audited must be what is served"
        if flavour.startswith("flataudit.") or loader != f"mlflow.{flavour}":
            raise ModelError(f"a python_function loaded by mlflow.{flavour}", got=repr(loader), remedy=remedy)
        files = {str(own[key]) for key in ("model_data", "data", "pickled_model", "model_binary") if own.get(key)}
        called = {str(served[key]) for key in ("data", "model_path") if served.get(key)}
        if files and called and files != called:
            got = f"{', '.join(sorted(called))} beside {', '.join(sorted(files))}"
            raise ModelError(f"one model behind python_function and {flavour}", got=got, remedy=remedy)

    def inside(self, path: JsonValue) -> Path:
        """A path of the artifact, resolved.

        Raises:
            ModelError: it is no path, leaves the artifact, or nothing is there.
        """
        folder = Path(self.folder).resolve()
        if not isinstance(path, str) or not path:
            raise ModelError("a path inside the artifact", got=repr(path), remedy=_REMEDY)
        try:
            found = (folder / path).resolve()
            there = found.exists()
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError("a path inside the artifact", got=f"{path!r}: {error}", remedy=_REMEDY) from error
        if not found.is_relative_to(folder):
            raise ModelError("a path inside the artifact", got=f"{path!r}, which leaves it", remedy=_REMEDY)
        if not there:
            raise ModelError(f"{path!r} in the artifact", got="no such file", remedy=_REMEDY)
        return found


def read_mlmodel(folder: Path) -> MLModel:
    """Read ``MLmodel`` in an artifact's folder.

    Raises:
        ModelError: missing, too large or too deep, with YAML aliases, or without flavours.
    """
    import yaml  # whoever only shows records reads none

    try:
        file = folder / "MLmodel"
        if file.stat().st_size > _BYTES:
            raise ValueError(f"more than {_BYTES} bytes")
        text = file.read_text(encoding="utf-8")
        _refuse_bombs(text)
        found = yaml.safe_load(text)
        if not isinstance(found, dict) or not isinstance(found.get("flavors"), dict):
            raise ValueError("no flavours")
        flavours = {str(name): _plain(settings) for name, settings in found["flavors"].items()}
        return MLModel(
            folder=str(folder),
            flavours=flavours,
            signature=_signature(found.get("signature")),
            metadata=_plain(found.get("metadata")),
        )
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        raise ModelError("an MLmodel file in the artifact", got=told, remedy=_REMEDY) from error


def _refuse_bombs(text: str) -> None:
    """An alias can make a small file large, nesting can exhaust a parser, and a long number takes it minutes."""
    import yaml

    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("a YAML alias")
        # Plain ones alone: what is quoted is text, however long.
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
            raise ValueError("a number of more than 100 digits")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise ValueError(f"more than {_DEPTH} levels")


def _plain(settings: object) -> dict[str, JsonValue]:
    """A mapping of JSON values; dates and the like, which YAML makes, as text."""
    loaded = json.loads(json.dumps(settings if isinstance(settings, dict) else {}, default=str))
    return {str(key): value for key, value in loaded.items()}


def _signature(declared: object) -> Signature | None:
    if not isinstance(declared, dict):
        return None
    return Signature(inputs=tuple(_fields(declared.get("inputs"))), outputs=tuple(_fields(declared.get("outputs"))))


def _fields(text: object) -> Iterator[SignatureField]:
    """MLflow keeps each side as JSON in a string; kinds that no model of ours takes are kept by their name."""
    for entry in json.loads(text) if isinstance(text, str) else []:
        name = entry.get("name")
        tensor = entry.get("tensor-spec")
        yield SignatureField(
            name=None if name is None else str(name),
            dtype=str(entry["type"] if tensor is None else tensor["dtype"]),
            shape=None if tensor is None else tuple(int(size) for size in tensor["shape"]),
            required=bool(entry.get("required", True)),
        )


_Kind = Literal["number", "integer", "boolean", "text"]


def kind_of(dtype: str) -> _Kind | None:
    """What values a declared type holds; None: a kind that is not audited (dates, bytes, objects).

    >>> kind_of("double"), kind_of("int64"), kind_of("string"), kind_of("datetime")
    ('number', 'integer', 'text', None)
    """
    if dtype in ("double", "float", "number") or dtype.startswith(("float", "bfloat")):
        return "number"
    if dtype in ("integer", "long") or dtype.startswith(("int", "uint")):
        return "integer"
    if dtype in ("boolean", "bool"):
        return "boolean"
    return "text" if dtype in ("string", "str", "object") else None
