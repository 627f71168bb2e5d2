"""Grouped and depthwise convolutions whose second derivatives are convolutions too, and not a loop over the groups.

PyTorch differentiates a grouped convolution twice group by group: a depthwise layer of 1,000 channels becomes 1,000
small convolutions, and a Hessian product of a network of such layers took seven times a gradient (measured on
EfficientNet-Lite0) where two to three are its price. A convolution y = x ∗ w is bilinear, and so are its two
gradients ∂/∂x = y′ ∗ᵀ w and ∂/∂w = x ⋆ y′; each derivative of one of the three is another of them, and there is one
kernel for each, whatever the groups.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Grouped"]


class _Shape:
    """What a convolution is beside its tensors, and the size of what it sees."""

    def __init__(self, options: tuple[Sequence[int], Sequence[int], Sequence[int], int], seen: torch.Size) -> None:
        self.stride, self.padding, self.dilation, self.groups = options
        self.seen = seen

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Y = x ∗ w."""
        nothing = [0] * len(self.stride)
        return torch.convolution(x, w, None, self.stride, self.padding, self.dilation, False, nothing, self.groups)

    def back(self, slope: Tensor, x: Tensor, w: Tensor, *, weight: bool) -> Tensor:
        """One of the two gradients; of the tensor that it is the gradient in, only the shape counts."""
        nothing, mask = [0] * len(self.stride), [not weight, weight, False]
        found = torch.ops.aten.convolution_backward(
            slope, x, w, None, self.stride, self.padding, self.dilation, False, nothing, self.groups, mask
        )
        return found[1] if weight else found[0]  # type: ignore[no-any-return]


class _Convolution(torch.autograd.Function):
    """x ∗ w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.shape = shape
        return shape.forward(x, w)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        back = _Transposed.apply(slope, w, ctx.shape) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        weight = _Weight.apply(x, slope, ctx.shape, w.shape) if ctx.needs_input_grad[1] else None  # type: ignore[no-untyped-call]
        return back, weight, None


class _Transposed(torch.autograd.Function):
    """Y′ ∗ᵀ w, in the shape of x."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, w: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(slope, w)
        ctx.shape = shape
        return shape.back(slope, slope.new_empty(1).expand(shape.seen), w, weight=False)

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        slope, w = ctx.saved_tensors
        back = _Convolution.apply(upper, w, ctx.shape) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        weight = _Weight.apply(upper, slope, ctx.shape, w.shape) if ctx.needs_input_grad[1] else None  # type: ignore[no-untyped-call]
        return back, weight, None


class _Weight(torch.autograd.Function):
    """x ⋆ y′, in the shape of w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, shape: _Shape, size: torch.Size) -> Tensor:
        ctx.save_for_backward(x, slope)
        ctx.shape = shape
        return shape.back(slope, x, slope.new_empty(1).expand(size), weight=True)

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        x, slope = ctx.saved_tensors
        first = _Transposed.apply(slope, upper, ctx.shape) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        second = _Convolution.apply(x, upper, ctx.shape) if ctx.needs_input_grad[1] else None  # type: ignore[no-untyped-call]
        return first, second, None, None


class Grouped(TorchFunctionMode):
    """Inside, convolutions of several groups are differentiated so; all others as ever."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        dims = _DIMENSIONS.get(str(getattr(func, "__name__", "")).partition(".")[0])
        return func(*args, **given) if dims is None else _convolved(func, dims, args, given)


_DIMENSIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _convolved(func: Callable[..., Any], dims: int, args: Sequence[Any], given: dict[str, Any]) -> Any:
    """By the functions above, where there are groups and the padding is a number."""
    whole = dict(zip(_ARGUMENTS, args, strict=False)) | given
    x, w, padding, groups = whole["input"], whole["weight"], whole.get("padding", 0), whole.get("groups", 1)
    if groups == 1 or isinstance(padding, str) or x.dim() != dims + 2 or not torch.is_grad_enabled():
        return func(*args, **given)
    options = [_each(whole.get("stride", 1), dims), _each(padding, dims), _each(whole.get("dilation", 1), dims)]
    found = _Convolution.apply(x, w, _Shape((*options, groups), x.shape))  # type: ignore[no-untyped-call]
    bias = whole.get("bias")
    return found if bias is None else found + bias.view(-1, *(1,) * dims)


def _each(value: Any, dims: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * dims if len(numbers) == 1 else numbers
