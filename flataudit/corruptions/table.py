"""Corruptions of tables at five severities, in units of each feature's standard deviation.

What goes wrong with columns on their way from a sensor or a form: noise, missing values, a wrong unit, a
miscalibration, coarse rounding, a lost column, a wrong category, late data. Every function takes rows ``(n, features)``
in float64 and gives as many. What is missing already (NaN) counts in no feature's scale, and stays missing unless
something is put in a lost value's place. Rows repeated in a data set are none of these: they change no answer of a
model that looks at one row at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.graded import Graded
from flataudit.corruptions.scale import moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TABLE_CORRUPTIONS", "TABLE_DEFAULTS", "Features"]

_MOST_CATEGORIES = 50


@dataclass(frozen=True, eq=False)
class Features:
    """What each feature looks like over the whole data set."""

    mean: "NDArray[np.float64]"
    """``(features,)``."""
    deviation: "NDArray[np.float64]"
    """Standard deviation, ``(features,)``."""
    rows: "NDArray[np.generic]"
    """The data set itself, ``(n, features)``."""
    missing: Literal["median", "nan"] = "median"
    """What a missing value is given as."""

    @classmethod
    def of(cls, rows: "NDArray[np.generic]", missing: Literal["median", "nan"] = "median") -> "Features":
        """Those of these rows."""
        return cls(*moments(rows, by_feature=True), rows, missing)

    @cached_property
    def absent(self) -> "NDArray[np.float64]":
        """What stands for a missing value, ``(features,)``."""
        if self.missing == "nan":
            return np.full(self.rows.shape[1], np.nan)
        return np.array([_median(self.rows[:, column]) for column in range(self.rows.shape[1])])

    @cached_property
    def categories(self) -> "dict[int, NDArray[np.float64]]":
        """The sorted known values of each column that holds 2 to 50 different whole numbers, by its number."""
        found = {}
        for column in range(self.rows.shape[1]):
            values = _known(self.rows[:, column])
            if np.all(values[:100] == np.rint(values[:100])):
                distinct = np.unique(values).astype(np.float64)
                if 2 <= len(distinct) <= _MOST_CATEGORIES and np.all(distinct == np.rint(distinct)):
                    found[column] = distinct
        return found


def noise(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Gaussian noise; its standard deviation as a share of each feature's."""
    return rows + amount * scale.deviation * draws.normals(rows.shape[1])


def dropout(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each value is lost with this probability and replaced by its column's mean."""
    lost = draws.uniforms(rows.shape[1]) < amount
    return np.where(lost, scale.mean, rows)


def missing(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each value is missing with this probability: the column's median, or NaN where the suite is told so."""
    return np.where(draws.uniforms(rows.shape[1]) < amount, scale.absent, rows)


def column_loss(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """This share of the columns, the same for all rows, is missing; a column's fraction is missing in some rows."""
    count = rows.shape[1]
    rank = np.argsort(np.argsort(draws.common(count)))
    lost = draws.uniforms(1) < amount * count - rank
    return np.where(lost, scale.absent, rows)


def unit(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """One feature of each row in a wrong unit: as many times as large or as small."""
    chosen, up = _one_feature(rows, draws)
    return np.where(chosen, np.where(up, rows * amount, rows / amount), rows)


def offset(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """One feature of each row too large or too small by as many of its standard deviations."""
    chosen, up = _one_feature(rows, draws)
    return rows + chosen * np.where(up, amount, -amount) * scale.deviation


def quantise(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Every feature rounded to steps of as many standard deviations from its mean; nothing is random."""
    if amount == 0:
        return rows.copy()
    step = amount * np.where(scale.deviation > 0, scale.deviation, 1.0)
    rounded = scale.mean + step * np.rint((rows - scale.mean) / step)
    return np.where(scale.deviation > 0, rounded, rows)


def swap(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each value of a column of whole numbers becomes, with this probability, another of the column's categories."""
    changed = rows.copy()
    count = rows.shape[1]
    drawn = draws.uniforms(2 * count)
    for column, values in scale.categories.items():
        place = np.minimum(np.searchsorted(values, rows[:, column]), len(values) - 1)
        further = 1 + np.floor(drawn[:, count + column] * (len(values) - 1)).astype(np.int64)
        other = values[(place + further) % len(values)]
        hit = (drawn[:, column] < amount) & ~np.isnan(rows[:, column])
        changed[:, column] = np.where(hit, other, rows[:, column])
    return changed


def stale(scale: Features, rows: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Each value is, with this probability, still that of the row before; for rows in the order of time."""
    before = scale.rows[np.clip(draws.indices - 1, 0, len(scale.rows) - 1)].astype(np.float64)
    late = (draws.uniforms(rows.shape[1]) < amount) & (draws.indices > 0)[:, None]
    return np.where(late, before, rows)


def _known(values: "NDArray[np.generic]") -> "NDArray[np.generic]":
    return values[~np.isnan(values)] if values.dtype.kind == "f" else values


def _median(values: "NDArray[np.generic]") -> float:
    """Of the known values; NaN where there is none."""
    known = _known(values).astype(np.float64)
    return float(np.median(known)) if len(known) else np.nan


def _one_feature(rows: "NDArray[np.float64]", draws: Draws) -> "tuple[NDArray[np.bool_], NDArray[np.bool_]]":
    """A mask ``(n, features)`` with one feature a row, and a coin ``(n, 1)``."""
    drawn = draws.uniforms(2)
    place = np.floor(drawn[:, :1] * rows.shape[1])
    return np.arange(rows.shape[1]) == place, drawn[:, 1:] < 0.5


def _has_categories(scale: Features) -> str | None:
    return None if scale.categories else f"no column holds 2 to {_MOST_CATEGORIES} different whole numbers"


TABLE_DEFAULTS = ("noise", "dropout", "unit", "offset", "quantise")
"""Those that need neither categories nor rows in the order of time."""
TABLE_CORRUPTIONS: Mapping[str, Graded[Features]] = {
    "noise": Graded(noise, (0.1, 0.2, 0.3, 0.5, 0.8)),
    "dropout": Graded(dropout, (0.05, 0.1, 0.2, 0.3, 0.4)),
    "missing": Graded(missing, (0.05, 0.1, 0.2, 0.3, 0.4)),
    "column_loss": Graded(column_loss, (0.05, 0.1, 0.2, 0.3, 0.4)),
    "unit": Graded(unit, (1.25, 1.5, 2.0, 4.0, 10.0), neutral=1.0),
    "offset": Graded(offset, (0.5, 1.0, 1.5, 2.0, 3.0)),
    "quantise": Graded(quantise, (0.25, 0.5, 1.0, 1.5, 2.0)),
    "swap": Graded(swap, (0.05, 0.1, 0.2, 0.3, 0.4), needs=_has_categories),
    "stale": Graded(stale, (0.05, 0.1, 0.2, 0.3, 0.4)),
}
"""Every corruption of tables; the amounts are what the functions' docstrings say."""
