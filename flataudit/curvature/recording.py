"""What a network does with its parameters, seen while it runs: which layer uses which, and whether that is affine.

The calls are watched where torch dispatches them, so that a module, an exported program and plain functions look
alike. Two questions are answered. *Is every operation piecewise affine in each single parameter?* Then the second
derivatives of all outputs in a single parameter vanish almost everywhere, and Tr(H) is Tr(GGN). *Does every parameter
enter through a layer whose per-example gradient norms have a closed form?* Then they are `flataudit.curvature.ghost`'s.
What is not known here is neither: a new operation costs speed and never correctness.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

__all__ = ["Recorder", "Use"]

_SHAPES = """
    view reshape flatten unflatten permute transpose t mT T movedim swapaxes contiguous clone squeeze unsqueeze
    expand expand_as broadcast_to repeat repeat_interleave select slice narrow getitem index index_select gather
    split chunk unbind cat concat stack hstack vstack flip roll pad constant_pad_nd tile unfold fold alias
    detach to type_as float double _to_copy lift_fresh_copy pixel_shuffle pixel_unshuffle channel_shuffle
    dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout identity masked_fill take_along_dim
    diagonal
"""
_SUMS = """
    add sub rsub radd iadd isub neg sum mean cumsum trace avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_linear1d upsample_bilinear2d upsample_trilinear3d
"""
_KINKED = """
    relu relu6 leaky_relu rrelu hardtanh threshold abs clamp clamp_min clamp_max clip where max min maximum
    minimum amax amin max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d sort topk get median max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices hardshrink softshrink
