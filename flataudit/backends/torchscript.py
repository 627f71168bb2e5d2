"""A TorchScript module as a function of its parameters, which `torch.func.functional_call` refuses to make of it.

The slots that hold the parameters live in C++ and take any tensor, also one that is a part of a graph: they are filled
for one call and get their own tensors back, whatever happens. The plain interpreter runs it: its operations are
differentiated one by one, as often as eager ones, while the optimising one fuses some that are derivable once.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["Scripted"]

_JIT: Any = torch.jit
_Key = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class _Slot:
    """One place of a tensor: an attribute, or an entry of a list that is one (recurrent layers keep theirs so)."""

    owner: Any
    name: str
    index: int | None = None


class Scripted:
    """Calls a script with other parameters and buffers.

    A tensor that is in several places is replaced in all of them. While a call runs, the script holds strange
    parameters: it must be the caller's own, and one call waits for the other.

    Args:
        module: as `torch.jit.load` returns it.
    """

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        self._module, self._lock = module, Lock()
        places: dict[_Key, list[_Slot]] = {}
        self._slots: dict[str, list[_Slot]] = {}
        for name, slot, tensor in _tensors(module):
            # Every access may wrap the C++ tensor in a new object: only its memory tells that it is shared.
            shared = [] if tensor.numel() == 0 else places.setdefault(_key(tensor), [])
            shared.append(slot)
            self._slots[name] = shared
        for slot, tensor in _listed(module):
            if _key(tensor) in places:
                places[_key(tensor)].append(slot)

    def __call__(self, state: Mapping[str, Tensor], args: tuple[object, ...], keywords: Mapping[str, object]) -> object:
        """What it returns with these tensors in place of its own of these names."""
        with self._lock, ExitStack() as undo, _JIT.optimized_execution(False):
            for name, tensor in state.items():
                for slot in self._slots[name]:
                    before = slot.owner.getattr(slot.name)
                    undo.callback(slot.owner.setattr, slot.name, before)
                    if slot.index is None:
                        slot.owner.setattr(slot.name, tensor)
                    else:
                        at = slot.index
                        slot.owner.setattr(slot.name, [*before[:at], tensor, *before[at + 1 :]])
            return self._module(*args, **keywords)

    def follows(self, args: tuple[object, ...], keywords: Mapping[str, object]) -> bool:
        """Whether it answers the same with parameters replaced as with the same numbers written into its own.

        A script may keep a tensor where it cannot be found; its curvature would be that of another function. The
        parameters are afterwards bit for bit what they were.
        """
        own = dict(self._module.named_parameters())
        source = torch.Generator().manual_seed(0)
        kept = {name: tensor.detach().clone() for name, tensor in own.items()}
        moved = {
            name: tensor * (1 + 0.1 * torch.randn(tensor.shape, generator=source).to(tensor))
            for name, tensor in kept.items()
            if tensor.is_floating_point()
        }
        with torch.no_grad():
            replaced = _flat(self(moved, args, keywords))
            try:
                for name, tensor in moved.items():
                    own[name].copy_(tensor)
                written = _flat(self({}, args, keywords))
            finally:
                for name, tensor in kept.items():
                    own[name].copy_(tensor)
        return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(replaced, written, strict=True))


def _tensors(module: torch.jit.ScriptModule) -> Iterator[tuple[str, _Slot, Tensor]]:
    """Name, place and value of every parameter and buffer."""
    owners = {name: part._c for name, part in module.named_modules(remove_duplicate=False)}
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            owner, _, slot = name.rpartition(".")
            yield name, _Slot(owners[owner], slot), tensor


def _listed(module: torch.jit.ScriptModule) -> Iterator[tuple[_Slot, Tensor]]:
    """Tensors in lists that are attributes, as far as the program reads them."""
    graph = cast("Any", module.inlined_graph)  # its nodes live as long as it does
    names = {node.s("name") for node in graph.findAllNodes("prim::GetAttr")}
    for owner in (cast("Any", part)._c for part in module.modules()):
        for name in sorted(names):
            value = owner.getattr(name) if owner.hasattr(name) else None
            if isinstance(value, list) and value and all(isinstance(one, Tensor) for one in value):
                yield from ((_Slot(owner, name, index), tensor) for index, tensor in enumerate(value))


def _key(tensor: Tensor) -> _Key:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _flat(returned: object) -> list[Tensor]:
    """All real tensors in what was returned."""
    leaves, _ = torch.utils._pytree.tree_flatten(returned)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
