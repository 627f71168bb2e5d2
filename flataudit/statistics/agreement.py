"""How far the candidates agree on inputs that nobody labelled, with near-copies counted once.

Where candidates were trained independently, the one that agrees most with the others tends to be the most accurate
(Jiang et al. 2022; Baek et al. 2022): errors scatter, right answers do not. Copies of one model agree for another
reason, so a whole family of them casts one vote, and nobody votes for itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from flataudit.evidence import Array, Evidence, Examined, Measurement, Metric, Outcome
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import Mean, bounded_mean
from flataudit.statistics.paired import ROUNDING, bca_interval, bootstrap_means
from flataudit.statistics.samples import array

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEWEST_VOTERS", "agreeing", "comparable", "unlabelled_sets", "voters", "with_agreement"]

Predictions = Mapping[str, "NDArray[np.generic]"]
FEWEST_VOTERS = 3
FEWEST_RESAMPLED = 50
"""Inputs below which Wilson's interval covers better than a bootstrap's."""
NEAR_COPY = 0.99
"""Two classifiers that give the same class this often are one voter."""
NEAR_COPY_SKILL = 0.9999
"""The same for regressions, in mean skill: differing by 1 % of a standard deviation."""
_PREFIX = "predictions/"
_AGREEMENT = Metric(
    name="agreement",
    unit="share of inputs",
    better="higher",
    description="Mean share of unlabelled inputs on which the candidate predicts what the other voters predict.",
)


def unlabelled_sets(examined: Sequence[Examined]) -> tuple[str, ...]:
    """Names of the sets for which some candidate left its predictions."""
    return tuple(
        sorted({name.removeprefix(_PREFIX) for one in examined for name in one.arrays if name.startswith(_PREFIX)})
    )


def with_agreement(
    examined: Sequence[Examined], *, confidence: float = 0.95, replicates: int = 2000, seed: int = 0
) -> tuple[Examined, ...]:
    """Each candidate with ``agreement/<set>`` and its per-example array, for every unlabelled set.

    The mean over the other families of the share of inputs on which the candidate says what they say, a family's share
    being the mean over its members. The interval is the BCa bootstrap's of *inputs*, the same ones for all candidates;
    below 50 inputs, or where no share varies, Wilson's. Which candidates were there to vote is taken as given.
    Regression agrees by the bounded skill of one candidate's values with the other's as targets.

    Args:
        examined: all candidates of the audit.
        confidence: of the intervals.
        replicates: bootstrap resamples.
        seed: of the resampling.
    """
    for name in unlabelled_sets(examined):
        predictions, refused = comparable(examined, _PREFIX + name, name)
        families = voters(predictions, {e.evidence.candidate.label: e.evidence for e in examined})
        shares: Mapping[str, NDArray[np.float64]] = {}
        if len(families) >= FEWEST_VOTERS:
            shares = {label: _votes(label, predictions, families) for label in predictions}
        means = _means(shares, confidence, replicates, np.random.default_rng([seed, crc32(name.encode())]))
        examined = [_voted(one, name, families, refused, shares, means, confidence) for one in examined]
    return tuple(examined)


def voters(predictions: Predictions, evidences: Mapping[str, Evidence]) -> tuple[tuple[str, ...], ...]:
    """Families of candidates that count as one voter: of one run, or near-copies, directly or through others."""
    family = {label: {label} for label in predictions}
    for one, other in combinations(sorted(predictions), 2):
        run = evidences[one].candidate.run_id
        related = run is not None and run == evidences[other].candidate.run_id
        if family[one] is not family[other] and (related or _near_copy(predictions[one], predictions[other])):
            family[one] |= family[other]
            for label in family[other]:
                family[label] = family[one]
    return tuple(sorted({tuple(sorted(members)) for members in family.values()}))


def comparable(examined: Sequence[Examined], name: str, data: str) -> tuple[Predictions, Mapping[str, str]]:
    """Predictions on the same inputs by label, and why others do not count; what most candidates have is the same.

    Args:
        examined: all candidates.
        name: of the array with the predictions.
        data: name of the set, whose digest has to agree.
    """
    found = {one.evidence.candidate.label: array(one, name) for one in examined}
    kinds = {
        one.evidence.candidate.label: (one.evidence.protocol.data.get(data), kept.shape, kept.dtype.kind)
        for one in examined
        if (kept := found[one.evidence.candidate.label]) is not None
    }
    usual = Counter(kinds.values()).most_common(1)[0][0] if kinds else None
    predictions = {label: kept for label, kept in found.items() if kept is not None and kinds[label] == usual}
    first = next(iter(predictions), "")
    refused = {
        label: f"there are no predictions on {data}"
        if kept is None
        else f"it predicted other inputs of the name {data} than {first}, or another kind of answer"
        for label, kept in found.items()
        if label not in predictions
    }
    return predictions, refused


def agreeing(own: "NDArray[np.generic]", other: "NDArray[np.generic]") -> "NDArray[np.float64]":
    """``(n,)``: 1 where two candidates predict the same class, or the skill of one's values with the other's as truth.

    >>> agreeing(np.array([0, 1]), np.array([0, 2])).tolist()
    [1.0, 0.0]
    """
    if own.dtype.kind == "f":
        return correctness("regression", own, other)
    return np.asarray(own == other, dtype=np.float64)


def _votes(label: str, predictions: Predictions, families: Sequence[Sequence[str]]) -> "NDArray[np.float64]":
    others = [family for family in families if label not in family]
    shares = [np.mean([agreeing(predictions[label], predictions[m]) for m in family], axis=0) for family in others]
    return np.ascontiguousarray(np.mean(shares, axis=0))


def _means(
    shares: Mapping[str, "NDArray[np.float64]"], confidence: float, replicates: int, generator: np.random.Generator
) -> Mapping[str, Mean]:
    """The mean of each candidate's shares, all on the same resampled inputs."""
    means = {label: bounded_mean(values, confidence=confidence) for label, values in shares.items()}
    wanted = [label for label, v in shares.items() if len(v) >= FEWEST_RESAMPLED and float(np.ptp(v)) > ROUNDING]
    if not wanted:
        return means
    drawn = bootstrap_means(np.stack([shares[label] for label in wanted], axis=1), replicates, generator)
    for label, column in zip(wanted, drawn.T, strict=True):
        values, estimate = shares[label], means[label].estimate
        influence = (values - values.mean()) / len(values)
        ends = bca_interval(column, estimate, influence, confidence=confidence, units=len(values))
        means[label] = Mean(estimate, float(np.std(column, ddof=1)), ends, len(values))
    return means


