"""Does a model's confidence mean what it says? Calibration error in bins, its null band, and the Brier score.

A perfectly calibrated model does not score 0: with B bins of n/B examples the expected calibration error is about
√(2B/πn) times the mean √(c(1 − c)). The error is therefore shown against its null band, and limits are set on the
debiased form.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, ndtri

from flataudit.statistics.null_draws import null_residuals
from flataudit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SMALLEST_BIN", "Bins", "DebiasedError", "brier_scores", "mean_deviation"]

SMALLEST_BIN = 10
"""Answers that a bin of equal mass must have; fewer answers make fewer bins."""


@dataclass(frozen=True, eq=False)
class DebiasedError:
    """A debiased calibration error with its error; the fields are those of a `Measurement`."""

    estimate: float
    standard_error: float | None
    interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Bins:
    """N answers in B bins by confidence; each confidence belongs to exactly one bin, 1.0 included.

    Equal confidences share a bin, so that the order of the answers does not matter.
    """

    confidences: "NDArray[np.float64]"
    """``(N,)``, sorted."""
    correct: "NDArray[np.float64]"
    """``(N,)``, in the same order."""
    starts: "NDArray[np.int64]"
    """``(B,)`` first answer of each bin."""
    order: "NDArray[np.int64]"
    """``(N,)`` the place that each had before it was sorted."""
    units: "NDArray[np.int64] | None" = None
    """``(N,)`` the number of what is independent (example or group), sorted alike; None: each answer is."""

    @classmethod
    def equal_mass(
        cls,
        confidences: "NDArray[np.float64]",
        correct: "NDArray[np.float64]",
        *,
        bins: int = 15,
        units: "NDArray[np.int64] | None" = None,
    ) -> "Bins":
        """Sort and cut into bins of as many answers each (Nguyen & O'Connor 2015).

        Args:
            confidences: ``(N,)`` probability of what was answered.
            correct: ``(N,)`` 1 where the answer is right, else 0.
            bins: the most bins; fewer where a bin would have under 10 answers or confidences are tied.
            units: ``(N,)`` what is independent, the example or the group of each answer; None: each answer.

        >>> Bins.equal_mass(np.array([0.95, 1.0]), np.array([1.0, 0.0])).error
        0.475
        """
        order = np.argsort(confidences, kind="stable")
        ordered = np.asarray(confidences, dtype=np.float64)[order]
        count = max(1, min(bins, len(ordered) // SMALLEST_BIN))
        cuts = np.arange(count) * len(ordered) // count
        starts = np.unique(np.searchsorted(ordered, ordered[cuts], side="left"))
        return cls._of(ordered, correct, starts, order, units)

    @classmethod
    def equal_width(
        cls,
        confidences: "NDArray[np.float64]",
        correct: "NDArray[np.float64]",
        *,
        bins: int = 15,
        smallest: int = 1,
        units: "NDArray[np.int64] | None" = None,
    ) -> "Bins":
        """Sort and cut at k/bins, a cut belonging to the bin below it (Guo et al. 2017); empty bins are left out.

        The arguments are those of `equal_mass`, and ``smallest``: a bin of fewer answers is joined with the next.

        >>> Bins.equal_width(np.array([0.95, 1.0, 0.2]), np.array([1.0, 0.0, 0.0]), bins=10).table.tolist()
        [[0.2, 0.0, 1.0], [0.975, 0.5, 2.0]]
        """
        order = np.argsort(confidences, kind="stable")
        ordered = np.asarray(confidences, dtype=np.float64)[order]
        place = np.searchsorted(np.arange(1, bins) / bins, ordered, side="left")
        starts = [0]
        for start in np.flatnonzero(np.diff(place)) + 1:
            if start - starts[-1] >= smallest:
                starts.append(int(start))
        if len(starts) > 1 and len(ordered) - starts[-1] < smallest:
            starts.pop()
        return cls._of(ordered, correct, np.array(starts, dtype=np.int64), order, units)

    @classmethod
    def _of(
        cls,
        ordered: "NDArray[np.float64]",
        correct: "NDArray[np.float64]",
        starts: "NDArray[np.int64]",
        order: "NDArray[np.int64]",
        units: "NDArray[np.int64] | None",
    ) -> "Bins":
        sorted_units = None if units is None else np.unique(units[order], return_inverse=True)[1]
        return cls(ordered, np.asarray(correct, dtype=np.float64)[order], starts, order, sorted_units)

    @property
    def sizes(self) -> "NDArray[np.int64]":
        """``(B,)`` answers in each bin."""
        return np.diff(self.starts, append=len(self.confidences))

    @property
    def weights(self) -> "NDArray[np.float64]":
        """``(B,)`` share of the answers."""
        return np.asarray(self.sizes / len(self.confidences))

    def means(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """``(…, B)`` mean of sorted values ``(…, N)`` in each bin."""
        return np.asarray(np.add.reduceat(values, self.starts, axis=-1) / self.sizes)

    @property
    def table(self) -> "NDArray[np.float64]":
        """``(B, 3)``: mean confidence, accuracy, count; the reliability diagram."""
        return np.column_stack([self.means(self.confidences), self.means(self.correct), self.sizes])

    @property
    def residuals(self) -> "NDArray[np.float64]":
        """``(N,)`` correctness minus confidence, sorted."""
        return self.correct - self.confidences

    @property
    def error(self) -> float:
        """Expected calibration error Σ_b n_b/n |accuracy_b − confidence_b| (Naeini et al. 2015), biased upwards."""
        return float(np.abs(np.add.reduceat(self.residuals, self.starts)).sum() / len(self.residuals))

    @property
    def values(self) -> "NDArray[np.float64]":
        """``(N,)`` in the answers' own order, with the mean `error`: the residual, by the sign of its bin's.

        What an answer adds to the error to first order. Near a perfect calibration the error is a sum of absolute
        values of noise, which vary less than this says: an interval from it is then too wide, never too narrow.
        """
        signs = np.sign(np.add.reduceat(self.residuals, self.starts))
        return self.unsorted(np.repeat(signs, self.sizes) * self.residuals)

    def unsorted(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Sorted values ``(N,)`` in the answers' own order."""
        found = np.empty_like(values)
        found[self.order] = values
        return found

    def covariance(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """``(B, B)`` covariance of the bins' means of sorted values ``(N,)``, examples being independent.

        Diagonal, s_b²/n_b, for one answer an example; else cluster-robust, Σ_g e_gb e_gc G/(G − 1), with e_gb what the
        answers of example g add to the mean of bin b.
        """
        count, sizes = len(self.starts), self.sizes
        apart = values - np.repeat(self.means(values), sizes)
        if self.units is None:
            return np.diag(np.add.reduceat(apart**2, self.starts) / (np.maximum(sizes - 1, 1) * sizes))
        examples = int(self.units.max()) + 1
        cells = self.units * count + np.repeat(np.arange(count), sizes)
        sums = np.bincount(cells, weights=apart, minlength=examples * count).reshape(examples, count) / sizes
        return np.asarray(sums.T @ sums * (examples / max(examples - 1, 1)))

    def debiased(self, *, confidence: float = 0.95) -> DebiasedError:
        """Root mean square calibration error without the noise's share (Bröcker 2012; Kumar et al. 2019).

        √max(0, Σ_b w_b (r̄_b² − v_b)), with r̄_b the mean of correctness minus confidence in bin b, V its covariance
        and v_b = V_bb. The sum estimates the squared error of the binned model without bias; a calibrated model has 0
        on average before the root. At least as large as the debiased L1 error. The interval is normal for the sum,
        with the closed-form variance 4 Σ_bc w_b w_c r_b r_c V_bc + 2 Σ_bc w_b w_c V_bc².

        >>> Bins.equal_mass(np.full(200, 0.75), np.tile([1.0, 1.0, 1.0, 0.0], 50)).debiased().estimate
        0.0
        """
        weights, mean, covariance = self.weights, self.means(self.residuals), self.covariance(self.residuals)
        gaps = mean**2 - np.diag(covariance)
        square = float(weights @ gaps)
        slope = weights * np.sign(mean) * np.sqrt(np.maximum(gaps, 0.0))
        variance = float(4 * slope @ covariance @ slope + 2 * weights @ covariance**2 @ weights)
        deviation = math.sqrt(max(variance, 0.0))
        z = float(ndtri((1 + confidence) / 2))
        ends = [square - z * deviation, square, square + z * deviation]
        low, estimate, high = np.sqrt(np.maximum(ends, 0.0)).tolist()
        reach = self.reach(confidence=confidence)
        low, high = (low, high) if reach is None else (0.0, max(high, reach))
        return DebiasedError(estimate, (high - low) / (2 * z) or None, (low, high))

    def reach(self, *, confidence: float = 0.95) -> float | None:
        """Where all answers are right, or all wrong: how far the accuracy may be from the mean confidence.

        By Wilson's interval at one answer an example: a sample without an error is no model without one, and the spread
        of the residuals would say so. None where answers differ.

        >>> round(Bins.equal_mass(np.ones(50), np.ones(50)).reach(), 4)
        0.0713
        """
        if float(np.ptp(self.correct)) > 0:
            return None
        count = len(self.correct) if self.units is None else int(self.units.max()) + 1
        ends = wilson_interval(float(self.correct[0]), count, confidence=confidence)
        return float(np.abs(np.array(ends) - self.confidences.mean()).max())

    def null_gaps(self, replicates: int, generator: np.random.Generator) -> "NDArray[np.float64]":
        """``(R, B)`` accuracy minus confidence of the bins of a calibrated model, by `null_residuals`."""
        drawn = null_residuals(self.confidences, self.correct, replicates, generator, units=self.units)
        return np.concatenate([self.means(part) for part in drawn])

    def null_errors(self, replicates: int, generator: np.random.Generator) -> "NDArray[np.float64]":
        """``(R,)`` calibration errors that a perfectly calibrated model with these confidences would show."""
        return np.asarray(np.abs(self.null_gaps(replicates, generator)) @ self.weights)

    @property
    def expected(self) -> float:
        """Calibration error of a perfectly calibrated model on average, in closed form (`mean_deviation`)."""
        if self.units is not None:
            deviations = np.sqrt(2 / np.pi * np.diag(self.covariance(self.residuals)))
            return float(self.weights @ deviations)
        chances = self.confidences
        sums = [np.add.reduceat(v, self.starts) for v in (chances, 1 - chances, chances * (1 - chances))]
        return float(mean_deviation(*sums).sum() / len(chances))

    def intervals(self, *, confidence: float = 0.95) -> "NDArray[np.float64]":
        """``(B, 2)`` Wilson interval of each bin's accuracy, with several answers at their effective number."""
        accuracy = self.means(self.correct)
        number = self.sizes.astype(np.float64)
        if self.units is not None:
            variance = np.diag(self.covariance(self.correct))
            varied = (variance > 0) & (accuracy > 0) & (accuracy < 1)
            effective = accuracy * (1 - accuracy) / np.where(varied, variance, 1.0)
            apart = [len(np.unique(part)) for part in np.split(self.units, self.starts[1:])]
            number = np.where(varied, np.clip(effective, 1.0, number), apart)
        found = [wilson_interval(a, n, confidence=confidence) for a, n in zip(accuracy, number, strict=True)]
        return np.array(found)


def mean_deviation(
    expected: "NDArray[np.float64]", unexpected: "NDArray[np.float64]", variance: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """E|X − EX| of a count X of independent events, approximately.

    The smaller of what a normal count with variance v = Σ p(1 − p) has, √(2v/π), and what a Poisson count of the rarer
    kind has, 2 e^{−λ} λ^{⌊λ⌋+1} / ⌊λ⌋! with λ = min(Σp, Σ(1 − p)): right for many and for rare events.

    Args:
        expected: ``(B,)`` Σp of the events of each count.
        unexpected: Σ(1 − p).
        variance: Σp(1 − p).

    >>> [round(float(v), 3) for v in mean_deviation(np.array([0.1, 50.0]), np.array([99.9, 50.0]), np.array([0.1, 25]))]
    [0.181, 3.989]
    """
    rate = np.maximum(np.minimum(expected, unexpected), 0.0)
    whole = np.floor(rate)
    logs = -rate + (whole + 1) * np.log(np.maximum(rate, np.finfo(np.float64).tiny)) - gammaln(whole + 1)
    return np.asarray(np.minimum(np.sqrt(2 / np.pi * np.maximum(variance, 0.0)), 2 * np.exp(logs)))


def brier_scores(probabilities: "NDArray[np.float64]", labels: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """Σ_k (p_k − 1{k = label})² of each example, ``(n,)`` in [0, 2] (Brier 1950, over all classes).

    For two classes this is twice the score that counts one class only.

    >>> brier_scores(np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 1])).tolist()
    [0.125, 0.5]
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(np.sum((probabilities - truth) ** 2, axis=1))
