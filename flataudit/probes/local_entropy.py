"""How much of a Gaussian neighbourhood of the parameters is about as good as they are."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature import entropy
from flataudit.curvature.deadline import OutOfTime
from flataudit.curvature.entropy import Neighbourhood, reference
from flataudit.curvature.scales import Scale, scale_of
from flataudit.curvature.surface import Surface
from flataudit.evidence import Metric, Outcome, Record
from flataudit.specs import Budget, Role

__all__ = ["LocalEntropy"]

ENTROPY = Metric(
    name="local_entropy",
    unit="nat",
    better="higher",
    description="Log mean of exp(−β · rise of the loss) under Gaussian noise on the parameters; 0 where none rises.",
)


class LocalEntropy(Record):
    """Φ = log E exp(−β (L(θ + Sz) − L(θ))) over z ~ N(0, I/γ), in nats. Higher (nearer to 0 from below) is flatter.

    Baldassi et al. 2015, Chaudhari et al. 2017, Pittorino et al. 2021. Where the loss is a quadratic with Hessian H and
    no gradient it is −½ log det(I + β S H S / γ); a slope raises it, since part of the neighbourhood is then better
    than the model. Estimated by annealed chains (`flataudit.curvature.entropy`), with Student's interval over the
    chains; where they disagree too much to be averaged the outcome is `not_converged`. What leaves the number as
    it is when layers are rescaled depends on S (`flataudit.curvature.scales`); a temperature of the logits moves it.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (ENTROPY,)

    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that move: names, or ``last:k`` for those of the last k layers."""
    scale: Scale = "element"
    """S, what the noise of a parameter is in proportion to: ``element`` |θᵢ|, ``filter`` its norm, ``unit`` 1."""
    gamma: PositiveFloat = 10.0
    """Precision of the noise: its standard deviation is 1/√γ in units of S. ``filter`` and ``unit`` want more."""
    inverse_temperature: PositiveFloat = 1.0
    """β, nats per unit of the mean loss; the number of examples gives the likelihood of all of them."""
    chains: Annotated[int, Field(ge=8)] = 16
    """Annealed chains; the error is between them."""
    rungs: PositiveInt = 3
    """Losses that each chain takes on its way, a forward pass each."""
    num_matvecs: NonNegativeInt = 4
    """Hessian-vector products for the quadratic model that chains start from."""
    fewest_effective: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smallest share of the chains that counts; intervals hold the truth too seldom below one half."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """One number with its error, or why the chains gave none."""
        needed = 1 + 2 * self.num_matvecs + self.chains * self.rungs / 2
        if needed > budget.passes:
            return [_over(f"it takes {needed:.3g} passes and {budget.passes:.3g} are left")]
        surface = Surface.of(model, data, self.parameters)
        area = Neighbourhood(scale_of(surface, self.scale), self.gamma, self.inverse_temperature)
        try:
            with surface.within(budget.seconds):
                found = entropy.local_entropy(
                    surface,
                    seed,
                    start=reference(surface, seed, area=area, num_matvecs=self.num_matvecs),
                    chains=self.chains,
                    rungs=self.rungs,
                )
        except OutOfTime:
            found = None
        if found is None:
            return [_over(f"the chains did not end within {budget.seconds:.3g} s")]
        details = {
            "effective_chains": found.effective_share * self.chains,
            "quadratic": found.quadratic,
            "parameters": float(len(surface.origin)),
        }
        if found.effective_share < self.fewest_effective:
            reason = f"the weights of {self.chains} chains count as {details['effective_chains']:.1f}"
            advice = "raise rungs or num_matvecs, or gamma for a smaller neighbourhood"
            missing = ENTROPY.missing(Outcome.NOT_CONVERGED, f"{reason}, at {found.estimate:.4g}", advice)
            return [Reading(missing.model_copy(update={"details": details}))]
        measured = ENTROPY.measured(
            found.estimate,
            standard_error=found.standard_error,
            interval=found.interval,
            n=len(data),
            details=details,
        )
        return [Reading(measured)]


def _over(reason: str) -> Reading:
    return Reading(ENTROPY.missing(Outcome.OVER_BUDGET, reason, "raise the budget, or lower chains, rungs or products"))
