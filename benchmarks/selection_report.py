"""The selection study as numbers with intervals over draws, and as tables.

The interval of a mean resamples draws within each family (families are fixed: it says nothing of other families); the
overall mean is that of the families' means. Draws of one family share its data, so that they vary less than new data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from selection_rules import CONTEXT, PARTS, SELECTORS
from selection_switching import HARM, Change
from table import printed

__all__ = ["Judgement", "duel_table", "goals", "regret_table", "shift_table", "switching_table"]

REPLICATES = 4000
Values = Mapping[str, NDArray[np.float64]]
"""By family: one number a draw."""
NAIVE, DEFAULT, TARGETED = "validation accuracy", "default", "default, 400 unlabelled"


@dataclass(frozen=True, eq=False)
class Judgement:
    """All that was found in one draw."""

    family: str
    number: int
    recipes: tuple[str, ...]
    tied: int
    """Candidates in the band."""
    natural: Mapping[str, bool]
    costs: Mapping[str, Mapping[str, float]]
    """By selector and shift: regret in points."""
    changes: Sequence[Change]


def regret_table(found: Sequence[Judgement]) -> str:
    """Mean regret of each selector by family, overall with its interval, and as a share of validation accuracy's."""
    families = _families(found)
    header = ("choose by", *families, "all", "95 % over draws", "of validation's", "95 %")
    lines = []
    for name in (*SELECTORS, *CONTEXT, *(f"in the band: {part}" for part in PARTS)):
        selector = name.removeprefix("in the band: ")
        values = _values(found, selector)
        low, high = _interval(values)
        share, (least, most) = _share(found, selector)
        cells = [f"{values[family].mean():.2f}" for family in families]
        lines.append(
            (
                name,
                *cells,
                f"{_overall(values):.2f}",
                f"{low:.2f} … {high:.2f}",
                f"{share:.0%}",
                f"{least:.0%} … {most:.0%}",
            )
        )
    tied = [
        "candidates in the band, of 8",
        *(f"{np.mean([j.tied for j in found if j.family == f]):.1f}" for f in families),
    ]
    return printed(header, [*lines, (*tied, *[""] * 4)])


def shift_table(found: Sequence[Judgement]) -> str:
    """The regret of the main selectors shift by shift."""
    chosen = (NAIVE, "random in the band", DEFAULT, TARGETED, "50 labelled in the band", "best in the band")
    lines = []
    for family in _families(found):
        draws = [j for j in found if j.family == family]
        for shift, natural in draws[0].natural.items():
            means = [np.mean([j.costs[name][shift] for j in draws]) for name in chosen]
            lines.append((family, shift + (" (natural)" if natural else ""), *(f"{mean:.2f}" for mean in means)))
    for title, wanted in (("all natural shifts", True), ("all corruptions", False)):
        values = [[_means(j.costs[name], j, wanted) for j in found if wanted in j.natural.values()] for name in chosen]
        lines.append(("", title, *(f"{np.mean(column):.2f}" for column in values)))
    return printed(("family", "shift", *chosen), lines)


def duel_table(found: Sequence[Judgement]) -> str:
    """The default's choices against validation accuracy's, draw by draw: regret saved, mean over shifts, in points."""
    lines = []
    for selector in (DEFAULT, TARGETED):
        values, naive = _values(found, selector), _values(found, NAIVE)
        for family in (*_families(found), "all"):
            of = _families(found) if family == "all" else [family]
            saved = np.concatenate([naive[f] - values[f] for f in of])
            rates = [np.mean(np.abs(saved) < 1e-9), np.mean(saved > HARM), np.mean(saved < -HARM)]
            ends = [saved.mean(), np.median(saved), saved.max(), saved.min()]
            lines.append((selector, family, *(f"{r:.0%}" for r in rates), *(f"{e:+.2f}" for e in ends)))
    header = ("choose by", "family", "the same", "> 1 better", "> 1 worse", "mean", "median", "best draw", "worst draw")
    return printed(header, lines)


def switching_table(found: Sequence[Judgement]) -> str:
    """How often each rule replaces the champion, and how often that costs more than a point."""
    header = (
        "champion",
        "rule",
        "switches",
        "harm (mean of shifts)",
        "95 %",
        "harm (shift by shift)",
        "mean gain, points",
        "95 %",
    )
    lines = []
    for champion in ("random", "earlier pick"):
        for rule in ("validation accuracy", "gate", "gate, 400 unlabelled"):
            told = [_switches(found, champion, rule, kind) for kind in (_moved, _harmed, _harmed_each, _gained)]
            rates = [_overall(values) for values in told]
            harm, gain = _interval(told[1]), _interval(told[3])
            lines.append(
                (
                    champion,
                    rule,
                    f"{rates[0]:.1%}",
                    f"{rates[1]:.1%}",
                    f"{harm[0]:.1%} … {harm[1]:.1%}",
                    f"{rates[2]:.1%}",
                    f"{rates[3]:+.2f}",
                    f"{gain[0]:+.2f} … {gain[1]:+.2f}",
                )
            )
    by_family = [
        (
            f"harm of the gate, random champion: {family}",
            *(
                f"{_switches(found, 'random', rule, _harmed)[family].mean():.1%}"
                for rule in ("validation accuracy", "gate", "gate, 400 unlabelled")
            ),
        )
        for family in _families(found)
    ]
    return printed(header, lines) + "\n\n" + printed(("mean of shifts", "validation", "gate", "gate, 400"), by_family)


