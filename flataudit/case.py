"""The records of one decision, looked up by candidate and metric; what every judgement reads and none changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from flataudit.decision import Comparison
from flataudit.evidence import Evidence, Measurement, Outcome
from flataudit.policy import Policy

__all__ = ["Case"]


@dataclass(frozen=True, eq=False)
class Case:
    """A policy with the evidence and comparisons that it is applied to."""

    policy: Policy
    table: Mapping[str, Evidence]
    """By candidate label."""
    comparisons: Sequence[Comparison]
    champion: str | None
    """Label of the champion; None while the name has none."""
    today: date | None = None
    """On which waivers are looked at; None: none holds."""

    @property
    def challengers(self) -> list[str]:
        """Labels of all but the champion."""
        return [label for label in self.table if label != self.champion]

    def measurement(self, label: str, metric: str) -> Measurement | None:
        """What was found, whatever its outcome."""
        evidence = self.table.get(label)
        return evidence.get(metric) if evidence else None

    def estimate(self, label: str, metric: str) -> float | None:
        """The number, if one was measured."""
        found = self.measurement(label, metric)
        return found.estimate if found and found.outcome is Outcome.MEASURED else None

    def pair(self, metric: str, champion: str, challenger: str) -> Comparison | None:
        """The comparison of the two, seen from the champion's side."""
        direct = self._pairs.get((metric, champion, challenger))
        mirrored = self._pairs.get((metric, challenger, champion))
        return direct or (mirrored.reversed() if mirrored else None)

    def anything_measured(self) -> bool:
        """Whether there is a number that a decision could rest on."""
        metric = self.policy.non_inferiority.metric
        subjects = self.challengers if self.champion is None else [self.champion]
        return any(self.estimate(label, metric) is not None for label in subjects)

    @cached_property
    def _pairs(self) -> Mapping[tuple[str, str, str], Comparison]:
        return {(c.metric, c.champion, c.challenger): c for c in self.comparisons}
