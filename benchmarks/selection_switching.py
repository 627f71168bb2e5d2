"""Whether to replace a champion: how often the gate does, and how often the new model is worse where it matters.

The champion is each of the eight candidates in turn, against the other seven; or the one that validation accuracy
picked among the first four, against the last four. The gate is the default policy's decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from selection_draws import Draw
from selection_rules import Judged, clean, policy_of, with_targets

__all__ = ["HARM", "Change", "changes"]

HARM = 1.0
"""Points of shifted accuracy lost by a switch, from which it has done harm."""


@dataclass(frozen=True)
class Change:
    """What one rule did with one champion, on one shift."""

    rule: str
    champion: str
    """``random``: each in turn. ``earlier pick``: validation's among the first four."""
    case: int
    """The champion's place among the candidates."""
    shift: str
    switched: bool
    gain: float
    """Shifted accuracy of the model that stands afterwards, minus the champion's, in points."""


def changes(draw: Draw, plain: Judged, targeted: Mapping[str, Judged]) -> list[Change]:
    """Every rule, every champion, every shift."""
    everyone = range(len(draw.labels))
    found: list[Change] = []
    for champion in everyone:
        found += _rules(draw, "random", champion, list(everyone), plain, targeted)
    half = len(draw.labels) // 2
    first = int(np.argmax(clean(draw)[:half]))
    pool = [first, *range(half, len(draw.labels))]
    policy = policy_of(draw)
    few = Judged.of([draw.examined[i] for i in pool], policy)
    seeing = {shift: Judged.of([with_targets(draw, shift)[i] for i in pool], policy) for shift in draw.shifted}
    return found + _rules(draw, "earlier pick", first, pool, few, seeing)


def _rules(
    draw: Draw, kind: str, champion: int, pool: Sequence[int], plain: Judged, targeted: Mapping[str, Judged]
) -> list[Change]:
    policy, label = policy_of(draw), draw.labels[champion]
    validation = clean(draw)
    best = max(pool, key=lambda i: (validation[i], i == champion))
    blind = _after(draw, champion, plain.decide(policy, label).promoted)
    rules: dict[str, Callable[[str], int]] = {
        "validation accuracy": lambda shift: best,
        "gate": lambda shift: blind,
        "gate, 400 unlabelled": lambda shift: _after(draw, champion, targeted[shift].decide(policy, label).promoted),
    }
    return [
        Change(rule, kind, champion, shift, after != champion, 100 * float(shifted[after] - shifted[champion]))
        for shift, shifted in draw.shifted.items()
        for rule, chosen in rules.items()
        for after in [chosen(shift)]
    ]


def _after(draw: Draw, champion: int, promoted: str | None) -> int:
    return champion if promoted is None else draw.labels.index(promoted)
