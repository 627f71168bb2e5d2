"""How often each two candidates answer differently on clean and on corrupted validation inputs.

Candidates of equal accuracy may be wrong on different examples; where they part under corruption, one of them is
fragile. Near-copies count as one other candidate, as in `flataudit.statistics.agreement`. The predictions come
from probes that keep them (``validation_predictions``, ``corruption_predictions``).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flataudit.evidence import Array, Examined, Metric, Outcome
from flataudit.statistics.agreement import agreeing, comparable, voters
from flataudit.statistics.means import bounded_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["with_disagreement"]

_DISAGREEMENT = Metric(
    name="disagreement",
    unit="share of inputs",
    better="neither",
    description="Mean share of inputs on which another candidate answers differently; for regression 1 − skill.",
)
_KEPT = {"clean": "validation_predictions", "corrupted": "corruption_predictions"}
"""Arrays ``(n,)`` or ``(copies, n)`` of class numbers or values."""
_MOST_NAMED = 20


def with_disagreement(examined: Sequence[Examined], *, confidence: float = 0.95) -> tuple[Examined, ...]:
    """Each candidate with ``disagreement/clean`` and ``disagreement/corrupted``, where predictions were kept.

    The mean over the other families (candidates of one run, or that agree almost everywhere on the clean inputs; one
    that has only its own is not applicable), within them over their members, and over the corrupted copies; ``details``
    have each pair's, its own family's too. Exact on these examples; the error is over *examples* (Wilson at their
    effective number), since all copies of an example are one example.
    """
    evidences = {one.evidence.candidate.label: one.evidence for one in examined}
    clean, _ = comparable(examined, _KEPT["clean"], "validation")
    for name, kept in _KEPT.items():
        if any(kept in one.arrays for one in examined):
            predictions, refused = comparable(examined, kept, "validation")
            known = clean if predictions.keys() <= clean.keys() else predictions
            families = voters({label: known[label] for label in predictions}, evidences)
            examined = [_parted(one, name, predictions, families, refused, confidence) for one in examined]
    return tuple(examined)


def _parted(
    one: Examined,
    name: str,
    predictions: Mapping[str, "NDArray[np.generic]"],
    families: Sequence[Sequence[str]],
    refused: Mapping[str, str],
    confidence: float,
) -> Examined:
    metric, label = _DISAGREEMENT.of(name), one.evidence.candidate.label
    others = [family for family in families if label not in family]
    if label in refused or not others:
        alone = "there is no other candidate to part from"
        kin = "all others are of its run or agree with it almost everywhere: near-copies are no other candidates"
        reason = refused.get(label, kin if len(predictions) > 1 else alone)
        missing = metric.missing(Outcome.NOT_APPLICABLE, reason)
        return Examined(one.evidence.with_measurements([missing]), one.arrays)
    pairs = {other: _differing(predictions[label], predictions[other]) for other in predictions if other != label}
    apart = [np.mean([pairs[member] for member in family], axis=0) for family in others]
    values = np.ascontiguousarray(np.mean(apart, axis=0))
    most = sorted(pairs, key=lambda other: (-float(pairs[other].mean()), other))[:_MOST_NAMED]
    measurement = metric.measured(
        **vars(bounded_mean(values, confidence=confidence)),
        samples=metric.name,
        confidence=confidence,
        details={f"with {other}": float(pairs[other].mean()) for other in most},
    )
    arrays = {**one.arrays, metric.name: Array.pack(values)}
    return Examined(one.evidence.with_measurements([measurement]), arrays)


def _differing(own: "NDArray[np.generic]", other: "NDArray[np.generic]") -> "NDArray[np.float64]":
    """``(n,)``, the mean over copies."""
    rows = zip(np.atleast_2d(own), np.atleast_2d(other), strict=True)
    return np.asarray(1 - np.mean([agreeing(a, b) for a, b in rows], axis=0))
