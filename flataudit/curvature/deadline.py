"""When a probe's seconds are over, told to whatever loops over batches, vectors or draws on its behalf.

The clock is looked at before a batch is begun, and before each further backward pass through one: a probe ends within
the work of one batch after its time. A mean of independent terms may then be taken over those that are done, which
biases nothing: the clock knows which terms take long, and nothing of their values. What is exact on all the examples
alone is not known at all.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from flataudit.contracts import Reading
from flataudit.evidence import Metric, Outcome
from flataudit.specs import Budget

__all__ = ["Deadline", "OutOfTime", "now", "out_of_time"]

_T = TypeVar("_T")


class OutOfTime(Exception):
    """The seconds are over: ends a computation whose part is nothing to be remembered."""


def now() -> float:
    """Seconds of a clock that never goes back."""
    return time.monotonic()


@dataclass(frozen=True)
class Deadline:
    """An end on the clock of `now`.

    >>> Deadline().left, Deadline().sooner(0.0).over
    (inf, True)
    """

    at: float = math.inf
    """Never, unless something else is said."""

    def sooner(self, seconds: float) -> "Deadline":
        """So many seconds from now, or this one if it is earlier."""
        return Deadline(min(self.at, now() + seconds))

    @property
    def left(self) -> float:
        """Seconds; negative once it is over."""
        return self.at - now()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be begun."""
        return self.left <= 0

    def check(self) -> None:
        """Do nothing in time.

        Raises:
            OutOfTime: the seconds are over.
        """
        if self.over:
            raise OutOfTime

    def each(self, items: Iterable[_T]) -> Iterator[_T]:
        """The same items, none of them after the end.

        Raises:
            OutOfTime: the seconds are over, and there is another item.
        """
        for item in items:
            self.check()
            yield item


def out_of_time(metrics: Sequence[Metric], budget: Budget, advice: str = "raise budget.seconds") -> list[Reading]:
    """What a probe says of metrics that its seconds had no room for."""
    reason = f"{budget.seconds:.3g} s ran out"
    return [Reading(metric.missing(Outcome.OVER_BUDGET, reason, advice)) for metric in metrics]
