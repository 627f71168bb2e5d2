"""Whether gradients mislead the attack that follows them (Athalye, Carlini and Wagner 2018).

Two attacks that should not win are run on a few examples: FGSM, which is the first step of PGD, and a gradient-free
search, which sees less. Where one of them fools examples that PGD does not, and more than the other way round by an
exact McNemar test at 5 %, the gradients hide what the model does: rounding, saturation or noise inside of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from flataudit.attacks.methods import Attack
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region
from flataudit.attacks.schedule import FGSM
from flataudit.attacks.victims import Victims
from flataudit.contracts import Predictor
from flataudit.statistics.proportions import mcnemar_p_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Masking", "masking"]

_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Masking:
    """What the other attacks found on some examples."""

    fooled: "NDArray[np.bool_]"
    """``(n,)``, by any of them; what was found before the purse was empty counts."""
    complete: bool
    """False: the purse was empty before both had run, and nothing is said about gradients."""
    found: Mapping[str, float]
    """For details: shares that each attack leaves right, and how many examples only the others fool."""
    suspects: tuple[str, ...]
    """Attacks that beat the gradient's by more than chance."""


def masking(
    model: Predictor,
    victims: Victims,
    region: Region,
    *,
    fooled: "NDArray[np.bool_]",
    attack: Attack,
    other: Attack,
    purse: Purse,
) -> Masking:
    """Compare FGSM and a search with what the gradient attack had fooled, ``(n,)``."""
    results: dict[str, NDArray[np.bool_]] = {}
    for name, one in (
        ("fgsm", replace(attack, settings=replace(attack.settings, schedule=FGSM))),
        (other.method, other),
    ):
        results[name] = one.run(model, victims, region, purse)
        if purse.empty():
            return Masking(np.logical_or.reduce(list(results.values())), False, {}, ())
    found: dict[str, float] = {"checked": float(len(victims)), "checked_gradient": float(np.mean(~fooled))}
    suspects = []
    for name, result in results.items():
        gained, lost = int(np.sum(result & ~fooled)), int(np.sum(fooled & ~result))
        found |= {f"checked_{name}": float(np.mean(~result)), f"only_{name}": float(gained)}
        if gained > lost and float(mcnemar_p_value(gained, lost)) <= _LEVEL:
            suspects.append(name)
    return Masking(np.logical_or.reduce(list(results.values())), True, found, tuple(suspects))
