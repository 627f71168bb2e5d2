"""The ends of the Hessian's spectrum, and whether the parameters are at a minimum at all."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Budget, Differentiable, Reading, Role
from flataudit.curvature.lanczos import Extreme, Extremes, extreme_eigenvalues
from flataudit.curvature.objective import Objective
from flataudit.curvature.randomness import generator, normals
from flataudit.evidence import Metric, Outcome, Record

__all__ = ["Spectrum"]

LAMBDA_MAX = Metric(
    name="lambda_max",
    unit="loss/parameter²",
    better="lower",
    description="Largest eigenvalue of the Hessian of the mean loss: the curvature of the sharpest direction.",
)
LAMBDA_MIN = Metric(
    name="lambda_min",
    unit="loss/parameter²",
    better="neither",
    description="Smallest eigenvalue; clearly below zero, the parameters are at no minimum.",
)
GRADIENT_NORM = Metric(
    name="gradient_norm",
    unit="loss/parameter",
    better="neither",
    description="Norm of the gradient of the mean loss; far from zero, curvature describes a slope, not a minimum.",
)


class Spectrum(Record):
    """λ_max and λ_min by Lanczos (1950) with full reorthogonalisation, with residuals; ‖∇L‖ beside them.

    A Ritz value never exceeds λ_max and never undercuts λ_min, so that the two are bounds; the intervals hold both
    ends with 95 % over random starts (Kuczyński & Woźniakowski 1992). What has not converged is said to have not.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (LAMBDA_MAX, LAMBDA_MIN, GRADIENT_NORM)

    relative_error: PositiveFloat = 0.01
    """Residual at convergence, as a share of the largest eigenvalue in magnitude."""
    max_steps: PositiveInt = 40
    """Most Hessian-vector products over all the data."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Both ends from one run; a value that has not converged is an outcome with the best so far."""
        objective = Objective(model, data)
        start = normals(objective.origin, generator(seed, "spectrum"))
        found = extreme_eigenvalues(
            lambda vector: objective.product(objective.origin, vector),
            start,
            max_steps=max(1, min(self.max_steps, int(budget.passes / 2) - 1)),
            relative_error=self.relative_error,
            seconds=budget.seconds,
        )
        _, gradient = objective.gradient(objective.origin)
        return [
            _reading(LAMBDA_MAX, found.largest, found, len(data), bound="lower"),
            _reading(LAMBDA_MIN, found.smallest, found, len(data), bound="upper"),
            Reading(GRADIENT_NORM.measured(float(gradient.norm()), standard_error=0.0, n=len(data))),
        ]


def _reading(metric: Metric, end: Extreme, run: Extremes, n: int, *, bound: str) -> Reading:
    details = {"residual": end.residual, "steps": float(run.steps), "exhausted": str(run.exhausted)}
    if not end.converged:
        reason = f"the residual is {end.residual:.3g} after {run.steps} products, at {end.value:.4g}"
        missing = metric.missing(Outcome.NOT_CONVERGED, reason, "raise max_steps or the budget")
        return Reading(missing.model_copy(update={"details": details}))
    bound = "estimate" if run.exhausted else bound
    measured = metric.measured(end.value, interval=end.interval, bound=bound, n=n, details=details)
    return Reading(measured)