"""
_PIECEWISE_AFFINE = frozenset(f"{_SHAPES} {_SUMS} {_KINKED}".split())
_PRODUCTS = frozenset(
    """
    mul rmul imul div truediv rtruediv idiv matmul rmatmul mm bmm mv dot addmm baddbmm addmv einsum
    outer linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution
    prelu batch_norm bilinear embedding
    """.split()
)
"""Affine in each operand alone: fine while one operand at most depends on parameters through other layers."""
_QUOTIENTS = frozenset(("div", "truediv", "idiv", "rtruediv"))
"""Affine in the numerator alone."""


@dataclass(frozen=True, eq=False)
class Use:
    """One call that used parameters directly."""

    kind: str
    """``linear``, ``conv``, ``scale`` (a factor and a shift a channel), ``embedding``, ``shift`` or ``factor``."""
    weight: str | None
    """Parameter that multiplies the input (or is looked up, added, multiplied)."""
    bias: str | None
    """Parameter that is added to the output."""
    input: Tensor
    """What the weight met, detached; its own (normalised) input for ``scale``."""
    shape: torch.Size
    """Of the output."""
    edge: GradientEdge
    """Where the gradient of the output arrives, whatever happens to the output in place later."""
    options: Mapping[str, Any] = field(default_factory=dict)


class Recorder(TorchFunctionMode):
    """Watches one forward pass.

    Args:
        leaves: the parameters by name as the pass gets them, those that matter with ``requires_grad``.
        examples: of the batch.
    """

    def __init__(self, leaves: Mapping[str, Tensor], examples: int) -> None:
        super().__init__()
        self._examples = examples
        self.uses: list[Use] = []
        self.curved: list[str] = []
        """Operations that are not piecewise affine in each parameter, in the order they came."""
        self.bent: set[str] = set()
        """Parameters that such an operation depends on: in no others can the outputs be curved."""
        self.opaque: set[str] = set()
        """Parameters that entered in no known way."""
        self.statistics = False
        """A norm used statistics that training had gathered: a learned state that is in no parameter."""
        self._names = {id(leaf): name for name, leaf in leaves.items() if leaf.requires_grad}
        self._opened: set[object] = set()
        self._visited: set[object] = set()

    @property
    def repeated(self) -> set[str]:
        """Parameters that were used more than once."""
        names = [name for use in self.uses for name in (use.weight, use.bias) if name is not None]
        return {name for name in names if names.count(name) > 1}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        name = _canonical(func)
        inner = _opened(func) if name not in _PIECEWISE_AFFINE and func not in self._opened else None
        if inner is not None:
            self._opened.add(func)
            try:
                with self:
                    return inner(*args, **given)
            finally:
                self._opened.discard(func)
        if name == "embedding":
            args, given = self._each_for_itself(args, given)
        # The operands as they are before the call: it may change them in place.
        tensors = list(_tensors((args, given)))
        direct = [self._names[id(t)] for t in tensors if id(t) in self._names]
        depending = [t for t in tensors if t.requires_grad and id(t) not in self._names]
        out = func(*args, **given)
        if name in _NORMS and _arguments(args, given, "input", "weight", "bias", "running_mean")[3] is not None:
            self.statistics = True
        if isinstance(out, Tensor | tuple | list) and any(t.requires_grad for t in _tensors(out)):
            if name in _QUOTIENTS and any(t.requires_grad for t in _tensors(_denominator(name, args))):
                self._curve(name, depending, direct)
            self._judge(name, depending, direct)
            if direct:
                self._use(name, args, given, out, direct)
        return out

    def _each_for_itself(self, args: Sequence[Any], given: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Positions are often looked up once and added to every example: here each example looks them up itself.

        The sums are the same, and the gradient of each example's own can be told apart.
        """
        # `torch.embedding` takes the weight first, `torch.nn.functional.embedding` (not opened) the indices.
        at = next((i for i, one in enumerate(args) if isinstance(one, Tensor) and not one.is_floating_point()), None)
        if at is None:
            return args, given
        indices = args[at]
        if indices.dim() == 2 and indices.shape[0] == 1 < self._examples:
            indices = indices.expand(self._examples, -1)
        elif indices.dim() == 1 and len(indices) not in (1, self._examples):
            indices = indices.expand(self._examples, -1)
        return [*args[:at], indices, *args[at + 1 :]], given

    def _judge(self, name: str, depending: Sequence[Tensor], direct: Sequence[str]) -> None:
        if name in _PIECEWISE_AFFINE:
            return
        if name in _PRODUCTS and len(depending) <= 1 and len(set(direct)) == len(direct):
            return
        self._curve(name, depending, direct)

    def _curve(self, name: str, depending: Sequence[Tensor], direct: Sequence[str]) -> None:
        self.curved.append(name)
        self.bent.update(direct)
        waiting = [tensor.grad_fn for tensor in depending]
        while waiting:
            node = waiting.pop()
            if node is None or node in self._visited:
                continue
            self._visited.add(node)
            leaf = self._names.get(id(getattr(node, "variable", None)))
            self.bent.update([leaf] if leaf else [])
            waiting.extend(before for before, _ in node.next_functions)

    def _use(
        self, name: str, args: Sequence[Any], given: Mapping[str, Any], out: object, direct: Sequence[str]
    ) -> None:
        reader = _READERS.get(name)
        found = reader(name, args, given, self._name) if reader and isinstance(out, Tensor) else None
        if found is None or sorted(direct) != sorted(n for n in found[1:3] if n is not None):
            self.opaque.update(direct)
            if reader and found is None:
                self._curve(name, [t for t in _tensors(args) if t.requires_grad], direct)
            return
        kind, weight, bias, met, options = found
        assert isinstance(out, Tensor)
        self.uses.append(Use(kind, weight, bias, met.detach(), out.shape, get_gradient_edge(out), options))

    def _name(self, tensor: object) -> str | None:
        return self._names.get(id(tensor))


_Found = tuple[str, str | None, str | None, Tensor, Mapping[str, Any]]
_Name = Callable[[object], str | None]
_Reader = Callable[[str, Sequence[Any], Mapping[str, Any], _Name], _Found | None]


def _arguments(args: Sequence[Any], given: Mapping[str, Any], *names: str) -> list[Any]:
    """The named arguments, however they were passed; None for those that were not."""
    return [args[i] if i < len(args) else given.get(name) for i, name in enumerate(names)]