def _voted(
    one: Examined,
    name: str,
    families: Sequence[Sequence[str]],
    refused: Mapping[str, str],
    shares: Mapping[str, "NDArray[np.float64]"],
    means: Mapping[str, Mean],
    confidence: float,
) -> Examined:
    metric, label = _AGREEMENT.of(name), one.evidence.candidate.label
    if label in refused:
        return _with(one, metric.missing(Outcome.NOT_APPLICABLE, refused[label]))
    if label not in shares:
        reason = f"{len(families)} independent candidates; agreement needs {FEWEST_VOTERS} (near-copies count once)"
        return _with(one, metric.missing(Outcome.NOT_APPLICABLE, reason, "audit more independently trained models"))
    own = next(family for family in families if label in family)
    kin = ", ".join(member for member in own if member != label)
    details = {"other_voters": float(len(families) - 1)} | ({"one voter with": kin} if kin else {})
    measurement = metric.measured(**vars(means[label]), samples=metric.name, confidence=confidence, details=details)
    return _with(one, measurement, {metric.name: Array.pack(shares[label])})


def _with(one: Examined, measurement: Measurement, arrays: Mapping[str, Array] | None = None) -> Examined:
    return Examined(one.evidence.with_measurements([measurement]), {**one.arrays, **(arrays or {})})


def _near_copy(one: "NDArray[np.generic]", other: "NDArray[np.generic]") -> bool:
    limit = NEAR_COPY_SKILL if one.dtype.kind == "f" else NEAR_COPY
    return bool(min(agreeing(one, other).mean(), agreeing(other, one).mean()) >= limit)
