"""How a conformance suite fails: with what it expected, what it got and what to do."""

__all__ = ["require"]


def require(holds: object, expected: str, *, got: object, remedy: str) -> None:
    """Fail unless something holds.

    Raises:
        AssertionError: it does not.

    >>> require(1 == 2, "equal numbers", got="1 and 2", remedy="count again")
    Traceback (most recent call last):
      ...
    AssertionError: expected equal numbers, got 1 and 2; count again
    """
    if not holds:
        raise AssertionError(f"expected {expected}, got {got}; {remedy}")
