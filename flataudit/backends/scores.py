"""From what a torch module returns to the one tensor that a loss takes: where the scores are, and in what form."""

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from flataudit.errors import ModelError
from flataudit.specs import OutputKind, Task

__all__ = ["LOGARITHMS", "in_form", "pick"]

_LOG_FLOOR = 1e-30
_SHOWN = 8

LOGARITHMS: Mapping[Task, Callable[[Tensor], Tensor]] = {
    "multiclass": lambda logits: logits.log_softmax(dim=-1),
    "binary": lambda logits: logits.log_softmax(dim=-1),
    "multilabel": nn.functional.logsigmoid,
    "regression": lambda values: values,
}
"""From a module's outputs, brought `in_form`, to log-probabilities or values."""


def pick(returned: object, path: str | None) -> Tensor:
    """The tensor at a dotted path in tuples, lists, mappings, data classes and named tuples, nested in any way.

    A number is a place, also in a mapping without a key of that name; a name is a key or a field. Other attributes are
    not looked at: they may be code. A module that returns a tensor as it is has no path, whatever was declared for the
    others that it is compared with.

    Raises:
        ModelError: nothing is there, or no tensor, with what there is.

    >>> pick({"logits": torch.zeros(2, 3), "hidden": (torch.zeros(1),)}, "logits").shape
    torch.Size([2, 3])
    >>> pick((torch.zeros(1), torch.ones(1)), None)
    Traceback (most recent call last):
      ...
    flataudit.errors.ModelError: expected one tensor of outputs, got a tuple of 2: 0 (tensor (1,)), 1 (tensor (1,)); \
declare `output:`, where the scores are, for example `output: 0`
    """
    if isinstance(returned, Tensor):
        return returned
    found, walked = returned, ""
    for step in path.split(".") if path else ():
        inside = _inside(found)
        places = list(inside.values())
        if step in inside:
            found = inside[step]
        elif step.isdecimal() and int(step) < len(places):
            found = places[int(step)]
        else:
            where = f"{walked!r} in the outputs" if walked else "the outputs"
            raise ModelError(f"{step!r} in {where}", got=_told(found), remedy=_remedy(returned))
        walked = f"{walked}.{step}".lstrip(".")
    if not isinstance(found, Tensor):
        expected = f"a tensor at {path!r} in the outputs" if path else "one tensor of outputs"
        raise ModelError(expected, got=_told(found), remedy=_remedy(returned))
    return found


def _inside(thing: object) -> Mapping[str, object]:
    """The entries of a container by key, field or place; nothing of any other object."""
    if isinstance(thing, Mapping):
        return {str(key): value for key, value in thing.items()}
    if isinstance(thing, tuple | list):
        names = getattr(type(thing), "_fields", range(len(thing))) if isinstance(thing, tuple) else range(len(thing))
        return {str(name): value for name, value in zip(names, thing, strict=True)}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    return {}


def _told(thing: object) -> str:
    """What it is, and what is in it.

    >>> _told([torch.zeros(2)]), _told(None)
    ('a list of 1: 0 (tensor (2,))', 'None')
    """
    if thing is None:
        return "None"
    inside = _inside(thing)
    if not inside:
        return f"a {type(thing).__name__}"
    entries = [f"{name} ({_brief(value)})" for name, value in list(inside.items())[:_SHOWN]]
    more = ", …" if len(inside) > _SHOWN else ""
    return f"a {type(thing).__name__} of {len(inside)}: {', '.join(entries)}{more}"


def _brief(value: object) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _remedy(returned: object) -> str:
    """With an example that would work, the likeliest first."""
    usual = ("logits", "scores", "output", "outputs", "probabilities", "y")
    paths = list(_paths(returned, 3))
    if not paths:
        return "return a tensor of scores from its forward"
    best = next((path for name in usual for path in paths if path.rpartition(".")[2] == name), paths[0])
    return f"declare `output:`, where the scores are, for example `output: {best}`"


def _paths(thing: object, depth: int) -> list[str]:
    """Of all tensors of floating point inside."""
    found = []
    for name, value in _inside(thing).items():
        if isinstance(value, Tensor):
            found += [name] if value.is_floating_point() else []
        elif depth:
            found += [f"{name}.{rest}" for rest in _paths(value, depth - 1)]
    return found


def in_form(found: Tensor, n: int, task: Task, outputs: OutputKind) -> Tensor:
    """What the loss takes of n examples, differentiable in what was returned.

    Logits or log-probabilities ``(n, classes)``, of sequences ``(n, tokens, classes)``; of one column of a binary
    classifier two; log-odds ``(n, labels)``; values ``(n,)``. A probability of 0 counts as the smallest that costs much
    and not everything.

    Raises:
        ModelError: whole numbers, or a shape that models of the task do not return.

    >>> in_form(torch.tensor([[2.0], [0.0]]), 2, "binary", "logits").tolist()
    [[0.0, 2.0], [0.0, 0.0]]
    """
    if not found.is_floating_point():
        raise ModelError("scores or values", got=str(found.dtype), remedy="return them before argmax or rounding")
    shape = tuple(found.shape)
    if shape in ((n,), (n, 1)) and task != "multilabel":
        return found.reshape(n) if task == "regression" else _two_columns(found.reshape(n), task, outputs)
    if task == "regression":
        remedy = "declare another task, or `outputs: quantiles`, `normal` or `normal_variance` if the columns state one"
        raise ModelError(f"values ({n},) or ({n}, 1)", got=f"shape {shape}", remedy=remedy)
    sequence = task == "multiclass" and len(shape) == 3 and shape[2] > 1
    if not (len(shape) == 2 or sequence) or shape[0] != n:
        raise ModelError(f"outputs ({n}, classes)", got=f"shape {shape}", remedy="declare another task")
    if task == "multilabel" and outputs != "logits":
        found = found if outputs == "probabilities" else found.exp()
        return torch.logit(found, max(_LOG_FLOOR, torch.finfo(found.dtype).eps / 2))
    if task == "binary" and shape[1] != 2:
        remedy = "declare `task: multiclass`"
        raise ModelError("one or two columns of a binary classifier", got=f"{shape[1]} columns", remedy=remedy)
    return _log(found) if outputs == "probabilities" else found


def _two_columns(found: Tensor, task: Task, outputs: OutputKind) -> Tensor:
    """One column of a binary classifier as two of log-odds or log-probabilities."""
    if task != "binary":
        remedy = "declare `task: binary` (or `task: regression`)"
        raise ModelError("a column for every class", got="one column", remedy=remedy)
    if outputs == "logits":
        return torch.stack([torch.zeros_like(found), found], dim=1)
    if outputs == "log_probabilities":
        tiny = torch.finfo(found.dtype).tiny
        return torch.stack([(-torch.expm1(found.clamp_max(0))).clamp_min(tiny).log(), found], dim=1)
    return _log(torch.stack([1 - found, found], dim=1))


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(max(_LOG_FLOOR, torch.finfo(probabilities.dtype).tiny)).log()
