"""Whether the model's confidence is the chance that it is right."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from scipy.special import ndtri

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Array, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.calibration import Bins
from flataudit.statistics.correctness import correctness

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


class Calibration(Record):
    """Calibration error of the most probable class (Naeini et al. 2015), its null band and its debiased form.

    Array ``calibration/bins`` ``(B, 3)``: mean confidence, accuracy and count of each bin. The interval of
    ``calibration_error`` covers the sampling of examples around the biased number; `details` hold what a calibrated
    model would show on average.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (ERROR, DEBIASED, NULL)

    bins: PositiveInt = 15
    """The most bins; each has 10 examples or more."""
    replicates: PositiveInt = 1000
    """Simulated calibrated models, and bootstrap resamples of the examples."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All three metrics from one forward pass."""
        if model.task == "regression":
            reason = "a regression states no confidence"
            return [Reading(m.missing(Outcome.NOT_APPLICABLE, reason)) for m in self.metrics]
        because = getattr(model, "no_probabilities_because", None)
        if because is not None:
            return [Reading(m.missing(Outcome.NOT_APPLICABLE, because)) for m in self.metrics]
        assert data.targets is not None
        if data.targets.ndim > 1:
            reason = "calibration of several answers an example is not yet measured"
            return [Reading(m.missing(Outcome.NOT_APPLICABLE, reason)) for m in self.metrics]
        predictions = model.predict(data.inputs)
        right = correctness(model.task, predictions, data.targets)
        confidences = np.minimum(np.exp(np.max(predictions, axis=1)), 1.0)
        bins = Bins.equal_mass(confidences, right, bins=self.bins)
        null_seed, bootstrap_seed = np.random.SeedSequence(seed).spawn(2)
        null = bins.null_errors(self.replicates, np.random.default_rng(null_seed))
        resampled = bins.bootstrap_errors(self.replicates, np.random.default_rng(bootstrap_seed))
        return self._readings(bins, null, float(np.std(resampled)))

    def _readings(self, bins: Bins, null: NDArray[np.float64], error: float) -> list[Reading]:
        n, half = len(bins.confidences), float(ndtri(0.975)) * error
        interval = (max(0.0, bins.error - half), min(1.0, bins.error + half))
        details = {"bins": float(len(bins.starts)), "expected_if_calibrated": float(np.mean(null))}
        table = {"calibration/bins": Array.pack(np.ascontiguousarray(bins.table))}
        known = {"standard_error": error, "interval": interval} if error > 0 else {}
        levels = 0.95 + np.array([-1.0, 0.0, 1.0]) * 1.96 * np.sqrt(0.0475 / len(null))
        low, percentile, high = np.quantile(null, np.minimum(levels, 1.0)).tolist()
        return [
            Reading(ERROR.measured(bins.error, n=n, details=details, **known), table),
            Reading(DEBIASED.measured(**vars(bins.debiased()), n=n)),
            Reading(NULL.measured(percentile, interval=(low, high), n=len(null))),
        ]
