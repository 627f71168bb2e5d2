"""Calibration error without bins: smooth ECE (Błasiok & Nakkiran 2023), a kernel's, with its own bandwidth.

Bins make an error jump where a confidence crosses a cut, and answer more or less with their number. The smooth error
smooths the residuals by a Gaussian kernel reflected at 0 and 1, and takes the bandwidth that equals the error: wide
where the error is large, fine where it is small. It is within constants of the distance to the nearest calibrated
model. Kernel errors in a space of functions (Widmann et al. 2019) need a kernel and a bandwidth from the user and give
a number in the kernel's own unit, at n² cost; this one is a probability, at n log n.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import dct, idct
from scipy.sparse import csr_array

from flataudit.statistics.null_draws import null_residuals

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Smoothed", "null_smooth_errors"]

_CELLS = 1024
"""Of the grid on [0, 1], on which a residual is shared by its two neighbours."""
_HALVINGS = 24
"""Of the bandwidth's bracket, to 6e-8; a null's percentiles are drawn, and need half as many."""


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The smooth calibration error σ* = ∫ |Σ_i K_σ*(t, c_i) (y_i − c_i)| dt / N, of ``(N,)`` answers."""

    error: float
    """σ*, the error and the bandwidth in one; a probability."""
    values: "NDArray[np.float64]"
    """``(N,)`` with the mean `error`: what each answer adds to it to first order."""

    @classmethod
    def of(cls, confidences: "NDArray[np.float64]", correct: "NDArray[np.float64]") -> "Smoothed":
        """Exact but for a grid of 1,024 cells: errors far below 0.001 are rounded up.

        Args:
            confidences: ``(N,)`` probability of what was answered.
            correct: ``(N,)`` 1 where the answer is right, else 0.

        >>> round(Smoothed.of(np.full(100, 0.7), np.repeat([1.0, 0.0], 50)).error, 6)
        0.2
        """
        shares, residuals = _shares(confidences), correct - confidences
        waves = _waves(residuals[None] @ shares / len(residuals))
        width = _fixed_points(waves)
        smooth = _smooth(waves, width)
        error = float(np.abs(smooth).sum())
        slopes = shares @ _smooth(_waves(np.sign(smooth)), width)[0]
        # The bandwidth moves with the error: σ = T(σ) gives dσ = dT / (1 − T'(σ)), and T falls.
        step = 1.05 * width
        change = float(np.abs(_smooth(waves, step)).sum()) - error
        damping = 1.0 / (1.0 + max(0.0, -change / max(float(step[0] - width[0]), 1e-12)))
        return cls(error, np.asarray(error + damping * (residuals * slopes - error)))


def null_smooth_errors(
    confidences: "NDArray[np.float64]",
    correct: "NDArray[np.float64]",
    replicates: int,
    generator: np.random.Generator,
    *,
    units: "NDArray[np.int64] | None" = None,
) -> "NDArray[np.float64]":
    """``(R,)`` smooth errors of calibrated models with these confidences; the arguments are `null_residuals`'."""
    shares = _shares(confidences)
    drawn = null_residuals(confidences, correct, replicates, generator, units=units)
    waves = _waves(np.concatenate([np.asarray(part @ shares) for part in drawn]) / len(confidences))
    return np.asarray(np.abs(_smooth(waves, _fixed_points(waves, _HALVINGS // 2))).sum(axis=1))


def _shares(confidences: "NDArray[np.float64]") -> csr_array:
    """``(N, cells)``: each confidence shared by the two nearest cells, all at the ends."""
    n = len(confidences)
    places = np.clip(confidences * _CELLS - 0.5, 0.0, _CELLS - 1.0)
    below = np.minimum(places.astype(np.int64), _CELLS - 2)
    upper = places - below
    columns = np.stack([below, below + 1], axis=1).ravel()
    return csr_array((np.stack([1 - upper, upper], axis=1).ravel(), columns, 2 * np.arange(n + 1)), (n, _CELLS))


def _waves(masses: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """``(R, cells)`` cosine coefficients: reflection at both ends is what cosines have by themselves."""
    return np.asarray(dct(masses, type=2, norm="ortho", axis=1))


def _smooth(waves: "NDArray[np.float64]", widths: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """``(R, cells)`` masses after the reflected Gaussian kernel of standard deviation ``widths (R,)``.

    The k-th cosine is an eigenfunction of that kernel, with eigenvalue exp(−(πkσ)²/2).
    """
    damping = np.exp(-0.5 * (np.pi * np.arange(waves.shape[1]) * widths[:, None]) ** 2)
    return np.asarray(idct(waves * damping, type=2, norm="ortho", axis=1))


def _fixed_points(waves: "NDArray[np.float64]", halvings: int = _HALVINGS) -> "NDArray[np.float64]":
    """``(R,)`` widths that equal their own error, which falls with the width: bisection."""
    low, high = np.zeros(len(waves)), np.ones(len(waves))
    for _ in range(halvings):
        middle = (low + high) / 2
        above = np.abs(_smooth(waves, middle)).sum(axis=1) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)
