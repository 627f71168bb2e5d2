"""Operations whose derivatives torch gets wrong or lacks, put as ones that have right ones.

`torch._weight_norm` differentiates twice into silently wrong numbers, `embedding_bag` into none, and `embedding` with a
``padding_idx`` gives the row of the padding no gradient, although the outputs depend on it. They are watched for when a
model is loaded, and rewritten, in its forward pass alone, where they occur. The values stay the same up to rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Rewriting", "Watching"]


class Watching(TorchFunctionMode):
    """Notes whether anything that must be rewritten is called."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Torch's protocol."""
        given = kwargs or {}
        if _name(func) in _REWRITTEN and (_name(func) != "embedding" or _pads(args, given)):
            self.found.add(_name(func))
        return func(*args, **given)


class Rewriting(TorchFunctionMode):
    """Calls the rewritten form of each such operation."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Torch's protocol."""
        return _REWRITTEN.get(_name(func), func)(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """The weight g v / ‖v‖, its norm over all dimensions but one (over all of them where ``dim`` is −1)."""
    others = [i for i in range(v.dim()) if i != dim]
    scale: Tensor = g / torch.linalg.vector_norm(v, dim=others, keepdim=True)
    return v * scale


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum or mean over the looked-up rows of tokens ``(n, length)``; other forms as they are, underivable twice."""
    if input.dim() != 2 or mode not in ("mean", "sum") or per_sample_weights is not None or max_norm is not None:
        return torch.nn.functional.embedding_bag(
            input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights
        )
    found = torch.nn.functional.embedding(input, weight)
    kept = torch.ones_like(found[..., :1]) if padding_idx is None else (input != padding_idx)[..., None].to(found.dtype)
    total = (found * kept).sum(dim=1)
    return total / kept.sum(dim=1).clamp_min(1) if mode == "mean" else total


def _pads(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an embedding has a row for padding; None and, in exported programs, −1 say that it has none."""
    place = args[2] if len(args) > 2 else kwargs.get("padding_idx")
    return place is not None and (place >= 0 or not args[0].is_floating_point())


def _embedding(first: Tensor, second: Tensor, padding_idx: int | None = None, *more: Any, **kwargs: Any) -> Tensor:
    """Rows of a table, all with their gradient: ``(ids, table)`` of modules, ``(table, ids)`` of exported programs."""
    if first.is_floating_point():
        return torch.embedding(first, second, -1, *more, **kwargs)
    return torch.nn.functional.embedding(first, second, None, *more, **kwargs)


_REWRITTEN: Mapping[str, Callable[..., Any]] = {
    "_weight_norm": _weight_norm,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
}
"""By name; the embedding bag of an exported program has another, and stays."""


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", "")).partition(".")[0]
