"""Whether the model's confidence is the chance that it is right."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answered import Answered, answered
from flataudit.statistics.answers import answers
from flataudit.statistics.calibration import Bins
from flataudit.statistics.class_calibration import ClassCalibration
from flataudit.statistics.cluster_details import cluster_details
from flataudit.statistics.influence import per_example, value_mean
from flataudit.statistics.proportions import wilson_interval
from flataudit.statistics.smooth_calibration import Smoothed, null_smooth_errors

__all__ = ["Calibration"]

ERROR = Metric(
    name="calibration_error",
    unit="probability",
    better="lower",
    description="Expected calibration error of the top class, equal-mass bins; biased upwards: compare the null band.",
)
DEBIASED = Metric(
    name="calibration_error_debiased",
    unit="probability",
    better="lower",
    description="Root mean square calibration error without the share of sampling noise; the one to set limits on.",
)
NULL = Metric(
    name="calibration_null_p95",
    unit="probability",
    better="neither",
    description="95th percentile of the calibration error of a perfectly calibrated model with the same confidences.",
)
WIDTH = Metric(
    name="calibration_error_width",
    unit="probability",
    better="lower",
    description="Expected calibration error of the top class in bins of equal width, as most papers print it; biased.",
)
CLASSWISE = Metric(
    name="calibration_error_classwise",
    unit="probability",
    better="lower",
    description="Mean over classes (or labels) of the calibration error of that class's own probability; biased.",
)
SMOOTH = Metric(
    name="calibration_error_smooth",
    unit="probability",
    better="lower",
    description="Calibration error of the top class by a kernel of its own bandwidth, without bins (smooth ECE).",
)
RELIABILITY = Metric(
    name="brier_reliability",
    unit="probability²",
    better="lower",
    description="Part of the Brier score that recalibration would remove; corrected for few examples a bin.",
)
RESOLUTION = Metric(
    name="brier_resolution",
    unit="probability²",
    better="higher",
    description="Part of the Brier score that the model earns by telling examples apart; corrected likewise.",
)
UNCERTAINTY = Metric(
    name="brier_uncertainty",
    unit="probability²",
    better="neither",
    description="Brier score of the class shares as the answer to every example: a property of the targets alone.",
)

_SMOOTH_NULLS = 200
"""Calibrated models whose smooth error is drawn: enough for a mean and a 95th percentile beside the number."""
_FOUR_ERRORS = 2 * 1.959964
"""Width of a 95 % interval in standard errors."""
_Details = dict[str, float | str | None]


class Calibration(Record):
    """Calibration error of the most probable class (Naeini et al. 2015) in several forms, and the Brier score's parts.

    Classes, labels that hold or not (each an answer), and sequences (each token that counts an answer); a confidence of
    exactly 1 belongs to the last bin. Exact on these examples; intervals are those of the examples as a sample: by the
    number's first-order expansion, with several answers of an example taken together. All errors but the debiased one
    are above the truth by what chance adds, at most by what a calibrated model would show on average (`details`:
    ``expected_if_calibrated``); their intervals' lower ends are lower by that, so that they hold the error of the model
    and not only the mean of the number, and are too wide near a perfect calibration. Where the data have groups,
    details add the interval of whole groups around the number (``clustered_low``, ``clustered_high``).

    The Brier score's parts (Murphy 1973; Ferro & Fricker 2012) and the class-wise error are over bins of equal width of
    each class's own probability, those of under 10 answers joined with the next. The parts are summed over the classes,
    so that they add up to ``validation_brier`` with the rest ``within_bins`` of the details; of several labels an
    example, they are the mean over the labels.

    Arrays: ``calibration/bins`` ``(B, 3)``, mean confidence, accuracy and count of each bin of equal mass;
    ``calibration/bands`` ``(B, 4)``, where 95 % of calibrated models' accuracies would lie and the Wilson interval of
    the accuracy; ``calibration/classes`` ``(K, 4)``, error of each class, what a calibrated model would show, mean
    probability, share of the answers; and for each calibration error but the debiased one a value an example, by which
    two candidates pair.
    """

    version: ClassVar[str] = "3"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (
        ERROR,
        DEBIASED,
        NULL,
        WIDTH,
        CLASSWISE,
        SMOOTH,
        RELIABILITY,
        RESOLUTION,
        UNCERTAINTY,
    )

    bins: PositiveInt = 15
    """The most bins; those of equal mass have 10 answers or more."""
    replicates: PositiveInt = 1000
    """Simulated calibrated models."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All metrics from one forward pass, which other probes share."""
        because: str | None = getattr(model, "no_probabilities_because", None)
        if model.task == "regression":
            because = "a regression states no confidence"
        if because is not None:
            return self._missing(because)
        assert data.targets is not None
        said = answered(model.task, answers(model, data), data.targets)
        if not len(said):
            return self._missing("no answer counts: all targets are left out")
        make = _Numbers(said, data.groups, seed)
        bins = Bins.equal_mass(said.confidences, said.right, bins=self.bins, units=said.units)
        generators = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)]
        return [
            *_binned(make, bins, bins.null_gaps(self.replicates, generators[0])),
            _wide(make, self.bins),
            *_by_class(make, self.bins, bins.reach()),
            _smoothed(make, bins.reach(), generators[1]),
        ]

    def _missing(self, reason: str) -> list[Reading]:
        return [Reading(metric.missing(Outcome.NOT_APPLICABLE, reason)) for metric in self.metrics]


