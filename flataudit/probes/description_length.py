"""How few bits the parameters can be written in before the loss notices."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import OutOfTime, out_of_time
from flataudit.curvature.quantisation import (
    code_length,
    flat_code,
    gauss_newton_diagonals,
    natural_unit,
    ranges,
    rise_of,
    sweep,
)
from flataudit.curvature.surface import Surface
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["DescriptionLength"]

ROUNDED = Metric(
    name="description_length",
    unit="bit",
    better="lower",
    description="Parameters times the fewest bits each that keep the loss within the tolerance when they are rounded.",
)
FLAT = Metric(
    name="description_length_flat",
    unit="bit",
    better="lower",
    description="Shortest code of the parameters whose mean rise of the loss is the tolerance, from the curvature.",
)
_ADVICE = "raise the budget, or lower most_bits or vectors"


class DescriptionLength(Record):
    """Bits of the parameters at a loss within ε of the model's (Hochreiter & Schmidhuber 1997). Lower is flatter.

    `description_length`: parameters × b, where rounding every parameter (biases too) to the nearest of 2ᵇ − 1 equally
    spaced values, symmetric about 0 and up to the largest of its tensor, raises the loss by at most ε, with b and with
    any more bits. The tensors' scales are not counted. Exact on the examples; b is whole, so that it moves in steps.

    `description_length_flat`: ½ Σ log₂⁺(Gᵢᵢ rᵢ² / 24τ), the code that gives every parameter a precision of its own
    such that the loss rises by ε on average; rᵢ is twice the largest of its tensor, τ the level of the reverse
    water-filling, G the Gauss–Newton matrix (`flataudit.curvature.quantisation`). Estimated, with Student's interval.
    It holds for a quadratic; the detail ``rise`` is what the loss really does when the code is read.

    Neither changes when a layer is rescaled and the next makes up for it.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (ROUNDED, FLAT)

    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that are written down: names, or ``last:k``; the others stay as they are."""
    tolerance: PositiveFloat | None = None
    """ε, in the unit of the loss. None: 0.01 nats; for a regression 0.01 of the loss of predicting the mean target."""
    most_bits: Annotated[int, Field(ge=2, le=24)] = 12
    """Where the sweep begins."""
    fewest_bits: Annotated[int, Field(ge=2, le=24)] = 2
    """Where it ends."""
    per_filter: bool = False
    """A scale for each filter (slice along the first dimension) in place of one for each tensor."""
    vectors: Annotated[int, Field(ge=2)] = 8
    """Random sign vectors of the Gauss–Newton diagonal, a backward pass each."""
    draws: Annotated[int, Field(ge=2)] = 2
    """Readings of the flat code for its rise, two forward passes each."""

    @model_validator(mode="after")
    def _descending(self) -> Self:
        if self.fewest_bits > self.most_bits:
            raise ValueError(f"expected fewest_bits of at most {self.most_bits}, got {self.fewest_bits}; lower it")
        return self

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Two numbers; the sweep is in ``description_length/bits`` and ``description_length/losses``."""
        used = 1 + (self.most_bits - self.fewest_bits + 1) / 2
        surface = Surface.of(model, data, self.parameters)
        tolerance = self.tolerance or 0.01 * natural_unit(surface)
        left = budget.passes - (used if used <= budget.passes else 0)
        needed = (1 + self.vectors) / 2 + self.draws + (1 if used > budget.passes else 0)
        with surface.within(budget.seconds):
            try:
                enough = used <= budget.passes
                first = self._rounded(surface, tolerance) if enough else _over(ROUNDED, used, budget.passes)
            except OutOfTime:
                return out_of_time(self.metrics, budget, _ADVICE)
            try:
                second = self._flat(surface, tolerance, seed) if needed <= left else _over(FLAT, needed, left)
            except OutOfTime:
                second = out_of_time([FLAT], budget, _ADVICE)[0]
        return [first, second]

    def _rounded(self, surface: Surface, tolerance: float) -> Reading:
        loss, count = surface.loss_here(), len(surface.origin)
        found = sweep(surface, most_bits=self.most_bits, fewest_bits=self.fewest_bits, per_filter=self.per_filter)
        bits = found.fewest(loss + tolerance)
        arrays = {
            "description_length/bits": Array.pack(np.array(found.bits, dtype=np.int64)),
            "description_length/losses": Array.of(found.losses),
        }
        if bits is None:
            known = f"{found.losses[0] - loss:.3g} above" if found.losses else "not finite"
            reason = f"with {self.most_bits} bits the loss is {known}, and {tolerance:.3g} is allowed"
            missing = ROUNDED.missing(Outcome.NOT_CONVERGED, reason, "raise most_bits or the tolerance")
            return Reading(missing, arrays if found.losses else {})
        details = {"bits_per_parameter": float(bits), "parameters": float(count), "tolerance": tolerance, "loss": loss}
        bound = "upper" if bits == self.fewest_bits else "estimate"
        measured = ROUNDED.measured(bits * count, standard_error=0.0, bound=bound, n=len(surface.data), details=details)
        return Reading(measured, arrays)

    def _flat(self, surface: Surface, tolerance: float, seed: int) -> Reading:
        diagonals = gauss_newton_diagonals(surface, seed, vectors=self.vectors)
        spans, count = 2 * ranges(surface, per_filter=self.per_filter), len(surface.origin)
        found = code_length(diagonals, spans, tolerance)
        rise = rise_of(surface, flat_code(diagonals.mean(dim=0), spans, tolerance), seed, draws=self.draws)
        details = {
            "bits_per_parameter": found.bits / count,
            "parameters": float(count),
            "tolerance": tolerance,
            "rise": rise[0] if rise else "not finite",
            "rise_standard_error": rise[1] if rise else None,
            "gauss_newton_trace": float(diagonals.double().mean(dim=0).sum()),
        }
        measured = FLAT.measured(
            found.bits,
            standard_error=found.standard_error,
            interval=found.interval,
            n=len(surface.data),
            details=details,
        )
        return Reading(measured)


def _over(metric: Metric, needed: float, left: float) -> Reading:
    reason = f"it takes {needed:.3g} passes and {max(left, 0.0):.3g} are left"
    return Reading(metric.missing(Outcome.OVER_BUDGET, reason, _ADVICE))
