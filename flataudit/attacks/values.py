"""The largest error of a regression within a ball around each input.

A regression has no wrong answer. What an attack looks for is the value farthest from the target, above it or below:
on a linear model w·x + b it is |w·x + b − y| + ε‖w‖_q with q dual to the norm, where no limit of the inputs is in the
way, and both ways are tried since with limits, or for what is not linear, the nearer side may have more room.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region
from flataudit.attacks.schedule import Schedule
from flataudit.attacks.victims import Cases
from flataudit.contracts import Differentiable
from flataudit.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ascent"]


def ascent(
    model: Differentiable, cases: Cases, region: Region, *, seed: int, schedule: Schedule, purse: Purse
) -> "NDArray[np.float64]":
    """The largest |answer − target| that projected gradient ascent finds, ``(n,)``; at least the clean one.

    The first start is the input itself, and moves away from the target; the second moves to its other side; further
    ones begin at uniform points of the ball and take turns. The found inputs are answered once more by the model as it
    is served (`predict`), and that answer counts. Where the purse is empty, those not reached keep their clean error.
    """
    found = np.abs(cases.answers - cases.targets)
    for first in range(0, len(cases), model.batch_size):
        part = np.arange(first, min(first + model.batch_size, len(cases)))
        for start in range(schedule.starts):
            if purse.empty():
                return found
            inputs = _climb(model, cases.only(part), region, seed, start, schedule, purse)
            served = np.abs(model.predict(inputs).astype(np.float64) - cases.targets[part])
            found[part] = np.where(np.isnan(served), np.inf, np.maximum(found[part], served))
    return found


def _climb(
    model: Differentiable, cases: Cases, region: Region, seed: int, start: int, schedule: Schedule, purse: Purse
) -> "NDArray[np.floating]":
    """The inputs ``(k, …)`` of the largest error on one way."""
    ball, away = region.around(cases.inputs), np.where(cases.answers >= cases.targets, 1.0, -1.0) * (-1.0) ** start
    z = ball.random(Draws(seed, f"values/start {start}", cases.places)) if start > 1 else ball.still()
    best, error = ball.at(z), np.abs(cases.answers - cases.targets)
    for step in range(schedule.steps + 1):
        x = ball.at(z)
        answers, slopes = _slopes(model, x)
        further = np.abs(answers - cases.targets) > error
        best[further], error[further] = x[further], np.abs(answers - cases.targets)[further]
        if step == schedule.steps or purse.empty():
            break
        towards = (slopes * ball.span * away.reshape(-1, *[1] * (slopes.ndim - 1))).astype(z.dtype, copy=False)
        z = ball.inside(z + schedule.step_size * ball.steepest(towards))
    return best


def _slopes(
    model: Differentiable, inputs: "NDArray[np.floating]"
) -> "tuple[NDArray[np.float64], NDArray[np.floating]]":
    """Answers ``(k,)`` and their gradients ``(k, …)``; what is not a finite number there becomes 0."""
    x = model.tensors(inputs, None)[0].requires_grad_()
    outputs = model.raw_outputs(model.parameters, x)
    model.meter.backward += len(x)
    (slopes,) = torch.autograd.grad(outputs.sum(), x, materialize_grads=True)
    finite = slopes.nan_to_num(0.0, 0.0, 0.0).to(torch.promote_types(slopes.dtype, torch.float32))
    return outputs.detach().double().cpu().numpy(), np.asarray(finite.cpu().numpy())
