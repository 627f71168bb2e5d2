"""The whole spectrum of the Hessian: how many directions are curved, and how far the data narrow the parameters."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.lanczos import SharedRun
from flataudit.curvature.slq import (
    Functional,
    Plan,
    Quadrature,
    density,
    effective_dimension,
    log_determinant,
    quadrature,
)
from flataudit.curvature.stationarity import stationarity
from flataudit.curvature.surface import Surface
from flataudit.evidence import Array, Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["SpectralDensity"]

EFFECTIVE_DIMENSION = Metric(
    name="effective_dimension",
    unit="parameters",
    better="lower",
    description="Σ λ / (λ + α) over the positive eigenvalues of the Hessian: directions that the data determine.",
)
LOG_DETERMINANT = Metric(
    name="log_determinant",
    unit="nats",
    better="lower",
    description="log det(I + H⁺/α) over the positive eigenvalues: how much the data narrow a Gaussian prior.",
)

Details = Mapping[str, float | str | None]


class SpectralDensity(Record):
    """Density of the Hessian's eigenvalues, and sums over them, by stochastic Lanczos quadrature.

    The outliers of the run that `spectrum` began count exactly; random vectors orthogonal to them estimate the rest
    (Ubaru, Chen & Saad 2017; Ghorbani et al. 2019; Yao et al. 2020; deflation after Lin, Saad & Yang 2016). Standard
    errors are between the vectors and see nothing of the quadrature's bias; intervals are Student's, wider by that
    bias as far as it shows (`details`: ``half_steps_change``, ``quadrature_error``), and where it is large the number
    has not converged. Negative eigenvalues count nothing in either sum; ``negative_share`` in `details` says how many
    of all lie below −floor × λ_max.

    Arrays: ``spectrum/grid`` and ``spectrum/density`` ``(points,)``, in units of λ and 1/λ, of integral 1;
    ``spectrum/nodes`` and ``spectrum/weights`` ``(m,)``, the measure itself, in eigenvalues and their number.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (EFFECTIVE_DIMENSION, LOG_DETERMINANT)

    alpha: PositiveFloat = 0.1
    """α of both sums, in units of λ: curvatures well below it count in proportion, those above count one. Much below
    a hundredth of λ_max it takes more steps than the default."""
    outlier_steps: PositiveInt = 24
    """Products of the first run, whose converged eigenvalues count exactly."""
    vectors: PositiveInt = Field(4, ge=2)
    """Random vectors for the rest."""
    steps: PositiveInt = Field(16, ge=2)
    """Products of each vector. Steps matter more than vectors."""
    max_change: PositiveFloat = 0.25
    """Largest quadrature error, as a share of the estimate, of a number that has converged."""
    floor: PositiveFloat = 1e-3
    """Share of λ_max below which a negative eigenvalue is not told from zero."""
    points: PositiveInt = 1000
    """Of the grid."""
    width: PositiveFloat = 0.005
    """Standard deviation of the Gaussian at each eigenvalue, as a share of the range of the spectrum."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that count: names, or ``last:2`` for the last two layers."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Both sums and the density, or why the budget has no room for them."""
        surface = Surface.of(model, data, self.parameters)
        run = SharedRun.of(surface, seed)
        plan = Plan(self.outlier_steps, self.vectors, self.steps)
        refused = plan.refusal(surface, run, budget)
        if refused is None:
            with surface.within(budget.seconds), suppress(OutOfTime):
                run.slope()  # while there is time for it: the density is read beside it
                found = quadrature(surface, seed, plan=plan, run=run, budget=budget)
                if found is not None:
                    return self._readings(surface, run, found)
            refused = f"{budget.seconds:g} s ran out", "raise budget.seconds, or take fewer steps or vectors"
        return [Reading(m.missing(Outcome.OVER_BUDGET, *refused)) for m in self.metrics]

    def _readings(self, surface: Surface, run: SharedRun, found: Quadrature) -> list[Reading]:
        nodes, weights = found.nodes()
        grid, values = density(nodes, weights, points=self.points, width=self.width)
        arrays = {
            f"spectrum/{name}": Array.pack(numbers.contiguous().numpy())
            for name, numbers in (("grid", grid), ("density", values), ("nodes", nodes), ("weights", weights))
        }
        told = self._told(surface, run, found, nodes, weights)
        first = self._measurement(EFFECTIVE_DIMENSION, found, effective_dimension, told)
        second = self._measurement(LOG_DETERMINANT, found, log_determinant, told)
        n = {"n": len(surface.data)}
        return [Reading(first.model_copy(update=n), arrays), Reading(second.model_copy(update=n))]

    def _told(self, surface: Surface, run: SharedRun, found: Quadrature, nodes: Tensor, weights: Tensor) -> Details:
        ritz, _ = run.to(self.outlier_steps).ritz
        largest, smallest = float(ritz[-1]), float(ritz[0])
        below = nodes < -self.floor * max(largest, 0.0)
        return {
            "alpha": self.alpha,
            "outliers": len(found.outliers),
            "vectors": len(found.rest),
            "steps": max((len(one) for one in found.rest), default=0),
            "trace": float(nodes @ weights),
            "negative_share": float(weights[below].sum()) / found.dimension,
            **stationarity(surface, largest).details(smallest, max(abs(largest), abs(smallest))),
        }

    def _measurement(
        self, metric: Metric, found: Quadrature, summand: Callable[[float], Callable[[Tensor], Tensor]], told: Details
    ) -> Measurement:
        total = found.total(summand(self.alpha))
        details = {**told, **_checks(total)}
        share = total.quadrature_error / abs(total.estimate) if total.estimate else 0.0
        if share > self.max_change:
            reason = (
                f"about {total.estimate:.4g}, but its quadrature may be off by {share:.0%}, not {self.max_change:.0%}"
            )
            missing = metric.missing(Outcome.NOT_CONVERGED, reason, "raise steps, or alpha")
            return missing.model_copy(update={"details": {**details, "best": total.estimate}})
        return metric.measured(
            total.estimate, standard_error=total.standard_error, interval=total.interval, details=details
        )


def _checks(total: Functional) -> Details:
    return {"half_steps_change": total.half_steps_change, "quadrature_error": total.quadrature_error}
