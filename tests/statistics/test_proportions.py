"""Published values first, then the coverage that the intervals claim."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import binom, binomtest, multinomial

from flataudit.statistics.proportions import mcnemar_p_value, tango_interval, tango_intervals, wilson_interval


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


def wilson_coverage(p: float, n: int) -> float:
    """Exact: summed over all outcomes, no simulation."""
    counts = np.arange(n + 1)
    ends = np.array([wilson_interval(k / n, n) for k in counts])
    return float(binom.pmf(counts, n, p)[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum())


@pytest.mark.parametrize(("p", "n"), [(0.5, 40), (0.9, 100), (0.98, 60), (0.7, 20), (0.99, 200), (0.995, 2000)])
def test_wilson_covers(p: float, n: int) -> None:
    assert 0.93 < wilson_coverage(p, n) < 0.98


@pytest.mark.parametrize("n", [50, 100, 500])
def test_wilson_covers_on_average_over_accuracies(n: int) -> None:
    """Outcomes are whole numbers, so that coverage swings with p; its mean is right to half a point, its worst 91 %."""
    covered = [wilson_coverage(float(p), n) for p in np.linspace(0.5, 0.995, 100)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.005)
    assert min(covered) > 0.90


def tango_misses(gain: float, loss: float, n: int) -> tuple[float, float]:
    """Exact chances, over all tables, that the interval lies above and below the true difference."""
    gained, lost = (counts.ravel() for counts in np.indices((n + 1, n + 1)))
    gained, lost = gained[gained + lost <= n], lost[gained + lost <= n]
    chance = multinomial.pmf(np.stack([gained, lost, n - gained - lost], axis=1), n, [gain, loss, 1 - gain - loss])
    low, high = tango_intervals(gained, lost, n)
    return float(chance[low > gain - loss + 1e-12].sum()), float(chance[high < gain - loss - 1e-12].sum())


@pytest.mark.parametrize(
    ("gain", "loss", "n"), [(0.05, 0.05, 60), (0.02, 0.08, 60), (0.2, 0.1, 40), (0.1, 0.3, 25), (0.03, 0.03, 200)]
)
def test_tango_covers(gain: float, loss: float, n: int) -> None:
    """A Wald interval fails the second case."""
    above, below = tango_misses(gain, loss, n)
    assert 0.93 < 1 - above - below < 0.975
    assert max(above, below) < 0.04


@pytest.mark.parametrize(
    ("gain", "loss", "n"), [(0.01, 0.01, 60), (0, 0.02, 60), (0.005, 0.015, 150), (0.05, 0.05, 20), (0.001, 0.001, 100)]
)
def test_tango_is_on_the_safe_side_where_hardly_anything_differs(gain: float, loss: float, n: int) -> None:
    assert sum(tango_misses(gain, loss, n)) < 0.05


def test_many_tables_at_once_are_those_of_one_at_a_time() -> None:
    tables = [(0, 0, 30), (3, 9, 30), (30, 0, 30), (0, 30, 30)]
    together = tango_intervals([t[0] for t in tables], [t[1] for t in tables], 30)
    assert together.T.tolist() == [list(tango_interval(*table)) for table in tables]
    assert tango_intervals(np.zeros((2, 3)), np.ones((2, 1)), 30).shape == (2, 2, 3)
