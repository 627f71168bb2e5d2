"""Does a model's confidence mean what it says? Calibration error, its null band, and proper scores.

A perfectly calibrated model does not score 0: with B bins of n/B examples the expected calibration error is about
√(2B/πn) times the mean √(c(1 − c)). The error is therefore shown against its null band, and limits are set on the
debiased form.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from flataudit.statistics.paired import bootstrap_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Bins", "DebiasedError", "brier_scores"]

SMALLEST_BIN = 10
"""Examples that a bin must have; fewer examples make fewer bins."""
_CELLS = 2**21


@dataclass(frozen=True, eq=False)
class DebiasedError:
    """A debiased calibration error with its error; the fields are those of a `Measurement`."""

    estimate: float
    standard_error: float | None
    interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Bins:
    """Examples in bins of equal mass by confidence (Nguyen and O'Connor 2015), both ``(n,)`` and sorted by it.

    Equal confidences share a bin, so that the order of the examples does not matter, and each confidence belongs to
    exactly one bin, 1.0 included.
    """

    confidences: "NDArray[np.float64]"
    correct: "NDArray[np.float64]"
    starts: "NDArray[np.int64]"
    """``(B,)`` first example of each bin."""

    @classmethod
    def equal_mass(
        cls, confidences: "NDArray[np.float64]", correct: "NDArray[np.float64]", *, bins: int = 15
    ) -> "Bins":
        """Sort and cut.

        Args:
            confidences: ``(n,)`` probability of the predicted class.
            correct: ``(n,)`` 1 where the prediction is right, else 0.
            bins: the most bins; fewer where a bin would have under 10 examples or confidences are tied.

        >>> Bins.equal_mass(np.array([0.95, 1.0]), np.array([1.0, 0.0])).error
        0.475
        """
        order = np.argsort(confidences, kind="stable")
        ordered = np.asarray(confidences, dtype=np.float64)[order]
        count = max(1, min(bins, len(ordered) // SMALLEST_BIN))
        cuts = np.arange(count) * len(ordered) // count
        starts = np.unique(np.searchsorted(ordered, ordered[cuts], side="left"))
        return cls(ordered, np.asarray(correct, dtype=np.float64)[order], starts)

    @property
    def sizes(self) -> "NDArray[np.int64]":
        """``(B,)`` examples in each bin."""
        return np.diff(self.starts, append=len(self.confidences))

    @property
    def table(self) -> "NDArray[np.float64]":
        """``(B, 3)``: mean confidence, accuracy, count; the reliability diagram."""
        sums = np.stack([np.add.reduceat(v, self.starts) for v in (self.confidences, self.correct)], axis=1)
        return np.column_stack([sums / self.sizes[:, None], self.sizes])

    @property
    def error(self) -> float:
        """Expected calibration error Σ_b n_b/n |accuracy_b − confidence_b| (Naeini et al. 2015), biased upwards."""
        return float(np.abs(np.add.reduceat(self.residuals, self.starts)).sum() / len(self.residuals))

    @property
    def residuals(self) -> "NDArray[np.float64]":
        """``(n,)`` correctness minus confidence."""
        return self.correct - self.confidences

    def debiased(self, *, confidence: float = 0.95) -> DebiasedError:
        """Root mean square calibration error without the noise's share (Bröcker 2012; Kumar et al. 2019).

        √max(0, Σ_b n_b/n (r̄_b² − s_b²/n_b)), with r̄_b and s_b² the mean and the variance of correctness minus
        confidence in bin b. The sum estimates the squared error of the binned model without bias; a calibrated model
        has 0 on average before the root. At least as large as the debiased L1 error. The interval is normal for
        the sum, with the closed-form variance Σ_b (n_b/n)² (4 r_b² v_b + 2 v_b²), v_b = s_b²/n_b.

        >>> Bins.equal_mass(np.full(200, 0.75), np.tile([1.0, 1.0, 1.0, 0.0], 50)).debiased().estimate
        0.0
        """
        sizes = self.sizes
        mean = np.add.reduceat(self.residuals, self.starts) / sizes
        spread = self.residuals - np.repeat(mean, sizes)
        noise = np.add.reduceat(spread**2, self.starts) / (np.maximum(sizes - 1, 1) * sizes)
        weights, gaps = sizes / sizes.sum(), mean**2 - noise
        square = float(weights @ gaps)
        deviation = float(np.sqrt(weights**2 @ (4 * np.maximum(gaps, 0.0) * noise + 2 * noise**2)))
        half = float(ndtri((1 + confidence) / 2)) * deviation
        low, estimate, high = np.sqrt(np.maximum([square - half, square, square + half], 0.0))
        error = float(high - low) / (2 * float(ndtri((1 + confidence) / 2)))
        return DebiasedError(float(estimate), error or None, (float(low), float(high)))

    def null_errors(self, replicates: int, generator: np.random.Generator) -> "NDArray[np.float64]":
        """``(R,)`` calibration errors that a perfectly calibrated model with these confidences would show.

        Each replicate draws every example's correctness with its own confidence (consistency resampling, Bröcker
        and Smith 2007).
        """
        n = len(self.confidences)
        rows = max(1, _CELLS // n)
        parts = []
        for start in range(0, replicates, rows):
            drawn = generator.random((min(rows, replicates - start), n)) < self.confidences
            gaps = np.add.reduceat(drawn - self.confidences, self.starts, axis=1)
            parts.append(np.abs(gaps).sum(axis=1) / n)
        return np.concatenate(parts)

    def bootstrap_errors(self, replicates: int, generator: np.random.Generator) -> "NDArray[np.float64]":
        """``(R,)`` calibration errors on resampled examples, the bins staying; their spread is the standard error."""
        columns = np.zeros((len(self.residuals), len(self.starts)))
        columns[np.arange(len(columns)), np.repeat(np.arange(len(self.starts)), self.sizes)] = self.residuals
        return np.asarray(np.abs(bootstrap_means(columns, replicates, generator)).sum(axis=1))


def brier_scores(probabilities: "NDArray[np.float64]", labels: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """Σ_k (p_k − 1{k = label})² of each example, ``(n,)`` in [0, 2] (Brier 1950, over all classes).

    For two classes this is twice the score that counts one class only.

    >>> brier_scores(np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 1])).tolist()
    [0.125, 0.5]
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(np.sum((probabilities - truth) ** 2, axis=1))
