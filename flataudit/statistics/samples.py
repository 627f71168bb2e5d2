"""Per-example values behind a measurement, as NumPy arrays, where they are what they are called."""

import math
from typing import TYPE_CHECKING

import numpy as np

from flataudit.evidence import Examined, Measurement, Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["array", "is_binary", "measured", "values"]


def array(examined: Examined, name: str) -> "NDArray[np.generic] | None":
    """The array of that name, or None."""
    found = examined.arrays.get(name)
    return None if found is None else np.asarray(found.view())


def measured(examined: Examined, metric: str) -> Measurement | None:
    """The measurement, only if it has a number."""
    found = examined.evidence.get(metric)
    return found if found is not None and found.outcome is Outcome.MEASURED else None


def values(examined: Examined, metric: str) -> "NDArray[np.float64] | None":
    """``(n,)`` values whose mean is the estimate; None where it has none such.

    Spectra, bins and optimiser paths may be called samples too: what does not average to the estimate does not pair.
    """
    found = measured(examined, metric)
    kept = array(examined, found.samples) if found and found.samples else None
    if found is None or found.estimate is None or kept is None or kept.ndim != 1 or kept.dtype != np.float64:
        return None
    numbers = kept.astype(np.float64, copy=False)
    averages = bool(np.isfinite(numbers).all()) and math.isclose(
        numbers.mean(), found.estimate, rel_tol=1e-6, abs_tol=1e-9
    )
    return numbers if averages else None


def is_binary(samples: "NDArray[np.float64]") -> bool:
    """Only 0 and 1."""
    return bool(((samples == 0) | (samples == 1)).all())
