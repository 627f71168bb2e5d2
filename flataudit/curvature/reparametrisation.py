"""The same classifier at other parameters: what a measure of flatness should not react to, and often does (Dinh 2017).

A ReLU layer times α and the next one over α compute what they computed; so do weights before a batch norm times α with
its statistics scaled along; and logits times a temperature rank the classes as before. Whether a pair of layers is such
a pair is tried, not concluded from names.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flataudit.contracts import AuditData, Differentiable, Meter
from flataudit.curvature.deadline import Deadline
from flataudit.curvature.losses import Loss
from flataudit.curvature.recording import Use
from flataudit.curvature.structure import Pass
from flataudit.curvature.surface import Surface
from flataudit.specs import Task

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

__all__ = ["Reparametrised", "before_batch_norm", "logit_scale", "rescaled_pair"]

TOLERANCE = 1e-3
_MOST_TRIED = 12


class Reparametrised:
    """A model at other parameters and buffers, its outputs times a factor; a `Differentiable` of its own."""

    def __init__(
        self,
        model: Differentiable,
        *,
        parameters: Mapping[str, Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
        factor: float = 1.0,
    ) -> None:
        self._model, self._buffers, self._factor = model, dict(buffers or {}), factor
        self._changes = dict(parameters or {})
        self.parameters: Mapping[str, Tensor] = {**model.parameters, **self._changes}
        self.task: Task = model.task
        self.loss_function: Loss = model.loss_function
        self.batch_size, self.dtype, self.device = model.batch_size, model.dtype, model.device
        self.meter = Meter()
        """Its own: what is remembered of the model is not true of this one."""

    def charge(self) -> None:
        """Book what went through this form on the model's own meter, once."""
        self._model.meter.add(self.meter)
        self.meter = Meter(shared=self.meter.shared)

    def raw_outputs(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The model's, times the factor; counted here and not there."""
        forward = self._model.meter.forward
        found = self._model.raw_outputs({**self._buffers, **parameters}, inputs)
        self._model.meter.forward = forward
        self.meter.forward += len(inputs)
        return self._factor * found

    def loss(self, parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """``loss_function.mean`` of `raw_outputs`."""
        return self.loss_function.mean(self.raw_outputs(parameters, inputs), targets)

    def precise(self) -> "Differentiable | None":
        """The same in float64."""
        exact = self._model.precise()
        if exact is None:
            return None
        wide = [{n: t.double() for n, t in some.items()} for some in (self._changes, self._buffers)]
        return Reparametrised(exact, parameters=wide[0], buffers=wide[1], factor=self._factor)

    def tensors(self, inputs: "NDArray[generic]", targets: "NDArray[generic] | None") -> "tuple[Tensor, Tensor | None]":
        """The model's."""
        return self._model.tensors(inputs, targets)

    def weights(self) -> "Mapping[str, NDArray[generic]]":
        """Copies of these parameters."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.parameters.items()}

    def predict(self, inputs: "NDArray[generic]") -> "NDArray[generic]":
        """The model's at these parameters, without the factor."""
        return self._model.predict_at(self.weights(), inputs)

    def predict_at(self, weights: "Mapping[str, NDArray[generic]]", inputs: "NDArray[generic]") -> "NDArray[generic]":
        """The model's at those parameters, without the factor."""
        return self._model.predict_at({**self.weights(), **weights}, inputs)


def rescaled_pair(surface: Surface, factor: float) -> tuple[Reparametrised, str] | None:
    """One layer times a factor and the next over it, with the outputs unchanged; None: no two layers are such a pair.

    Args:
        surface: of the model.
        factor: α > 0.

    Returns:
        The model at those parameters, and the names of the two weights.
    """
    seen = Pass(surface, next(surface.batches(0, min(16, len(surface.data)))))
    for first, second in _neighbours(seen.uses):
        assert first.weight is not None and second.weight is not None
        changes = {name: seen.fixed[name] * factor for name in (first.weight, first.bias) if name is not None}
        changes[second.weight] = seen.fixed[second.weight] / factor
        moved = Reparametrised(surface.model, parameters=changes)
        if _same(seen, moved):
            return moved, f"{first.weight}, {second.weight}"
    return None


def before_batch_norm(surface: Surface, factor: float) -> tuple[Reparametrised, str] | None:
    """The weights before a batch norm times a factor, its statistics with them; None: there is no such layer."""
    seen = Pass(surface, next(surface.batches(0, min(16, len(surface.data)))))
    for first, second in islice(pairwise(seen.uses), _MOST_TRIED):
        if first.kind not in ("linear", "conv") or "mean" not in second.options or first.weight is None:
            continue
        changes = {name: seen.fixed[name] * factor for name in (first.weight, first.bias) if name is not None}
        stem = (second.weight or second.bias or "").rpartition(".")[0]
        buffers = {
            f"{stem}.running_mean": second.options["mean"] * factor,
            f"{stem}.running_var": second.options["variance"] * factor**2,
        }
        moved = Reparametrised(surface.model, parameters=changes, buffers=buffers)
        if _same(seen, moved):
            return moved, f"{first.weight}, {stem}"
    return None


def logit_scale(model: Differentiable, data: AuditData, *, deadline: Deadline | None = None) -> float:
    """Root mean square of the logits about each example's mean: what a temperature multiplies.

    Raises:
        OutOfTime: the deadline came before all examples.
    """
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, _ in (deadline or Deadline()).each(data.batches(model.batch_size)):
            found = model.raw_outputs(model.parameters, model.tensors(inputs, None)[0]).double()
            centred = found - found.mean(dim=-1, keepdim=True) if found.dim() > 1 and found.shape[-1] > 1 else found
            total, count = total + float(centred.square().sum()), count + centred.numel()
    return math.sqrt(total / max(count, 1))


def _neighbours(uses: Sequence[Use]) -> Iterator[tuple[Use, Use]]:
    for first, second in islice(pairwise(uses), _MOST_TRIED):
        known = first.kind in ("linear", "conv", "scale") and second.kind in ("linear", "conv")
        if known and first.weight is not None and second.weight is not None:
            yield first, second


def _same(seen: Pass, moved: Reparametrised) -> bool:
    before = seen.outputs.detach()
    try:
        with torch.no_grad():
            after = moved.raw_outputs(moved.parameters, seen.batch.inputs)
    except RuntimeError:  # a buffer of that name is not there
        return False
    return bool((after - before).norm() <= TOLERANCE * before.norm())
