"""Poisson counts from uniform numbers, by inversion, for millions of means at once.

A sequential sampler (numpy's) uses as many random numbers as it happens to need, so that one example would move the
next one's; inversion uses one each.
"""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["counts"]

_EXACT_BELOW = 12.0
_MOST = 60
"""A mean below 12 gives more with a probability below 10⁻²², under the smallest uniform number that is drawn."""


def counts(means: "NDArray[np.float64]", uniforms: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Counts of these means, of the same shape.

    Exact inversion for means below 12; beyond it the Cornish–Fisher expansion m + √m z + (z² − 1)/6, rounded, whose
    distribution function is wrong by less than 0.003.
    """
    flat, drawn = means.ravel(), uniforms.ravel()
    z = ndtri(drawn)
    found = np.maximum(np.rint(flat + np.sqrt(flat) * z + (z * z - 1) / 6), 0.0)
    few = np.flatnonzero((flat > 0) & (flat < _EXACT_BELOW))
    found[few] = _inverted(flat[few], drawn[few])
    found[flat == 0] = 0.0
    return found.reshape(means.shape)


def _inverted(means: "NDArray[np.float64]", uniforms: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """How many k have P(K ≤ k) < u, walking up only where that is not yet settled."""
    found = np.zeros_like(means)
    term = np.exp(-means)
    total, open_ = term.copy(), np.arange(len(means))
    for k in range(1, _MOST):
        open_ = open_[total[open_] < uniforms[open_]]
        if not len(open_):
            break
        term[open_] *= means[open_] / k
        total[open_] += term[open_]
        found[open_] = k
    return found
