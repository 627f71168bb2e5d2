"""Rows of the trace: four networks, each library at a true relative standard error of 1 %."""

import itertools
import math
import statistics
from collections.abc import Callable

from clock import fb, taken, turns
from engine import Engine
from ours import measured, probe
from peers import Curvlinops, Eigenthings, Peer, PyHessian, fastest, seeded
from pilots import hutchinson_vectors, sketch_products
from reference import truth
from subjects import Subject, subject
from table import Row

__all__ = ["trace_rows"]

TARGETS = {"relu_mlp": 500.0, "resnet": 400.0, "tanh_mlp": 40.0, "transformer": 6.0}


def trace_rows(repeats: int = 5) -> list[Row]:
    """Every network against every peer."""
    return [row for name in TARGETS for row in _rows(subject(name), repeats if name != "resnet" else min(repeats, 3))]


def _rows(net: Subject, repeats: int) -> list[Row]:
    known, needed = truth(net), hutchinson_vectors(net)
    estimates: list[tuple[float, float]] = []

    def ours() -> None:
        found = measured(net, probe("hessian_trace", relative_error=0.01, max_matvecs=100_000), seed=len(estimates))
        one = found["hessian_trace"]
        estimates.append((one.estimate or math.nan, one.standard_error or 0.0))

    with seeded(0):
        running = [_Running(kind, net) for kind in (PyHessian, Curvlinops, Eigenthings)]
        engine = Engine(net)
        mine = {"fb": fb(net), "ours": ours, "engine": lambda: engine.trace(0)}
        timed = turns(mine | {one.kind.name: one.turn for one in running}, repeats)
        for one in running:
            one.close()
    missed = math.sqrt(statistics.fmean((e / known.trace - 1) ** 2 for e, _ in estimates))
    stated = statistics.fmean(s / abs(e) for e, s in estimates)
    rows = []
    for one in running:
        each = timed[one.kind.name].median / one.vectors
        ways = ("ours", "engine") if one.kind is PyHessian else ("ours",)
        for way, (method, count) in itertools.product(ways, _counts(net, one.kind, needed)):
            rows.append(
                Row(
                    what=f"trace{', engine alone' if way == 'engine' else ''}, {net.title}",
                    peer=f"{one.kind.name} {method}",
                    ours_seconds=timed[way].median,
                    peer_seconds=one.set_up + each * count,
                    fb_seconds=timed["fb"].median,
                    ours_error=f"{100 * stated:.2g} % stated, {100 * missed:.2g} % RMS",
                    peer_error="1 %",
                    target=TARGETS[net.name] if one.kind is PyHessian else None,
                    note=f"{count} × {1000 * each:.3g} ms",
                )
            )
    return rows


def _counts(net: Subject, kind: type[Peer], needed: int) -> list[tuple[str, int]]:
    """The peer's estimators with the products that 1 % takes them."""
    if kind is PyHessian:
        return [("Hutchinson", needed)]
    sketches = {"xtrace": "XTrace", "hutchpp": "Hutch++"} if kind is Curvlinops else {"hutchpp": "Hutch++"}
    found = [(title, sketch_products(net, method)) for method, title in sketches.items()]
    return [("Hutchinson", needed), *[(title, count) for title, count in found if count is not None]]


class _Running:
    """A peer made ready, with a turn of as many vectors as take about a second."""

    def __init__(self, kind: type[Peer], net: Subject) -> None:
        self.kind, size = kind, fastest(kind, net)
        made, self.set_up = taken(lambda: kind(net, size))
        assert isinstance(made, Peer)
        self.peer: Peer = made
        self.peer.trace(1)
        _, each = taken(lambda: self.peer.trace(2))
        self.vectors = max(2, min(64, round(2 / each)))
        self.turn: Callable[[], object] = lambda: self.peer.trace(self.vectors)

    def close(self) -> None:
        """Free what the peer keeps."""
        getattr(self.peer, "close", lambda: None)()
