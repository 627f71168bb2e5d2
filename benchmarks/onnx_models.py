"""Whole audits of two real ONNX models: EfficientNet-Lite0 by its differentiable twin, Magika by zeroth order.

``python benchmarks/onnx_models.py --data FOLDER``; the folder holds ``efficientnet_lite0.onnx``, ``imagenet20.npz``,
``magika_v3_3.onnx`` and ``magika_files.npz``. Each audit runs in a process of its own, with the probes that an audit
has by default and `smoothed_curvature`; what the budget has no room for is in the table as such.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import clock
import numpy as np
import torch
from clock import Peak, peak_of
from table import printed, spoken

from flataudit import plugins
from flataudit.backends.onnx import onnx_model
from flataudit.config import DEFAULT_PROBES
from flataudit.contracts import AuditData
from flataudit.data.examples import checked
from flataudit.evidence import Measurement
from flataudit.examination import libraries, make_probe, measure_all
from flataudit.specs import Budget, Spec

__all__ = ["MODELS"]

MODELS = {"efficientnet": "EfficientNet-Lite0 (4.6 M parameters)", "magika": "Magika v3.3 (0.78 M parameters)"}
VALIDATION, TRAIN = 128, 32
"""Files on which Magika answers, and on which its curvature is measured."""


def photos(data: Path) -> list[AuditData]:
    """20 labelled photos, scaled as the network was trained."""
    found = np.load(data / "imagenet20.npz")
    inputs = np.ascontiguousarray(((found["x"].astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2))
    return [checked("photos", "validation", inputs, found["y"].astype(np.int64), source="imagenet20.npz")]


def files(data: Path) -> list[AuditData]:
    """Files as Magika's 2,048 bytes each, spread over all that there are."""
    found = np.load(data / "magika_files.npz")
    order = np.random.default_rng(0).permutation(len(found["X"]))
    sets = {"validation": order[:VALIDATION], "train": order[-TRAIN:]}
    return [
        checked(role, role, found["X"][rows], found["y"][rows].astype(np.int64), source="magika_files.npz")  # type: ignore[arg-type]
        for role, rows in sets.items()
    ]


def _told(what: str, share: float) -> None:
    """Which probe runs now, for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {what} ({share:.0%})", file=sys.stderr, flush=True)


def child(name: str, data: Path, budget: Budget) -> dict[str, object]:
    """One audit: notes, measurements, seconds, and by how much the resident set grew at its highest."""
    sets = photos(data) if name == "efficientnet" else files(data)
    peak, began = Peak(), time.perf_counter()
    loaded = onnx_model(
        data / ("efficientnet_lite0.onnx" if name == "efficientnet" else "magika_v3_3.onnx"),
        sets[0],
        "multiclass",
        outputs=None if name == "efficientnet" else "probabilities",
        batch_size=20 if name == "efficientnet" else 32,
    )
    names = [probe for probe in (*DEFAULT_PROBES, "smoothed_curvature") if probe in plugins.names("probes")]
    probes = [(one, make_probe(Spec(use=one))) for one in names]
    if "smoothed_curvature" not in names:
        from flataudit.probes.smoothed_curvature import SmoothedCurvature

        probes.append(("smoothed_curvature", SmoothedCurvature()))
    if name == "magika":  # what this model is audited by, before what the budget may not reach
        probes.insert(4, probes.pop())
    read = time.perf_counter() - began
    readings = measure_all(loaded.model, sets, probes, seed=0, budget=budget, announce=_told, started=time.monotonic())
    return {
        "notes": loaded.notes,
        "sets": [f"{one.name}: {len(one)} examples" for one in sets],
        "read": read,
        "seconds": time.perf_counter() - began,
        "bytes": peak.grown(),
        "found": [told(reading.measurement) for reading in readings],
    }


def told(found: Measurement) -> list[str]:
    """A row of the table."""
    cost = (f"{found.cost.passes:.1f}", spoken(found.cost.seconds))
    if found.estimate is None:
        return [found.probe, found.metric, f"{found.outcome}: {found.reason}"[:150], *cost]
    said = f"{found.estimate:.4g}"
    if found.interval:
        said += f" [{found.interval[0]:.4g}, {found.interval[1]:.4g}]"
    elif found.standard_error is not None:
        said += " exact" if found.standard_error == 0 else f" ± {found.standard_error:.2g}"
    return [found.probe, found.metric, f"≥ {said}" if found.bound == "lower" else said, *cost]


def main() -> None:
    """Print an audit a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the models and their examples")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=480.0, help="budget of one audit")
    parser.add_argument("--passes", type=float, default=300.0, help="budget of one audit")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.child:
        print(json.dumps(child(chosen.child, chosen.data, Budget(passes=chosen.passes, seconds=chosen.seconds))))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    clock.LONGEST = 1800 + int(chosen.seconds)  # reading and checking the model is not a part of the budget
    versions = ", ".join(f"{name} {number}" for name, number in libraries().items())
    print(f"{versions}; one thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"Budget of an audit: {chosen.passes:g} passes, {chosen.seconds:g} s.")
    for name in chosen.only:
        limits = ("--seconds", str(chosen.seconds), "--passes", str(chosen.passes))
        done = peak_of("onnx_models.py", "--child", name, "--data", str(chosen.data), *limits)
        print(f"\n### {MODELS[name]}\n\n{'; '.join([*done['sets'], *done['notes']])}.\n")
        print(f"Read and checked in {spoken(done['read'])}, audited in {spoken(done['seconds'])}; ", end="")
        print(f"peak memory {done['bytes'] / 2**20:.0f} MiB above the interpreter's.\n")
        print(printed(("probe", "metric", "found", "passes", "time"), done["found"]), flush=True)


if __name__ == "__main__":
    main()
