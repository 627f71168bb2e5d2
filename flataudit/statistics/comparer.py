"""Pairs candidates on the same examples: the score of each, and every difference with its interval.

Which method a metric gets follows from what was kept of it: 0/1 values pair by Tango and McNemar, other values by a
bootstrap of shared examples, numbers with an error but without values by an unpaired normal interval, and numbers
without an error give a difference and a reason. Candidates that were measured differently are refused by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, TypedDict

import numpy as np
from pydantic import Field, NonNegativeInt

from flataudit.decision import Comparison, Selection
from flataudit.evidence import Examined, Measurement, Outcome, Record
from flataudit.policy import Policy
from flataudit.statistics import score
from flataudit.statistics.agreement import with_agreement
from flataudit.statistics.agreement_line import with_agreement_line
from flataudit.statistics.clusters import clustered_difference
from flataudit.statistics.disagreement import with_disagreement
from flataudit.statistics.matching import is_flatness, unmatched
from flataudit.statistics.paired import (
    ROUNDING,
    Difference,
    bootstrap_means,
    bootstrapped,
    from_intervals,
    no_variance,
    paired_accuracy,
    paired_t,
    unpaired,
)
from flataudit.statistics.samples import array, is_binary, measured, values
from flataudit.statistics.selection import selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PairedComparer"]

FEWEST_RESAMPLED = 50
"""Below this many values Student's interval covers better than the bootstrap's."""
Columns = Mapping[tuple[str, str], "NDArray[np.float64]"]
"""By metric and candidate label."""


class PairedComparer(Record):
    """The default comparer: paired intervals of every metric and of the score, by one seeded resampling."""

    replicates: Annotated[int, Field(ge=200)] = 2000
    """Bootstrap resamples; the smallest p-value is 2 / (replicates + 1)."""
    seed: NonNegativeInt = 0

    def score(self, examined: Sequence[Examined], policy: Policy) -> Sequence[Examined]:
        """The same candidates, each with what depends on the others, and with ``score``.

        That is ``agreement/<set>`` and ``estimated_accuracy_line/<set>`` for the unlabelled sets, and
        ``disagreement/clean`` and ``disagreement/corrupted`` where predictions were kept.

        Args:
            examined: all candidates of the audit; which parts are used depends on all of them.
            policy: gives the weights of the parts and the confidence.
        """
        confidence = policy.non_inferiority.confidence
        examined = with_agreement(examined, confidence=confidence, replicates=self.replicates, seed=self.seed)
        examined = with_agreement_line(with_disagreement(examined, confidence=confidence), seed=self.seed)
        used = score.parts(examined, policy.score_weights)
        resampled = score.replicates(_score_samples(examined, used), self.replicates, self.seed)
        return tuple(score.scored(one, used, resampled.get(_label(one)), confidence) for one in examined)

    def compare(self, examined: Sequence[Examined], policy: Policy) -> Sequence[Comparison]:
        """Every unordered pair once, labels in order, for every metric both have; a refusal carries its reason.

        The policy's metric and the score have a record in any case.
        """
        pairs = list(combinations(sorted(examined, key=_label), 2))
        table = _Table(examined, policy, self.replicates, self.seed)
        return tuple(comparison for first, second in pairs for comparison in table.pair(first, second))

    def selection(self, examined: Sequence[Examined], policy: Policy) -> Selection | None:
        """The winner's corrected estimate and the model confidence set, in the policy's metric."""
        return selection(examined, policy)


class _Table:
    """What all comparisons of one audit share: the values and their resampled means."""

    def __init__(self, examined: Sequence[Examined], policy: Policy, replicates: int, seed: int) -> None:
        self.confidence, self.matching = policy.non_inferiority.confidence, policy.matching
        self.clusters, self.drawn = _clusters(examined) if policy.clustered else None, (replicates, seed)
        self.places = _places(examined) if policy.clustered else {}
        self.clustered = policy.clustered
        self.always = (policy.non_inferiority.metric, "score")
        kept = {(m.metric, _label(one)): values(one, m.metric) for one in examined for m in one.evidence.measurements}
        self.values: Columns = {key: column for key, column in kept.items() if column is not None}
        self.means = _resampled(self.values, replicates, seed)
        self.samples = _score_samples(examined, score.parts(examined, policy.score_weights))
        self.scores = score.replicates(self.samples, replicates, seed)

    def pair(self, first: Examined, second: Examined) -> Iterator[Comparison]:
        """All comparisons of two candidates."""
        one, other = first.evidence.protocol, second.evidence.protocol
        differences, precisions = one.differences(other, of_answers=True), one.differences(other)
        apart = unmatched(first, second, self.matching)
        shared = [m.metric for m in first.evidence.measurements if measured(first, m.metric)]
        for metric in dict.fromkeys((*self.always, *shared)):
            ours, theirs = measured(first, metric), measured(second, metric)
            record = Comparison(
                metric=metric, champion=_label(first), challenger=_label(second), confidence=self.confidence
            )
            if ours is None or theirs is None:
                if metric in self.always:
                    yield record.model_copy(update={"reason": _absent(metric, first, second)})
            elif differences:
                reason = f"measured differently: {'; '.join(differences)}"
                yield record.model_copy(update={"better": ours.better, "reason": reason})
            elif precisions and is_flatness(ours):
                reason = f"computed differently: {'; '.join(precisions)}"
                yield record.model_copy(update={"better": ours.better, "reason": reason})
            elif (methods := _methods(ours, theirs)) is not None:
                yield record.model_copy(update={"better": ours.better, "reason": methods})
            elif apart and is_flatness(ours):
                found_apart = {"reason": apart.reason, "matched": not apart.known}
                yield record.model_copy(update={"better": ours.better, **found_apart})
            else:
                found = self._difference(ours, theirs, _label(first), _label(second))
                yield Comparison(**record.model_dump(include=_NAMES), **vars(found), better=ours.better)

    def _difference(self, ours: Measurement, theirs: Measurement, first: str, second: str) -> Difference:
        metric, confidence = ours.metric, self.confidence
        if self.clustered and (found := self._by_groups(ours, first, second)) is not None:
            return found
        if metric == "score" and first in self.samples and second in self.samples:
            gaps = self.scores[second] - self.scores[first]
            return score.difference(self.samples[first], self.samples[second], gaps, confidence=confidence)
        one, other = self.values.get((metric, first)), self.values.get((metric, second))
        if one is None or other is None or len(one) != len(other):
            return _from_errors(ours, theirs, confidence)
        if is_binary(one) and is_binary(other):
            return paired_accuracy(one, other, confidence=confidence)
        changes = other - one
        if np.ptp(changes) <= ROUNDING and _bounded(one, other):
            return no_variance(float(changes.mean()), len(changes), confidence=confidence)
        if len(one) < FEWEST_RESAMPLED or np.ptp(changes) <= ROUNDING:
            return paired_t(one, other, confidence=confidence)
        gaps = self.means[metric, second] - self.means[metric, first]
        influence = (changes - changes.mean()) / len(changes)
        return bootstrapped(float(changes.mean()), influence, gaps, n=len(changes), confidence=confidence)

    def _by_groups(self, ours: Measurement, first: str, second: str) -> Difference | None:
        """The difference with an interval of whole groups; None for what does not rest on the validation examples."""
        metric, (replicates, seed) = ours.metric, self.drawn
        settings = _Settings(confidence=self.confidence, replicates=replicates, seed=seed)
        one, other = self.values.get((metric, first)), self.values.get((metric, second))
        if metric == "score" and first in self.samples and second in self.samples and self.clusters is not None:
            return score.clustered(self.samples[first], self.samples[second], self.clusters, **settings)
        if one is None or other is None or metric.startswith(_OTHER_EXAMPLES) or is_flatness(ours):
            return None
        places = self.places.get(ours.probe)
        clusters = self.clusters if self.clusters is None or places is None else self.clusters[places]
        if clusters is None or len(clusters) != len(one) or len(one) != len(other):
            reason = "the policy says clustered, and the groups of the examples are not known: list the probe groups"
            return Difference(float(other.mean() - one.mean()), None, None, None, len(one), "clustered", reason)
        changes = other - one
        if np.ptp(changes) <= ROUNDING and _bounded(one, other):
            return no_variance(float(changes.mean()), len(np.unique(clusters)), confidence=self.confidence)
        return clustered_difference(one, other, clusters, **settings)


def _methods(ours: Measurement, theirs: Measurement) -> str | None:
    """Why two bounds by attacks do not compare: one attack finds more than another, whatever the models are."""
    if not ours.metric.startswith(("adversarial_", "local_lipschitz")):
        return None
    first, second = ours.details.get("method"), theirs.details.get("method")
    told = f"attacked differently: {first} / {second}; set `method` of the probe {ours.probe or 'adversarial'}"
    return None if first == second else told


_OTHER_EXAMPLES = ("shift_accuracy/", "shift_group_accuracy/", "agreement/", "average_confidence/", "group_accuracy/")
_NAMES = {"metric", "champion", "challenger", "confidence"}


class _Settings(TypedDict):
    confidence: float
    replicates: int
    seed: int


def _clusters(examined: Sequence[Examined]) -> "NDArray[np.generic] | None":
    """The group of each validation example, the same for all candidates."""
    return next((found for one in examined if (found := array(one, "validation_groups")) is not None), None)


def _places(examined: Sequence[Examined]) -> "Mapping[str, NDArray[np.int64]]":
    """By probe, which validation examples it chose, where it did not take all; the same for all candidates."""
    found: dict[str, NDArray[np.int64]] = {}
    for one in examined:
        for probe in {m.probe for m in one.evidence.measurements} - set(found):
            chosen = array(one, f"{probe}/examples")
            if chosen is not None and chosen.ndim == 1 and chosen.dtype == np.int64:
                found[probe] = chosen.astype(np.int64)
    return found


def _label(examined: Examined) -> str:
    return examined.evidence.candidate.label


def _score_samples(examined: Sequence[Examined], used: Sequence[score.Part]) -> Mapping[str, score.Sample]:
    found = {_label(one): score.sample(one, used) for one in examined} if used else {}
    return {label: sample for label, sample in found.items() if isinstance(sample, score.Sample)}


def _resampled(columns: Columns, replicates: int, seed: int) -> Columns:
    """Means on resampled examples of all columns that need them; columns of equal length share the examples."""
    counted = {metric for metric, _ in columns if all(is_binary(v) for (m, _), v in columns.items() if m == metric)}
    wanted = [k for k, v in columns.items() if k[0] not in counted | {"score"} and len(v) >= FEWEST_RESAMPLED]
    means: dict[tuple[str, str], NDArray[np.float64]] = {}
    for n in sorted({len(columns[key]) for key in wanted}):
        keys = [key for key in wanted if len(columns[key]) == n]
        stacked = np.stack([columns[key] for key in keys], axis=1)
        drawn = bootstrap_means(stacked, replicates, np.random.default_rng([seed, n]))
        means |= dict(zip(keys, drawn.T, strict=True))
    return means


def _from_errors(ours: Measurement, theirs: Measurement, confidence: float) -> Difference:
    """Two numbers with their standard errors, or only their difference and why that is all."""
    assert ours.estimate is not None and theirs.estimate is not None
    difference = theirs.estimate - ours.estimate
    reason = None
    plain = ours.bound == theirs.bound == "estimate"
    if plain and ours.interval and theirs.interval and None in (ours.standard_error, theirs.standard_error):
        first_, second_ = (ours.estimate, *ours.interval), (theirs.estimate, *theirs.interval)
        return from_intervals(first_, second_, confidence=confidence)
    if ours.standard_error is None or theirs.standard_error is None:
        reason = f"the error of {ours.metric} is unknown; write `on: estimate` to compare the numbers alone"
    elif "estimate" != ours.bound or "estimate" != theirs.bound:
        reason = f"{ours.metric} is only a bound, and the difference of two bounds has no interval"
    else:
        first, second = (ours.estimate, ours.standard_error), (theirs.estimate, theirs.standard_error)
        return unpaired(first, second, confidence=confidence)
    return Difference(difference, None, None, None, None, "difference of estimates", reason)


def _bounded(one: "NDArray[np.float64]", other: "NDArray[np.float64]") -> bool:
    return bool(min(one.min(), other.min()) >= 0 and max(one.max(), other.max()) <= 1)


def _absent(metric: str, *pair: Examined) -> str:
    """Which of the two lacks the metric, and why."""
    for one in pair:
        found = one.evidence.get(metric)
        if found is None:
            return f"{_label(one)} has no {metric}: no probe measured it"
        if found.outcome is not Outcome.MEASURED:
            return f"{_label(one)} has no {metric}: {found.outcome}, {found.reason}"
    return f"{metric} has no number"
