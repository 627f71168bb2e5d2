"""Squared norms of per-example gradients from what a layer met and what came back, without forming the gradients.

For a linear layer z = W a + b the gradient of one example is g aᵀ, whose squared norm is ‖g‖² ‖a‖² (Goodfellow 2015).
With T positions (tokens, pixels) it is Σ_{t,t'} (a_t·a_t')(g_t·g_t'), by Gram matrices where T is small and by the
gradient itself where it is not (Li et al. 2022); a convolution is a linear layer on its unfolded input. Both the plain
norm ‖∂‖² and the weighted one Σᵢ θᵢ² ∂ᵢ² are given: the latter is what rescaling cannot change.

Gradients of several cotangents are added up in the form in which the layer's formula is linear (squares, Gram
matrices), so that the formula itself is evaluated once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flataudit.curvature.recording import Use

__all__ = ["Layout", "Norms", "layouts", "norms_of"]

Weights = Mapping[str, Tensor]
_GRADIENTS = 2**22
"""Numbers of per-example gradients that are formed at a time."""


@dataclass(frozen=True)
class Layout:
    """Where the examples are in a layer's output."""

    axis: int = 0
    """Dimension of the examples."""
    fold: str | None = None
    """Dimension 0 holds several positions of each example: together (``major``) or a batch apart (``minor``)."""

    def rows(self, tensor: Tensor, n: int) -> Tensor:
        """``(n, …)``: the examples first."""
        if self.fold is None:
            return tensor.movedim(self.axis, 0)
        if self.fold == "major":
            return tensor.reshape(n, -1, *tensor.shape[1:])
        return tensor.reshape(-1, n, *tensor.shape[1:]).transpose(0, 1)


def layouts(use: Use, n: int) -> Iterator[Layout]:
    """Every arrangement that the shape of a layer's output allows for n examples."""
    spatial = use.kind == "conv" or "axis" in use.options
    axes = 1 if spatial else len(use.shape) - (use.kind in ("linear", "embedding") or "last" in use.options)
    for axis in range(max(1, axes)):
        if axis < len(use.shape) and use.shape[axis] == n:
            yield Layout(axis)
    if use.shape and use.shape[0] > n and use.shape[0] % n == 0 and use.kind not in ("shift", "factor"):
        yield Layout(fold="major")
        yield Layout(fold="minor")


class Norms(ABC):
    """Squared gradient norms of one layer's parameters, added up over the cotangents of a batch."""

    @abstractmethod
    def add(self, back: Tensor) -> None:
        """Take the gradient at the layer's output for one cotangent."""

    @abstractmethod
    def take(self) -> Mapping[str, Tensor]:
        """``(n, kinds)`` sums so far of each parameter, plain and (where asked for) weighted; starts anew."""


def norms_of(use: Use, layout: Layout, n: int, *, weights: Weights | None) -> Norms:
    """The norms of one layer; what serves every cotangent is computed now.

    Args:
        use: the layer's call on a batch of n examples.
        layout: where they are.
        n: number of examples.
        weights: the parameters, for the weighted norms; None: the plain ones only.
    """
    if use.kind == "scale":
        return _Scale(use, layout, n, weights)
    if use.kind == "embedding":
        return _Embedding(use, layout, n, weights)
    if use.kind in ("shift", "factor"):
        return _Broadcast(use, layout, n, weights)
    matrix = _Convolution(use, layout, n) if use.kind == "conv" else _Matrix(use, layout, n)
    positions, width = matrix.met.shape[2:]
    if positions == 1:
        return _Single(matrix, weights)
    return _Gram(matrix) if weights is None and positions < width else _Direct(matrix, weights)


def _positions(tensor: Tensor, layout: Layout, n: int, features: int = 1) -> Tensor:
    """``(n, positions, features)`` of a tensor whose last dimensions are features."""
    rows = layout.rows(tensor, n)
    width = rows.shape[rows.dim() - features :].numel()
    return rows.reshape(n, -1, width)


def _weighings(size: int, name: str, weights: Weights | None, like: Tensor) -> Tensor:
    """``(size, kinds)``: 1 and θ² for each element of a parameter; squares times this are its norms."""
    ones = torch.ones(size, dtype=like.dtype, device=like.device)
    return ones[:, None] if weights is None else torch.stack([ones, weights[name].reshape(-1).square()], dim=1)


class _Matrix:
    """A linear layer: a ``(n, groups, positions, in)`` met, gradients ``(n, groups, positions, out)``."""

    def __init__(self, use: Use, layout: Layout, n: int) -> None:
        self.use, self.layout, self.n = use, layout, n
        self.met = _positions(use.input, layout, n)[:, None]

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient in that form."""
        return _positions(gradient, self.layout, self.n)[:, None]

    @property
    def groups(self) -> int:
        """Blocks of a grouped convolution."""
        return self.met.shape[1]


class _Convolution(_Matrix):
    """A convolution as a linear layer on its unfolded input."""

    def __init__(self, use: Use, layout: Layout, n: int) -> None:
        self.use, self.layout, self.n = use, layout, n
        self.met = self._grouped(_unfolded(use))

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient in that form."""
        return self._grouped(gradient.flatten(2))

    def _grouped(self, tensor: Tensor) -> Tensor:
        """``(batch, channels, places)`` as ``(n, groups, positions, channels of a group)``."""
        groups = self.use.options["groups"]
        split = tensor.reshape(len(tensor), groups, -1, tensor.shape[-1]).transpose(2, 3)
        if self.layout.fold is None:
            return split
        rows = self.layout.rows(split, self.n)
        return rows.transpose(1, 2).reshape(self.n, groups, -1, split.shape[-1])


