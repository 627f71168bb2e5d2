"""The e-process against integration, a naive twin and exact crossing probabilities: no simulation error anywhere."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from flataudit.errors import ConfigurationError
from flataudit.statistics.e_process import (
    anytime_p_values,
    confidence_sequence,
    crossing_probabilities,
    discordant_for_power,
    e_value,
    log_e_values,
)

EVERY_50 = range(50, 2001, 50)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 1), (10, 25), (0, 6)])
def test_e_is_the_mean_likelihood_ratio_over_the_mixture(gained: int, lost: int) -> None:
    def ratio(theta: float) -> float:
        return 2 ** (gained + lost) * theta**gained * (1 - theta) ** lost * float(beta.pdf(theta, 0.5, 0.5))

    mixed, _ = quad(lambda u: ratio(math.sin(u) ** 2) * 2 * math.sin(u) * math.cos(u), 1e-12, math.pi / 2 - 1e-12)
    assert e_value(gained, lost) == pytest.approx(mixed, rel=1e-6)
    assert e_value(gained, lost) == pytest.approx(e_value(lost, gained), rel=1e-12)


def test_e_is_a_martingale_under_the_null() -> None:
    gained, lost = np.meshgrid(np.arange(40), np.arange(40))
    now = np.exp(log_e_values(gained, lost))
    after = (np.exp(log_e_values(gained + 1, lost)) + np.exp(log_e_values(gained, lost + 1))) / 2
    assert after == pytest.approx(now, rel=1e-9)


def test_crossing_probabilities_are_those_of_all_paths() -> None:
    """Naive twin: all 2¹² paths, read at looks 4, 6, 9 and 12."""
    looks, theta = [4, 6, 9, 12], 0.8
    expected = np.zeros(4)
    for path in itertools.product((0, 1), repeat=12):
        chance = theta ** sum(path) * (1 - theta) ** (12 - sum(path))
        crossed = [e_value(sum(path[:n]), n - sum(path[:n])) >= 5 for n in looks]
        expected += chance * np.maximum.accumulate(crossed)
    assert crossing_probabilities(theta, looks, confidence=0.8) == pytest.approx(expected, abs=1e-12)
    assert expected[-1] > 0.3


def test_peeking_costs_a_third_and_the_e_process_covers_it() -> None:
    """Every 50 of 2,000 discordant examples: 32 % false alarms of the naive test (decisions.md: 33 %)."""
    assert crossing_probabilities(0.5, EVERY_50, naive=True)[-1] == pytest.approx(0.33, abs=0.02)
    assert crossing_probabilities(0.5, [2000], naive=True)[-1] == pytest.approx(0.05, abs=0.005)
    assert crossing_probabilities(0.5, EVERY_50)[-1] < 0.01
    each = crossing_probabilities(0.5, range(1, 2001))
    assert each[-1] == pytest.approx(0.0374, abs=5e-4)
    assert np.all(np.diff(each) >= -1e-12)


def test_anytime_p_values_only_fall() -> None:
    generator = np.random.default_rng(0)
    won = generator.random(500) < 0.65
    p = anytime_p_values(np.cumsum(won), np.cumsum(~won))
    assert np.all(np.diff(p) <= 0) and p[-1] < 0.01
    assert p[0] == 1.0
    naive = [
        min(1.0, 1 / max(e_value(int(s), n - int(s)) for n, s in enumerate(np.cumsum(won)[:k], 1))) for k in (9, 99)
    ]
    assert [p[8], p[98]] == pytest.approx(naive)


@pytest.mark.parametrize(("gained", "lost"), [(60, 40), (0, 7), (7, 0), (3, 500), (5000, 5200)])
def test_confidence_sequence_inverts_the_e_process(gained: int, lost: int) -> None:
    low, high = confidence_sequence(gained, lost)
    n = gained + lost

    def log_e_at(theta: float) -> float:
        return (
            float(log_e_values(gained, lost))
            - n * math.log(2)
            - ((gained * math.log(theta) if gained else 0.0) + (lost * math.log1p(-theta) if lost else 0.0))
        )

    for end in (low, high):
        if 0 < end < 1:
            assert log_e_at(end) == pytest.approx(math.log(20), abs=1e-6)
    assert low <= gained / n <= high
    assert (low > 0.5 or high < 0.5) == (e_value(gained, lost) >= 20)
    assert confidence_sequence(lost, gained) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize("theta", [0.05, 0.3, 0.5])
def test_confidence_sequence_covers_at_all_looks_at_once(theta: float) -> None:
    """3,000 paths of 1,000; the ends of a look depend on (s, N) only, read here from the ratio at the true θ."""
    won = np.random.default_rng(1).random((3000, 1000)) < theta
    s = np.cumsum(won, axis=1)
    n = np.arange(1, 1001)
    ratio = log_e_values(s, n - s) - n * math.log(2) - s * math.log(theta) - (n - s) * math.log1p(-theta)
    ever = float(np.mean(ratio.max(axis=1) >= math.log(20)))
    assert 0.01 < ever <= 0.05
    for path in range(40):
        outside = [
            not low <= theta <= high
            for low, high in (
                confidence_sequence(int(s[path, i - 1]), int(i - s[path, i - 1])) for i in (10, 100, 1000)
            )
        ]
        assert outside == [bool(ratio[path, i - 1] > math.log(20)) for i in (10, 100, 1000)]


def test_discordant_for_power_is_confirmed_by_simulation() -> None:
    needed = discordant_for_power(0.6, power=0.8)
    assert needed == 430
    s = np.cumsum(np.random.default_rng(2).random((4000, needed)) < 0.6, axis=1)[:, 9::10]
    crossed = (log_e_values(s, np.arange(10, needed + 1, 10) - s) >= math.log(20)).any(axis=1)
    assert float(crossed.mean()) == pytest.approx(0.8, abs=0.02)
    assert discordant_for_power(0.501, most=1000) is None


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="share between 0 and 1"):
        crossing_probabilities(1.0, [10])
    with pytest.raises(ConfigurationError, match="increasing"):
        crossing_probabilities(0.5, [10, 5])
    with pytest.raises(ConfigurationError, match="confidence between"):
        confidence_sequence(1, 1, confidence=95)
    assert confidence_sequence(0, 0) == (0.0, 1.0)
    assert e_value(5000, 0) > 1e300
