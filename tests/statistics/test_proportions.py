"""Published values first, then the coverage that the intervals claim."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import binomtest, multinomial

from flataudit.statistics.proportions import mcnemar_p_value, tango_interval, wilson_interval


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"), [(10, 25, 0.01667), (30, 50, 0.03299), (5, 15, 0.04139), (0, 6, 0.03125)]
)
def test_mcnemar_published(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar_p_value(gained, lost) == pytest.approx(p_value, abs=5e-6)
    assert mcnemar_p_value(lost, gained) == mcnemar_p_value(gained, lost)
    assert mcnemar_p_value(gained, lost) == pytest.approx(binomtest(gained, gained + lost).pvalue, rel=1e-9)


def test_mcnemar_without_discordance_shows_nothing() -> None:
    assert mcnemar_p_value(0, 0) == 1.0
    assert mcnemar_p_value(4, 4) == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 7), (90, 100), (50, 50)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_that_of_scipy(successes: int, n: int, confidence: float) -> None:
    theirs = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ours = wilson_interval(successes / n, n, confidence=confidence)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_tango_published() -> None:
    assert tango_interval(1, 7, 21) == pytest.approx((-0.5172, -0.0260), abs=5e-5)


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 9, 40), (0, 5, 30), (12, 1, 500), (100, 140, 5000), (1, 1, 9)])
def test_tango_ends_solve_its_equation(gained: int, lost: int, n: int) -> None:
    """Naive twin: the likelihood of a loss maximised by a numerical search, the ends by a root finder."""

    def score(delta: float) -> float:
        def slope(p: float) -> float:  # of the log-likelihood in the probability of a loss, times the denominators
            concordant = n - gained - lost
            return (
                gained * p * (1 - 2 * p - delta)
                + lost * (p + delta) * (1 - 2 * p - delta)
                - 2 * concordant * p * (p + delta)
            )

        low, high = max(0.0, -delta), (1 - delta) / 2
        loss = brentq(slope, low + 1e-14, high - 1e-14, xtol=1e-15) if slope(low + 1e-14) > 0 else low
        return (gained - lost - n * delta) / math.sqrt(n * (2 * loss + delta * (1 - delta)))

    z = float(ndtri(0.975))
    low, high = tango_interval(gained, lost, n)
    assert score(low) == pytest.approx(z, rel=1e-6)
    assert score(high) == pytest.approx(-z, rel=1e-6)


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 30), (5, 0, 5), (0, 5, 5), (2, 8, 40)])
def test_tango_is_antisymmetric_and_holds_the_estimate(gained: int, lost: int, n: int) -> None:
    low, high = tango_interval(gained, lost, n)
    assert tango_interval(lost, gained, n) == pytest.approx((-high, -low), abs=1e-12)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert high - low > 0.01


def test_no_observed_discordance_is_not_certainty() -> None:
    z2 = float(ndtri(0.975)) ** 2
    assert tango_interval(0, 0, 100) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)), abs=1e-12)


@pytest.mark.parametrize(("p", "n"), [(0.5, 40), (0.9, 100), (0.98, 60)])
def test_wilson_covers(p: float, n: int) -> None:
    """Exact coverage: summed over all outcomes, no simulation."""
    counts = np.arange(n + 1)
    ends = np.array([wilson_interval(k / n, n) for k in counts])
    chance = np.array([math.comb(n, int(k)) * p**k * (1 - p) ** (n - k) for k in counts])
    assert 0.92 < chance[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum() < 0.98


@pytest.mark.parametrize(("gain", "loss", "n"), [(0.05, 0.05, 60), (0.02, 0.08, 60), (0.2, 0.1, 40)])
def test_tango_covers(gain: float, loss: float, n: int) -> None:
    """Exact coverage over all tables; a Wald interval fails the second case."""
    tables = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    chance = multinomial.pmf([(b, c, n - b - c) for b, c in tables], n, [gain, loss, 1 - gain - loss])
    likely = np.flatnonzero(chance > 1e-9)
    ends = np.array([tango_interval(*tables[k], n) for k in likely])
    covered = (ends[:, 0] <= gain - loss) & (gain - loss <= ends[:, 1])
    assert 0.93 < chance[likely][covered].sum() < 0.98
