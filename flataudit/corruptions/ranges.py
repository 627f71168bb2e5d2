"""The values that images may take, in which the strengths of their corruptions are measured."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Range"]


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of the whole data set."""

    low: float
    high: float
    channels: int | None = None
    """Of each image; None where nobody asked."""

    @classmethod
    def of(cls, images: "NDArray[np.generic]") -> "Range":
        """The range of these images."""
        return cls(float(np.min(images)), float(np.max(images)))

    @property
    def width(self) -> float:
        """Largest minus smallest."""
        return self.high - self.low

    def shares(self, images: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Each value as a share of the range, 0 to 1; all 0 where the range is a point."""
        return np.clip((images - self.low) / (self.width or 1.0), 0.0, 1.0)