def goals(found: Sequence[Judgement]) -> list[tuple[str, str, str, str]]:
    """Each goal, what was found, and whether it is reached by the estimate."""
    rows = []
    for selector, limit in ((DEFAULT, 0.6), (TARGETED, 0.5)):
        share, (low, high) = _share(found, selector)
        told = f"{share:.0%} [{low:.0%}, {high:.0%}]"
        rows.append(
            (
                f"{selector}: regret at most {limit:.0%} of validation accuracy's",
                told,
                *_reached(share <= limit, high <= limit),
            )
        )
    for selector in (DEFAULT, TARGETED):
        worst = {f: v - _values(found, NAIVE)[f] for f, v in _values(found, selector).items()}
        family = max(worst, key=lambda f: worst[f].mean())
        low, high = _interval({family: worst[family]})
        told = f"{worst[family].mean():+.2f} [{low:+.2f}, {high:+.2f}] in {family}"
        rows.append(
            (
                f"{selector}: worse by more than 0.2 points in no family",
                told,
                *_reached(worst[family].mean() <= 0.2, high <= 0.2),
            )
        )
    for rule in ("gate", "gate, 400 unlabelled"):
        values = _switches(found, "random", rule, _harmed)
        low, high = _interval(values)
        told = f"{_overall(values):.1%} [{low:.1%}, {high:.1%}]"
        rows.append(
            (
                f"{rule}: switching harms in at most 3 % of draws",
                told,
                *_reached(_overall(values) <= 0.03, high <= 0.03),
            )
        )
    return rows


def _reached(estimate: bool, interval: bool) -> tuple[str, str]:
    return "yes" if estimate else "NO", "yes" if interval else "no"


def _families(found: Sequence[Judgement]) -> list[str]:
    return list(dict.fromkeys(j.family for j in found))


def _values(found: Sequence[Judgement], selector: str) -> Values:
    """Regret averaged over the shifts of each draw."""
    return {
        f: np.array([np.mean(list(j.costs[selector].values())) for j in found if j.family == f])
        for f in _families(found)
    }


def _means(costs: Mapping[str, float], judged: Judgement, natural: bool) -> float:
    return float(np.mean([cost for shift, cost in costs.items() if judged.natural[shift] is natural]))


def _overall(values: Values) -> float:
    return float(np.mean([column.mean() for column in values.values()]))


def _resampled(values: Sequence[Values]) -> NDArray[np.float64]:
    """``(len(values), R)`` overall means on the same resampled draws."""
    source = np.random.default_rng(0)
    means = np.zeros((len(values), REPLICATES))
    for family in values[0]:
        n = len(values[0][family])
        rows = source.integers(n, size=(REPLICATES, n))
        means += np.stack([one[family][rows].mean(axis=1) for one in values]) / len(values[0])
    return means


def _interval(values: Values) -> tuple[float, float]:
    low, high = np.quantile(_resampled([values])[0], [0.025, 0.975])
    return float(low), float(high)


def _share(found: Sequence[Judgement], selector: str) -> tuple[float, tuple[float, float]]:
    """Of validation accuracy's regret, with its interval over the same resampled draws."""
    values, naive = _values(found, selector), _values(found, NAIVE)
    ours, theirs = _resampled([values, naive])
    low, high = np.quantile(ours / np.maximum(theirs, 1e-9), [0.025, 0.975])
    return _overall(values) / _overall(naive), (float(low), float(high))


def _switches(
    found: Sequence[Judgement], champion: str, rule: str, told: Callable[[Sequence[Sequence[Change]]], float]
) -> Values:
    """By family, one number a draw, from its changes grouped by champion."""
    columns: dict[str, list[float]] = {}
    for judged in found:
        cases: dict[int, list[Change]] = {}
        for change in judged.changes:
            if (change.rule, change.champion) == (rule, champion):
                cases.setdefault(change.case, []).append(change)
        columns.setdefault(judged.family, []).append(told(list(cases.values())))
    return {family: np.array(column) for family, column in columns.items()}


def _moved(cases: Sequence[Sequence[Change]]) -> float:
    return float(np.mean([change.switched for case in cases for change in case]))


def _harmed(cases: Sequence[Sequence[Change]]) -> float:
    return float(np.mean([np.mean([change.gain for change in case]) < -HARM for case in cases]))


def _harmed_each(cases: Sequence[Sequence[Change]]) -> float:
    return float(np.mean([change.gain < -HARM for case in cases for change in case]))


def _gained(cases: Sequence[Sequence[Change]]) -> float:
    return float(np.mean([change.gain for case in cases for change in case]))
