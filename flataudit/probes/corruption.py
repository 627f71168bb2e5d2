"""Accuracy under a graded, seeded suite of input corruptions that fits the data's kind."""

import time
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from flataudit.contracts import AuditData, Budget, Predictor, Reading, Role
from flataudit.corruptions.catalogue import KINDS, Suite
from flataudit.corruptions.scale import blocks
from flataudit.errors import ConfigurationError
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.plugins import nearest
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import bounded_mean

__all__ = ["Corruption"]

_ACCURACY = Metric(
    name="corruption_accuracy",
    better="higher",
    description="mean correctness over corruptions and severities (Hendrycks and Dietterich 2019)",
)


class Corruption(Record):
    """Mean correctness over kinds × severities of corruption (Hendrycks and Dietterich 2019). Higher is better.

    The suite is fixed by the seed, so that all candidates see the same corrupted inputs and pair example by example.
    The mean over cells is exact; its standard error and interval are over *examples*, since all cells of an example
    show the same example. One forward pass a cell.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (_ACCURACY,)

    kinds: tuple[str, ...] | None = Field(None, min_length=1)
    """Names of corruptions; None: all that fit the data's kind."""
    severities: tuple[Literal[1, 2, 3, 4, 5], ...] = Field((1, 3, 5), min_length=1)
    """1 (slight) to 5 (strong)."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = {name for names in KINDS.values() for name in names}
        for kind in kinds or ():
            if kind not in known:
                raise ValueError(f"unknown corruption {kind!r}: {nearest(kind, known)}")
        _refuse_twice(kinds or (), "corruption")
        return kinds

    @field_validator("severities")
    @classmethod
    def _distinct(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        _refuse_twice(severities, "severity")
        return severities

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> list[Reading]:
        """One number, its per-example values, and the accuracy of each kind and severity.

        Raises:
            ConfigurationError: a kind does not fit the data.
        """
        assert data.targets is not None
        if data.kind == "other":
            reason = f"no corruptions for inputs of shape {data.inputs.shape[1:]} and type {data.inputs.dtype}"
            advice = "give images as (n, channels, height, width) or tables as floating point (n, features)"
            return [Reading(_ACCURACY.missing(Outcome.NOT_APPLICABLE, reason, advice))]
        suite, kinds = Suite.of(data.inputs, data.kind), self._kinds(data.kind)
        forward, deadline = len(kinds) * len(self.severities), time.monotonic() + budget.seconds
        if forward / 2 > budget.passes:
            return [_over_budget(f"{forward} forward passes, {budget.passes:g} passes left")]
        cells = np.empty((len(kinds), len(self.severities)))
        right = np.zeros(len(data))
        for row, kind in enumerate(kinds):
            for column, severity in enumerate(self.severities):
                if time.monotonic() > deadline:
                    return [_over_budget(f"{budget.seconds:g} s ran out after {row * cells.shape[1] + column} cells")]
                answers = _answers(model, data, suite, kind, severity, seed)
                cell = correctness(model.task, answers, data.targets)
                cells[row, column] = cell.mean()
                right += cell
        return [self._reading(right / forward, cells, kinds, suite)]

    def _kinds(self, data_kind: Literal["image", "table"]) -> tuple[str, ...]:
        known = KINDS[data_kind]
        for kind in self.kinds or ():
            if kind not in known:
                expected = f"corruptions of data of kind {data_kind}"
                raise ConfigurationError(expected, got=repr(kind), remedy=f"choose among {', '.join(known)}")
        return self.kinds or known

    def _reading(
        self, right: NDArray[np.float64], cells: NDArray[np.float64], kinds: tuple[str, ...], suite: Suite
    ) -> Reading:
        found = bounded_mean(right)
        measurement = _ACCURACY.measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=found.n,
            samples=_ACCURACY.name,
            details={"kinds": ",".join(kinds), "severities": ",".join(map(str, self.severities))} | dict(suite.scale),
        )
        return Reading(measurement, {_ACCURACY.name: Array.pack(right), "corruption/accuracy": Array.pack(cells)})


def _answers(
    model: Predictor, data: AuditData, suite: Suite, kind: str, severity: int, seed: int
) -> NDArray[np.generic]:
    """Predictions for one cell, a block of examples at a time: the corrupted set is never whole in memory."""
    parts = []
    for block in blocks(data.inputs):
        indices = np.arange(block.start, block.stop)
        corrupted = suite.corrupt(data.inputs[block], kind, severity, seed=seed, indices=indices)
        parts.append(model.predict(corrupted))
    return np.concatenate(parts)


def _over_budget(reason: str) -> Reading:
    advice = "list fewer kinds or severities, or raise budget.passes or budget.seconds"
    return Reading(_ACCURACY.missing(Outcome.OVER_BUDGET, reason, advice))


def _refuse_twice(values: Sequence[object], what: str) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"expected each {what} once, got {', '.join(map(str, values))}")
