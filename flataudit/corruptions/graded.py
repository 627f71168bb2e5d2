"""What a corruption is: a change of continuous strength, and the five strengths that are its severities."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from flataudit.corruptions.draws import Draws

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Graded"]

Scale = TypeVar("Scale")


@dataclass(frozen=True)
class Graded(Generic[Scale]):
    """A corruption and its severities."""

    change: "Callable[[Scale, NDArray[np.float64], Draws, float], NDArray[np.float64]]"
    """From the data set's scale, examples ``(n, …)``, their random numbers and an amount to as many examples."""
    amounts: tuple[float, float, float, float, float]
    """What severity 1 to 5 are, in the unit that the function's docstring names."""
    neutral: float = 0.0
    """The amount that changes nothing."""
    utmost: float | None = None
    """The largest change that has a meaning; None: twice as far from the neutral amount as severity 5."""
    needs: "Callable[[Scale], str | None]" = lambda scale: None
    """Why it has no meaning on this data set; None where it has."""

    def at(self, strength: float) -> float:
        """The amount at a strength from 0 (nothing) over 1 (severity 5) to 2 (the utmost), linear in between.

        >>> Graded(lambda scale, rows, draws, amount: rows, (1.0, 2.0, 3.0, 4.0, 5.0)).at(0.5)
        2.5
        """
        last = self.amounts[4]
        utmost = 2 * last - self.neutral if self.utmost is None else self.utmost
        knots = (self.neutral, *self.amounts, utmost)
        place = min(5 * strength, 5.0) + max(0.0, min(strength - 1, 1.0))
        before = min(int(place), len(knots) - 2)
        return knots[before] + (place - before) * (knots[before + 1] - knots[before])

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.change.__doc__ or "").strip().partition("\n")[0]
