"""Whether the default rule chooses better than validation accuracy alone, where the shift comes after the choice.

``python benchmarks/selection.py --data FOLDER --cache /tmp/selection`` trains families of candidates, measures
them with flataudit, chooses by every selector, and prints the regret on held-out shifts. Candidates, shifts and goals
were fixed before the first result.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from clock import machine
from selection_draws import Draw, drawn
from selection_families import FAMILIES, Family, MissingFile
from selection_recipes import described
from selection_report import Judgement, duel_table, goals, regret_table, shift_table, switching_table
from selection_rules import Judged, clean, costs, policy_of, with_targets
from selection_switching import changes
from table import printed

__all__ = ["judged"]

NEEDED = {
    "fashion_mnist_subset.npz": "the family fashion is left out",
    "mnist8x8.npz": "the family mnist, and the shift to MNIST of the family writers, are left out",
    "bikeshare.npz": "the family bicycles is left out",
}
APART = 1000
"""Numbers of draws that one seed may have."""


def judged(draw: Draw) -> Judgement:
    """Every selector's choice and every champion's fate in one draw."""
    policy = policy_of(draw)
    plain = Judged.of(draw.examined, policy)
    targeted = {shift: Judged.of(with_targets(draw, shift), policy) for shift in draw.shifted}
    return Judgement(
        draw.family,
        draw.number,
        draw.recipes,
        len(plain.decide(policy).tied),
        draw.natural,
        costs(draw, plain, targeted),
        changes(draw, plain, targeted),
    )


def _draws(family: Family, chosen: argparse.Namespace) -> Iterator[Judgement]:
    for number in range(APART * chosen.seed, APART * chosen.seed + chosen.draws):
        started = time.monotonic()
        draw = drawn(family, number, chosen.data, chosen.cache)
        result = judged(draw)
        naive, default = (np.mean(list(result.costs[k].values())) for k in ("validation accuracy", "default"))
        print(
            f"{family.name} {number}: validation {clean(draw).min():.3f} to {clean(draw).max():.3f}, "
            f"{result.tied} tied, regret {naive:.2f} by validation, {default:.2f} by default "
            f"({time.monotonic() - started:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
        yield result


def _found(chosen: argparse.Namespace) -> list[Judgement]:
    """Of every family whose file is there."""
    found: list[Judgement] = []
    for family in FAMILIES.values():
        try:
            found.extend(_draws(family, chosen))
        except MissingFile:
            continue
    return found


def _absent(data: Path | None) -> str:
    """What the study lacks without a file."""
    lacking = [name for name in NEEDED if data is None or not (data / name).is_file()]
    return "".join(f"{name} is not in {data or 'any folder (--data)'}: {NEEDED[name]}.\n" for name in lacking)


def _told(found: Sequence[Judgement], chosen: argparse.Namespace) -> str:
    counts = {f.name: sum(j.family == f.name for j in found) for f in FAMILIES.values()}
    families = "\n".join(f"- {f.name}: {f.title}, {counts[f.name]} draws" for f in FAMILIES.values() if counts[f.name])
    reached = printed(("goal", "found [95 % over draws]", "reached", "by the whole interval"), goals(found))
    return (
        f"Seed {chosen.seed}. Regret: points of shifted accuracy lost to the best of 8 candidates, mean over shifts.\n"
        f"{families}\n\n## Goals\n\n{reached}\n\n## Regret\n\n{regret_table(found)}\n\n"
        f"## The default against validation accuracy, draw by draw\n\n{duel_table(found)}\n\n"
        f"## Shift by shift\n\n{shift_table(found)}\n\n## Switching from a champion\n\n{switching_table(found)}"
    )


def main() -> None:
    """Print the tables, and write the records where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the families' files")
    parser.add_argument("--cache", type=Path, help="keep every draw here; a second run only decides again")
    parser.add_argument("--draws", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    # An integer among a measurement's details, which pydantic's serializer remarks on as it is written to the cache.
    warnings.filterwarnings("ignore", category=UserWarning, module="pydantic")
    print(_absent(chosen.data), end="")
    found = _found(chosen)
    print(_told(found, chosen), flush=True)
    if chosen.json:
        chosen.json.write_text(_document(found, chosen), encoding="utf-8")


def _document(found: Sequence[Judgement], chosen: argparse.Namespace) -> str:
    """JSON with a draw on each line."""
    head = {
        "machine": machine(),
        "command": " ".join(sys.argv),
        "seed": chosen.seed,
        "recipes": described(),
        "goals": goals(found),
    }
    lines = ",\n".join(json.dumps(_record(one), ensure_ascii=False) for one in found)
    return json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + f',\n "draws": [\n{lines}\n ]\n}}\n'


def _record(one: Judgement) -> dict[str, object]:
    """In hundredths of a point, each list in the order of the shifts; of the changes those that switched."""
    shifts = list(one.natural)
    switches: dict[str, list[float]] = {}
    for change in one.changes:
        if change.switched:
            gains = switches.setdefault(f"{change.rule}, {change.champion} champion {change.case}", [0.0] * len(shifts))
            gains[shifts.index(change.shift)] = round(change.gain, 2)
    return {
        "family": one.family,
        "number": one.number,
        "recipes": one.recipes,
        "tied": one.tied,
        "shifts": shifts,
        "regret": {name: [round(of[shift], 2) for shift in shifts] for name, of in one.costs.items()},
        "gain by switching": switches,
    }


if __name__ == "__main__":
    main()
