"""What the trace of the Hessian is, and how precisely this candidate's is known."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import OutOfTime, out_of_time
from flataudit.curvature.gauss_newton import gauss_newton
from flataudit.curvature.hessian import Hessian
from flataudit.curvature.hutchinson import TraceEstimate
from flataudit.curvature.randomness import generator
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import hessian_trace
from flataudit.curvature.xtrace import xtrace
from flataudit.evidence import Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["HessianTrace"]

TRACE = Metric(
    name="hessian_trace",
    unit="loss/parameter²",
    better="lower",
    description="Trace of the Hessian of the mean loss, the sum of all curvatures.",
)
GAUSS_NEWTON = Metric(
    name="ggn_trace",
    unit="loss/parameter²",
    better="lower",
    description="Trace of the generalised Gauss–Newton matrix: the part of the Hessian that is never negative.",
)


class HessianTrace(Record):
    """Tr(H) of the mean loss, and Tr(G) of its Gauss–Newton part. Unit: loss per squared parameter. Lower is flatter.

    Exact (standard error 0) for networks that are piecewise affine in each parameter, as ReLU networks are; for
    smooth ones Tr(G) is exact and random vectors estimate the rest; for all others random vectors estimate both
    (Hutchinson 1989), with Student's interval. Losses with more than fifty outputs take
    a few mixtures of them exactly and the others at random.
    Not invariant to rescaling layers or logits: it explains, and ranks only candidates of one architecture
    (`relative_flatness` has the invariant measures). The pointwise Hessian of a ReLU network does not see the kinks:
    read it beside `sharpness_average`.
    """

    version: ClassVar[str] = "4"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (TRACE, GAUSS_NEWTON)

    relative_error: PositiveFloat = 0.01
    """Stop when the standard error falls below this share of the estimate."""
    max_matvecs: PositiveInt = 64
    """Most Hessian-vector products over all the data."""
    cross_check: int = Field(0, ge=0)
    """Products for a second opinion by XTrace, which knows nothing of the structure; 4 at least, 0: none."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that count: names, or ``last:2`` for the last two layers."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Both traces with their errors and what each layer adds; says whether precision or the budget ended it."""
        surface = Surface.of(model, data, self.parameters)
        try:
            with surface.within(budget.seconds):
                return self._measured(surface, seed, budget)
        except OutOfTime:
            return out_of_time(self.metrics, budget)

    def _measured(self, surface: Surface, seed: int, budget: Budget) -> Sequence[Reading]:
        # First, while there is time for it: without it a trace does not say what it is about.
        slope = float(surface.slope_here()[1].norm())
        allowed = budget.model_copy(update={"passes": min(budget.passes, 2.0 * self.max_matvecs)})
        found = hessian_trace(surface, seed, relative_error=self.relative_error, budget=allowed)
        known = found.gauss_newton if found else None
        if known is None:
            half = allowed.model_copy(update={"passes": allowed.passes / 2})
            known = gauss_newton(surface, seed, relative_error=self.relative_error, budget=half)
        told: dict[str, float | str] = {
            "gradient_norm": slope,
            "second_derivatives": surface.second_derivatives,
        }
        if found is not None and self.cross_check:
            told |= _second_opinion(surface, found.trace, max(4, self.cross_check), seed)
        n = len(surface.data)
        return [
            _reading(TRACE, found.trace, found.method, told, n) if found else _over_budget(TRACE, budget),
            _reading(GAUSS_NEWTON, known.trace, known.method, told, n) if known else _over_budget(GAUSS_NEWTON, budget),
        ]


def _reading(metric: Metric, found: TraceEstimate, method: str, told: Mapping[str, float | str], n: int) -> Reading:
    details: dict[str, float | str | None] = {
        "method": method,
        "stopped": found.stopped,
        **told,
        **{f"layer {name}": share for name, share in _by_layer(found.by_parameter).items()},
    }
    if found.standard_error != 0:
        details |= {"vectors": found.vectors, "degrees_of_freedom": found.degrees_of_freedom}
    measured = metric.measured(
        found.estimate, standard_error=found.standard_error, interval=found.interval, n=n, details=details
    )
    return Reading(measured)


def _over_budget(metric: Metric, budget: Budget) -> Reading:
    reason = f"the budget that was left ({budget.passes:.3g} passes, {budget.seconds:.3g} s) has no room for it"
    return Reading(metric.missing(Outcome.OVER_BUDGET, reason, "raise budget.passes or budget.seconds"))


def _second_opinion(surface: Surface, found: TraceEstimate, products: int, seed: int) -> dict[str, float | str]:
    """XTrace beside the trace; they differ where they are farther apart than both errors, XTrace's doubled, explain."""
    source, like = generator(seed, "xtrace"), surface.origin
    try:
        other = xtrace(Hessian(surface), len(like), num_matvecs=products, source=source, like=like)
    except OutOfTime:
        return {"xtrace_says": "the time ended before"}
    apart = abs(other.estimate - found.estimate)
    allowed = 4 * ((2 * other.standard_error) ** 2 + (found.standard_error or 0.0) ** 2) ** 0.5
    rounding = 1e-4 * abs(found.estimate)
    return {
        "xtrace": other.estimate,
        "xtrace_standard_error": other.standard_error,
        "xtrace_says": "agrees" if apart <= allowed + rounding else "differs",
    }


def _by_layer(shares: Mapping[str, float]) -> Mapping[str, float]:
    """Parameters of one layer together, in the model's order."""
    layers: dict[str, float] = {}
    for name, share in shares.items():
        layer = name.rpartition(".")[0] or name
        layers[layer] = layers.get(layer, 0.0) + share
    return layers
