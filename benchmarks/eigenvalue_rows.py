"""Rows of the largest eigenvalue, to a true error of 1 %.

PyHessian is shown twice: stopped by its own rule at its own default, and stopped by an oracle that knows the truth, at
the first product from which its estimate stays within 1 %. The second is the most that could be said for it. Its set-up
is a part of its time, as in the rows of the trace: PyHessian builds there the graph that all of its products use.
"""

import itertools
import math
import statistics

from clock import fb, taken, turns
from engine import Engine
from ours import measured, probe
from peers import Curvlinops, Eigenthings, Eigenvalue, PyHessian, fastest, seeded
from reference import truth
from subjects import RECIPES, Subject, subject
from table import Row

__all__ = ["eigenvalue_rows"]

TARGET = 1.5
PROOFS = ("interval", "residual")
"""Our two stops: a certain interval of 1 %, and an expected error of 1 %, which is what the peers ask of themselves."""
TOLERANCES = {PyHessian: 1e-3, Curvlinops: 1e-2, Eigenthings: 1e-4}
"""Each one's default, or what its documentation uses."""


def eigenvalue_rows(repeats: int = 5) -> list[Row]:
    """Every network against every peer."""
    return [row for name in RECIPES for row in _rows(subject(name), repeats if name != "resnet" else 1)]


def _rows(net: Subject, repeats: int) -> list[Row]:
    known, engine = truth(net).lambda_max, Engine(net)
    values: dict[str, list[float]] = {proof: [] for proof in PROOFS}
    found: dict[str, list[Eigenvalue]] = {kind.name: [] for kind in TOLERANCES}

    def ours(proof: str) -> None:
        wanted = probe("spectrum", relative_error=0.01, ends=["largest"], proof=proof)
        one = measured(net, wanted, seed=len(values[proof]))["lambda_max"]
        values[proof].append(one.estimate if one.estimate is not None else math.nan)

    with seeded(0):
        # On the ResNet the other two take minutes a turn, and nothing rests on them.
        kinds = [PyHessian] if net.name == "resnet" else list(TOLERANCES)
        sizes = {kind: fastest(kind, net) for kind in kinds}
        set_up = [taken(lambda kind=kind: kind(net, sizes[kind])) for kind in kinds]
        made, seconds = [one for one, _ in set_up], {one.name: spent for one, spent in set_up}
        calls = {one.name: (lambda one=one: found[one.name].append(one.largest(TOLERANCES[type(one)]))) for one in made}
        mine = {proof: (lambda proof=proof: ours(proof)) for proof in PROOFS}
        bare = {f"engine {proof}": (lambda proof=proof: engine.largest(0, proof)) for proof in PROOFS}
        timed = turns({"fb": fb(net), **mine, **bare, **calls}, repeats)
        for one in made:
            getattr(one, "close", lambda: None)()
    rows = []
    for one in made:
        runs = found[one.name]
        error = _rms([run.value / known - 1 for run in runs])
        products = statistics.median(run.products for run in runs)
        theirs = [("own rule", products, error), *_oracle(runs, known)]
        ways = [(proof, prefix) for proof in PROOFS for prefix in ("", "engine ")]
        for (proof, prefix), (title, count, missed) in itertools.product(ways, theirs):
            if prefix and type(one) is not PyHessian:
                continue
            rows.append(
                Row(
                    what=f"λ_max by {proof}{', engine alone' if prefix else ''}, {net.title}",
                    peer=f"{one.name}, {title}",
                    ours_seconds=timed[prefix + proof].median,
                    peer_seconds=seconds[one.name] + timed[one.name].median * count / products,
                    fb_seconds=timed["fb"].median,
                    ours_error=f"{100 * _rms([value / known - 1 for value in values[proof]]):.2g} % RMS",
                    peer_error=f"{100 * missed:.2g} % RMS",
                    target=TARGET if type(one) is PyHessian else None,
                    note=f"{count:g} products, set-up {1000 * seconds[one.name]:.3g} ms",
                )
            )
    return rows


def _oracle(runs: list[Eigenvalue], known: float) -> list[tuple[str, float, float]]:
    """The run cut at the product from which its estimate stays within 1 % of the truth, where there is a history."""
    if not runs[0].history:
        return []
    cuts, errors = [], []
    for run in runs:
        off = [abs(value / known - 1) for value in run.history]
        last = max((i for i, error in enumerate(off) if error > 0.01), default=-1)
        cut = min(last + 1, len(off) - 1)
        cuts.append(cut + 1)
        errors.append(off[cut])
    return [("stopped by an oracle", statistics.median(cuts), _rms(errors))]


def _rms(errors: list[float]) -> float:
    return math.sqrt(statistics.fmean(error**2 for error in errors))
