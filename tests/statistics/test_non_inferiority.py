"""Both answers of one interval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flataudit.errors import ConfigurationError
from flataudit.statistics.non_inferiority import Reading, read

ENDS = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.001, 0.02), Reading(non_inferior=True, superior=True, inferior=False)),
        ((-0.004, 0.02), Reading(non_inferior=True, superior=False, inferior=False)),
        ((-0.009, -0.001), Reading(non_inferior=True, superior=False, inferior=False)),
        ((-0.02, 0.02), Reading(non_inferior=False, superior=False, inferior=False)),
        ((-0.03, -0.011), Reading(non_inferior=False, superior=False, inferior=True)),
        ((-0.01, -0.01), Reading(non_inferior=False, superior=False, inferior=False)),
    ],
)
def test_cases(interval: tuple[float, float], expected: Reading) -> None:
    assert read(interval, margin=0.01) == expected


@given(ENDS, st.floats(0, 0.5), st.floats(0, 0.5))
def test_claims_do_not_contradict_and_a_wider_margin_only_helps(ends: list[float], margin: float, more: float) -> None:
    found, wider = read((ends[0], ends[1]), margin=margin), read((ends[0], ends[1]), margin=margin + more)
    assert not (found.inferior and found.non_inferior)
    assert found.non_inferior or not found.superior
    assert wider.non_inferior or not found.non_inferior
    assert found.inferior or not wider.inferior
    assert found.inconclusive == (not found.inferior and not found.non_inferior)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="margin of 0 or more"):
        read((0.0, 0.1), margin=-0.01)
    with pytest.raises(ConfigurationError, match="exchange its ends"):
        read((0.2, 0.1), margin=0.01)
    with pytest.raises(ConfigurationError, match="interval"):
        read((float("nan"), 0.1), margin=0.01)
