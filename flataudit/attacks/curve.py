"""Which examples withstand an attack, radius by radius, or how far a regression's answers can be driven."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flataudit.attacks.masking import Masking, masking
from flataudit.attacks.methods import Attack
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Norm, Region, Room
from flataudit.attacks.victims import Cases, Victims, wrong
from flataudit.contracts import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Curve", "error_curve", "robustness_curve"]


@dataclass(frozen=True, eq=False)
class Curve:
    """What was found before the purse was empty."""

    robust: "Mapping[float, NDArray[np.bool_]]"
    """``(n,)`` for each radius that was attacked to the end: right, and not fooled by anything that was tried."""
    left: "NDArray[np.bool_]"
    """``(n,)``, those that nothing had fooled at any radius so far."""
    masking: Masking | None
    """None: not checked, since it was not asked for, the purse was empty, or none of its examples is right."""


def robustness_curve(
    model: Predictor,
    victims: Victims,
    room: Room,
    *,
    norm: Norm,
    radii: Sequence[float],
    attack: Attack,
    other: Attack | None,
    check: int,
    purse: Purse,
) -> Curve:
    """Attack the examples that are right, at each radius those that the smaller ones left.

    What is fooled within one radius is fooled within every larger one. At the first of ``radii``, the first ``check``
    examples are tried by FGSM and by ``other`` too, if there is such an attack; what they fool is fooled.
    """
    left = ~wrong(victims.answers, victims.labels)
    right, robust, checked = left.copy(), {}, None
    for radius in sorted(radii):
        region = Region(room, norm, radius)
        chosen = np.flatnonzero(left)
        left[chosen] = ~attack.run(model, victims.only(chosen), region, purse)
        if purse.empty():
            break
        few = np.flatnonzero(right[:check])
        if radius == radii[0] and other is not None and len(few):
            some, fooled = victims.only(few), ~left[few]
            checked = masking(model, some, region, fooled=fooled, attack=attack, other=other, purse=purse)
            left[few] &= ~checked.fooled
        robust[radius] = left.copy()
    return Curve(robust, left, checked if checked is not None and checked.complete else None)


def error_curve(
    model: Predictor,
    cases: Cases,
    room: Room,
    *,
    norm: Norm,
    radii: Sequence[float],
    attack: Attack,
    purse: Purse,
) -> "Mapping[float, NDArray[np.float64]]":
    """The largest |answer − target| found within each radius, ``(n,)``; infinite where an answer is not a number.

    What is found within one radius counts for every larger one. Radii that the purse has no room for are left out.
    """
    worst, found = np.abs(cases.answers - cases.targets), {}
    for radius in sorted(radii):
        worst = np.maximum(worst, attack.farthest(model, cases, Region(room, norm, radius), purse))
        if purse.empty():
            break
        found[radius] = worst
    return found
