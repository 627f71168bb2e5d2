"""How much Gaussian noise the weights bear, and what that proves about unseen examples (McAllester 1999).

The bound is the PAC-Bayes-kl one (Maurer 2004): with probability 1 − δ over n independent examples, for all
posteriors Q at once, kl(ê ‖ e) ≤ (KL(Q ‖ P) + ln(2√n / δ)) / n, where ê and e are the 0–1 errors of a network drawn
from Q on the examples and on their distribution. Here Q = N(θ, σ²I) and P = N(0, λ²I) with λ from a grid that is fixed
before any data, each step with a share of δ (Langford & Caruana 2002). It says nothing about networks whose learned
state is not all in θ, as batch norm's statistics are not.
"""

import math

__all__ = ["gaussian_kl", "kl_upper", "pac_bayes_kl"]

_GRID = 64
"""Steps of λ = 10 · 2^(−j / 4), j = 0 …: from 10 down to 2·10⁻⁴."""


def kl_upper(mean: float, bound: float) -> float:
    """The largest p with kl(mean ‖ p) ≤ bound, for means of numbers in [0, 1]; by bisection.

    >>> round(kl_upper(0.0, math.log(2)), 6), round(kl_upper(0.3, 0.0), 6)
    (0.5, 0.3)
    """
    low, high = mean, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _kl(mean, middle) <= bound else (low, middle)
    return low


def gaussian_kl(square: float, dimension: int, *, sigma: float, scale: float) -> float:
    """KL(N(θ, σ²I) ‖ N(0, λ²I)) in nats.

    Args:
        square: ‖θ‖².
        dimension: number of parameters.
        sigma: σ.
        scale: λ.

    >>> gaussian_kl(0.0, 7, sigma=0.3, scale=0.3)
    0.0
    """
    ratio = (sigma / scale) ** 2
    return 0.5 * (square / scale**2 + dimension * (ratio - 1 - math.log(ratio)))


def pac_bayes_kl(
    square: float, dimension: int, *, sigma: float, errors: float, draws: int, n: int, delta: float
) -> tuple[float, float, float]:
    """A bound on the expected 0–1 error of a network drawn from N(θ, σ²I), with probability 1 − δ.

    Half of δ is for the examples (shared by the grid of λ with weights 6 / (π² j²)), half for the ``draws`` by which
    the error on the examples is estimated, which must not be those by which σ was chosen.

    Args:
        square: ‖θ‖².
        dimension: number of parameters.
        sigma: σ.
        errors: mean error of the drawn networks on the examples.
        draws: number of drawn networks.
        n: number of examples, independent and identically distributed.
        delta: δ.

    Returns:
        The bound, KL(Q ‖ P) in nats, and the upper limit of the error on the examples.
    """
    gibbs = kl_upper(errors, math.log(4 / delta) / draws)
    best, at = math.inf, 0.0
    for step in range(_GRID):
        divergence = gaussian_kl(square, dimension, sigma=sigma, scale=10 * 2 ** (-step / 4))
        share = delta / 2 * 6 / (math.pi * (step + 1)) ** 2
        price = (divergence + math.log(2 * math.sqrt(n) / share)) / n
        if price < best:
            best, at = price, divergence
    return kl_upper(gibbs, best), at, gibbs


def _kl(p: float, q: float) -> float:
    """Of two coins."""
    first = p * math.log(p / q) if p > 0 else 0.0
    if q >= 1:
        return first if p >= 1 else math.inf
    return first + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)
