"""How many examples settle a question, and how often one set may be asked: closed forms of decisions and of `plan`.

Throughout, ``variance`` is the per-example variance of the paired difference. For two classifiers that
disagree in correctness on a share q of the examples and differ by Δ in accuracy it is q − Δ².
Any-may-pass questions (is one of k challengers better?) divide α by k; all-must-pass ones need no correction.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

from flataudit.errors import ConfigurationError

__all__ = [
    "alpha_left",
    "alpha_of_decision",
    "alpha_spent",
    "decisions_until",
    "detectable_difference",
    "detectable_margin",
    "examples_by_hoeffding",
    "examples_for_accuracy",
    "examples_for_difference",
    "examples_for_non_inferior_accuracy",
    "examples_for_non_inferiority",
    "examples_unpaired",
    "half_width",
    "holm",
    "power_of_difference",
    "power_of_non_inferior_accuracy",
    "power_of_non_inferiority",
]

_NORMAL = NormalDist()


def _z(probability: float) -> float:
    return _NORMAL.inv_cdf(probability)


# ── One accuracy ──


def examples_for_accuracy(accuracy: float, half_width: float, confidence: float = 0.95) -> int:
    """Examples for one accuracy to lie within ``± half_width`` (Wald): z²p(1−p)/h².

    >>> examples_for_accuracy(0.9, 0.01)
    3458
    """
    return math.ceil(_z((1 + confidence) / 2) ** 2 * accuracy * (1 - accuracy) / half_width**2)


def half_width(accuracy: float, n: int, confidence: float = 0.95) -> float:
    """The inverse of `examples_for_accuracy`: n examples give one accuracy within ± this.

    >>> round(half_width(0.9, 3458), 4)
    0.01
    """
    return _z((1 + confidence) / 2) * math.sqrt(accuracy * (1 - accuracy) / n)


def examples_by_hoeffding(
    half_width: float, confidence: float = 0.95, *, uses: int = 1, adaptive: bool = False, two_sided: bool = True
) -> int:
    """Examples for an accuracy within ``half_width`` whatever it is (Hoeffding 1963): ln(m/δ)/2h², δ = 1 − confidence.

    m is 2 for both sides, times ``uses`` of the same set, or 2^uses where each use may depend on the answers to the
    former ones, each one bit (Renggli et al. 2019, ease.ml/ci).

    >>> examples_by_hoeffding(0.01)
    18445
    >>> [examples_by_hoeffding(0.01, 0.9999, uses=u, two_sided=False) for u in (1, 32)]
    [46052, 63381]
    >>> examples_by_hoeffding(0.01, 0.9999, uses=32, adaptive=True, two_sided=False)
    156956
    """
    events = (math.log(2) if two_sided else 0.0) + (uses * math.log(2) if adaptive else math.log(uses))
    return math.ceil((events - math.log(1 - confidence)) / (2 * half_width**2))


# ── Two models ──


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


def power_of_difference(
    difference: float, discordance: float, n: int, *, confidence: float = 0.95, challengers: int = 1
) -> float:
    """Chance that n examples show a paired accuracy difference Δ: Φ((|Δ|√n − z₁₋α/₂ √q) / √(q − Δ²)).

    >>> round(power_of_difference(0.01, 0.06, 4707), 3)
    0.8
    """
    z = _z(1 - (1 - confidence) / challengers / 2)
    lead = abs(difference) * math.sqrt(n) - z * math.sqrt(discordance)
    return _reached(lead, math.sqrt(max(discordance - difference**2, 0.0)))


def detectable_difference(
    n: int, discordance: float, *, confidence: float = 0.95, power: float = 0.8, challengers: int = 1
) -> float:
    """The smallest Δ that n examples show with that power; the inverse of `examples_for_difference`.

    Raises:
        ConfigurationError: n examples cannot show even the largest difference, Δ = q.

    >>> round(detectable_difference(4707, 0.06), 4)
    0.01
    """

    def power_at(difference: float) -> float:
        return power_of_difference(difference, discordance, n, confidence=confidence, challengers=challengers)

    if power_at(discordance) < power:
        raise ConfigurationError(
            f"enough examples to show a difference of {discordance:g}, all that differs",
            got=f"{n} examples",
            remedy="collect more examples or ask for less power",
        )
    return _smallest(power_at, power, discordance)


def examples_unpaired(
    first: float, second: float, *, confidence: float = 0.95, power: float = 0.8, challengers: int = 1
) -> int:
    """Examples in each of two separate sets to tell two accuracies apart; what pairing saves.

    n = (z₁₋α/₂ √(2p̄(1 − p̄)) + z_power √(p₁(1 − p₁) + p₂(1 − p₂)))² / (p₁ − p₂)², with p̄ their mean.

    >>> examples_unpaired(0.90, 0.91)
    13495
    """
    z, mean = _z(1 - (1 - confidence) / challengers / 2), (first + second) / 2
    spread = math.sqrt(first * (1 - first) + second * (1 - second))
    return math.ceil((z * math.sqrt(2 * mean * (1 - mean)) + _z(power) * spread) ** 2 / (first - second) ** 2)


def examples_for_non_inferiority(
    margin: float, variance: float, *, difference: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Examples for the paired lower bound to clear −margin when the true difference is ``difference``.

    n = (z₁₋α/₂ + z_power)² · variance / (margin + difference)². For accuracies it takes the margin to be small beside
    the share of discordant examples; `examples_for_non_inferior_accuracy` does not.

    >>> [examples_for_non_inferiority(0.01, q) for q in (0.05, 0.10)]
    [3925, 7849]
    """
    return math.ceil((_z((1 + confidence) / 2) + _z(power)) ** 2 * variance / (margin + difference) ** 2)