class _Numbers:
    """Makes readings of numbers that are means of one value an answer."""

    def __init__(self, said: Answered, groups: "NDArray[np.generic] | None", seed: int) -> None:
        self.said, self.groups, self.seed = said, groups, seed
        self.told: _Details = {} if said.units is None else {"answers": float(len(said))}

    def reading(
        self,
        metric: Metric,
        values: NDArray[np.float64],
        units: NDArray[np.int64] | None,
        details: Mapping[str, float | str | None],
        *,
        least: float = 0.0,
        most: float = 1.0,
        chance: float = 0.0,
        reach: float | None = None,
        more: float | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> Reading:
        """The mean of the values, its interval, and the values by example.

        Args:
            metric: what it is.
            values: ``(N,)``, one an answer.
            units: of the answers.
            details: further scalars.
            least: that the number can be.
            most: that it can be.
            chance: what chance adds to the number at most, on average: the interval's lower end is lower by it.
            reach: the interval goes from 0 to this at least.
            more: variance beyond that of the values, which then do not pair, since they would hide it.
            arrays: that come with it.
        """
        found = value_mean(values, units, low=least, high=most, more=more or 0.0)
        if chance and found.interval is not None:
            found = replace(found, interval=(max(least, found.interval[0] - chance), found.interval[1]))
        if reach is not None:
            high = max(reach, found.interval[1] if found.interval else found.estimate)
            found = replace(found, standard_error=high / _FOUR_ERRORS, interval=(min(0.0, found.estimate), high))
        each = per_example(values, units, self.said.examples)
        told = self.told | dict(details) | cluster_details(each, self.groups, seed=self.seed)
        if more is not None:
            return Reading(metric.measured(**vars(found), details=told), dict(arrays or {}))
        kept = {metric.name: Array.pack(np.ascontiguousarray(each, dtype=np.float64))}
        return Reading(metric.measured(**vars(found), samples=metric.name, details=told), kept | dict(arrays or {}))


def _binned(make: _Numbers, bins: Bins, gaps: NDArray[np.float64]) -> list[Reading]:
    """The error in bins of equal mass, its debiased form and its null band."""
    null = np.abs(gaps) @ bins.weights
    middle = bins.means(bins.confidences)
    band = np.clip(middle + np.quantile(gaps, [0.025, 0.975], axis=0), 0.0, 1.0)
    arrays = {
        "calibration/bins": Array.pack(np.ascontiguousarray(bins.table)),
        "calibration/bands": Array.pack(np.ascontiguousarray(np.column_stack([*band, bins.intervals()]))),
    }
    details: _Details = {"bins": float(len(bins.starts)), "expected_if_calibrated": float(np.mean(null))}
    levels = 0.95 + np.array([-1.0, 0.0, 1.0]) * 1.96 * np.sqrt(0.0475 / len(null))
    low, percentile, high = np.quantile(null, np.minimum(levels, 1.0)).tolist()
    debiased = bins.debiased()
    return [
        make.reading(
            ERROR,
            bins.values,
            make.said.units,
            details,
            chance=float(np.mean(null)),
            reach=bins.reach(),
            arrays=arrays,
        ),
        Reading(DEBIASED.measured(**vars(debiased), n=make.said.examples, details=make.told | _by_group(make, bins))),
        Reading(NULL.measured(percentile, interval=(low, high), n=len(null))),
    ]


def _by_group(make: _Numbers, bins: Bins) -> _Details:
    """What whole groups would make of the debiased error's interval."""
    if make.groups is None:
        return {}
    said = make.said
    names, units = np.unique(make.groups if said.units is None else make.groups[said.units], return_inverse=True)
    low, high = replace(bins, units=units[bins.order]).debiased().interval
    return {"clusters": float(len(names)), "clustered_low": low, "clustered_high": high}


def _wide(make: _Numbers, count: int) -> Reading:
    said = make.said
    bins = Bins.equal_width(said.confidences, said.right, bins=count, units=said.units)
    details: _Details = {"bins": float(len(bins.starts)), "expected_if_calibrated": bins.expected}
    return make.reading(WIDTH, bins.values, said.units, details, chance=bins.expected, reach=bins.reach())


def _smoothed(make: _Numbers, reach: float | None, generator: np.random.Generator) -> Reading:
    said = make.said
    found = Smoothed.of(said.confidences, said.right)
    null = null_smooth_errors(said.confidences, said.right, _SMOOTH_NULLS, generator, units=said.units)
    details: _Details = {
        "expected_if_calibrated": float(null.mean()),
        "calibrated_p95": float(np.quantile(null, 0.95)),
    }
    return make.reading(SMOOTH, found.values, said.units, details, chance=float(null.mean()), reach=reach)


def _by_class(make: _Numbers, count: int, reach: float | None) -> list[Reading]:
    """The class-wise error, and the parts of the Brier score; ``reach``: of the accuracy, where all are right."""
    said = make.said
    units = said.column_units
    found = ClassCalibration.of(said.columns(), bins=count, units=units)
    table = {"calibration/classes": Array.pack(np.ascontiguousarray(found.table))}
    details: _Details = {
        "expected_if_calibrated": found.expected,
        "classes": float(len(found.table)),
        "worst": float(found.table[:, 0].max()),
        "worst_class": float(found.table[:, 0].argmax()),
    }
    parts = found.brier if said.marks is None else found.brier.scaled(1.0 / said.marks)
    score: _Details = {"brier": float(parts.score.mean()), "within_bins": parts.within_bins}
    spread = found.uncertainty_variance(exclusive=said.marks is None) / (said.marks or 1) ** 2
    outcomes_alike = bool(np.isin(found.table[:, 3], (0.0, 1.0)).all())
    unseen = _unseen(said)
    rows = (
        (RELIABILITY, parts.reliability, parts.second_order, reach and reach * (2 if said.marks is None else 1)),
        (RESOLUTION, parts.resolution, parts.second_order, unseen if found.constant or outcomes_alike else None),
        (UNCERTAINTY, parts.uncertainty, spread, unseen if outcomes_alike else None),
    )
    return [
        make.reading(CLASSWISE, found.values, units, details, chance=found.expected, reach=reach, arrays=table),
        *(
            make.reading(m, values, units, score, least=-2.0, most=2.0, more=extra, reach=most)
            for m, values, extra, most in rows
        ),
    ]


def _unseen(said: Answered) -> float:
    """How large resolution and uncertainty may be where all answers, or all outcomes, of the sample are alike.

    Others may have a share q up to Wilson's upper end of none among n: both parts are then at most q(1 − q) times the
    largest squared distance of two outcomes, 2 of classes and 1 of a label.
    """
    share = min(wilson_interval(0.0, said.examples)[1], 0.5)
    return (2.0 if said.marks is None else 1.0) * share * (1 - share)
