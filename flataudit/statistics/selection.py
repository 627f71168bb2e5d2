"""What the choice among several candidates does to the numbers: the best one's is too good, and others may be best."""

from collections.abc import Sequence

import numpy as np

from flataudit.decision import Selection
from flataudit.errors import ConfigurationError
from flataudit.evidence import Examined
from flataudit.policy import Policy
from flataudit.statistics.model_confidence_set import pairwise_confidence_set
from flataudit.statistics.samples import measured, values
from flataudit.statistics.winners_curse import corrected_winner

__all__ = ["selection"]


def selection(examined: Sequence[Examined], policy: Policy) -> Selection | None:
    """Of all candidates with values of the policy's metric; None with fewer than two, or where they do not pair."""
    rule = policy.non_inferiority
    kept = [(one, values(one, rule.metric)) for one in sorted(examined, key=_label)]
    columns = [(_label(one), column) for one, column in kept if column is not None]
    if len(columns) < 2 or len({len(column) for _, column in columns}) > 1:
        return None
    found = measured(next(one for one, column in kept if column is not None), rule.metric)
    sign = -1.0 if found is not None and found.better == "lower" else 1.0
    table = sign * np.stack([column for _, column in columns], axis=1)
    labels = [label for label, _ in columns]
    try:
        winner = corrected_winner(table, confidence=rule.confidence)
        chosen = pairwise_confidence_set(-table, confidence=rule.confidence)
    except ConfigurationError:  # too few examples, or a winner whose values do not vary: no error is known
        return None
    low, high = sorted((sign * winner.interval[0], sign * winner.interval[1]))
    return Selection(
        metric=rule.metric,
        best=labels[winner.index],
        of=len(labels),
        observed=sign * winner.observed,
        corrected=sign * winner.estimate,
        interval=(low, high),
        confidence=rule.confidence,
        confidence_set=tuple(labels[i] for i in chosen.members),
    )


def _label(examined: Examined) -> str:
    return examined.evidence.candidate.label
