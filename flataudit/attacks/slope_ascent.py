"""The steepest chord near each input, climbed to along the gradient of the outputs.

At a fixed length the chord's end moves to where ½‖f(x + δ) − f(x)‖² rises most, δ/s ← r g/‖g‖ with g its gradient in
δ/s. On a linear map this is power iteration on JᵀJ and the slope tends to the spectral norm; one output needs one step.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flataudit.attacks.slopes import Chords
from flataudit.contracts import Differentiable
from flataudit.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ascended_slopes"]


def ascended_slopes(
    model: Differentiable,
    inputs: "NDArray[np.generic]",
    places: "NDArray[np.int64]",
    chords: Chords,
    *,
    seed: int,
    steps: int,
    may_go_on: Callable[[], bool],
) -> "NDArray[np.float64] | None":
    """The steepest chord of each example, ``(n,)``; None where it may not go on.

    It takes ``steps`` + 2 forward and ``steps`` backward passes. The outputs are those of
    `flataudit.attacks.slopes.outputs_of`, from what the loss takes and not from logarithms of probabilities.

    Args:
        model: whose outputs have a derivative in the inputs.
        inputs: ``(n, …)``.
        places: ``(n,)`` numbers of the inputs in their data set, on which the first ends depend.
        chords: how long they are.
        seed: of the first ends.
        steps: of the ascent.
        may_go_on: asked before each batch.
    """
    found = []
    for first in range(0, len(inputs), model.batch_size):
        if not may_go_on():
            return None
        part = slice(first, first + model.batch_size)
        climb = _Climb(model, inputs[part], chords, Draws(seed, "slopes/start", places[part]))
        found.append(climb.steepest(steps).cpu().numpy())
    return np.concatenate(found)


class _Climb:
    """One batch; directions are ``(k, values)`` of length 1 in units of s, 0 where a value does not move."""

    def __init__(self, model: Differentiable, inputs: "NDArray[np.generic]", chords: Chords, draws: Draws) -> None:
        self._model, self._x = model, model.tensors(inputs, None)[0].detach()
        scale = chords.scale(inputs.shape[1:])
        self._moves = torch.as_tensor(chords.moves, device=self._x.device)
        self._unit = torch.as_tensor(np.where(chords.moves, scale, 0.0)).to(self._x)
        self._radius = chords.radius
        self._directions = _unit_rows(torch.as_tensor(draws.normals(scale.size)).to(self._x) * self._moves)
        with torch.no_grad():
            self._clean = self._outputs(self._x)

    def steepest(self, steps: int) -> Tensor:
        best = torch.zeros(len(self._x), dtype=torch.float64, device=self._x.device)
        for step in range(steps + 1):
            ends = (self._x.flatten(1) + self._radius * self._unit * self._directions).reshape_as(self._x)
            with torch.set_grad_enabled(step < steps):
                change = self._outputs(ends.requires_grad_()) - self._clean
            best = torch.maximum(best, self._slopes(change.detach(), ends.detach()))
            if step < steps:
                self._turn(change, ends)
        return best

    def _outputs(self, x: Tensor) -> Tensor:
        """``(k, outputs)``; of classes without their mean."""
        found = self._model.raw_outputs(self._model.parameters, x)
        if self._model.task in ("multiclass", "binary"):
            found = found - found.mean(dim=-1, keepdim=True)
        return found.reshape(len(x), -1)

    def _slopes(self, change: Tensor, ends: Tensor) -> Tensor:
        """Of each chord, by the distance that rounding left of it."""
        taken = (ends.double() - self._x.double()).flatten(1)[:, self._moves] / self._unit[self._moves].double()
        length, rise = taken.norm(dim=1), change.double().norm(dim=1)
        return torch.where(length > 0, rise / length, torch.zeros_like(rise))

    def _turn(self, change: Tensor, ends: Tensor) -> None:
        """To where the change grows; where it does not grow anywhere the direction stays."""
        self._model.meter.backward += len(self._x)
        if not change.requires_grad:
            return
        (slopes,) = torch.autograd.grad(change.square().sum() / 2, ends, materialize_grads=True)
        rise = slopes.nan_to_num(0.0, 0.0, 0.0).flatten(1) * self._unit
        grows = rise.abs().amax(dim=1, keepdim=True) > 0
        self._directions = torch.where(grows, _unit_rows(rise), self._directions)


def _unit_rows(rows: Tensor) -> Tensor:
    """Each of length 1, by way of its largest value, so that no square underflows; 0 where all are."""
    tiny = torch.finfo(rows.dtype).tiny
    scaled = rows / rows.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    lengths: Tensor = scaled.norm(dim=1, keepdim=True)
    return scaled / lengths.clamp_min(tiny)
