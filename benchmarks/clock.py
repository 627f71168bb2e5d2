"""How time and memory are taken: side by side, in turns, and the median counts."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from subjects import Subject
from torch import Tensor, nn

__all__ = ["Peak", "Timed", "fb", "machine", "peak_of", "taken", "turns"]

LONGEST = 600
"""Seconds of one measurement in a process of its own."""


@dataclass(frozen=True)
class Timed:
    """A call's last answer and the seconds of each of its turns."""

    answer: object
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """In seconds."""
        return statistics.median(self.seconds)


def taken(call: Callable[[], object]) -> tuple[object, float]:
    """A call's answer and its seconds."""
    start = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - start


def turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timed]:
    """Every call once untimed, then ``repeats`` rounds in which each has its turn: a slow minute hits all alike."""
    answers = {name: call() for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            answers[name], spent = taken(call)
            seconds[name].append(spent)
    return {name: Timed(answers[name], tuple(seconds[name])) for name in calls}


def fb(subject: Subject) -> Callable[[], object]:
    """The unit: one forward and one backward pass over all the examples, all at once, in plain autograd."""
    parameters = [p for p in subject.model.parameters() if p.requires_grad]

    def once() -> tuple[Tensor, ...]:
        loss = nn.functional.cross_entropy(subject.model(subject.inputs), subject.targets)
        return torch.autograd.grad(loss, parameters)

    return once


def machine() -> dict[str, str]:
    """What the numbers were taken on."""
    packages = ("torch", "numpy", "scipy", "pyhessian", "curvlinops-for-pytorch", "hessian-eigenthings", "flataudit")
    model = next((line.partition(":")[2].strip() for line in _cpu() if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


class Peak:
    """By how much the resident set has grown, at its highest, since this was made (Linux: the mark is set back)."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.start = self._status("VmRSS")

    def grown(self) -> int:
        """In bytes."""
        return self._status("VmHWM") - self.start

    @staticmethod
    def _status(field: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))


def peak_of(script: str, *arguments: str) -> dict[str, object]:
    """Run a script in a fresh process (a high-water mark never falls) and read the JSON on its last line.

    Raises:
        RuntimeError: it failed, or took longer than ten minutes; with the end of what it said.
    """
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"not done in {LONGEST} s") from late
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _cpu() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
