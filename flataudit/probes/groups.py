"""How right the model is on each group of the validation examples, and on the worst of them."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answers import answers
from flataudit.statistics.correctness import correctness
from flataudit.statistics.group_means import by_group, others, worst_mean
from flataudit.statistics.means import bounded_mean

__all__ = ["Groups"]

GROUP = Metric(
    name="group_accuracy",
    unit="accuracy",
    better="higher",
    description="Accuracy on the examples of one group; for regression the mean bounded skill. Wilson interval.",
)
WORST = Metric(
    name="worst_group_accuracy",
    unit="accuracy",
    better="higher",
    description="Lowest accuracy of a group. The interval holds all groups at once (Bonferroni over Wilson intervals).",
)
GAP = Metric(
    name="group_accuracy_spread",
    unit="accuracy",
    better="lower",
    description="Standard deviation of the groups' true accuracies, without what their few examples add.",
)


class Groups(Record):
    """Accuracy of each group, ``group_accuracy/<group>``, of the worst one, and their spread; one forward pass.

    Exact on these examples, from answers that other probes share. Arrays: ``group_accuracy/<group>``, correctness of
    the group's examples, so that two candidates pair group by group; ``validation_groups``, the group of each example,
    by which the comparer resamples groups where the policy says ``clustered``. The worst of many noisy accuracies is
    lower than the worst true one, which the estimate shares; its interval, from the lowest lower limit to the lowest
    upper one, does not.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (WORST, GAP)
    families: ClassVar[tuple[Metric, ...]] = (GROUP,)
    """Metrics with a member for each group that the data happen to have."""

    min_examples: PositiveInt = 20
    """A group with fewer is measured and left out of the worst and of the spread."""
    most: PositiveInt = 100
    """Only the largest groups get a metric of their own; where others are large enough, one more is unmeasured."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """The worst group and the spread, then each group, the largest first."""
        if data.groups is None:
            advice = "name their column or array: `groups:` beside `targets:`"
            return [Reading(m.missing(Outcome.NOT_APPLICABLE, "the data have no groups", advice)) for m in self.metrics]
        assert data.targets is not None
        right = correctness(model.task, answers(model, data), data.targets)
        found = by_group(right, data.groups, data.group_names)
        enough = {name: values for name, values in found.items() if len(values) >= self.min_examples}
        rows = [self._reading(name, values) for name, values in list(found.items())[: self.most]]
        left = others(GROUP, found, most=self.most, min_examples=self.min_examples)
        rows += [Reading(left)] if left else []
        worst = self._worst(enough, len(found))
        codes = {"validation_groups": Array.pack(np.ascontiguousarray(data.groups, dtype=np.int64))}
        return [Reading(worst.measurement, codes), self._spread(enough), *rows]

    def _reading(self, name: str, values: NDArray[np.float64]) -> Reading:
        metric = GROUP.of(name)
        measured = metric.measured(**vars(bounded_mean(values)), samples=metric.name)
        return Reading(measured, {metric.name: Array.pack(np.ascontiguousarray(values, dtype=np.float64))})

    def _worst(self, enough: dict[str, NDArray[np.float64]], groups: int) -> Reading:
        if not enough:
            reason = f"no group has {self.min_examples} examples"
            return Reading(WORST.missing(Outcome.NOT_APPLICABLE, reason, _FEW))
        name, lowest = worst_mean(enough)
        details = {"group": name, "groups": float(groups), "left out": float(groups - len(enough))}
        measured = WORST.measured(**vars(lowest), details=details)
        return Reading(measured)

    def _spread(self, enough: dict[str, NDArray[np.float64]]) -> Reading:
        """By the method of moments (DerSimonian & Laird 1986), with equal weights and each group's unbiased variance.

        A single example says nothing of its group's variance: such a group is left out whatever `min_examples` is.
        """
        several = [values for values in enough.values() if len(values) > 1]
        if len(several) < 3:
            reason = f"fewer than 3 groups of {max(self.min_examples, 2)} examples"
            return Reading(GAP.missing(Outcome.NOT_APPLICABLE, reason, _FEW))
        means = np.array([values.mean() for values in several])
        noise = float(np.mean([values.var() / (len(values) - 1) for values in several]))
        details = {"between groups": float(means.std(ddof=1)), "by few examples": noise**0.5}
        return Reading(GAP.measured(max(float(means.var(ddof=1)) - noise, 0.0) ** 0.5, n=len(several), details=details))


_FEW = "lower `min_examples`, or collect more"
