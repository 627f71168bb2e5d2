"""What one interval of the gain shows: not inferior, superior, inferior; each claim read from the same two ends.

Both questions may be asked of one interval without a correction: superior (gain above 0) implies not inferior (gain
above −margin), so the two are tested in a fixed order (Morikawa and Yoshida 1995), each at one-sided
(1 − confidence)/2.
"""

from dataclasses import dataclass

from flataudit.errors import ConfigurationError

__all__ = ["Reading", "read"]


@dataclass(frozen=True)
class Reading:
    """Claims about challenger minus champion, oriented so that positive is better."""

    non_inferior: bool
    """The gain exceeds −margin: the lower end lies above it."""
    superior: bool
    """The gain exceeds 0; with a margin of 0 the same as `non_inferior`."""
    inferior: bool
    """The gain is below −margin: the upper end lies below it."""

    @property
    def inconclusive(self) -> bool:
        """Neither not inferior nor inferior: more examples would settle it."""
        return not (self.non_inferior or self.inferior)


def read(interval: tuple[float, float], *, margin: float) -> Reading:
    """All claims of one two-sided interval of the gain, ends and margin in the metric's unit.

    Args:
        interval: lower and upper end of the gain (for losses: champion minus challenger).
        margin: what may be lost and still count as not worse, 0 or more.

    Raises:
        ConfigurationError: the margin is negative, or the ends are not in order.

    >>> read((-0.004, 0.012), margin=0.01)
    Reading(non_inferior=True, superior=False, inferior=False)
    >>> read((-0.02, 0.012), margin=0.01).inconclusive
    True
    """
    low, high = interval
    if not margin >= 0:
        raise ConfigurationError("a margin of 0 or more", got=f"{margin:g}", remedy="write what may be lost, as 0.01")
    if not low <= high:
        raise ConfigurationError("an interval (low, high)", got=f"({low:g}, {high:g})", remedy="exchange its ends")
    return Reading(non_inferior=low > -margin, superior=low > 0, inferior=high < -margin)