def _unfolded(use: Use) -> Tensor:
    """What each place of a convolution's output saw, ``(batch, channels × kernel, places)``."""
    met, options = use.input, use.options
    kernel, dilation, padding = options["kernel"], options["dilation"], options["padding"]
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same":
        edges = [(r // 2, r - r // 2) for r in reach]
    else:
        edges = [(p, p) for p in ((0,) * len(kernel) if padding == "valid" else padding)]
    seen = functional.pad(met, [edge for pair in reversed(edges) for edge in pair])
    for i, (span, step, gap) in enumerate(zip(reach, options["stride"], dilation, strict=True)):
        seen = seen.unfold(2 + i, span + 1, step)[..., ::gap]
    dims = len(kernel)
    # (batch, channels, places …, kernel …) to (batch, channels, kernel …, places …)
    order = [0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims)]
    return seen.permute(order).reshape(len(met), met.shape[1] * torch.Size(kernel).numel(), -1)


class _Single(Norms):
    """One position: ‖g‖²‖a‖², from the summed squares of g alone."""

    def __init__(self, matrix: _Matrix, weights: Weights | None) -> None:
        self._matrix, self._weights = matrix, weights
        self._power: Tensor | None = None

    def add(self, back: Tensor) -> None:
        """Squares of g for one cotangent."""
        rows = self._matrix.back(back)[:, :, 0]
        self._power = rows.square() if self._power is None else self._power.addcmul_(rows, rows)

    def take(self) -> Mapping[str, Tensor]:
        """Of weight and bias."""
        assert self._power is not None
        power, self._power = self._power, None
        use, energy = self._matrix.use, self._matrix.met[:, :, 0].square()
        found = {}
        if use.weight is not None:
            kinds = [(power.sum(dim=2) * energy.sum(dim=2)).sum(dim=1)]
            if self._weights is not None:
                squared = self._weights[use.weight].square()
                squared = squared.reshape(self._matrix.groups, -1, energy.shape[2])
                kinds.append((power * torch.einsum("ngi,goi->ngo", energy, squared)).sum(dim=(1, 2)))
            found[use.weight] = torch.stack(kinds, dim=1)
        if use.bias is not None:
            flat = power.reshape(len(power), -1)
            found[use.bias] = flat @ _weighings(flat.shape[1], use.bias, self._weights, flat)
        return found


class _Gram(Norms):
    """Few positions: Σ_{t,t'} (a_t·a_t')(g_t·g_t'), from the summed Gram matrices of g."""

    def __init__(self, matrix: _Matrix) -> None:
        self._matrix = matrix
        self._gram: Tensor | None = None

    def add(self, back: Tensor) -> None:
        """Gram matrices of g for one cotangent."""
        rows = self._matrix.back(back).flatten(0, 1)
        turned = rows.transpose(1, 2)
        self._gram = torch.bmm(rows, turned) if self._gram is None else self._gram.baddbmm_(rows, turned)

    def take(self) -> Mapping[str, Tensor]:
        """Of weight and bias."""
        assert self._gram is not None
        gram, self._gram = self._gram, None
        use, met = self._matrix.use, self._matrix.met.flatten(0, 1)
        n = self._matrix.n
        found = {}
        if use.weight is not None:
            found[use.weight] = (torch.bmm(met, met.transpose(1, 2)) * gram).reshape(n, -1).sum(dim=1)[:, None]
        if use.bias is not None:
            found[use.bias] = gram.reshape(n, -1).sum(dim=1)[:, None]
        return found


class _Direct(Norms):
    """Many positions: the gradient of each example is formed, squared and dropped."""

    def __init__(self, matrix: _Matrix, weights: Weights | None) -> None:
        use, met = matrix.use, matrix.met
        self._matrix, self._weights = matrix, weights
        self._sums: dict[str, Tensor] = {}
        out = (use.shape[1] if use.kind == "conv" else use.shape[-1]) // matrix.groups
        self._inputs = met.flatten(0, 1)
        self._step = max(1, _GRADIENTS // (matrix.groups * out * met.shape[3]))

    def add(self, back: Tensor) -> None:
        """The gradients for one cotangent."""
        use, n = self._matrix.use, self._matrix.n
        rows = self._matrix.back(back)
        if use.weight is not None:
            turned = rows.flatten(0, 1).transpose(1, 2)
            parts = [self._squares(turned, start, use.weight) for start in range(0, n, self._step)]
            self._count(use.weight, torch.cat(parts))
        if use.bias is not None:
            total = rows.sum(dim=2).reshape(n, -1)
            self._count(use.bias, total.square() @ _weighings(total.shape[1], use.bias, self._weights, total))

    def _squares(self, turned: Tensor, start: int, weight: str) -> Tensor:
        """``(examples, kinds)`` of some examples, in float64: single precision loses 0.1 % of a million squares."""
        groups = self._matrix.groups
        some = slice(start * groups, (start + self._step) * groups)
        gradient = torch.bmm(turned[some], self._inputs[some])
        squares = gradient.reshape(len(gradient) // groups, -1).square_()
        sums = [squares.sum(dim=1, dtype=torch.float64)]
        if self._weights is not None:
            sums.append(squares.mul_(self._weights[weight].reshape(-1).square()).sum(dim=1, dtype=torch.float64))
        return torch.stack(sums, dim=1)

    def _count(self, name: str, found: Tensor) -> None:
        self._sums[name] = self._sums[name] + found if name in self._sums else found

    def take(self) -> Mapping[str, Tensor]:
        """Of weight and bias."""
        found, self._sums = self._sums, {}
        return found


class _Reduced(Norms):
    """Parameters whose gradient for each example is small: formed, squared, and added up."""

    def __init__(self, weights: Weights | None) -> None:
        self._weights = weights
        self._power: dict[str, Tensor] = {}

    @abstractmethod
    def gradients(self, back: Tensor) -> Mapping[str, Tensor]:
        """``(n, size)`` of each parameter."""

    def add(self, back: Tensor) -> None:
        """The squares for one cotangent."""
        for name, gradient in self.gradients(back).items():
            known = self._power.get(name)
            self._power[name] = gradient.square() if known is None else known.addcmul_(gradient, gradient)

    def take(self) -> Mapping[str, Tensor]:
        """Of each parameter."""
        power, self._power = self._power, {}
        return {k: p @ _weighings(p.shape[1], k, self._weights, p) for k, p in power.items()}


class _Scale(_Reduced):
    """A factor and a shift for each feature: channels in dimension 1, or the last dimensions."""

    def __init__(self, use: Use, layout: Layout, n: int, weights: Weights | None) -> None:
        super().__init__(weights)
        self._use, self._layout, self._n = use, layout, n
        self._normal = self._positions(use.input)

    def _positions(self, tensor: Tensor) -> Tensor:
        last = self._use.options.get("last", 0)
        features_last = tensor if last else tensor.movedim(1, -1)
        return _positions(features_last, self._layout, self._n, last or 1)

    def gradients(self, back: Tensor) -> Mapping[str, Tensor]:
        """Sums over positions."""
        rows = self._positions(back)
        found = {}
        if self._use.weight is not None:
            found[self._use.weight] = torch.einsum("ntf,ntf->nf", rows, self._normal)
        if self._use.bias is not None:
            found[self._use.bias] = rows.sum(dim=1)
        return found


class _Broadcast(_Reduced):
    """A parameter that was added to activations or multiplied with them."""

    def __init__(self, use: Use, layout: Layout, n: int, weights: Weights | None) -> None:
        super().__init__(weights)
        name = use.weight if use.kind == "factor" else use.bias
        assert name is not None
        self._use, self._layout, self._n, self._name = use, layout, n, name
        shape = use.options["shape"] if use.kind == "factor" else use.input.shape
        aligned = (1,) * (len(use.shape) - len(shape)) + tuple(shape)
        self._summed = [i for i, size in enumerate(aligned) if size == 1 and i != layout.axis]

    def gradients(self, back: Tensor) -> Mapping[str, Tensor]:
        """Sums over the dimensions along which the parameter was repeated."""
        met = back * self._use.input if self._use.kind == "factor" else back
        kept = met.sum(dim=self._summed, keepdim=True) if self._summed else met
        return {self._name: self._layout.rows(kept, self._n).reshape(self._n, -1)}


class _Embedding(Norms):
    """Rows of a table: the gradients of one example's equal tokens add up before they are squared."""

    def __init__(self, use: Use, layout: Layout, n: int, weights: Weights | None) -> None:
        assert use.weight is not None
        self._name, self._layout, self._n = use.weight, layout, n
        tokens = _positions(use.input[..., None], layout, n)[..., 0]
        kept = (tokens != use.options["padding"])[..., None]
        self._same = (tokens[:, :, None] == tokens[:, None, :]) & kept
        self._squared = None if weights is None else weights[use.weight].square()[tokens]
        self._sums: Tensor | None = None

    def add(self, back: Tensor) -> None:
        """Over pairs of equal tokens."""
        rows = _positions(back, self._layout, self._n)
        turned = rows.transpose(1, 2)
        kinds = [((rows @ turned) * self._same).sum(dim=(1, 2))]
        if self._squared is not None:
            kinds.append((((rows * self._squared) @ turned) * self._same).sum(dim=(1, 2)))
        found = torch.stack(kinds, dim=1)
        self._sums = found if self._sums is None else self._sums + found

    def take(self) -> Mapping[str, Tensor]:
        """Of the table."""
        assert self._sums is not None
        found, self._sums = self._sums, None
        return {self._name: found}
