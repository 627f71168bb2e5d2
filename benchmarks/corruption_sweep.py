"""What a sweep of 14 corruptions × 5 severities costs beside its 70 bare forward passes, and each kind at 224 × 224.

Made-up images and untrained networks, since the cost depends on neither; one thread; passes and sweep in turns kind by
kind, and the median ratio of the rounds counts. The first table divides by one image's forward pass of a
MobileNet-like network.

    OMP_NUM_THREADS=1 python benchmarks/corruption_sweep.py > benchmarks/results/corruption_sweep.txt
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.corruptions.catalogue import KINDS, Suite
from flataudit.corruptions.sampling import smooth_field
from flataudit.data.examples import checked
from flataudit.probes.corruption import Corruption
from flataudit.specs import Budget

SWEEP = (
    "noise",
    "shot",
    "impulse",
    "defocus",
    "motion",
    "zoom",
    "brightness",
    "contrast",
    "fog",
    "pixelate",
    "jpeg",
    "elastic",
    "rotate",
    "translate",
)
SEVERITIES = (1, 2, 3, 4, 5)


def small_cnn() -> nn.Module:
    """Two convolutions of 16 and 32 channels, each pooled, and two dense layers: 105,866 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    ).eval()


def mobile_net() -> nn.Module:
    """The layout of MobileNet v1 (Howard et al. 2017): 13 depthwise separable blocks, 4.2 million parameters."""
    widths = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    widths += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for before, after, stride in widths:
        layers += [
            nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False),
            nn.BatchNorm2d(before),
            nn.ReLU(),
        ]
        layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)).eval()


def images(n: int, channels: int, size: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Smooth random surfaces in 0 to 1."""
    generator = np.random.default_rng(0)
    fields = [smooth_field(generator.normal(size=(n, 8, 8)), size, size) for _ in range(channels)]
    return np.clip(0.5 + np.stack(fields, axis=1) / 6, 0, 1).astype(np.float32)


def spent(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall's clock and of this process."""
    wall, own = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - own


def sweep(rounds: int) -> None:
    """The ratio at 28 × 28; a turn is one kind: its five cells by the probe, and five bare passes."""
    inputs = images(2000, 1, 28)
    data = checked("validation", "validation", inputs, np.arange(2000) % 10, source="made up")
    model, budget = TorchModel(small_cnn(), "multiclass"), Budget(seconds=1e6)
    print(f"\n2,000 images of 28 × 28, {len(SWEEP)} kinds × 5 severities, and {5 * len(SWEEP)} bare forward passes")
    print(f"{'round':>6} {'passes, s':>10} {'sweep, s':>10} {'ratio':>7} {'ratio of processor time':>25}", flush=True)
    ratios = []
    for k in range(rounds):
        passes, cells = np.zeros(2), np.zeros(2)
        for kind in SWEEP:
            probe = Corruption(kinds=(kind,), severities=SEVERITIES)
            passes += spent(lambda: [model.predict(inputs) for _ in SEVERITIES])
            cells += spent(lambda probe=probe: probe.measure(model, data, 0, budget))
        ratios.append(cells / passes)
        wall, own = ratios[-1]
        print(f"{k + 1:>6} {passes[0]:>10.1f} {cells[0]:>10.1f} {wall:>7.2f} {own:>25.2f}", flush=True)
    wall, own = np.median(ratios, axis=0)
    print(f"median {'':>10} {'':>10} {wall:>7.2f} {own:>25.2f}", flush=True)


def kinds(rounds: int) -> None:
    """Processor time of each kind for one image of 224 × 224 × 3, and of one forward pass."""
    inputs = images(8, 3, 224)
    suite, model = Suite.of(inputs, "image"), TorchModel(mobile_net(), "multiclass")
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        taken.setdefault("forward pass", []).append(spent(lambda: model.predict(inputs))[1])
        for kind in KINDS["image"]:
            for severity in (1, 5):
                call = lambda kind=kind, severity=severity: suite.corrupt(inputs, kind, severity, seed=0)  # noqa: E731
                taken.setdefault(f"{kind} {severity}", []).append(spent(call)[1])
    each = {name: 1000 * statistics.median(times) / len(inputs) for name, times in taken.items()}
    forward = each["forward pass"]
    print(f"\nOne image of 224 × 224 × 3: a forward pass {forward:.1f} ms; corruptions in ms and in forward passes")
    print(f"{'kind':<12} {'severity 1':>11} {'severity 5':>11} {'passes, 1':>10} {'passes, 5':>10}")
    for kind in KINDS["image"]:
        mild, strong = each[f"{kind} 1"], each[f"{kind} 5"]
        print(f"{kind:<12} {mild:>11.1f} {strong:>11.1f} {mild / forward:>10.2f} {strong / forward:>10.2f}")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    packages = " · ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, one thread, load {os.getloadavg()[0]:.1f}")
    print(f"python {platform.python_version()} · {packages}")
    kinds(rounds)
    sweep(rounds)


if __name__ == "__main__":
    main()
