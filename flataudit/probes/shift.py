"""How right the model is on labelled examples from elsewhere, and how much less than on validation."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answers import answers
from flataudit.statistics.correctness import correctness
from flataudit.statistics.gaps import gap
from flataudit.statistics.group_means import by_group, others, worst_mean
from flataudit.statistics.means import bounded_mean

__all__ = ["Shift"]

ACCURACY = Metric(
    name="shift_accuracy",
    unit="accuracy",
    better="higher",
    description="Accuracy on one labelled shifted set; for regression the mean bounded skill. Wilson interval.",
)
GAP = Metric(
    name="shift_gap",
    unit="accuracy",
    better="lower",
    description="Accuracy on validation minus accuracy on the shifted set. Newcombe's interval of two separate sets.",
)
WORST = Metric(
    name="shift_worst_group_accuracy",
    unit="accuracy",
    better="higher",
    description="Lowest accuracy of a group of the shifted set. The interval holds all groups at once (Bonferroni).",
)
GROUP = Metric(
    name="shift_group_accuracy",
    unit="accuracy",
    better="higher",
    description="Accuracy on one group of one shifted set. Wilson interval.",
)


class Shift(Record):
    """Accuracy, or mean bounded skill, on each labelled shifted set, and its gap to validation.

    Exact on these examples. The gap is that of two sets of different examples (Newcombe 1998, method 10): it is known
    no better than the smaller set allows. Where the set has groups, ``shift_group_accuracy/<set>/<group>`` and the
    worst of them as in `groups`. For regression the unit of skill is each set's own variance of the targets.

    Arrays: ``shift_accuracy/<set>``, correctness of each example, ``shift_group_accuracy/<set>/<group>`` of the group's
    examples. One forward pass over the set, one over validation for all sets. Some 50 labelled examples of the target
    distribution tell as much about the best candidate as the best of the other probes.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "shifted"
    reference: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, GAP, WORST)
    families: ClassVar[tuple[Metric, ...]] = (GROUP,)
    """Metrics with a member for each group that the set happens to have."""

    min_examples: PositiveInt = 20
    """A group with fewer is measured and left out of the worst."""
    most: PositiveInt = 100
    """Only the largest groups get a metric of their own; where others are large enough, one more is unmeasured."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Accuracy, gap and worst group of this set, then each group, the largest first."""
        assert data.targets is not None
        right = correctness(model.task, answers(model, data), data.targets)
        rows = [_reading(ACCURACY.of(data.name), right), Reading(_gap(model, data, right))]
        if data.groups is None:
            reason, advice = "the set has no groups", "name their column or array: `groups:` beside `targets:`"
            return [*rows, Reading(WORST.of(data.name).missing(Outcome.NOT_APPLICABLE, reason, advice))]
        groups = by_group(right, data.groups, data.group_names)
        named = list(groups.items())[: self.most]
        members = [_reading(GROUP.of(f"{data.name}/{group}"), values) for group, values in named]
        left = others(GROUP.of(data.name), groups, most=self.most, min_examples=self.min_examples)
        members += [Reading(left)] if left else []
        return [*rows, Reading(self._worst(data, groups)), *members]

    def _worst(self, data: AuditData, groups: Mapping[str, NDArray[np.float64]]) -> Measurement:
        metric = WORST.of(data.name)
        enough = {name: values for name, values in groups.items() if len(values) >= self.min_examples}
        if not enough:
            reason, advice = f"no group has {self.min_examples} examples", "lower `min_examples`, or collect more"
            return metric.missing(Outcome.NOT_APPLICABLE, reason, advice)
        name, worst = worst_mean(enough)
        left_out = float(len(groups) - len(enough))
        details = {"group": name, "groups": float(len(groups)), "left out": left_out}
        return metric.measured(**vars(worst), details=details)


def _gap(model: Predictor, data: AuditData, right: NDArray[np.float64]) -> Measurement:
    metric, validation = GAP.of(data.name), data.reference
    if validation is None or validation.targets is None:
        return metric.missing(Outcome.NOT_APPLICABLE, "there are no validation examples to compare with")
    clean = bounded_mean(correctness(model.task, answers(model, validation), validation.targets))
    return metric.measured(**vars(gap(clean, bounded_mean(right))), details={"validation": clean.estimate})


def _reading(metric: Metric, values: NDArray[np.float64]) -> Reading:
    measured = metric.measured(**vars(bounded_mean(values)), samples=metric.name)
    return Reading(measured, {metric.name: Array.pack(np.ascontiguousarray(values))})
