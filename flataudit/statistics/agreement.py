"""How far the candidates agree on inputs that nobody labelled, with near-copies counted once.

Where candidates were trained independently, the one that agrees most with the others tends to be the most accurate
(Jiang et al. 2022; Baek et al. 2022): errors scatter, right answers do not. Copies of one model agree for another
reason, so a whole family of them casts one vote, and nobody votes for itself.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from flataudit.evidence import Array, Evidence, Examined, Measurement, Metric, Outcome
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import bounded_mean
from flataudit.statistics.samples import array

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEWEST_VOTERS", "unlabelled_sets", "voters", "with_agreement"]

Predictions = Mapping[str, "NDArray[np.generic]"]
FEWEST_VOTERS = 3
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


def with_agreement(examined: Sequence[Examined], *, confidence: float = 0.95) -> tuple[Examined, ...]:
    """Each candidate with ``agreement/<set>`` and its per-example array, for every unlabelled set.

    Regression agrees by the bounded skill of one candidate's values with the other's as targets.
    """
    for name in unlabelled_sets(examined):
        predictions, refused = _comparable(examined, name)
        families = voters(predictions, {e.evidence.candidate.label: e.evidence for e in examined})
        examined = [_voted(one, name, predictions, families, refused, confidence) for one in examined]
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


def _comparable(examined: Sequence[Examined], name: str) -> tuple[Predictions, Mapping[str, str]]:
    """Predictions on the same inputs by label, and why others do not count."""
    predictions: dict[str, NDArray[np.generic]] = {}
    refused: dict[str, str] = {}
    digest: str | None = None
    for one in examined:
        label, found = one.evidence.candidate.label, array(one, _PREFIX + name)
        if found is None:
            refused[label] = f"there are no predictions on {name}"
        elif predictions and one.evidence.protocol.data.get(name) != digest:
            refused[label] = f"it predicted other inputs of the name {name} than {next(iter(predictions))}"
        else:
            digest = digest if predictions else one.evidence.protocol.data.get(name)
            predictions[label] = found
    return predictions, refused


def _voted(
    one: Examined,
    name: str,
    predictions: Predictions,
    families: Sequence[Sequence[str]],
    refused: Mapping[str, str],
    confidence: float,
) -> Examined:
    metric, label = _AGREEMENT.of(name), one.evidence.candidate.label
    if label in refused:
        return _with(one, metric.missing(Outcome.NOT_APPLICABLE, refused[label]))
    if len(families) < FEWEST_VOTERS:
        reason = f"{len(families)} independent candidates; agreement needs {FEWEST_VOTERS} (near-copies count once)"
        return _with(one, metric.missing(Outcome.NOT_APPLICABLE, reason, "audit more independently trained models"))
    others = [family for family in families if label not in family]
    votes = [np.mean([_agree(predictions[label], predictions[m]) for m in family], axis=0) for family in others]
    shares = np.ascontiguousarray(np.mean(votes, axis=0))
    mean = bounded_mean(shares, confidence=confidence)
    details = {"other_voters": float(len(others))}
    measurement = metric.measured(**vars(mean), samples=metric.name, confidence=confidence, details=details)
    return _with(one, measurement, {metric.name: Array.pack(shares)})


def _with(one: Examined, measurement: Measurement, arrays: Mapping[str, Array] | None = None) -> Examined:
    return Examined(one.evidence.with_measurements([measurement]), {**one.arrays, **(arrays or {})})


def _agree(own: "NDArray[np.generic]", other: "NDArray[np.generic]") -> "NDArray[np.float64]":
    if own.dtype.kind == "f":
        return correctness("regression", own, other)
    return np.asarray(own == other, dtype=np.float64)


def _near_copy(one: "NDArray[np.generic]", other: "NDArray[np.generic]") -> bool:
    limit = NEAR_COPY_SKILL if one.dtype.kind == "f" else NEAR_COPY
    return bool(min(_agree(one, other).mean(), _agree(other, one).mean()) >= limit)
