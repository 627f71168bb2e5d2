"""Attacks along the gradient of the model in its inputs: FGSM and PGD, in the L∞ and the L2 ball.

What rises is not the loss but the log-odds of a wrong answer, log Σ_{k≠y} exp f_k − f_y: their gradient has the
direction of the cross-entropy's, and does not underflow to 0 where the model is sure. Later starts rise f_t − f_y
for one wrong class t each, the most probable first (Croce and Hein 2020). The state is NumPy's, in units of the ball
(`flataudit.attacks.region`); only the gradient is torch's.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region
from flataudit.attacks.schedule import Schedule
from flataudit.attacks.victims import Victims, wrong
from flataudit.contracts import Differentiable
from flataudit.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["gradients", "has_gradients", "pgd"]


def has_gradients(model: Differentiable, inputs: "NDArray[np.generic]") -> bool:
    """Whether the outputs of a model have a derivative in its inputs, which need not be one that helps."""
    x, _ = model.tensors(inputs[:1], None)
    if not x.is_floating_point():
        return False
    try:
        return model.raw_outputs(model.parameters, x.requires_grad_()).requires_grad
    except RuntimeError:  # an operation that torch cannot derive
        return False


def gradients(
    model: Differentiable,
    inputs: "NDArray[np.floating]",
    labels: "NDArray[np.int64]",
    *,
    rivals: "NDArray[np.int64] | None" = None,
) -> "tuple[NDArray[np.bool_], NDArray[np.floating]]":
    """Whether each answer is wrong, ``(n,)``, and the gradient of its log-odds of a wrong answer, ``(n, …)``.

    Args:
        model: with outputs ``(n, classes)``.
        inputs: ``(n, …)``, at most a batch.
        labels: ``(n,)``.
        rivals: ``(n,)`` wrong classes, whose lead over the label rises instead; None: all of them.

    A gradient that is not a finite number becomes 0.
    """
    x = model.tensors(inputs, None)[0].requires_grad_()
    outputs = model.raw_outputs(model.parameters, x)
    y = torch.as_tensor(labels, device=outputs.device)[:, None]
    own = outputs.gather(1, y)[:, 0]
    if rivals is None:
        ahead = outputs.scatter(1, y, -torch.inf).logsumexp(dim=1)
    else:
        ahead = outputs.gather(1, torch.as_tensor(rivals, device=outputs.device)[:, None])[:, 0]
    model.meter.backward += len(x)
    (slopes,) = torch.autograd.grad((ahead - own).sum(), x, materialize_grads=True)
    finite = slopes.nan_to_num(0.0, 0.0, 0.0).to(torch.promote_types(slopes.dtype, torch.float32))
    return wrong(outputs.detach().double().cpu().numpy(), labels), np.asarray(finite.cpu().numpy())


def pgd(
    model: Differentiable, victims: Victims, region: Region, *, seed: int, schedule: Schedule, purse: Purse
) -> "NDArray[np.bool_]":
    """Which examples projected gradient ascent fools (Madry et al. 2018), ``(n,)``.

    The first start is the input itself, the others are uniform in the ball. An example is done at its first iterate
    that the model gets wrong, which no later one can better, and is out of all passes that follow; it counts only if
    the model as it is served (`predict`) is wrong on it too. Where the purse is empty, those not reached are False.
    """
    fooled = np.zeros(len(victims), dtype=bool)
    for start in range(schedule.starts):
        left = np.flatnonzero(~fooled)
        for first in range(0, len(left), model.batch_size):
            if purse.empty():
                return fooled
            chosen = left[first : first + model.batch_size]
            climb = _Climb(model, victims.only(chosen), region, seed, start)
            fooled[chosen] = climb.run(schedule, purse)
    return fooled


class _Climb:
    """One start of one batch; shrinks as examples are done."""

    def __init__(self, model: Differentiable, victims: Victims, region: Region, seed: int, start: int) -> None:
        self._model, self._victims = model, victims
        self._ball, self._alive = region.around(victims.inputs), np.arange(len(victims))
        self._found = np.array(victims.inputs, copy=True)
        rivals = victims.rivals()
        self._rivals = rivals[:, (start - 1) % rivals.shape[1]] if start else None
        draws = Draws(seed, f"attack/start {start}", victims.places)
        self._z = self._ball.random(draws) if start else self._ball.still()

    def run(self, schedule: Schedule, purse: Purse) -> "NDArray[np.bool_]":
        claimed = np.zeros(len(self._victims), dtype=bool)
        for step in range(schedule.steps + 1):
            x = self._ball.at(self._z)
            labels = self._victims.labels[self._alive]
            if step == schedule.steps:
                fooled = wrong(self._model.predict(x), labels)
            else:
                rivals = None if self._rivals is None else self._rivals[self._alive]
                fooled, slopes = gradients(self._model, x, labels, rivals=rivals)
            done = self._alive[fooled]
            claimed[done], self._found[done] = True, x[fooled]
            if step == schedule.steps or purse.empty():
                break
            self._rise(slopes, schedule.step_size, ~fooled)
            if not len(self._alive):
                break
        return self._served(claimed)

    def _rise(self, slopes: "NDArray[np.floating]", length: float, kept: "NDArray[np.bool_]") -> None:
        """One step of those that are kept; where it changes nothing no later one will, and the example is left."""
        rise = self._ball.steepest((slopes * self._ball.span).astype(self._z.dtype, copy=False))
        moved = self._ball.inside(self._z + length * rise)
        kept = kept & (moved != self._z).reshape(len(moved), -1).any(axis=1)
        if kept.all():
            self._z = moved
        else:
            self._ball, self._z, self._alive = self._ball.only(kept), moved[kept], self._alive[kept]

    def _served(self, claimed: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
        """Those of the claims on which the model as it is served is wrong."""
        chosen = np.flatnonzero(claimed)
        if len(chosen):
            claimed[chosen] = wrong(self._model.predict(self._found[chosen]), self._victims.labels[chosen])
        return claimed
