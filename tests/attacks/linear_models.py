"""Linear classifiers, whose robustness is known exactly, as models with and without gradients."""

import numpy as np
import torch
from networks import Network
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import nn

from flataudit.attacks.region import Region, Room
from flataudit.attacks.victims import Victims
from flataudit.contracts import Meter
from flataudit.specs import Budget

DUAL = {"linf": 1, "l2": 2}
AMPLE = Budget(passes=1e9, seconds=600)


class Answers:
    """Softmax regression that only answers: x W, ``(features, classes)``."""

    task, dtype, device = "multiclass", "float64", "cpu"

    def __init__(self, weights: NDArray[np.float64], batch_size: int = 64) -> None:
        self.weights, self.batch_size, self.meter = weights, batch_size, Meter()

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.float64]:
        self.meter.forward += len(inputs)
        return np.asarray(log_softmax(inputs.reshape(len(inputs), -1).astype(np.float64) @ self.weights, axis=1))


def network(weights: NDArray[np.float64]) -> Network:
    """The same as a torch module."""
    linear = nn.Linear(*weights.shape, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(torch.as_tensor(weights.T))
    return Network(nn.Sequential(nn.Flatten(), linear))


def two_classes(w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the classifier that says 1 where w·x > 0."""
    return np.stack([np.zeros(len(w)), w], axis=1)


def room(size: int, scale: float = 1.0) -> Room:
    """No limits, one unit."""
    wide = np.full(size, np.inf)
    return Room(np.full(size, scale), -wide, wide)


def victims(weights: NDArray[np.float64], inputs: NDArray[np.float64], labels: NDArray[np.int64]) -> Victims:
    """With the linear model's own answers; only those that are right."""
    answers = Answers(weights).predict(inputs)
    right = answers.argmax(axis=1) == labels
    return Victims(inputs, labels, np.arange(len(labels)), answers).only(right)


def robust(weights: NDArray[np.float64], few: Victims, region: Region) -> NDArray[np.bool_]:
    """Every other class k stays behind: (w_y − w_k)·x > ε ‖s ∘ (w_y − w_k)‖_q, q dual to the norm."""
    kept = np.ones(len(few), dtype=bool)
    flat = few.inputs.reshape(len(few), -1).astype(np.float64)
    for k in range(weights.shape[1]):
        ahead = weights[:, few.labels].T - weights[:, k]
        fall = region.epsilon * np.linalg.norm(ahead * region.room.scale, ord=DUAL[region.norm], axis=1)
        kept &= ((ahead * flat).sum(axis=1) > fall) | (few.labels == k)
    return kept
