"""Whether a regression model that says how sure it is, is right about that."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from flataudit.contracts import AuditData, Distribution, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.cluster_details import cluster_details
from flataudit.statistics.forecasts import Forecast, NormalForecast, QuantileForecast, null_quantile_errors
from flataudit.statistics.means import Mean, bounded_mean, mean
from flataudit.statistics.proportions import wilson_interval

__all__ = ["Intervals"]

COVERAGE = Metric(
    name="interval_coverage",
    unit="probability",
    better="neither",
    description="Share of the values inside the central interval of the declared level (details). Wilson interval.",
)
WIDTH = Metric(
    name="interval_width",
    unit="target unit",
    better="lower",
    description="Mean width of that interval: of two models that cover alike, the narrower knows more.",
)
CRPS = Metric(
    name="crps",
    unit="target unit",
    better="lower",
    description="Continuous ranked probability score of what is stated, a proper score; approximate for quantiles.",
)
QUANTILES = Metric(
    name="quantile_calibration_error",
    unit="probability",
    better="lower",
    description="Mean over levels of |share of values at most the stated quantile − level|; biased upwards.",
)

_ADVICE = (
    "log a model that states a distribution: a scikit-learn regressor with return_std, or quantiles in columns "
    "(`outputs: quantiles`); or put conformal prediction around it"
)
_Details = dict[str, float | str | None]


class Intervals(Record):
    """Coverage and width of stated intervals, CRPS (Gneiting & Raftery 2007) and quantile calibration.

    For regression models that carry a `Distribution`: normal (closed forms, exact) or quantiles (the CRPS an
    approximation by their levels, said in the details). ``quantile_calibration_error`` is that of Kuleshov et al. 2018
    as a mean of absolute values, at 0.05, 0.1 … 0.95 or at the model's own levels; `details` hold what a model whose
    values follow its statements would show (``expected_if_calibrated``, ``calibrated_p95``), and its interval's lower
    end is lower by the former, which chance adds at most. Errors are those of the examples as a sample; where the data
    have groups, details add the interval of whole groups.

    Arrays: ``intervals/levels`` ``(L, 4)``, level, share of values at most the quantile, and its Wilson interval;
    ``intervals/coverage`` ``(C, 5)``, level of a central interval, share inside, its Wilson interval, mean width; and
    one value an example for each metric.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (COVERAGE, WIDTH, CRPS, QUANTILES)

    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Of the central interval; a model of quantiles must state both its ends."""
    replicates: PositiveInt = 1000
    """Simulated models whose values follow their statements."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All four metrics from one pass."""
        if model.task != "regression":
            return self._missing("a classifier states probabilities of classes: see `calibration`", None)
        stated: object = getattr(model, "distribution", None)
        if not isinstance(stated, Distribution):
            because = getattr(model, "no_distribution_because", None)
            return self._missing(because or "the model answers with a value alone", _ADVICE)
        assert data.targets is not None
        found = np.asarray(stated(data.inputs), dtype=np.float64)
        values = np.asarray(data.targets, dtype=np.float64)
        levels = tuple(stated.levels)
        forecast: Forecast = QuantileForecast(found, levels) if levels else NormalForecast(found[:, 0], found[:, 1])
        told: _Details = {"stated": "quantiles" if levels else "normal", "origin": stated.origin}
        if isinstance(forecast, QuantileForecast):
            told["crossing"] = forecast.crossing
        make = _Numbers(data.groups, told, seed)
        return [
            *self._interval(make, forecast, values),
            _crps(make, forecast, values),
            self._levels(make, forecast, values),
        ]

    def _missing(self, reason: str, advice: str | None) -> list[Reading]:
        return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason, advice)) for metric in self.metrics]

    def _interval(self, make: "_Numbers", forecast: Forecast, values: NDArray[np.float64]) -> list[Reading]:
        """Coverage and width at the declared level."""
        table = _coverages(forecast, values)
        ends = forecast.central(self.level)
        if ends is None:
            have = ", ".join(f"{row[0]:g}" for row in table) or "none"
            reason = f"the model does not state both ends of the central {self.level:g} interval"
            advice = f"set the probe's `level` to one that it states: {have}"
            return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason, advice)) for metric in (COVERAGE, WIDTH)]
        low, high = ends
        inside = np.asarray((values >= low) & (values <= high), dtype=np.float64)
        details: _Details = {
            "level": self.level,
            "coverage_error": float(inside.mean()) - self.level,
            "below": float(np.mean(values < low)),
            "above": float(np.mean(values > high)),
        }
        kept = {"intervals/coverage": Array.pack(np.ascontiguousarray(table))}
        return [
            make.reading(COVERAGE, bounded_mean(inside), inside, details, kept),
            make.reading(WIDTH, mean(high - low), high - low, {"level": self.level}),
        ]

    def _levels(self, make: "_Numbers", forecast: Forecast, values: NDArray[np.float64]) -> Reading:
        """The error of the quantiles, by the sign of each level's miss."""
        levels, below = np.array(forecast.levels), forecast.below(values)
        shares = below.mean(axis=0)
        each = (below - levels) @ np.sign(shares - levels) / len(levels)
        null = null_quantile_errors(forecast.levels, len(values), self.replicates, np.random.default_rng(make.seed))
        details: _Details = {
            "expected_if_calibrated": float(null.mean()),
            "calibrated_p95": float(np.quantile(null, 0.95)),
            "levels": float(len(levels)),
        }
        ends = [wilson_interval(float(share), len(values)) for share in shares]
        table = np.column_stack([levels, shares, np.array(ends)])
        found = mean(each)
        if found.interval is not None:
            low, high = found.interval
            low -= float(null.mean())  # what chance adds to a mean of absolute values, at most
            found = Mean(found.estimate, found.standard_error, (max(0.0, low), min(1.0, high)), found.n)
        return make.reading(QUANTILES, found, each, details, {"intervals/levels": Array.pack(table)})


def _coverages(forecast: Forecast, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(C, 5)``: level of each central interval that is stated, share inside, Wilson interval, mean width."""
    rows = []
    for level in sorted({round(abs(1 - 2 * level), 9) for level in forecast.levels} - {0.0}):
        ends = forecast.central(level)
        if ends is not None:
            share = float(np.mean((values >= ends[0]) & (values <= ends[1])))
            rows.append((level, share, *wilson_interval(share, len(values)), float(np.mean(ends[1] - ends[0]))))
    return np.array(rows).reshape(-1, 5)


def _crps(make: "_Numbers", forecast: Forecast, values: NDArray[np.float64]) -> Reading:
    each = forecast.crps(values)
    exact = isinstance(forecast, NormalForecast)
    method = "closed form" if exact else f"pinball losses at {len(forecast.levels)} levels, an approximation"
    return make.reading(CRPS, mean(each), each, {"method": method})


class _Numbers:
    """Makes readings of means over examples."""

    def __init__(self, groups: "NDArray[np.generic] | None", told: _Details, seed: int) -> None:
        self.groups, self.told, self.seed = groups, told, seed

    def reading(
        self,
        metric: Metric,
        found: Mean,
        each: NDArray[np.float64],
        details: Mapping[str, float | str | None],
        arrays: Mapping[str, Array] | None = None,
    ) -> Reading:
        """With the values of the examples, and what whole groups would make of the interval."""
        told = self.told | dict(details) | cluster_details(each, self.groups, seed=self.seed)
        kept = {metric.name: Array.pack(np.ascontiguousarray(each))} | dict(arrays or {})
        return Reading(metric.measured(**vars(found), samples=metric.name, details=told), kept)
