"""How many examples settle a question: closed forms that decisions and `flataudit plan` share.

Throughout, ``variance`` is the per-example variance of the paired difference. For two classifiers that
disagree in correctness on a share q of the examples and differ by Δ in accuracy it is q − Δ².
"""

import math
from statistics import NormalDist

__all__ = ["examples_for_accuracy", "examples_for_difference", "examples_for_non_inferiority", "holm"]


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def examples_for_accuracy(accuracy: float, half_width: float, confidence: float = 0.95) -> int:
    """Examples for one accuracy to lie within ``± half_width`` (Wald): z²p(1−p)/h².

    >>> examples_for_accuracy(0.9, 0.01)
    3458
    """
    return math.ceil(_z((1 + confidence) / 2) ** 2 * accuracy * (1 - accuracy) / half_width**2)


def examples_for_difference(
    difference: float, discordance: float, *, confidence: float = 0.95, power: float = 0.8, challengers: int = 1
) -> int:
    """Examples to detect a paired accuracy difference Δ, Bonferroni over the challengers (Connor 1987).

    n = (z₁₋α/₂ √q + z_power √(q − Δ²))² / Δ², with q the share of examples on which correctness differs.

    >>> [examples_for_difference(0.01, q) for q in (0.02, 0.06, 0.10, 0.20)]
    [1568, 4707, 7847, 15696]
    >>> [examples_for_difference(0.01, 0.06, challengers=k) for k in (5, 10, 50)]
    [7005, 7985, 10242]
    """
    alpha = (1 - confidence) / challengers
    root = _z(1 - alpha / 2) * math.sqrt(discordance) + _z(power) * math.sqrt(max(discordance - difference**2, 0.0))
    return math.ceil(root**2 / difference**2)


def examples_for_non_inferiority(
    margin: float, variance: float, *, difference: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Examples for the paired lower bound to clear −margin when the true difference is ``difference``.

    n = (z₁₋α/₂ + z_power)² · variance / (margin + difference)².

    >>> [examples_for_non_inferiority(0.01, q) for q in (0.05, 0.10)]
    [3925, 7849]
    """
    return math.ceil((_z((1 + confidence) / 2) + _z(power)) ** 2 * variance / (margin + difference) ** 2)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Adjusted p-values of Holm's step-down procedure (1979): reject those at or below α.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: (item[1], item[0]))):
        running = max(running, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = running
    return adjusted
