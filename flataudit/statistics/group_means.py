"""The worst of several groups' means, with an interval that holds all of them at once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from flataudit.evidence import Measurement, Metric, Outcome
from flataudit.statistics.means import Mean, bounded_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["by_group", "others", "worst_mean"]


def by_group(
    values: "NDArray[np.float64]", groups: "NDArray[np.generic]", names: tuple[str, ...] = ()
) -> dict[str, "NDArray[np.float64]"]:
    """The values of each group by its name, the largest group first; a group without a name goes by its number.

    Args:
        values: ``(n,)``.
        groups: ``(n,)`` group numbers.
        names: of the groups 0, 1, ….

    >>> {k: v.tolist() for k, v in by_group(np.array([1.0, 2.0, 3.0]), np.array([1, 0, 1]), ("a", "b")).items()}
    {'b': [1.0, 3.0], 'a': [2.0]}
    """
    codes, counts = np.unique(groups, return_counts=True)
    ordered = [int(code) for code in codes[np.argsort(-counts, kind="stable")]]
    called = {code: names[code] if code < len(names) else str(code) for code in ordered}
    return {called[code]: np.ascontiguousarray(values[groups == code], dtype=np.float64) for code in ordered}


def others(
    metric: Metric, groups: Mapping[str, "NDArray[np.float64]"], *, most: int, min_examples: int
) -> Measurement | None:
    """The unmeasured member ``metric/(others)`` for large groups beyond the first ``most``; None where there are none.

    A criterion on every group must not pass while some of them have no number of their own.
    """
    left = sum(len(values) >= min_examples for values in list(groups.values())[most:])
    if not left:
        return None
    reason = f"{left} more groups of at least {min_examples} examples have no number of their own"
    return metric.of("(others)").missing(Outcome.OVER_BUDGET, reason, "raise the probe's parameter `most`")


def worst_mean(groups: Mapping[str, "NDArray[np.float64]"], *, confidence: float = 0.95) -> tuple[str, Mean]:
    """The group with the lowest mean of values in [0, 1], and that mean.

    The lowest of many noisy means is lower than the lowest true one, and the estimate shares that; the interval, from
    the lowest lower limit to the lowest upper one of Wilson's at 1 − (1 − confidence)/groups, does not.

    Args:
        groups: values of each group, ``(nᵢ,)``; at least one group.
        confidence: of all intervals together (Bonferroni), approximate.

    >>> name, mean = worst_mean({"a": np.ones(20), "b": np.repeat([0.0, 1.0], 10)})
    >>> name, mean.estimate, mean.n
    ('b', 0.5, 20)
    """
    each = 1 - (1 - confidence) / len(groups)
    means = {name: bounded_mean(values, confidence=each) for name, values in groups.items()}
    name = min(means, key=lambda one: (means[one].estimate, one))
    intervals = [found.interval for found in means.values() if found.interval is not None]
    low, high = min(ends[0] for ends in intervals), min(ends[1] for ends in intervals)
    lowest = means[name].estimate
    low, high = min(low, lowest), max(high, lowest)
    return name, Mean(lowest, (high - low) / (2 * float(ndtri((1 + confidence) / 2))), (low, high), means[name].n)
