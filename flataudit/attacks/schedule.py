"""How far a projected attack goes: refused where it cannot cross the ball."""

from dataclasses import dataclass

from flataudit.errors import ConfigurationError

__all__ = ["FGSM", "Schedule"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Schedule:
    """Steps of an attack, in shares of the radius ε.

    A start at one side of the ball may have to cross it: with steps × size < 2ε the attack ends before it is done and
    reports a robustness that is not there (a travel of 1.33 ε: 5.5 % instead of 2.5 % of a linear model's examples).
    Only FGSM, one whole step from the input itself, needs no more than ε.

    Raises:
        ConfigurationError: it cannot cross the ball.

    >>> Schedule(steps=40, step_size=1 / 30, starts=1)
    Traceback (most recent call last):
      ...
    flataudit.errors.ConfigurationError: expected steps × step_size of at least 2, the width of the ball in units of \
epsilon, got 40 × 0.0333333 = 1.33; write step_size: 0.05, or leave it out
    """

    steps: int
    step_size: float
    starts: int

    def __post_init__(self) -> None:
        travel = self.steps * self.step_size
        if travel < 2 - _ROUNDING and (self.steps, self.step_size, self.starts) != (1, 1, 1):
            raise ConfigurationError(
                "steps × step_size of at least 2, the width of the ball in units of epsilon",
                got=f"{self.steps} × {self.step_size:g} = {travel:.3g}",
                remedy=f"write step_size: {2 / self.steps:g}, or leave it out",
            )


FGSM = Schedule(steps=1, step_size=1.0, starts=1)
"""The fast gradient sign method (Goodfellow, Shlens and Szegedy 2015)."""
