import re

from hypothesis import given
from hypothesis import strategies as st

from flataudit.decision import Comparison
from flataudit.evidence import Metric, Outcome
from flataudit.report import numbers

METRIC = Metric(name="m")
FINITE = st.floats(-1e9, 1e9)


@given(FINITE, st.floats(1e-9, 1e6), st.floats(1e-9, 1e6))
def test_what_is_written_is_what_was_measured(value: float, below: float, above: float) -> None:
    text = numbers.with_error(METRIC.measured(value, interval=(value - below, value + above)))
    told = [float(part.replace("−", "-")) for part in re.findall(r"[−+]?\d[\d.]*(?:e[+-]\d+)?", text)]
    assert len(told) == 3
    half = (below + above) / 2
    for got, expected in zip(told, (value, value - below, value + above), strict=True):
        assert abs(got - expected) <= max(0.05 * half, 5.1e-4 * abs(expected), 5.1e-7)


def test_unknown_exact_and_bounds_are_told_apart() -> None:
    assert numbers.with_error(METRIC.measured(2.0)) == "2 (error unknown)"
    assert numbers.with_error(METRIC.measured(2.0, standard_error=0.0)) == "2 exact"
    assert numbers.with_error(METRIC.measured(2.0, standard_error=0.25)) == "2 ± 0.25"
    assert numbers.with_error(METRIC.measured(2.0, bound="lower")) == "≥ 2"
    assert numbers.with_error(METRIC.measured(2.0, bound="upper", interval=(1.9, 2.1))) == "≤ 2.00 [1.90, 2.10]"
    assert numbers.with_error(METRIC.missing(Outcome.NOT_CONVERGED, "slow")) == "not converged"


def test_differences_are_signed_and_refusals_are_words() -> None:
    pair = Comparison(metric="m", champion="a", challenger="b", difference=-0.0004, interval=(-0.004, 0.0032))
    assert numbers.difference(pair) == "−0.0004 [−0.0040, +0.0032]"
    lower = pair.model_copy(update={"better": "lower"})
    assert numbers.gain(lower) == "+0.0004 [−0.0032, +0.0040]"
    assert numbers.difference(Comparison(metric="m", champion="a", challenger="b", reason="dtype")) == "not compared"


def test_a_rounded_zero_has_no_minus() -> None:
    assert numbers.number(-0.0001, 2) == "0.00"
    assert numbers.number(-0.0001, 2, sign=True) == "+0.00"
