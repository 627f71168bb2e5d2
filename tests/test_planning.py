"""Sample sizes against printed values, their inverses, exact power; the α-spending account against its exact sum."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from flataudit import planning
from flataudit.errors import ConfigurationError

DISCORDANCES = {0.02: 1568, 0.06: 4707, 0.10: 7847, 0.20: 15696}


def test_published_sample_sizes() -> None:
    assert planning.examples_for_accuracy(0.9, 0.01) == 3458
    assert planning.examples_for_accuracy(0.8, 0.01) == 6147
    assert planning.examples_by_hoeffding(0.01) == 18445
    assert {q: planning.examples_for_difference(0.01, q) for q in DISCORDANCES} == DISCORDANCES
    assert [planning.examples_for_difference(0.01, 0.06, challengers=k) for k in (5, 10, 50)] == [7005, 7985, 10242]
    assert planning.examples_unpaired(0.90, 0.91) == 13495
    assert [planning.examples_for_non_inferiority(0.01, q) for q in (0.05, 0.10)] == [3925, 7849]


def test_published_reuse_of_a_test_set() -> None:
    def examples(uses: int, *, adaptive: bool) -> int:
        return planning.examples_by_hoeffding(0.01, 1 - 1e-4, uses=uses, adaptive=adaptive, two_sided=False)

    assert [examples(1, adaptive=False), examples(32, adaptive=False)] == [46052, 63381]
    assert examples(32, adaptive=True) == 156956


@given(st.floats(0.002, 0.05), st.floats(0.06, 0.5), st.integers(1, 40), st.floats(0.6, 0.95))
def test_power_and_detectable_difference_invert_the_sample_size(
    difference: float, discordance: float, challengers: int, power: float
) -> None:
    n = planning.examples_for_difference(difference, discordance, power=power, challengers=challengers)
    reached = planning.power_of_difference(difference, discordance, n, challengers=challengers)
    assert reached >= power - 1e-9
    assert planning.power_of_difference(difference, discordance, n - 1, challengers=challengers) < power
    found = planning.detectable_difference(n, discordance, power=power, challengers=challengers)
    assert difference * 0.98 <= found <= difference * (1 + 1e-9)


@given(st.floats(0.002, 0.05), st.floats(0.01, 0.5), st.floats(-0.001, 0.02), st.floats(0.6, 0.95))
def test_power_and_detectable_margin_invert_the_sample_size(
    margin: float, variance: float, difference: float, power: float
) -> None:
    n = planning.examples_for_non_inferiority(margin, variance, difference=difference, power=power)
    reached = planning.power_of_non_inferiority(margin, variance, n, difference=difference)
    assert reached >= power - 1e-9
    assert planning.detectable_margin(n, variance, difference=difference, power=power) <= margin * (1 + 1e-9)
    fewer = planning.detectable_margin(n - 1, variance, difference=difference, power=power) if n > 1 else math.inf
    assert fewer > margin


def test_power_is_that_of_the_exact_conditional_test() -> None:
    """Independent twin: the discordant count is binomial, given it the gains are; McNemar's normal test on them."""
    n, q, delta = 4707, 0.06, 0.01
    discordant = np.arange(n + 1)
    theta, chance = (1 + delta / q) / 2, binom.pmf(discordant, n, q)
    needed = np.ceil(discordant / 2 + norm.ppf(0.975) * np.sqrt(discordant) / 2)
    exact = float(chance @ binom.sf(needed - 1, discordant, theta))
    assert planning.power_of_difference(delta, q, n) == pytest.approx(exact, abs=0.015)


def test_size_at_the_margin_is_half_of_alpha() -> None:
    assert planning.power_of_non_inferiority(0.01, 0.05, 2000, difference=-0.01) == pytest.approx(0.025)


def test_too_few_examples_show_no_difference_at_all() -> None:
    with pytest.raises(ConfigurationError, match="got 10 examples; collect more"):
        planning.detectable_difference(10, 0.05)


def test_nothing_discordant_but_the_difference_is_a_step() -> None:
    assert planning.power_of_difference(0.5, 0.25, 100) == 1.0
    assert planning.half_width(1.0, 50) == 0.0


def test_spent_alpha_sums_to_alpha() -> None:
    """The tail of Σ 1/t² beyond T lies between 1/(T + 1) and 1/T."""
    left = planning.alpha_left(10_000)
    assert 0.05 * 6 / math.pi**2 / 10_001 < left < 0.05 * 6 / math.pi**2 / 10_000
    assert planning.alpha_spent(0) == 0.0 and planning.alpha_left(0) == 0.05
    assert planning.alpha_of_decision(1) == pytest.approx(0.030396, abs=1e-6)
    with pytest.raises(ConfigurationError, match="from 1"):
        planning.alpha_of_decision(0)


@given(st.integers(1, 500), st.floats(0.001, 0.3))
def test_decisions_until_the_floor(count: int, alpha: float) -> None:
    floor = planning.alpha_of_decision(count, alpha)
    assert planning.decisions_until(floor, alpha) == count
    assert planning.decisions_until(floor * 1.001, alpha) == count - 1


def test_holm_ignores_the_order_and_is_never_below_bonferroni_s_first_step() -> None:
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert planning.holm(p) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert planning.holm(dict(reversed(p.items()))) == planning.holm(p)
    assert planning.holm({}) == {}
