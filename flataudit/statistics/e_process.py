"""Looking again and again: an e-process for discordant pairs that stays valid whenever one looks and stops.

A p-value that is read after every 50 examples rejects a third of all true nulls; the e-process is read as often as
one likes. Let s of N discordant examples be won by the challenger. Without a difference each is a fair coin, and the
likelihood ratio of the Beta(½, ½) mixture of coins against the fair one is a martingale of mean 1, so that it ever
reaches 1/α with probability at most α (Ville 1939; Robbins 1970; Ramdas et al. 2023).
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaln, ndtri
from scipy.stats import binom

from flataudit.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "anytime_p_values",
    "confidence_sequence",
    "crossing_probabilities",
    "discordant_for_power",
    "e_value",
    "log_e_values",
]


def log_e_values(gained: "ArrayLike", lost: "ArrayLike") -> "NDArray[np.float64]":
    """Natural logarithm of E = 2ᴺ B(s + ½, N − s + ½) / B(½, ½), with s gained and N − s lost; exact, any shape.

    >>> log_e_values([0, 1], [0, 0]).tolist()
    [0.0, 0.0]
    """
    s, f = np.asarray(gained, dtype=np.float64), np.asarray(lost, dtype=np.float64)
    return np.asarray((s + f) * math.log(2) + betaln(s + 0.5, f + 0.5) - betaln(0.5, 0.5))


def e_value(gained: int, lost: int) -> float:
    """Evidence against equal accuracies: 20 or more rejects at 5 %, at whatever look it is reached; in [0, ∞).

    >>> round(e_value(10, 0), 2)
    180.43
    """
    return math.exp(min(float(log_e_values(gained, lost)), 700.0))


def anytime_p_values(gained: "ArrayLike", lost: "ArrayLike") -> "NDArray[np.float64]":
    """Two-sided p-value at each look, ``(looks,)`` running counts each: min(1, 1 / the largest E so far).

    Valid at every look at once: P(it ever falls to α) ≤ α without a difference.

    >>> anytime_p_values([2, 10, 12], [0, 0, 8]).round(4).tolist()
    [0.6667, 0.0055, 0.0055]
    """
    largest = np.maximum.accumulate(np.atleast_1d(log_e_values(gained, lost)))
    return np.asarray(np.exp(-np.maximum(largest, 0.0)))


def confidence_sequence(gained: int, lost: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the share θ of discordant examples that the challenger wins, valid at all looks at once.

    The θ at which the mixture's likelihood ratio B(s + ½, f + ½) / (B(½, ½) θˢ(1 − θ)ᶠ) stays below 1/α; the
    challenger is the better one where θ > ½. All θ lie inside at every look with probability of at least
    ``confidence``; it may be intersected with those of former looks. Ends by bisection to within 1e-15.

    >>> [round(end, 3) for end in confidence_sequence(60, 40)]
    [0.434, 0.751]
    >>> confidence_sequence(0, 0)
    (0.0, 1.0)
    """
    alpha = _alpha(confidence)
    if gained + lost == 0:
        return 0.0, 1.0
    floor = float(betaln(gained + 0.5, lost + 0.5) - betaln(0.5, 0.5)) + math.log(alpha)
    inside = np.full(2, gained / (gained + lost))
    outside = np.array([0.0, 1.0])
    for _ in range(60):
        middle = (outside + inside) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            wins = gained * np.log(middle) if gained else np.zeros(2)
            losses = lost * np.log1p(-middle) if lost else np.zeros(2)
        rejected = wins + losses <= floor
        outside, inside = np.where(rejected, middle, outside), np.where(rejected, inside, middle)
    low, high = float(outside[0]), float(outside[1])
    return (low if gained else 0.0), (high if lost else 1.0)


def crossing_probabilities(
    share: float, looks: Iterable[int], *, confidence: float = 0.95, naive: bool = False
) -> "NDArray[np.float64]":
    """Probability of having rejected by each look, ``(looks,)``; exact, by recursion over (N, s) in O(N²).

    Args:
        share: true θ, the chance that a discordant example goes to the challenger; ½ is the null.
        looks: increasing numbers of discordant examples at which the evidence is read.
        confidence: 1 − α.
        naive: read a normal test |s − N/2| ≥ z √N/2 instead, to show what peeking costs.

    Raises:
        ConfigurationError: a share outside (0, 1), or looks that do not increase.
    """
    alpha, wanted = _alpha(confidence), list(looks)
    if not 0 < share < 1:
        raise ConfigurationError("a share between 0 and 1", got=f"{share:g}", remedy="0.5 is no difference")
    if wanted != sorted(set(wanted)) or not wanted or wanted[0] < 1:
        raise ConfigurationError("increasing numbers of discordant examples", got=f"{wanted[:5]}", remedy="sort them")
    remaining, last, passed = np.ones(1), 0, []
    for look in wanted:
        step = look - last
        remaining = np.convolve(remaining, binom.pmf(np.arange(step + 1), step, share))
        remaining[_rejected(look, alpha, naive=naive)] = 0.0
        passed.append(1.0 - float(remaining.sum()))
        last = look
    return np.array(passed)


def discordant_for_power(
    share: float, *, confidence: float = 0.95, power: float = 0.8, every: int = 10, most: int = 20_000
) -> int | None:
    """Fewest discordant examples by which the e-process has rejected with that power; exact; None beyond ``most``.

    Divide by the share q of discordant examples for the examples that this takes on average. A true difference of Δ
    has θ = (1 + Δ/q)/2.

    Args:
        share: true θ.
        confidence: 1 − α.
        power: wanted chance of having rejected.
        every: discordant examples between looks, and the resolution of the answer.
        most: where to stop searching.

    >>> discordant_for_power(0.6)
    430
    """
    looks = np.arange(every, most + 1, every)
    for end in _doubling(len(looks)):
        passed = crossing_probabilities(share, looks[:end].tolist(), confidence=confidence)
        if passed[-1] >= power:
            return int(looks[np.flatnonzero(passed >= power)[0]])
    return None


def _doubling(total: int) -> Iterable[int]:
    """Prefix lengths 32, 64, … up to ``total``, so that an early answer costs little."""
    end = 32
    while end < total:
        yield end
        end *= 2
    yield total


def _rejected(n: int, alpha: float, *, naive: bool) -> "NDArray[np.bool_]":
    """``(n + 1,)`` which counts of wins reject at a look."""
    wins = np.arange(n + 1)
    if naive:
        return np.asarray(np.abs(wins - n / 2) >= float(ndtri(1 - alpha / 2)) * math.sqrt(n) / 2)
    return np.asarray(log_e_values(wins, n - wins) >= -math.log(alpha))


def _alpha(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ConfigurationError("a confidence between 0 and 1", got=f"{confidence:g}", remedy="write 0.95")
    return 1 - confidence
