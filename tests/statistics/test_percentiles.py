"""Percentiles: order statistics by hand, and intervals that cover."""

import numpy as np
import pytest

from flataudit.statistics.percentiles import percentile


@pytest.mark.parametrize(("share", "truth"), [(0.5, np.log(2)), (0.95, -np.log(0.05))])
def test_the_interval_holds_the_percentile_as_often_as_it_says(share: float, truth: float) -> None:
    generator, held = np.random.default_rng(0), 0
    for _ in range(1000):
        low, high = percentile(generator.exponential(size=200), share).interval or (0.0, 0.0)
        held += low <= truth <= high
    assert 930 <= held <= 985


def test_few_values_have_no_value_beyond_the_percentile() -> None:
    assert percentile(np.arange(71.0), 0.95).interval is None
    assert percentile(np.arange(72.0), 0.95).interval is not None
    assert percentile(np.array([3.0]), 0.5).estimate == 3.0


def test_order_does_not_matter_and_the_estimate_lies_between_its_ends() -> None:
    values = np.random.default_rng(1).permutation(np.arange(101.0))
    found = percentile(values, 0.5)
    assert found.estimate == 50.0 and found.interval == (40.0, 60.0) and found.standard_error is None
