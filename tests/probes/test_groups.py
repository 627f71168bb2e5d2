"""Accuracy by group: each group by hand, the worst with an interval that holds all, the spread without noise."""

import numpy as np
import pytest

from flataudit.contracts import AuditData, Meter
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.groups import Groups
from flataudit.specs import Budget
from flataudit.statistics.proportions import wilson_interval
from flataudit.testing import check_probe


class Answers:
    """A binary classifier whose inputs are its log-probabilities."""

    task, batch_size, dtype, device = "binary", 64, "float64", "cpu"

    def __init__(self) -> None:
        self.meter = Meter()

    def predict(self, inputs):  # type: ignore[no-untyped-def]
        return np.log(inputs)


def found(right: np.ndarray, groups: np.ndarray | None, **parameters: int) -> dict[str, Measurement]:
    inputs = np.where(right[:, None] > 0, [[0.9, 0.1]], [[0.2, 0.8]])
    names = () if groups is None else tuple(f"g{i}" for i in range(int(groups.max()) + 1))
    data = AuditData(
        "validation", "validation", inputs, np.zeros(len(right), dtype=np.int64), groups, "d", group_names=names
    )
    readings = Groups(**parameters).measure(Answers(), data, 0, Budget())
    return {reading.measurement.metric: reading.measurement for reading in readings}


def test_each_group_and_the_worst() -> None:
    groups = np.repeat([0, 1, 2], [40, 30, 5])
    right = np.concatenate([np.ones(36), np.zeros(4), np.ones(15), np.zeros(15), np.zeros(5)])
    got = found(right, groups)
    assert got["group_accuracy/g0"].estimate == pytest.approx(0.9)
    assert got["group_accuracy/g1"].interval == pytest.approx(wilson_interval(0.5, 30))
    assert got["group_accuracy/g2"].n == 5
    worst = got["worst_group_accuracy"]
    assert worst.estimate == pytest.approx(0.5) and worst.details["group"] == "g1" and worst.details["left out"] == 1
    wide = [wilson_interval(share, n, confidence=0.975) for share, n in ((0.9, 40), (0.5, 30))]
    assert worst.interval == pytest.approx((min(w[0] for w in wide), min(w[1] for w in wide)))


def test_the_interval_of_the_worst_group_holds_the_worst_true_accuracy() -> None:
    generator, truths, held, below = np.random.default_rng(0), [0.9, 0.88, 0.86, 0.85, 0.85, 0.84], 0, 0
    groups = np.repeat(np.arange(6), 80)
    for _ in range(400):
        right = (generator.random(480) < np.repeat(truths, 80)).astype(float)
        worst = found(right, groups)["worst_group_accuracy"]
        low, high = worst.interval or (0, 0)
        held += low <= min(truths) <= high
        below += (worst.estimate or 0) < min(truths)
    assert held >= 380
    assert below > 250  # the worst of many noisy accuracies is too low: that is what the interval is for


def test_the_spread_is_that_of_the_true_accuracies() -> None:
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 100)
    alike = [found((generator.random(3000) < 0.8).astype(float), groups)["group_accuracy_spread"] for _ in range(40)]
    truths = np.repeat(np.linspace(0.6, 0.95, 30), 100)
    apart = [found((generator.random(3000) < truths).astype(float), groups)["group_accuracy_spread"] for _ in range(40)]
    assert np.mean([m.estimate for m in alike]) < 0.02 < np.mean([m.details["between groups"] for m in alike])
    assert np.mean([m.estimate for m in apart]) == pytest.approx(np.linspace(0.6, 0.95, 30).std(ddof=1), rel=0.05)


def test_one_member_says_nothing_of_its_groups_variance() -> None:
    """A hundred groups of one and equal true accuracy: their answers differ by chance alone."""
    generator = np.random.default_rng(2)
    lone = found((generator.random(100) < 0.5).astype(float), np.arange(100), min_examples=1)
    assert lone["group_accuracy_spread"].outcome is Outcome.NOT_APPLICABLE
    assert "fewer than 3 groups of 2 examples" in (lone["group_accuracy_spread"].reason or "")
    assert lone["worst_group_accuracy"].estimate == 0 and lone["group_accuracy/g7"].interval != (0, 0)
    low, high = lone["worst_group_accuracy"].interval or (1, 0)
    assert low <= 0.5 <= high
    pairs = [
        found((generator.random(400) < 0.5).astype(float), np.repeat(np.arange(200), 2), min_examples=1)
        for _ in range(60)
    ]
    excess = [m["group_accuracy_spread"].details for m in pairs]
    squares = [(float(d["between groups"] or 0) ** 2, float(d["by few examples"] or 0) ** 2) for d in excess]
    assert np.mean([a - b for a, b in squares]) == pytest.approx(0, abs=0.01)


def test_no_groups_or_too_small_ones_are_not_applicable() -> None:
    assert found(np.ones(30), None)["worst_group_accuracy"].outcome is Outcome.NOT_APPLICABLE
    small = found(np.ones(30), np.repeat(np.arange(10), 3))
    assert small["worst_group_accuracy"].outcome is Outcome.NOT_APPLICABLE and "group_accuracy/g3" in small
    assert len(found(np.ones(40), np.repeat(np.arange(8), 5), most=3)) == 5


def test_large_groups_without_a_number_of_their_own_are_said_to_have_none() -> None:
    got = found(np.ones(240), np.repeat(np.arange(8), 30), most=5)
    others = got["group_accuracy/(others)"]
    assert others.outcome is Outcome.OVER_BUDGET and "3 more groups" in (others.reason or "")


def test_it_conforms() -> None:
    check_probe(Groups())
