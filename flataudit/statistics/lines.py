"""A straight line through a few points, and whether it is one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Line"]


@dataclass(frozen=True)
class Line:
    """Least squares through points ``(x, y)``."""

    slope: float
    intercept: float
    r_squared: float
    """1 − residual / total sum of squares; 0 where y does not vary."""
    deviation: float | None
    """Standard deviation of the points about the line (n − 2 degrees of freedom); None for two points."""
    n: int

    @classmethod
    def through(cls, x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> "Line | None":
        """The line; None where all x are equal.

        >>> Line.through(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
        Line(slope=2.0, intercept=1.0, r_squared=1.0, deviation=0.0, n=3)
        """
        across, up = x - x.mean(), y - y.mean()
        spread, total = float(across @ across), float(up @ up)
        if len(x) < 2 or spread <= 1e-12 * max(1.0, float(x @ x)):
            return None
        slope = float(across @ up) / spread
        left = float(np.square(up - slope * across).sum())
        deviation = (left / (len(x) - 2)) ** 0.5 if len(x) > 2 else None
        return cls(slope, float(y.mean() - slope * x.mean()), 1 - left / total if total > 0 else 0.0, deviation, len(x))

    def at(self, x: float) -> float:
        """Its height there."""
        return self.intercept + self.slope * x
