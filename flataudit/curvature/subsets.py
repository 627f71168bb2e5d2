"""Which parameters a probe moves: all of them, those of some names, or those of the last layers."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor

from flataudit.errors import ConfigurationError, ModelError

__all__ = ["chosen"]


def chosen(parameters: Mapping[str, Tensor], patterns: Sequence[str]) -> list[str]:
    """Names of the parameters that a pattern matches, in the model's order.

    A pattern is a shell pattern over names (``*.lora_*``, ``head.*``), or ``last:k``, the parameters of the last k
    layers; a layer is all parameters whose names differ in the last part only.

    Raises:
        ModelError: the model has no parameters.
        ConfigurationError: a pattern that matches none.

    >>> import torch
    >>> layers = {name: torch.zeros(2) for name in ("body.weight", "body.bias", "head.weight", "head.bias")}
    >>> chosen(layers, ["last:1"]), chosen(layers, ["*.bias"])
    (['head.weight', 'head.bias'], ['body.bias', 'head.bias'])
    """
    if not parameters:
        raise ModelError("parameters in floating point", got="none", remedy="this model has no curvature to measure")
    found: set[str] = set()
    for pattern in patterns:
        names = _last(list(parameters), pattern) if pattern.startswith("last:") else _like(parameters, pattern)
        if not names:
            known = ", ".join(list(parameters)[:6]) + (" …" if len(parameters) > 6 else "")
            raise ConfigurationError(f"parameters like {pattern!r}", got="none", remedy=f"the model has {known}")
        found.update(names)
    return [name for name in parameters if name in found]


def _like(parameters: Mapping[str, Tensor], pattern: str) -> list[str]:
    return [name for name in parameters if fnmatchcase(name, pattern)]


def _last(names: Sequence[str], pattern: str) -> list[str]:
    count = pattern.removeprefix("last:")
    if not count.isdecimal() or int(count) == 0:
        raise ConfigurationError("last:k with k from 1", got=repr(pattern), remedy="write last:2 for two layers")
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    kept = set(layers[-int(count) :])
    return [name for name in names if name.rpartition(".")[0] in kept]
