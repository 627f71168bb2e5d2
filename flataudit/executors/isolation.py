"""What a candidate can be kept from, and the refusal to start with less than is demanded."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from flataudit.errors import ConfigurationError
from flataudit.executors.frames import SelfTest
from flataudit.sandbox.apply import lacking

__all__ = [
    "KINDS",
    "Isolation",
    "Kind",
    "demand",
    "described",
    "enforceable",
    "isolation",
    "lacking_from",
    "measured",
    "supervised",
]

Kind = Literal["env", "time", "mem", "fs", "net", "proc", "uid"]
"""Kept from: the parent's environment, time without end, memory without end, files, network, processes, its user."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Isolation = Mapping[str, str]
"""``enforced``, ``partial`` or ``none``, for each kind."""


def isolation(*enforced: Kind) -> dict[str, str]:
    """All kinds, with those that are enforced.

    >>> isolation("env", "time")["env"], isolation("env", "time")["net"]
    ('enforced', 'none')
    """
    return {kind: "enforced" if kind in enforced else "none" for kind in KINDS}


def enforceable() -> dict[str, str]:
    """What a worker can be kept from on this machine; whether it is, its self-test says."""
    # Elsewhere than on Linux the address space cannot be limited, nor the resident memory be watched.
    bounded: tuple[Kind, ...] = ("env", "time", "mem") if sys.platform == "linux" else ("env", "time")
    missing = lacking()
    layered = tuple(kind for kind in KINDS if kind not in missing and kind not in {"env", "time", "mem"})
    return isolation(*bounded, *layered)


def supervised(*, watches_memory: bool) -> dict[str, str]:
    """What the supervisor alone enforces, of a worker that has said nothing yet."""
    return isolation("env", "time", "mem") if watches_memory else isolation("env", "time")


def measured(kept: Isolation, found: SelfTest, variables: Collection[str]) -> dict[str, str]:
    """What a worker is kept from, as its self-test found; ``variables`` are all that its environment may hold."""
    env = "enforced" if set(found.environment) <= set(variables) else "none"
    return dict(kept) | dict(found.found) | {"env": env}


def lacking_from(minimum: Sequence[Kind], have: Isolation) -> list[Kind]:
    """The kinds of a minimum that are not enforced."""
    return [kind for kind in minimum if have.get(kind) != "enforced"]


def demand(minimum: Sequence[Kind], have: Isolation, *, where: str, remedies: Mapping[str, str] | None = None) -> None:
    """Refuse to start with less than the minimum; nothing is ever silently done without.

    Raises:
        ConfigurationError: a kind in ``minimum`` is not enforced.
    """
    missing = lacking_from(minimum, have)
    if missing:
        able = ", ".join(kind for kind in KINDS if have.get(kind) == "enforced") or "none"
        more = "".join(f"; for {kind}: {remedies[kind]}" for kind in missing if remedies and kind in remedies)
        raise ConfigurationError(
            f"isolation of {', '.join(minimum)}",
            got=f"{where}, which does not enforce {', '.join(missing)}",
            remedy=f"it can enforce: {able}; set isolation.minimum to no more than that, or choose another executor"
            + more,
        )


def described(have: Isolation) -> str:
    """One line for a person.

    >>> described(isolation("env", "time") | {"fs": "partial"})
    'env, time enforced; fs partial; mem, net, proc, uid not'
    """
    groups = [("enforced", "enforced"), ("partial", "partial"), ("none", "not")]
    named = [(", ".join(kind for kind in KINDS if have.get(kind, "none") == grade), word) for grade, word in groups]
    return "; ".join(f"{kinds} {word}" for kinds, word in named if kinds)
