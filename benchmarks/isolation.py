"""What the sandbox costs: the same small audit with and without its layers, in turns, and a worker's way to its start.

    python benchmarks/isolation.py | tee benchmarks/results/isolation.txt   # ≈ 5 min

Bare is the same worker, under the same supervision, that lays no layer upon itself and skips the self-test.
"""

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from flataudit.evidence import Candidate, Examined
from flataudit.executors import process
from flataudit.executors.environment import worker_command
from flataudit.executors.process import ProcessExecutor
from flataudit.executors.supervision import Worker
from flataudit.manifest import manifest_digest
from flataudit.specs import DataSpec, Job, Spec

VERSION = str(torch.__version__)
PROBES = (
    *("accuracy", "calibration", "weight_noise", "hessian_trace", "spectrum", "sharpness", "corruption", "pac_bayes"),
    *("landscape", "local_entropy", "relative_flatness", "spectral_density", "geometric_complexity"),
)
_BARE = "import sys; sys.path[:] = sys.argv[1:]; from flataudit.executors import worker; {}; worker.main()"
_NO_LAYERS = "worker.apply = lambda *_, **__: None; worker.tested = lambda *_, **__: {'mem': 'enforced'}"
_MLMODEL = "flavors:\n  pytorch: {model_data: data, pytorch_version: 2.6.0, code: null}\n"


def job(folder: Path, version: int) -> Job:
    """An audit of a trained MLP (64-64-10) on 1,797 digits."""
    artifact, file = folder / "model", str(folder / "digits.npz")
    if not artifact.exists():
        inputs, targets = load_digits(return_X_y=True)
        inputs = (inputs / 16).astype(np.float32)
        np.savez(file, x=inputs, y=targets.astype(np.int64))
        (artifact / "data").mkdir(parents=True)
        (artifact / "MLmodel").write_text(_MLMODEL)
        batch = torch.export.Dim("batch", min=1, max=4096)
        program = torch.export.export(trained(inputs, targets), (torch.zeros(3, 64),), dynamic_shapes=({0: batch},))
        torch.export.save(program, artifact / "data" / "model.pt2")
    digest = manifest_digest(artifact)
    source = Spec(use="npz", params={"path": file})
    return Job(
        candidate=Candidate(name="m", version=str(version), uri="models:/m/1", flavour="pytorch", digest=digest),
        artifact=str(artifact),
        probes=tuple(Spec(use=name) for name in PROBES),
        data=(DataSpec(name="validation", role="validation", source=source),),
    )


def trained(inputs: "np.ndarray", targets: "np.ndarray") -> torch.nn.Module:
    """Some hundred steps of Adam."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
    for _ in range(100):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network.eval()


def measured(one: Examined) -> float:
    """Seconds of all probes together, as the worker took them."""
    return sum({m.probe: m.cost.seconds for m in one.evidence.measurements if m.cost is not None}.values())


@contextmanager
def bare() -> Iterator[None]:
    """Workers without layers."""
    python, isolated, flag, _, *paths = worker_command()
    before = process.worker_command
    process.worker_command = lambda: (python, isolated, flag, _BARE.format(_NO_LAYERS), *paths)
    try:
        yield
    finally:
        process.worker_command = before


def audit(one: Job, *, layers: bool) -> tuple[float, float, Examined]:
    """Seconds of the whole, processor seconds of its worker, and the evidence."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if layers:
        (found,) = ProcessExecutor(minimum=("fs", "net", "proc")).map([one], lambda *_: None)
    else:
        with bare():
            (found,) = ProcessExecutor(minimum=()).map([one], lambda *_: None)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used, found


def starts(jobs: list[Job], *, warm: bool) -> list[tuple[float, float]]:
    """Seconds from a worker's start to its word to begin, and to its first probe."""
    started, begun, ready = [], [], []
    make, begin = Worker.__init__, Worker.begin

    def note_start(self: Worker, *args: object, **named: object) -> None:
        started.append(time.perf_counter())
        make(self, *args, **named)  # type: ignore[arg-type]

    def note_begin(self: Worker) -> None:
        begun.append(time.perf_counter())
        begin(self)

    def note_probe(_: str, what: str, share: float) -> None:
        if what == PROBES[0]:
            ready.append(time.perf_counter())

    Worker.__init__, Worker.begin = note_start, note_begin  # type: ignore[method-assign]
    try:
        ProcessExecutor(workers=1, warm=warm).map(jobs, note_probe)
    finally:
        Worker.__init__, Worker.begin = make, begin  # type: ignore[method-assign]
    return [(b - s, r - s) for s, b, r in zip(started, begun, ready, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    print(f"Linux {platform.release()} on {platform.machine()}, Python {platform.python_version()}, torch {VERSION}")
    print(f"load at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; one thread; {turns} turns, medians")
    with tempfile.TemporaryDirectory() as folder:
        one = job(Path(folder), 0)
        rows: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
        for turn in range(turns):
            for layers in (True, False) if turn % 2 else (False, True):
                seconds, used, found = audit(one, layers=layers)
                rows[layers].append((measured(found), seconds, used))
                assert (found.evidence.isolation["fs"] == "enforced") is layers, found.evidence.isolation
        names = ("all probes, wall clock", "whole with a cold start, wall", "whole with a cold start, processor")
        for at, what in enumerate(names):
            inside, outside = ([row[at] for row in rows[layers]] for layers in (True, False))
            ratios = [one / other for one, other in zip(inside, outside, strict=True)]
            print(
                f"{what:36} sandboxed {statistics.median(inside):6.2f} s, bare {statistics.median(outside):6.2f} s;"
                f" ratio of medians {statistics.median(inside) / statistics.median(outside):.3f},"
                f" of the best {min(inside) / min(outside):.3f}, of pairs {min(ratios):.3f} to {max(ratios):.3f}"
            )
        for warm in (True, False):
            short = [
                each.model_copy(update={"probes": each.probes[:1]}) for each in (one,) * (turns + 1 if warm else 3)
            ]
            found_starts = starts(short, warm=warm)[warm:]  # the first fork finds files that were not read before
            begun, ready = (statistics.median(each[at] for each in found_starts) for at in (0, 1))
            print(
                f"{'warm' if warm else 'cold'} worker: confined and self-tested after {begun:.3f} s,"
                f" model loaded and verified after {ready:.3f} s"
            )


if __name__ == "__main__":
    sys.exit(main())
