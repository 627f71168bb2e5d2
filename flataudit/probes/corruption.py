"""Accuracy under a graded, seeded suite of input corruptions that fits the data's kind."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, field_validator

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.corruptions.catalogue import DATA_KINDS, DEFAULT_KINDS, KINDS, DataKind, Suite
from flataudit.corruptions.effects import effect
from flataudit.corruptions.layouts import Order
from flataudit.corruptions.scale import blocks
from flataudit.corruptions.tokens import Characters
from flataudit.errors import ConfigurationError, ModelError
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.plugins import nearest
from flataudit.specs import Budget, Role
from flataudit.statistics.answers import said
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import bounded_mean

__all__ = ["Corruption"]

_ACCURACY = Metric(
    name="corruption_accuracy",
    better="higher",
    description="mean correctness over corruptions and severities (Hendrycks and Dietterich 2019)",
)
_DECLARE = "declare what the inputs are: `kind: image`, `table` or `series` on the data, or `data_kind` on the probe"
_MOST_EDITS = 2**26
_MEASURED = 256
_FIT_CATEGORIES = ("stale", "swap")
"""Those that give values which the column has elsewhere, and so fit categories too."""
"""So many examples, evenly spaced, tell the effect of a cell well enough, and cost next to nothing."""


class Corruption(Record):
    """Mean correctness over kinds × severities of corruption (Hendrycks and Dietterich 2019). Higher is better.

    The suite is fixed by the seed, so that all candidates see the same corrupted inputs and pair example by example.
    The mean over cells is exact; its standard error and interval are over *examples*, since all cells of an example
    show the same example. One forward pass a cell. Arrays: ``corruption_predictions`` ``(kinds × severities, n)``, the
    most probable class in each cell, from which disagreement of candidates is computed (not for regression); and, each
    ``(kinds, severities)``, ``corruption/accuracy`` and ``corruption/effect``, the root mean square change of up to 256
    inputs over the standard deviation of all (texts: the share of edited characters). Details: ``accuracy/<kind>``,
    the mean over severities.
    """

    version: ClassVar[str] = "4"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (_ACCURACY,)

    kinds: tuple[str, ...] | None = Field(None, min_length=1)
    """Names of corruptions; None: a modest selection that fits the data's kind."""
    severities: tuple[Literal[1, 2, 3, 4, 5], ...] = Field((1, 3, 5), min_length=1)
    """1 (slight) to 5 (strong)."""
    data_kind: DataKind | None = None
    """What the inputs are; None: what the data are declared as, or as shape and dtype tell, which know no series."""
    channels: Order | None = None
    """Where an image's channels are; None: second or last, whichever is 1 or 3."""
    missing: Literal["median", "nan"] = "median"
    """What a missing value of a table is given as; ``nan`` for models that fill gaps themselves."""
    alphabet: str | None = None
    """Of token ids that are characters: the character of each id."""
    padding: NonNegativeInt = 0
    """The id after a text's end."""
    unknown: NonNegativeInt | None = None
    """The id of characters outside the alphabet; None: they are left out."""
    calibrate: bool = False
    """Choose strengths of the same effect for every kind on this data set (`Suite.calibrated`)."""

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
            ConfigurationError: a kind, or what is declared of the inputs, does not fit the data.
        """
        assert data.targets is not None
        data_kind = self._data_kind(data)
        if data_kind is None:
            reason = f"no corruptions for inputs of shape {data.inputs.shape[1:]} and type {data.inputs.dtype}"
            return [Reading(_ACCURACY.missing(Outcome.NOT_APPLICABLE, reason, _DECLARE))]
        kinds = self._kinds(data_kind)
        forward, deadline = len(kinds) * len(self.severities), time.monotonic() + budget.seconds
        if forward / 2 > budget.passes:
            return [_over_budget(f"{forward} forward passes, {budget.passes:g} passes left")]
        tokenizer = None if self.alphabet is None else Characters(self.alphabet, self.padding, self.unknown)
        suite = Suite.of(data.inputs, data_kind, channels=self.channels, missing=self.missing, tokenizer=tokenizer)
        if suite.constant:
            return [Reading(_ACCURACY.missing(Outcome.NOT_APPLICABLE, "all inputs are equal: nothing to corrupt"))]
        unfit = [f"{kind}: {why}" for kind in kinds if (why := suite.unfit(kind)) is not None]
        if unfit:
            advice = "leave it out of `kinds`"
            return [Reading(_ACCURACY.missing(Outcome.NOT_APPLICABLE, "; ".join(unfit), advice))]
        if self.calibrate:
            suite = suite.calibrated(data.inputs, kinds, seed=seed)
        cells: list[_Cell] = []
        for kind in kinds:
            for severity in self.severities:
                if time.monotonic() > deadline:
                    return [_over_budget(f"{budget.seconds:g} s ran out after {len(cells)} cells")]
                cells.append(_cell(model, data, suite, kind, severity, seed))
        told = data_kind if self.data_kind or data.declared else f"{data_kind} (inferred)"
        return [self._reading(cells, kinds, suite, told)]

    def _data_kind(self, data: AuditData) -> DataKind | None:
        if self.data_kind is not None:
            return self.data_kind
        known: dict[str, DataKind] = {name: name for name in DATA_KINDS}
        if data.kind in known:
            return known[data.kind]
        return "image" if data.inputs.ndim == 4 and data.inputs.shape[3] in {1, 3} else None

    def _kinds(self, data_kind: DataKind) -> tuple[str, ...]:
        known = KINDS[data_kind]
        for kind in self.kinds or ():
            if kind not in known:
                expected = f"corruptions of data of kind {data_kind}"
                raise ConfigurationError(expected, got=repr(kind), remedy=f"choose among {', '.join(known)}")
        return self.kinds or DEFAULT_KINDS[data_kind]

    def _reading(self, cells: "Sequence[_Cell]", kinds: tuple[str, ...], suite: Suite, told: str) -> Reading:
        right = np.mean([cell.right for cell in cells], axis=0)
        grids = {
            "corruption/accuracy": np.array([cell.right.mean() for cell in cells]).reshape(len(kinds), -1),
            "corruption/effect": np.array([cell.effect for cell in cells]).reshape(len(kinds), -1),
        }
        found = bounded_mean(right)
        by_kind = zip(kinds, grids["corruption/accuracy"].mean(axis=1).tolist(), strict=True)
        measurement = _ACCURACY.measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=found.n,
            samples=_ACCURACY.name,
            details={"kinds": ",".join(kinds), "severities": ",".join(map(str, self.severities))}
            | {"data_kind": told}
            | dict(suite.told)
            | {f"accuracy/{kind}": accuracy for kind, accuracy in by_kind},
        )
        kept = [cell.said for cell in cells if cell.said is not None]
        answers = {"corruption_predictions": np.stack(kept)} if kept else {}
        arrays = {_ACCURACY.name: right} | grids | answers
        return Reading(measurement, {name: Array.pack(values) for name, values in arrays.items()})


@dataclass(frozen=True, eq=False)
class _Cell:
    """One kind at one severity."""

    right: NDArray[np.float64]
    """Correctness of each example."""
    effect: float
    said: NDArray[np.generic] | None
    """The most probable class of each example; None where there is not one."""


def _cell(model: Predictor, data: AuditData, suite: Suite, kind: str, severity: int, seed: int) -> _Cell:
    """A block of examples at a time: the corrupted set is never whole in memory."""
    answers, changes, every = [], [], -(-len(data) // _measured(data))
    for block in blocks(data.inputs):
        clean, indices = data.inputs[block], np.arange(block.start, block.stop)
        corrupted = suite.corrupt(clean, kind, severity, seed=seed, indices=indices)
        if data.movable is not None and kind not in _FIT_CATEGORIES:
            corrupted = np.where(np.asarray(data.movable), corrupted, clean)
        answers.append(_answered(model, corrupted))
        some = indices % every == 0
        if some.any():
            changes.append(suite.changes(clean[some], corrupted[some]))
    assert data.targets is not None
    found = np.concatenate(answers)
    one = model.task in ("multiclass", "binary") and found.ndim == 2
    right = correctness(model.task, found, data.targets)
    return _Cell(right, effect(np.concatenate(changes)), said(found) if one else None)


def _answered(model: Predictor, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    found = model.predict(inputs)
    if inputs.dtype.kind == "f" and np.isnan(inputs).any() and np.isnan(found.astype(np.float64)).any():
        remedy = "leave `missing` at median: this model fills no gaps itself"
        raise ModelError("answers to missing values", got="NaN", remedy=remedy)
    return found


def _measured(data: AuditData) -> int:
    """Fewer long texts: what an edit distance costs grows with the square of their length."""
    width = data.inputs.dtype.itemsize // 4 if data.inputs.dtype.kind == "U" else 0
    return max(16, min(_MEASURED, _MOST_EDITS // (width**2 + 1)))


def _over_budget(reason: str) -> Reading:
    advice = "list fewer kinds or severities, or raise budget.passes or budget.seconds"
    return Reading(_ACCURACY.missing(Outcome.OVER_BUDGET, reason, advice))


def _refuse_twice(values: Sequence[object], what: str) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"expected each {what} once, got {', '.join(map(str, values))}")
