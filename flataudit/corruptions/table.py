"""Corruptions of tables at five severities, in units of each feature's standard deviation.

What goes wrong with columns on their way from a sensor or a form: noise, missing values replaced by the mean, a wrong
unit, a miscalibration, coarse rounding. Every function takes rows ``(n, features)`` in float64 and gives as many.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.scale import moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TABLE_CORRUPTIONS", "Features"]


@dataclass(frozen=True, eq=False)
class Features:
    """Mean and standard deviation of each feature over the whole data set, ``(features,)``."""

    mean: "NDArray[np.float64]"
    deviation: "NDArray[np.float64]"

    @classmethod
    def of(cls, rows: "NDArray[np.generic]") -> "Features":
        """Those of these rows."""
        return cls(*moments(rows, by_feature=True))


def noise(scale: Features, rows: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """Gaussian noise with 0.1 to 0.8 of each feature's standard deviation."""
    level = (0.1, 0.2, 0.3, 0.5, 0.8)[severity - 1]
    return rows + level * scale.deviation * draws.normals(rows.shape[1])


def dropout(scale: Features, rows: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """Each value is lost with a probability of 5 to 40 % and replaced by its column's mean."""
    lost = draws.uniforms(rows.shape[1]) < (0.05, 0.1, 0.2, 0.3, 0.4)[severity - 1]
    return np.where(lost, scale.mean, rows)


def unit(scale: Features, rows: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """One feature of each row in a wrong unit: 1.25 to 10 times as large or as small."""
    factor = (1.25, 1.5, 2.0, 4.0, 10.0)[severity - 1]
    chosen, up = _one_feature(rows, draws)
    return np.where(chosen, np.where(up, rows * factor, rows / factor), rows)


def offset(scale: Features, rows: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """One feature of each row too large or too small by 0.5 to 3 of its standard deviations."""
    level = (0.5, 1.0, 1.5, 2.0, 3.0)[severity - 1]
    chosen, up = _one_feature(rows, draws)
    return rows + chosen * np.where(up, level, -level) * scale.deviation


def quantise(scale: Features, rows: "NDArray[np.float64]", draws: Draws, severity: int) -> "NDArray[np.float64]":
    """Every feature rounded to steps of 0.25 to 2 standard deviations from its mean. Nothing is random."""
    step = (0.25, 0.5, 1.0, 1.5, 2.0)[severity - 1] * np.where(scale.deviation > 0, scale.deviation, 1.0)
    rounded = scale.mean + step * np.rint((rows - scale.mean) / step)
    return np.where(scale.deviation > 0, rounded, rows)


def _one_feature(rows: "NDArray[np.float64]", draws: Draws) -> "tuple[NDArray[np.bool_], NDArray[np.bool_]]":
    """A mask ``(n, features)`` with one feature a row, and a coin ``(n, 1)``."""
    drawn = draws.uniforms(2)
    place = np.floor(drawn[:, :1] * rows.shape[1])
    return np.arange(rows.shape[1]) == place, drawn[:, 1:] < 0.5


TABLE_CORRUPTIONS: Mapping[str, Callable[[Features, "NDArray[np.float64]", Draws, int], "NDArray[np.float64]"]] = {
    "noise": noise,
    "dropout": dropout,
    "unit": unit,
    "offset": offset,
    "quantise": quantise,
}
