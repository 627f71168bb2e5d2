"""Whether the flatness of two candidates may be compared at all: the same kind of point of the same kind of loss."""

from dataclasses import dataclass
from functools import cache

from flataudit import plugins
from flataudit.errors import FlatauditError
from flataudit.evidence import Examined, Measurement
from flataudit.policy import Matching
from flataudit.statistics.samples import measured

__all__ = ["Unmatched", "is_flatness", "unmatched"]

_LEVEL = "training_loss"


@cache
def _flat(probe: str) -> bool:
    """Whether a probe looks at the loss as a function of the parameters, on what the model was trained on."""
    try:
        found = plugins.load("probes", probe)
    except FlatauditError:
        return False
    return getattr(found, "role", "") == "train" and getattr(found, "requires", type).__name__ != "Predictor"


def is_flatness(measurement: Measurement) -> bool:
    """Whether the number is about the loss around the parameters."""
    return measurement.metric != _LEVEL and _flat(measurement.probe)


@dataclass(frozen=True)
class Unmatched:
    """Why the flatness of two candidates does not compare."""

    reason: str
    known: bool
    """They are known to differ; False: it is not known whether they are alike."""


def unmatched(one: Examined, other: Examined, rule: Matching) -> Unmatched | None:
    """Why the flatness of the two does not compare, or None where it does.

    Loss, data, precision and seeds are compared before, by the protocol.
    """
    first, second = measured(one, _LEVEL), measured(other, _LEVEL)
    if first is None or second is None:
        return Unmatched("training_loss is not known of both; list the probe training_loss", known=False)
    losses = sorted((abs(first.estimate or 0.0), abs(second.estimate or 0.0)))
    if losses[1] > rule.training_loss_ratio * losses[0]:
        told = f"training losses of {first.estimate:.3g} and {second.estimate:.3g}"
        return Unmatched(f"{told} are more than {rule.training_loss_ratio:g} times apart", known=True)
    ways = first.details.get("normalisation"), second.details.get("normalisation")
    if rule.normalisation and ways[0] != ways[1]:
        told = f"one normalises by statistics that training gathered, the other does not ({ways[0]} / {ways[1]})"
        return Unmatched(told, known=True)
    return None
