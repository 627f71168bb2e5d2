"""Which candidates may still be the best: a set that holds every best one with the stated confidence.

The tied band compares with the observed best only; the model confidence set says how many candidates the data cannot
tell from the best. Two forms with one answer: `pairwise_confidence_set` (no simulation, valid in finite samples up to
the paired tests) and `bootstrap_confidence_set` (Hansen, Lunde and Nason 2011, by `arch`, sharper for many
candidates, valid for many examples).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtr
from scipy.stats import binom

from flataudit.errors import ConfigurationError, PluginError
from flataudit.planning import holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ConfidenceSet", "bootstrap_confidence_set", "pairwise_confidence_set"]

_CONSTANT = 1e-12
"""Differences that vary by no more do not vary."""


@dataclass(frozen=True, eq=False)
class ConfidenceSet:
    """The candidates that may be the best."""

    members: tuple[int, ...]
    """Columns whose p-value exceeds 1 − confidence, increasing; never empty."""
    p_values: "NDArray[np.float64]"
    """``(k,)`` smallest 1 − confidence at which a candidate is left out; the observed best has 1."""
    confidence: float
    method: str


def pairwise_confidence_set(losses: "NDArray[np.float64]", *, confidence: float = 0.95) -> ConfidenceSet:
    """Every candidate that no other is significantly better than: k(k − 1) one-sided paired tests, Holm over all.

    The test of "i costs no more than j" is McNemar's exact one where all losses are 0 and 1, else Student's paired
    one. All candidates with the smallest expected loss are members at once with probability of at least
    ``confidence`` (Holm 1979), exactly so for 0/1 losses. Deterministic, and the order of the candidates does not
    matter.

    Args:
        losses: ``(n, k)`` loss of each example under each candidate; lower is better (1 − correctness for accuracy).
        confidence: 1 − α.

    Raises:
        ConfigurationError: not two axes, no candidate, under two examples, or a loss that is not a number.

    >>> losses = np.array([[0.0, 0.0, 1.0]] * 12 + [[0.0, 1.0, 0.0]] * 2 + [[0.0, 0.0, 0.0]] * 86)
    >>> found = pairwise_confidence_set(losses)
    >>> found.members, found.p_values.round(4).tolist()
    ((0, 1), [1.0, 1.0, 0.0015])
    """
    _refuse(losses)
    k = losses.shape[1]
    worse = _p_values_worse(losses)
    names = {(i, j): f"{i:06d}/{j:06d}" for i in range(k) for j in range(k) if i != j}
    adjusted = holm({name: float(worse[pair]) for pair, name in names.items()})
    least = [min((adjusted[names[i, j]] for j in range(k) if i != j), default=1.0) for i in range(k)]
    return _set(np.array(least), losses, confidence, "pairwise tests, Holm 1979")


def bootstrap_confidence_set(
    losses: "NDArray[np.float64]", *, confidence: float = 0.95, replicates: int = 2000, seed: int = 0
) -> ConfidenceSet:
    """Model confidence set by eliminating the worst while the range statistic rejects (Hansen et al. 2011).

    Needs the extra ``flataudit[mcs]``. The arguments are those of `pairwise_confidence_set`; examples are resampled
    independently (blocks of one). Candidates whose losses differ by a constant count as one: such a difference has no
    known error.

    Raises:
        PluginError: `arch` is not installed.
        ConfigurationError: as for `pairwise_confidence_set`.
    """
    _refuse(losses)
    try:
        from arch.bootstrap import MCS
    except ImportError as error:
        raise PluginError(
            "the package arch", got="none installed", remedy="run `pip install 'flataudit[mcs]'`"
        ) from error
    centred = (losses - losses.mean(axis=0)).round(12)
    kinds, kind = np.unique(centred, axis=1, return_inverse=True)
    kind, means = np.ravel(kind), losses.mean(axis=0)
    best = [min(np.flatnonzero(kind == c), key=lambda i: (means[i], i)) for c in range(kinds.shape[1])]
    distinct = losses[:, best]
    if distinct.shape[1] == 1:
        return _set(np.ones(losses.shape[1]), losses, confidence, "Hansen, Lunde and Nason 2011")
    mcs = MCS(distinct, size=1 - confidence, reps=replicates, block_size=1, method="R", bootstrap="mbb", seed=seed)
    mcs.compute()
    found = mcs.pvalues["Pvalue"].sort_index().to_numpy(dtype=np.float64)
    return _set(found[kind], losses, confidence, "Hansen, Lunde and Nason 2011")


def _p_values_worse(losses: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """``(k, k)`` one-sided p-values of "i costs no more than j"; 1 where the difference has no known error."""
    n, k = losses.shape
    worse = np.ones((k, k))
    binary = bool(((losses == 0) | (losses == 1)).all())
    for i in range(k):
        changes = losses[:, i : i + 1] - losses
        if binary:
            more, fewer = (changes > 0).sum(axis=0), (changes < 0).sum(axis=0)
            worse[i] = binom.sf(more - 1, more + fewer, 0.5)
            continue
        spread = np.std(changes, axis=0, ddof=1)
        known = spread > _CONSTANT * np.maximum(1.0, np.abs(changes).max(axis=0))
        statistic = changes.mean(axis=0) / np.where(known, spread / np.sqrt(n), 1.0)
        worse[i] = np.where(known, stdtr(n - 1, -statistic), 1.0)
    return worse


def _set(
    p_values: "NDArray[np.float64]", losses: "NDArray[np.float64]", confidence: float, method: str
) -> ConfidenceSet:
    """The set, with the observed best always in it."""
    means = losses.mean(axis=0)
    final = np.where(means <= means.min() + _CONSTANT, 1.0, p_values)
    members = tuple(int(i) for i in np.flatnonzero(final > 1 - confidence))
    return ConfidenceSet(members, final, confidence, method)


def _refuse(losses: "NDArray[np.float64]") -> None:
    if losses.ndim != 2 or losses.shape[0] < 2 or losses.shape[1] < 1:
        raise ConfigurationError(
            "losses of shape (n, k) with n ≥ 2 examples and k ≥ 1 candidates",
            got=f"shape {losses.shape}",
            remedy="stack the candidates' per-example losses as columns",
        )
    if not np.isfinite(losses).all():
        raise ConfigurationError(
            "finite losses", got="NaN or infinity", remedy="leave out the candidate that has no loss on some example"
        )
