"""The one number by which dividing a classifier's logits fits its confidences best (Guo et al. 2017).

The loss is convex in the inverse temperature β: its slope is the mean excess of the expected logit over the target's,
and its curvature the mean variance of the logits. Both ends of the scale are therefore known before any search: where
every answer is right the loss falls for ever, and where the slope at β = 0 is not negative the logits say nothing of
the classes.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, ndtri

from flataudit.statistics.clusters import cluster_standard_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NoTemperature", "Temperature", "at_temperature", "fit_temperature"]

_STEPS = 200
_TOLERANCE = 1e-10


class NoTemperature(ValueError):
    """No finite temperature is best; the message says why, in a sentence's part."""


@dataclass(frozen=True)
class Temperature:
    """The temperature of least loss, with its error."""

    estimate: float
    standard_error: float | None
    """By the delta method, from the sandwich (Huber 1967); None where it is unknown."""
    interval: tuple[float, float] | None
    """Normal in the logarithm."""


def at_temperature(log_probabilities: "NDArray[np.float64]", temperature: float) -> "NDArray[np.float64]":
    """Log-probabilities ``(N, classes)`` of the logits divided by a temperature; 1 changes nothing.

    >>> np.exp(at_temperature(np.log([[0.8, 0.2]]), 2.0)).round(4).tolist()
    [[0.6667, 0.3333]]
    """
    return np.asarray(log_softmax(log_probabilities / temperature, axis=1))


def fit_temperature(
    log_probabilities: "NDArray[np.float64]",
    labels: "NDArray[np.int64]",
    units: "NDArray[np.generic] | None" = None,
    *,
    confidence: float = 0.95,
) -> Temperature:
    """The temperature of least mean −log p(label), by Newton's method inside a bracket; exact to 1e-8.

    Args:
        log_probabilities: ``(N, classes)``; logits that differ by a constant a row do as well.
        labels: ``(N,)``.
        units: ``(N,)`` what is independent: the example or the group of each answer; None: each answer.
        confidence: two-sided coverage, approximate.

    Raises:
        NoTemperature: the colder or the hotter, the better, without an end.

    >>> found = fit_temperature(np.log(np.tile([0.9, 0.1], (300, 1))), np.repeat([0, 1], [225, 75]))
    >>> round(found.estimate, 3)  # of log-odds: ln 9 / ln 3
    2.0
    """
    centred = log_probabilities - log_probabilities.max(axis=1, keepdims=True)
    targets = np.take_along_axis(centred, labels[:, None], axis=1)[:, 0]
    if not np.isfinite(centred).all():
        raise NoTemperature("a class has probability 0, which no temperature changes")
    if not np.any(targets < 0):
        raise NoTemperature("every answer is right: the colder, the better, and no temperature is best")
    if float(np.mean(centred.mean(axis=1) - targets)) >= 0:
        raise NoTemperature("the scores do not rise with the right class: the hotter, the better")
    beta = _root(centred, targets)
    slopes, curvature = _slopes(centred, targets, beta)
    places = np.arange(len(labels)) if units is None else units
    error = cluster_standard_error(slopes, places)
    if error is None:
        return Temperature(1 / beta, None, None)
    relative = error / (curvature * beta)
    reach = min(float(ndtri((1 + confidence) / 2)) * relative, 300.0)
    return Temperature(1 / beta, relative / beta, (math.exp(-reach) / beta, math.exp(reach) / beta))


def _slopes(
    centred: "NDArray[np.float64]", targets: "NDArray[np.float64]", beta: float
) -> "tuple[NDArray[np.float64], float]":
    """``(N,)`` slope of each loss at β, and the mean curvature."""
    weights = np.exp(beta * centred)
    weights /= weights.sum(axis=1, keepdims=True)
    first = np.sum(weights * centred, axis=1)
    second = np.sum(weights * centred**2, axis=1) - first**2
    return first - targets, max(float(second.mean()), 1e-300)


def _root(centred: "NDArray[np.float64]", targets: "NDArray[np.float64]") -> float:
    """The β at which the mean slope, which rises with it, is 0; it is negative at 0."""
    low, high, beta = 0.0, math.inf, 1.0
    for _ in range(_STEPS):
        slopes, curvature = _slopes(centred, targets, beta)
        slope = float(slopes.mean())
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curvature
        inside = low < step < min(high, 4 * beta)
        new = step if inside else (2 * beta if math.isinf(high) else (low + high) / 2)
        if abs(new - beta) <= _TOLERANCE * beta:
            return new
        beta = new
    return beta
