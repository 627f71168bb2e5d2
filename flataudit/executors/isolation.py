"""What a candidate can be kept from, and the refusal to start with less than is demanded."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from flataudit.errors import ConfigurationError

__all__ = ["KINDS", "Isolation", "Kind", "demand", "described", "isolation"]

Kind = Literal["env", "time", "mem", "fs", "net", "proc", "uid"]
"""Kept from: the parent's environment, time without end, memory without end, files, network, processes, its user."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Isolation = Mapping[str, str]
"""``enforced`` or ``none``, for each kind."""


def isolation(*enforced: Kind) -> dict[str, str]:
    """All kinds, with those that are enforced.

    >>> isolation("env", "time")["env"], isolation("env", "time")["net"]
    ('enforced', 'none')
    """
    return {kind: "enforced" if kind in enforced else "none" for kind in KINDS}


def demand(minimum: Sequence[Kind], have: Isolation, *, where: str) -> None:
    """Refuse to start with less than the minimum; nothing is ever silently done without.

    Raises:
        ConfigurationError: a kind in ``minimum`` is not enforced.
    """
    lacking = [kind for kind in minimum if have.get(kind) != "enforced"]
    if lacking:
        able = ", ".join(kind for kind in KINDS if have.get(kind) == "enforced") or "none"
        raise ConfigurationError(
            f"isolation of {', '.join(minimum)}",
            got=f"{where}, which does not enforce {', '.join(lacking)}",
            remedy=f"it can enforce: {able}; set isolation.minimum to no more than that, or choose another executor",
        )


def described(have: Isolation) -> str:
    """One line for a person.

    >>> described(isolation("env", "time"))
    'env, time enforced; mem, fs, net, proc, uid not'
    """
    enforced = ", ".join(kind for kind in KINDS if have.get(kind) == "enforced")
    lacking = ", ".join(kind for kind in KINDS if have.get(kind) != "enforced")
    return "; ".join(part for part in (enforced and f"{enforced} enforced", lacking and f"{lacking} not") if part)