def _linear(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    met, weight, bias = _arguments(args, given, "input", "weight", "bias")
    return "linear", named(weight), named(bias), met, {}


def _conv(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    keys = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    met, weight, bias, stride, padding, dilation, groups = _arguments(args, given, *keys)
    dims = int(name[-2])
    if met.dim() != dims + 2:
        return None
    options = {
        "kernel": tuple(weight.shape[2:]),
        "stride": _each(stride, dims, 1),
        "padding": padding if isinstance(padding, str) else _each(padding, dims, 0),
        "dilation": _each(dilation, dims, 1),
        "groups": 1 if groups is None else int(groups),
    }
    return "conv", named(weight), named(bias), met, options


def _each(value: Any, dims: int, default: int) -> tuple[int, ...]:
    if value is None:
        return (default,) * dims
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _batch_norm(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    keys = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    met, weight, bias, mean, variance, training, _, eps = _arguments(args, given, *keys)
    if training or mean is None or variance is None:
        return None
    shape = (1, -1) + (1,) * (met.dim() - 2)
    normal = (met.detach() - mean.view(shape)) * torch.rsqrt(variance + eps).view(shape)
    return "scale", named(weight), named(bias), normal, {"axis": 1, "mean": mean, "variance": variance}


def _layer_norm(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    met, shape, weight, bias, eps = _arguments(args, given, "input", "normalized_shape", "weight", "bias", "eps")
    with torch.no_grad():
        normal = torch.layer_norm(met.detach(), shape, eps=1e-5 if eps is None else eps)
    return "scale", named(weight), named(bias), normal, {"last": len(shape)}


def _rms_norm(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    met, shape, weight, eps = _arguments(args, given, "input", "normalized_shape", "weight", "eps")
    with torch.no_grad():
        normal = torch.rms_norm(met.detach(), shape, eps=eps)
    return "scale", named(weight), None, normal, {"last": len(shape)}


def _group_norm(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    met, groups, weight, bias, eps = _arguments(args, given, "input", "num_groups", "weight", "bias", "eps")
    with torch.no_grad():
        normal = torch.group_norm(met.detach(), groups, eps=1e-5 if eps is None else eps)
    return "scale", named(weight), named(bias), normal, {"axis": 1}


def _embedding(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    weight, indices, padding = _arguments(args, given, "weight", "indices", "padding_idx")
    frozen = -1 if padding is None else int(padding)
    return "embedding", named(weight), None, indices, {"padding": frozen}


def _sum(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    if given.get("alpha", 1) != 1:
        return None
    first, second = _arguments(args, given, "input", "other")
    parameter = first if named(first) else second
    return "shift", None, named(parameter), parameter, {}


def _expand(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    return "shift", None, named(args[0]), args[0], {}


def _product(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    first, second = _arguments(args, given, "input", "other")
    parameter, met = (first, second) if named(first) else (second, first)
    if not isinstance(met, Tensor):
        met = torch.as_tensor(met, dtype=parameter.dtype, device=parameter.device)
    return "factor", named(parameter), None, met, {"shape": parameter.shape}


def _prelu(name: str, args: Sequence[Any], given: Mapping[str, Any], named: _Name) -> _Found | None:
    met, weight = _arguments(args, given, "input", "weight")
    negative = met.detach().clamp(max=0)
    if weight.numel() == 1:
        return "factor", named(weight), None, negative, {"shape": weight.shape}
    return "scale", named(weight), None, negative, {"axis": 1}


_READERS: Mapping[str, _Reader] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    "prelu": _prelu,
    **dict.fromkeys(("add", "radd", "iadd", "sub", "isub", "rsub"), _sum),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("mul", "rmul", "imul"), _product),
}


_NORMS = ("batch_norm", "instance_norm")


def _denominator(name: str, args: Sequence[Any]) -> Sequence[Any]:
    return args[:1] if name == "rtruediv" else args[1:]


def _canonical(func: Any) -> str:
    """``relu`` for relu, relu_, aten.relu.default and Tensor.relu_; ``add`` for __add__."""
    name = str(getattr(func, "__name__", func)).partition(".")[0]
    return name.strip("_") if name.strip("_") else name


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def _never(*_: object) -> bool:
    return False


@lru_cache(maxsize=256)
def _opened(func: Any) -> FunctionType | None:
    """A function of `torch.nn.functional` without its check for modes like ours, so that what it calls is seen.

    `nn.MultiheadAttention` is one such function: opened, it is linear layers and an attention. None for what is no
    Python function of that module.
    """
    if not isinstance(func, FunctionType) or func.__module__ != "torch.nn.functional":
        return None
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**func.__globals__, **dict.fromkeys(checks, _never)}
    copy = FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy
