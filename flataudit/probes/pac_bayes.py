"""How much noise the weights bear before accuracy suffers, and what that proves about unseen examples."""

import math
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.special import stdtrit

from flataudit.contracts import AuditData, Differentiable, Reading
from flataudit.curvature.deadline import Deadline, OutOfTime, out_of_time
from flataudit.curvature.hutchinson import TraceEstimate
from flataudit.curvature.noise import NoisyAnswers
from flataudit.curvature.pac_bayes import pac_bayes_kl
from flataudit.curvature.structure import Pass
from flataudit.curvature.surface import Surface
from flataudit.evidence import Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.correctness import correctness

__all__ = ["PacBayes"]

SIGMA = Metric(
    name="pac_bayes_sigma",
    unit="standard deviation of the noise",
    better="higher",
    description="Largest σ of weight noise at which the expected accuracy falls by less than ten points.",
)
BOUND = Metric(
    name="pac_bayes_bound",
    unit="error rate",
    better="lower",
    description="PAC-Bayes-kl bound on the expected 0–1 error under isotropic weight noise, with 95 % probability.",
)
_START, _FACTOR, _SMALLEST, _LARGEST = 0.1, 4.0, 1e-4, 8.0
"""Of the search for σ, in units of |θᵢ| or of the root mean square of all θ."""
_APART = 1.25
"""Ratio to σ of the two sizes of noise whose drops give the slope."""
_TRIED = tuple(float(sigma) for sigma in np.geomspace(1e-3, 1.0, 13))
"""Values of σ that the bound may choose from."""
_MORE = "raise budget.passes or budget.seconds"


class PacBayes(Record):
    """The largest σ at which noise σTε on the weights costs less than ``drop`` of accuracy, and a bound from noise.

    `pac_bayes_sigma` (Neyshabur et al. 2017, Jiang et al. 2020): T = |θ| or 1; accuracy is the mean correctness on the
    data, for a regression the bounded skill clip(1 − (prediction − target)² / var(targets), 0, 1); an answer that is
    not a number is a wrong one. Found by bisection in ln σ: every σ sees the same draws, so that the drop is smooth in
    σ. Estimated; the interval is that of the draws, by the delta method in ln σ. Where the largest σ that was tried
    costs less, it is a lower bound. The examples are taken as they are.

    `pac_bayes_bound` (Langford & Caruana 2002, Dziugaite & Roy 2017): with probability 1 − δ over the n examples and
    over the draws, the expected 0–1 error on their distribution of a network drawn from N(θ, σ²I), *not* that of the
    network at θ, is below it. It is a theorem where its conditions hold, and not applicable elsewhere: one class an
    example; all that was learned is in θ, hence all parameters and no batch norm, whose statistics have no prior; the
    training examples, independent and identically distributed, which must not have served to choose the architecture
    or the inputs' scaling. The prior is N(0, λ²I), which knows nothing of the data. On examples that the model never
    saw the interval of ``validation_accuracy`` says more, and the bound is not given. ``vacuous`` says that guessing
    would do as well.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Differentiable
    role: ClassVar[Role] = "train"
    metrics: ClassVar[tuple[Metric, ...]] = (SIGMA, BOUND)

    drop: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Loss of accuracy (of bounded skill, for a regression) that is still accepted."""
    scale: Literal["magnitude", "isotropic"] = "magnitude"
    """Noise in proportion to each weight, or of one size for all; the other's σ is among the details."""
    draws: PositiveInt = Field(4, ge=2)
    """Draws of the noise for each of eight runs of examples, the same for every σ; a draw is a forward pass."""
    tolerance: PositiveFloat = 0.05
    """Relative width of σ at which the bisection ends."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Probability with which the bound may fail: half for the examples, half for the draws."""
    bound_draws: PositiveInt = Field(20, ge=2)
    """Draws that estimate the error of the noisy network, once a bound better than guessing is in sight."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the parameters that are disturbed."""

    def measure(self, model: Differentiable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Both numbers.

        Raises:
            ModelError: the model does not answer with numbers as it is.
        """
        purse = _Purse(model, budget, len(data))
        if not purse.holds(0.5 + self.draws / 2):
            return [Reading(metric.missing(Outcome.OVER_BUDGET, "no room for a σ", _MORE)) for metric in self.metrics]
        surface = Surface.of(model, data, self.parameters)
        with surface.within(budget.seconds) as deadline:
            try:
                deadline.check()
                noisy = NoisyAnswers(surface, seed, partial(correctness, model.task))
            except OutOfTime:
                return out_of_time(self.metrics, budget)
            first = Reading(self._sigma(noisy, purse))
            try:
                return [first, Reading(self._bound(noisy, purse))]
            except OutOfTime:
                return [first, *out_of_time([BOUND], budget)]

    def _sigma(self, noisy: NoisyAnswers, purse: "_Purse") -> Measurement:
        if noisy.clean <= self.drop:
            reason = f"an accuracy of {noisy.clean:.3g} has no {self.drop:g} to lose"
            return SIGMA.missing(Outcome.NOT_APPLICABLE, reason)
        other = "isotropic" if self.scale == "magnitude" else "magnitude"
        first, second = (
            _search(_Drops(noisy, self.draws, relative=kind == "magnitude"), self, purse)
            for kind in (self.scale, other)
        )
        details = first.details | {f"sigma_{other}": second.sigma if second.sigma is not None else second.reason}
        if second.interval is not None:
            details |= {f"sigma_{other}_low": second.interval[0], f"sigma_{other}_high": second.interval[1]}
        details |= {"scale": self.scale, "accuracy": noisy.clean, "draws": self.draws}
        if first.sigma is None:
            return SIGMA.missing(first.outcome, first.reason, first.advice).model_copy(update={"details": details})
        return SIGMA.measured(
            first.sigma,
            bound=first.bound,
            standard_error=first.error,
            interval=first.interval,
            n=len(noisy.data),
            details=details,
        )

    def _bound(self, noisy: NoisyAnswers, purse: "_Purse") -> Measurement:
        reason = _why_not(noisy, self.parameters)
        if reason:
            return BOUND.missing(Outcome.NOT_APPLICABLE, reason)
        guess, clean = 1 - 1 / noisy.classes, 1 - noisy.clean
        # Before any draw: what noise that does no harm would prove. It decides which σ are worth trying.
        hopes = sorted((self._proved(noisy, sigma, clean, self.bound_draws)[0], sigma) for sigma in _TRIED)
        best, at = hopes[0]
        if best < guess:
            best = math.inf
            for hope, sigma in hopes:
                if hope >= best or not purse.holds((self.draws + self.bound_draws) / 2):
                    break
                errors = 1 - noisy.right(sigma, self.draws, "choose").estimate
                best, at = min((best, at), (self._proved(noisy, sigma, errors, self.bound_draws)[0], sigma))
        draws = self.bound_draws if best < guess else self.draws
        if not purse.holds(draws / 2):
            return BOUND.missing(Outcome.OVER_BUDGET, f"{draws} draws take {draws / 2:g} passes", _MORE)
        # Draws of their own: those that chose σ would flatter it.
        errors = 1 - noisy.right(at, draws, "prove").estimate
        bound, divergence, limit = self._proved(noisy, at, errors, draws)
        details: dict[str, float | str | None] = {
            "statement": "expected 0–1 error of a network drawn from N(θ, σ²I)",
            "prior": "N(0, λ²I), λ from a grid fixed beforehand",
            "delta": self.delta,
            "sigma": at,
            "kl": divergence,
            "parameters": noisy.surface.origin.numel(),
            "gibbs_error": errors,
            "gibbs_error_limit": limit,
            "draws": draws,
            "vacuous": str(bound >= guess),
        }
        return BOUND.measured(bound, bound="upper", n=len(noisy.data), confidence=1 - self.delta, details=details)

    def _proved(self, noisy: NoisyAnswers, sigma: float, errors: float, draws: int) -> tuple[float, float, float]:
        """Bound, KL and the limit of the noisy error, for so many draws.

        The draws of the runs are independent, and weigh 1 / draws times their share of the examples. For such a mean p̂
        of numbers in [0, 1] Chernoff's N kl(p̂ ‖ p) holds with N = 1 / the largest weight: the logarithm of a moment
        generating function is convex in the weight and vanishes at 0, so that the largest weight stands for all.
        """
        return pac_bayes_kl(
            noisy.square,
            noisy.surface.origin.numel(),
            sigma=sigma,
            errors=errors,
            draws=int(draws / max(noisy.shares)),
            n=len(noisy.data),
            delta=self.delta,
        )


@dataclass(frozen=True)
class _Found:
    """What a search for σ came to."""

    sigma: float | None
    outcome: Outcome = Outcome.MEASURED
    bound: Literal["estimate", "lower"] = "estimate"
    error: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""
    advice: str | None = None
    details: dict[str, float | str | None] = field(default_factory=dict)


class _Drops:
    """The expected drop of correctness as a function of σ, remembered."""

    def __init__(self, noisy: NoisyAnswers, draws: int, *, relative: bool) -> None:
        self.noisy, self.draws, self.relative = noisy, draws, relative
        rms = math.sqrt(noisy.square / noisy.surface.origin.numel())
        self.unit = 1.0 if relative or rms == 0 else rms
        self.known: dict[float, TraceEstimate] = {}

    def at(self, sigma: float) -> float:
        """Mean drop over the draws."""
        if sigma not in self.known:
            self.known[sigma] = self.noisy.right(sigma, self.draws, "search", relative=self.relative)
        return self.noisy.clean - self.known[sigma].estimate

    def bracket(self, target: float, purse: "_Purse") -> tuple[float, float]:
        """The largest σ that is known to cost no more than the target, or 0, and the smallest that is, or infinity."""
        low, high, sigma = 0.0, math.inf, _START * self.unit
        with suppress(OutOfTime):
            while purse.holds(self.draws / 2):
                if self.at(sigma) <= target:
                    low, step = sigma, min(sigma * _FACTOR, _LARGEST * self.unit)
                else:
                    high, step = sigma, max(sigma / _FACTOR, _SMALLEST * self.unit)
                if step == sigma or (low > 0 and high < math.inf):
                    break
                sigma = step
        return low, high

    def halve(self, low: float, high: float, target: float, tolerance: float, purse: "_Purse") -> tuple[float, float]:
        """A narrower bracket, down to the tolerance or to where the noise of the drop hides on which side σ lies."""
        with suppress(OutOfTime):
            while high / low > 1 + tolerance and purse.holds(self.draws / 2):
                middle = math.sqrt(low * high)
                drop, error = self.at(middle), self.known[middle].standard_error or 0.0
                low, high = (middle, high) if drop <= target else (low, middle)
                if abs(drop - target) < error / 4:
                    break
        return low, high

    def log_error(self, sigma: float, purse: "_Purse") -> tuple[float, float] | None:
        """Standard error of ln σ by the delta method, and the half width of its interval; None: unknown."""
        known = max(s for s in self.known if s <= sigma), min(s for s in self.known if s > sigma)
        try:
            slope = self._slope(*((sigma / _APART, sigma * _APART) if purse.holds(self.draws) else known))
        except OutOfTime:
            slope = self._slope(*known)
        nearest = self.known[min(self.known, key=lambda s: abs(math.log(s / sigma)))]
        if slope <= 0 or not nearest.standard_error:
            return None
        error = nearest.standard_error / slope
        return error, float(stdtrit(nearest.degrees_of_freedom, 0.975)) * error

    def _slope(self, low: float, high: float) -> float:
        """Of the drop in ln σ."""
        return (self.at(high) - self.at(low)) / math.log(high / low)


def _search(drops: _Drops, probe: PacBayes, purse: "_Purse") -> _Found:
    """Where the drop reaches what is accepted."""
    target = probe.drop
    low, high = drops.bracket(target, purse)
    if low == 0 and high > _SMALLEST * drops.unit:
        return _Found(None, Outcome.OVER_BUDGET, reason="the budget ended before a σ was found", advice=_MORE)
    if low == 0:
        reason = f"accuracy falls by {drops.at(high):.3g} already under noise of {high:.3g}"
        return _Found(None, Outcome.NOT_CONVERGED, reason=reason, advice="the weights bear no noise at all")
    if high == math.inf:
        details: dict[str, float | str | None] = {"drop": drops.at(low), "converged": "False"}
        return _Found(low, bound="lower", details=details)
    low, high = drops.halve(low, high, target, probe.tolerance, purse)
    fell, falls = drops.at(low), drops.at(high)
    sigma = low * (high / low) ** ((target - fell) / (falls - fell))
    known = drops.log_error(sigma, purse)
    converged = high / low <= 1 + probe.tolerance or (known is not None and math.log(high / low) < 2 * known[1])
    details = {"drop_below": fell, "drop_above": falls, "evaluations": len(drops.known), "converged": str(converged)}
    if known is None:
        return _Found(sigma, interval=(low, high), details=details)
    ends = sigma * math.exp(-known[1]), sigma * math.exp(known[1])
    interval = ends if converged else (min(low, ends[0]), max(high, ends[1]))
    return _Found(sigma, error=known[0] * sigma, interval=interval, details=details)


class _Purse:
    """What is left of a budget after what went through the model since."""

    def __init__(self, model: Differentiable, budget: Budget, n: int) -> None:
        self._model, self._budget, self._n = model, budget, n
        self._before, self._deadline = copy(model.meter), Deadline().sooner(budget.seconds)

    def holds(self, passes: float) -> bool:
        """Whether there is room for so many more."""
        spent = self._model.meter.cost(self._before, self._n).passes
        return spent + passes <= self._budget.passes and not self._deadline.over


def _why_not(noisy: NoisyAnswers, parameters: Sequence[str]) -> str:
    """Why the bound's conditions do not hold; empty where they do."""
    data, surface = noisy.data, noisy.surface
    if noisy.model.task not in ("multiclass", "binary") or data.targets is None or data.targets.ndim > 1:
        return "the bound is about the share of wrong classes"
    if data.role != "train":
        return f"{data.role} examples: on what the model never saw, the interval of validation_accuracy says more"
    if len(surface.names) < len(noisy.model.parameters):
        return f"only parameters like {', '.join(parameters)} are disturbed: the others were learned and have no prior"
    if Pass(surface, next(surface.batches(0, min(2, len(data))))).recorder.statistics:
        return "the statistics of batch norm were learned from the examples and have no prior"
    return ""
