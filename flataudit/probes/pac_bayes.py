"""How much noise the weights bear before accuracy suffers, and what that proves about unseen examples."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.special import stdtrit

from flataudit.contracts import AuditData, Budget, Differentiable, Reading, Role
from flataudit.curvature.pac_bayes import pac_bayes_kl
from flataudit.curvature.structure import Pass
from flataudit.curvature.surface import Surface
from flataudit.evidence import Metric, Outcome, Record
from flataudit.statistics.correctness import correctness

__all__ = ["PacBayes"]

SIGMA = Metric(
    name="pac_bayes_sigma",
    unit="relative noise",
    better="higher",
    description="Largest σ of relative weight noise θᵢ(1 + σε) at which accuracy falls by less than ten points.",
)
BOUND = Metric(
    name="pac_bayes_bound",
    unit="error rate",
    better="lower",
    description="PAC-Bayes-kl bound on the expected 0–1 error under isotropic weight noise, with 95 % probability.",
)
Weights = Mapping[str, NDArray[generic]]
_SMALLEST, _LARGEST = 1e-4, 8.0


class PacBayes(Record):
    """The largest σ that costs less than ``drop`` of accuracy (Jiang et al. 2020), by bisection with common noise.

    Every σ sees the same draws, so that the drop is smooth in σ; the search ends where two values of σ differ by less
    than ``tolerance``, or their drops by less than their noise. The interval is that of the draws, by the delta method.

    `pac_bayes_bound` is a theorem where its conditions hold, and absent elsewhere: classes, all parameters, no batch
    norm (its statistics are learned and have no prior), independent and identically distributed examples. The prior is
    N(0, λ²I), so that a bound of real networks is often above 1/2; then ``vacuous`` says so.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (SIGMA, BOUND)

    drop: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Loss of accuracy (of bounded skill, for a regression) that is still accepted."""
    scale: Literal["magnitude", "isotropic"] = "magnitude"
    """Noise in proportion to each weight, or of one size for all."""
    draws: PositiveInt = Field(6, ge=2)
    """Draws of the noise, the same for every σ."""
    tolerance: PositiveFloat = 0.05
    """Relative width of σ at which the bisection ends."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Probability with which the bound may fail."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Both numbers."""
        search = _Search(model, data, seed, self.draws, self.scale)
        sigma = self._sigma(search, budget)
        return [sigma, self._bound(model, data, seed, budget)]

    def _sigma(self, search: "_Search", budget: Budget) -> Reading:
        low, high, evaluations = _SMALLEST, _LARGEST, 0
        most = int(2 * budget.passes / self.draws / 2) - 2
        if most < 4:
            return Reading(SIGMA.missing(Outcome.OVER_BUDGET, "the budget has no room for a search", _MORE))
        if search.mean(high) < self.drop:
            details = {"scale": self.scale, "drop": search.mean(high)}
            return Reading(SIGMA.measured(high, bound="lower", n=len(search.data), details=details))
        if search.mean(low) > self.drop:
            reason = f"accuracy falls by {search.mean(low):.3g} already under noise of {low:g}"
            return Reading(SIGMA.missing(Outcome.NOT_CONVERGED, reason, "the model is at no robust point"))
        while high / low > 1 + self.tolerance and evaluations < most:
            middle = math.sqrt(low * high)
            apart = search.mean(high) - search.mean(low)
            if evaluations > 4 and apart < search.error(middle):
                break
            low, high = (middle, high) if search.mean(middle) < self.drop else (low, middle)
            evaluations += 1
        return self._found(search, math.sqrt(low * high))

    def _found(self, search: "_Search", sigma: float) -> Reading:
        """The error of σ by the delta method: that of the drop over its slope in log σ."""
        span = 0.25
        slope = (search.mean(sigma * (1 + span)) - search.mean(sigma / (1 + span))) / (2 * math.log1p(span))
        details = {"scale": self.scale, "drop": search.mean(sigma), "draws": self.draws}
        if slope <= 0:
            return Reading(SIGMA.measured(sigma, n=len(search.data), details=details))
        error = search.error(sigma) / slope
        half = float(stdtrit(self.draws - 1, 0.975)) * error
        known = {"standard_error": error * sigma, "interval": (sigma * math.exp(-half), sigma * math.exp(half))}
        return Reading(SIGMA.measured(sigma, n=len(search.data), details=details, **(known if error > 0 else {})))

    def _bound(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Reading:
        reason = _why_not(model, data)
        if reason:
            return Reading(BOUND.missing(Outcome.NOT_APPLICABLE, reason))
        surface = Surface.of(model, data)
        square, dimension = float(surface.origin.double().square().sum()), surface.origin.numel()
        choose, check = (_Search(model, data, seed + i, self.draws, "isotropic") for i in (1, 2))
        best: tuple[float, float, float, float] | None = None
        for sigma in np.geomspace(1e-3, 1.0, 7).tolist():
            found = pac_bayes_kl(
                square,
                dimension,
                sigma=sigma,
                errors=1 - choose.right(sigma),
                draws=self.draws,
                n=len(data),
                delta=self.delta,
            )
            best = (found[0], sigma, *found[1:]) if best is None or found[0] < best[0] else best
        assert best is not None
        errors = 1 - check.right(best[1])
        bound, divergence, gibbs = pac_bayes_kl(
            square, dimension, sigma=best[1], errors=errors, draws=self.draws, n=len(data), delta=self.delta
        )
        details: dict[str, float | str | None] = {
            "prior": "N(0, λ²I), λ from a grid",
            "sigma": best[1],
            "kl": divergence,
            "gibbs_error": errors,
            "gibbs_error_limit": gibbs,
            "delta": self.delta,
            "vacuous": str(bound >= 1 - 1 / _classes(model, data)),
        }
        measured = BOUND.measured(bound, bound="upper", n=len(data), confidence=1 - self.delta, details=details)
        return Reading(measured)


class _Search:
    """Mean drop of correctness under noise, with the same draws at every size of it."""

    def __init__(
        self, model: Differentiable, data: AuditData, seed: int, draws: int, scale: Literal["magnitude", "isotropic"]
    ) -> None:
        assert data.targets is not None
        self.model, self.data, self._targets = model, data, data.targets
        self._seed, self._draws, self._scale = seed, draws, scale
        self._weights = model.weights()
        self._clean = float(correctness(model.task, model.predict(data.inputs), data.targets).mean())
        self._known: dict[float, NDArray[np.float64]] = {}

    def mean(self, sigma: float) -> float:
        """Mean drop over the draws."""
        return self._clean - float(self._each(sigma).mean())

    def right(self, sigma: float) -> float:
        """Mean correctness over the draws."""
        return float(self._each(sigma).mean())

    def error(self, sigma: float) -> float:
        """Its standard error over the draws."""
        return float(self._each(sigma).std(ddof=1) / math.sqrt(self._draws))

    def _each(self, sigma: float) -> NDArray[np.float64]:
        if sigma not in self._known:
            found = [self._right(sigma, draw) for draw in range(self._draws)]
            self._known[sigma] = np.array(found)
        return self._known[sigma]

    def _right(self, sigma: float, draw: int) -> float:
        generator = np.random.default_rng([self._seed, 0x9AC, draw])
        noisy = {}
        for name, value in self._weights.items():
            step = sigma * generator.standard_normal(value.shape)
            whole = np.asarray(value, dtype=np.float64)
            noisy[name] = (whole + step * (np.abs(whole) if self._scale == "magnitude" else 1.0)).astype(value.dtype)
        answers = self.model.predict_at(noisy, self.data.inputs)
        return float(correctness(self.model.task, answers, self._targets).mean())


_MORE = "raise budget.passes"


def _why_not(model: Differentiable, data: AuditData) -> str:
    """Why the bound's conditions do not hold; empty where they do."""
    if model.task not in ("multiclass", "binary") or data.targets is None or data.targets.ndim > 1:
        return "the bound is about the share of wrong classes"
    surface = Surface.of(model, data)
    uses = Pass(surface, next(surface.batches(0, min(2, len(data))))).uses
    if any("mean" in use.options for use in uses):
        return "the statistics of batch norm are learned from the data and have no prior"
    return ""


def _classes(model: Differentiable, data: AuditData) -> int:
    return int(model.predict(data.inputs[:1]).shape[-1])
