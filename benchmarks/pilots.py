"""How many products each peer needs for a true relative standard error of 1 % of the trace: statistics, not timing.

Hutchinson's estimator is the same in all three libraries: one variance, from PyHessian's own vectors, serves all.
XTrace and Hutch++ are run whole, several times, against the truth. Both are remembered with the truth, since they
depend on the weights alone; ``python benchmarks/pilots.py`` makes what is not known (half an hour). The sketches are
not tried on the ResNet, where that would take hours.
"""

import argparse
import math
import time

import numpy as np
import torch
from peers import Curvlinops, PyHessian, seeded
from reference import known, remembered, truth
from subjects import RECIPES, Subject, subject

__all__ = ["hutchinson_vectors", "sketch_products"]

SKETCHES = (18, 30, 48, 72, 96, 144)


def hutchinson_vectors(net: Subject, relative_error: float = 0.01) -> int:
    """Vectors for this relative standard error: (s / (ε Tr H))², with s over a few hundred vectors of PyHessian's."""
    found = remembered(f"hutchinson-{net.digest}", lambda: _spread(net, 200 if net.name == "resnet" else 400))
    return math.ceil((float(found["deviation"]) / (relative_error * truth(net).trace)) ** 2)


def sketch_products(net: Subject, method: str, relative_error: float = 0.01) -> int | None:
    """Fewest products tried at which the RMS error against the truth is at most this; None: none, or never tried."""
    found = known().get(f"{method}-{net.digest}", {})
    enough = [int(count) for count, error in found.items() if float(error) <= relative_error]
    return min(enough, default=None)


def _spread(net: Subject, pilot: int) -> dict[str, float | str]:
    with seeded(0):
        peer = PyHessian(net)
        samples = peer.samples(pilot)
        peer.close()
    return {"deviation": float(np.std(samples, ddof=1)), "mean": float(np.mean(samples)), "vectors": pilot}


def _errors(net: Subject, method: str, relative_error: float = 0.01) -> dict[str, float | str]:
    """RMS relative error at each number of products, until one is good enough."""
    trace, repeats = truth(net).trace, 6 if net.name == "transformer" else 16
    found: dict[str, float | str] = {}
    for products in SKETCHES:
        with seeded(products):
            peer = Curvlinops(net)
            errors = [getattr(peer, method)(products) / trace - 1 for _ in range(repeats)]
        found[str(products)] = math.sqrt(float(np.mean(np.square(errors))))
        if float(found[str(products)]) <= relative_error:
            break
    return found


def main() -> None:
    """All pilots of the networks named (default: all)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(RECIPES))
    torch.set_num_threads(1)
    networks = parser.parse_args().networks
    for name in networks:
        print(f"{name}: Hutchinson {hutchinson_vectors(subject(name))}", flush=True)
    for name in networks:
        start, net = time.perf_counter(), subject(name)
        if name == "resnet":
            continue
        for method in ("xtrace", "hutchpp"):
            remembered(f"{method}-{net.digest}", lambda net=net, method=method: _errors(net, method))
            took = time.perf_counter() - start
            print(f"{name}: {method} {sketch_products(net, method)}, {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
