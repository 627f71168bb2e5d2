"""Calibration of every class by itself, and what the Brier score is made of; one pass over the classes for both.

The most probable class may be calibrated while the others are not: their probabilities are what thresholds and costs
are set on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flataudit.statistics.calibration import SMALLEST_BIN, Bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BrierParts", "ClassCalibration", "brier_parts"]


@dataclass(frozen=True, eq=False)
class BrierParts:
    """The decomposition of a mean of (p − y)² in bins of p (Murphy 1973), each part as values with that mean.

    reliability − resolution + uncertainty + within_bins = Brier score, exactly: also after the correction for the
    bins' few examples (Ferro & Fricker 2012), which each of the three has. The last is what the forecasts differ
    inside their bins (Stephenson et al. 2008).
    """

    reliability: "NDArray[np.float64]"
    """``(N,)`` for Σ_b w_b (p̄_b − ȳ_b)² less its noise; 0 for calibrated bins, and below by chance."""
    resolution: "NDArray[np.float64]"
    """``(N,)`` for Σ_b w_b (ȳ_b − ȳ)² less its noise; what the bins tell apart."""
    uncertainty: "NDArray[np.float64]"
    """``(N,)`` for ȳ(1 − ȳ) N/(N − 1); the same for all models of the same targets."""
    score: "NDArray[np.float64]"
    """``(N,)`` (p − y)²."""
    second_order: float
    """Variance of reliability and resolution beyond that of their values: where a part is near 0 its slope is, and what
    is left is that of its square, 2 Σ_bc w_b w_c V_bc²."""

    @property
    def within_bins(self) -> float:
        """What is left of the score."""
        return float(np.mean(self.score - self.reliability + self.resolution - self.uncertainty))

    def __add__(self, other: "BrierParts") -> "BrierParts":
        return BrierParts(
            self.reliability + other.reliability,
            self.resolution + other.resolution,
            self.uncertainty + other.uncertainty,
            self.score + other.score,
            self.second_order + other.second_order,
        )

    def scaled(self, factor: float) -> "BrierParts":
        """All parts times a number."""
        return BrierParts(
            self.reliability * factor,
            self.resolution * factor,
            self.uncertainty * factor,
            self.score * factor,
            self.second_order * factor**2,
        )


def brier_parts(bins: Bins) -> BrierParts:
    """The decomposition for one class, whose probabilities lie in these bins.

    >>> bins = Bins.equal_mass(np.repeat([0.25, 0.75], 40), np.tile([1.0, 0.0], 40))
    >>> parts = brier_parts(bins)
    >>> [round(float(part.mean()), 4) for part in (parts.reliability, parts.resolution, parts.uncertainty)]
    [0.0561, -0.0032, 0.2532]
    """
    outcomes = bins.correct
    gap, rate, base = bins.means(-bins.residuals), bins.means(outcomes), float(outcomes.mean())
    covariance = bins.covariance(outcomes)
    noise, common = float(bins.weights @ np.diag(covariance)), _share_variance(bins)
    gap, rate = np.repeat(gap, bins.sizes), np.repeat(rate, bins.sizes)
    spread = outcomes - 2 * base * outcomes + base**2
    return BrierParts(
        bins.unsorted(-2 * gap * bins.residuals - gap**2 - noise),
        bins.unsorted(2 * rate * outcomes - rate**2 - (2 * base * outcomes - base**2) - noise + common),
        bins.unsorted(spread + common),
        bins.unsorted(bins.residuals**2),
        2 * float(bins.weights @ covariance**2 @ bins.weights),
    )


def _share_variance(bins: Bins) -> float:
    """Variance of the share of the outcome."""
    whole = Bins(bins.confidences, bins.correct, np.zeros(1, dtype=np.int64), bins.order, bins.units)
    return float(whole.covariance(bins.correct)[0, 0])


@dataclass(frozen=True, eq=False)
class ClassCalibration:
    """Calibration errors of K classes."""

    values: "NDArray[np.float64]"
    """``(N,)`` whose mean is the class-wise error, as `Bins.values`."""
    expected: float
    """The error of a calibrated model on average, as `Bins.expected`."""
    table: "NDArray[np.float64]"
    """``(K, 4)``: error of each class, what a calibrated model would show, mean probability, share of the answers."""
    brier: BrierParts
    """Summed over the classes."""
    share_variances: "NDArray[np.float64]"
    """``(K,)`` of each class's share of the answers."""
    constant: bool
    """Whether every answer is the same."""

    def uncertainty_variance(self, *, exclusive: bool) -> float:
        """Variance of the summed uncertainty beyond that of its values, 2 Σ_kl Cov(ȳ_k, ȳ_l)².

        Classes of equal shares have no other: 1 − Σ ȳ_k² is greatest there, so that its slope is 0.

        Args:
            exclusive: the classes exclude each other, and their shares vary together as a multinomial's do; labels
                that may hold together may vary as one, which is the most.
        """
        variances, shares = self.share_variances, self.table[:, 3]
        if not exclusive:
            return float(2 * variances.sum() ** 2)
        odds = variances * shares / np.maximum(1 - shares, np.finfo(np.float64).tiny)
        return float(2 * (variances @ variances + odds.sum() ** 2 - odds @ odds))

    @classmethod
    def of(
        cls,
        columns: "Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]]",
        *,
        bins: int = 15,
        units: "NDArray[np.int64] | None" = None,
    ) -> "ClassCalibration":
        """Mean over classes of Σ_b w_b |ȳ_b − p̄_b| (Kull et al. 2019; static calibration error of Nixon et al. 2019).

        In bins of equal width: most probabilities of one among many classes lie near 0, and bins of equal mass would
        put all that matter into one or two. Bins of under 10 answers are joined with the next.

        Args:
            columns: for each class ``(N,)`` its probability, and 1 where it held.
            bins: the most bins a class.
            units: ``(N,)`` the example of each row; None: one row an example.
        """
        total: NDArray[np.float64] | None = None
        brier: BrierParts | None = None
        rows, variances, constant = [], [], True
        for chances, held in columns:
            found = Bins.equal_width(chances, held, bins=bins, smallest=SMALLEST_BIN, units=units)
            parts = brier_parts(found)
            rows.append((found.error, found.expected, float(chances.mean()), float(held.mean())))
            variances.append(_share_variance(found))
            constant = constant and float(np.ptp(chances)) == 0
            total = found.values if total is None else total + found.values
            brier = parts if brier is None else brier + parts
        if total is None or brier is None:
            raise ValueError("expected the column of one class or more, got none; leave the metric out")
        table = np.array(rows)
        return cls(total / len(rows), float(table[:, 1].mean()), table, brier, np.array(variances), constant)