def power_of_non_inferiority(
    margin: float, variance: float, n: int, *, difference: float = 0.0, confidence: float = 0.95
) -> float:
    """Chance that the paired lower bound of n examples clears −margin: Φ((margin + Δ)√n/√variance − z₁₋α/₂).

    At Δ = −margin this is the size of the test, (1 − confidence)/2.

    >>> round(power_of_non_inferiority(0.01, 0.05, 3925), 3)
    0.8
    >>> round(power_of_non_inferiority(0.01, 0.05, 3925, difference=-0.01), 3)
    0.025
    """
    deviation = math.sqrt(variance)
    return _reached((margin + difference) * math.sqrt(n) - _z((1 + confidence) / 2) * deviation, deviation)


def detectable_margin(
    n: int, variance: float, *, difference: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> float:
    """The smallest margin within which n examples show a challenger not worse, with that power.

    (z₁₋α/₂ + z_power) √(variance/n) − Δ, the inverse of `examples_for_non_inferiority`; not below 0.

    >>> round(detectable_margin(3925, 0.05), 4)
    0.01
    """
    return max(0.0, (_z((1 + confidence) / 2) + _z(power)) * math.sqrt(variance / n) - difference)


def examples_for_non_inferior_accuracy(
    margin: float, discordance: float, *, difference: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Examples for Tango's lower end to clear −margin, with the variance that his score test has there (Nam 1997).

    n = (z₁₋α/₂ √v₀ + z_power √(q − Δ²))² / (margin + Δ)². v₀ = 2q̃ − m(1 + m), with q̃ the most likely chance of a loss
    if the true difference were −m; it exceeds q where the margin is not small beside q.

    >>> [examples_for_non_inferior_accuracy(0.01, q) for q in (0.05, 0.10)]
    [4020, 7893]
    >>> examples_for_non_inferior_accuracy(0.02, 0.03), examples_for_non_inferiority(0.02, 0.03)
    (715, 589)
    """
    null, true = _deviations(margin, discordance, difference)
    return math.ceil((_z((1 + confidence) / 2) * null + _z(power) * true) ** 2 / (margin + difference) ** 2)


def power_of_non_inferior_accuracy(
    margin: float, discordance: float, n: int, *, difference: float = 0.0, confidence: float = 0.95
) -> float:
    """Chance that Tango's lower end of n examples clears −margin, as in `examples_for_non_inferior_accuracy`.

    >>> round(power_of_non_inferior_accuracy(0.02, 0.03, 589), 2)
    0.71
    """
    null, true = _deviations(margin, discordance, difference)
    return _reached((margin + difference) * math.sqrt(n) - _z((1 + confidence) / 2) * null, true)


def _deviations(margin: float, discordance: float, difference: float) -> tuple[float, float]:
    """√v₀ at −margin and √(q − Δ²), of one example's paired difference."""
    gain, loss = (discordance + difference) / 2, (discordance - difference) / 2
    linear = gain + loss + (2 - gain + loss) * margin
    most_likely = (math.sqrt(max(linear**2 - 8 * loss * margin * (1 + margin), 0.0)) + linear) / 4
    null = max(2 * most_likely - margin * (1 + margin), 0.0)
    return math.sqrt(null), math.sqrt(max(discordance - difference**2, 0.0))


# ── Many questions to one set ──


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


def alpha_of_decision(t: int, alpha: float = 0.05) -> float:
    """α_t = 6α/(π²t²), what the t-th decision on one validation set may spend; all of them sum to α exactly.

    Each decision is made at confidence 1 − α_t, so that the chance of ever promoting wrongly on this set is at
    most α, however many decisions follow and whatever they depend on (union bound; alpha-spending).

    Raises:
        ConfigurationError: t is below 1.

    >>> [round(alpha_of_decision(t), 5) for t in (1, 2, 10)]
    [0.0304, 0.0076, 0.0003]
    """
    if t < 1:
        raise ConfigurationError("the number of a decision, from 1", got=str(t), remedy="count this decision too")
    return 6 * alpha / (math.pi * t) ** 2


def alpha_spent(decisions: int, alpha: float = 0.05) -> float:
    """Σ α_t over the first decisions; below ``alpha`` for ever.

    >>> round(alpha_spent(10), 4)
    0.0471
    """
    return math.fsum(alpha_of_decision(t, alpha) for t in range(1, decisions + 1))


def alpha_left(decisions: int, alpha: float = 0.05) -> float:
    """What all later decisions together may still spend, ``alpha`` minus `alpha_spent`.

    >>> alpha_left(0)
    0.05
    """
    return max(0.0, alpha - alpha_spent(decisions, alpha))


def decisions_until(floor: float, alpha: float = 0.05) -> int:
    """How many decisions a set bears before α_t falls below the floor: ⌊√(6α/(π² floor))⌋.

    >>> decisions_until(0.001)
    5
    """
    return math.floor(math.sqrt(6 * alpha / floor) / math.pi * (1 + 1e-12))


def _reached(lead: float, deviation: float) -> float:
    """Φ(lead / deviation), a step where nothing deviates."""
    return _NORMAL.cdf(lead / deviation) if deviation > 0 else float(lead >= 0)


def _smallest(power_at: Callable[[float], float], power: float, most: float) -> float:
    """Where a rising power first reaches the wanted one, by bisection over (0, most]."""
    low, high = 0.0, most
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if power_at(middle) >= power else (middle, high)
    return high
