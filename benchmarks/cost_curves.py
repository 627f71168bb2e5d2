"""How the exact trace's cost grows with width, samples, batch size and classes, in seconds and in passes of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from clock import fb, turns
from ours import UNLIMITED, probe
from subjects import Subject, digits, initialised, mlp
from table import bars, printed, spoken
from torch import Tensor

import flataudit

__all__ = ["cost_curves", "drawn"]

Curve = list[dict[str, float | str]]


def cost_curves(repeats: int = 3) -> tuple[str, dict[str, Curve]]:
    """Each curve as text, and as records."""
    curves = {
        "width (64-w-w-10, 1,797 examples)": _curve(repeats, (32, 64, 128, 256, 512, 1024), _of_width),
        "samples (64-128-128-10)": _curve(repeats, (256, 512, 1024, 2048, 4096, 8192, 16384), _of_samples),
        "batch size (64-128-128-10, 4,096 examples)": _curve(repeats, (32, 128, 512, 2048, 4096), _of_batch),
        "classes (64-128-128-C, 1,024 examples)": _curve(repeats, (2, 5, 10, 20, 50, 100, 200, 500, 1000), _of_classes),
    }
    parts = []
    for title, curve in curves.items():
        header = (title, "trace", "one fb", "trace in fb", "stated error", "method", "")
        parts.append(printed(header, [tuple(str(value) for value in line.values()) for line in _lines(curve)]))
    return "\n\n".join(parts), curves


def drawn(curves: dict[str, Curve], path: Path) -> bool:
    """A figure of them, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axis, (title, curve) in zip(figure.subplots(2, 2).flat, curves.items(), strict=True):
        at = [float(point["at"]) for point in curve]
        axis.loglog(at, [float(point["seconds"]) for point in curve], "o-", label="trace")
        axis.loglog(at, [float(point["fb"]) for point in curve], "s--", label="one forward and backward pass")
        axis.set_xlabel(title)
        axis.set_ylabel("seconds")
        axis.legend()
    figure.savefig(path, dpi=110)
    return True


def _curve(repeats: int, points: Sequence[int], at: Callable[[int], tuple[Subject, int | None]]) -> Curve:
    curve: Curve = []
    for point in points:
        net, batch = at(point)

        def trace(net: Subject = net, batch: int | None = batch) -> flataudit.evidence.Measurement:
            found = flataudit.measure(
                net.model,
                net.inputs,
                net.targets,
                task="multiclass",
                probes=[probe("hessian_trace", relative_error=0.01, max_matvecs=100_000)],
                batch_size=batch,
                budget=UNLIMITED,
            )
            return found.measurements[0]

        timed = turns({"fb": fb(net), "trace": trace}, repeats)
        found = timed["trace"].answer
        error = (
            None if found.estimate is None or found.standard_error is None else found.standard_error / found.estimate
        )
        curve.append(
            {
                "at": point,
                "seconds": timed["trace"].median,
                "fb": timed["fb"].median,
                "error": "unknown" if error is None else f"{100 * error:.2g} %",
                "method": str(found.details.get("method", found.reason or "")),
            }
        )
    return curve


def _lines(curve: Curve) -> list[dict[str, object]]:
    ratios = [float(point["seconds"]) / float(point["fb"]) for point in curve]
    return [
        {
            "at": point["at"],
            "trace": spoken(float(point["seconds"])),
            "fb": spoken(float(point["fb"])),
            "ratio": f"{ratio:.1f}",
            "error": point["error"],
            "method": point["method"],
            "bar": bar,
        }
        for point, ratio, bar in zip(curve, ratios, bars(ratios, 24), strict=True)
    ]


def _of_width(width: int) -> tuple[Subject, int | None]:
    inputs, targets = digits()
    return _net(inputs, targets, 64, width, width, 10), None


def _of_samples(samples: int) -> tuple[Subject, int | None]:
    return _net(*_many(samples, 10), 64, 128, 128, 10), None


def _of_batch(size: int) -> tuple[Subject, int | None]:
    return _net(*_many(4096, 10), 64, 128, 128, 10), size


def _of_classes(classes: int) -> tuple[Subject, int | None]:
    return _net(*_many(1024, classes), 64, 128, 128, classes), None


def _many(samples: int, classes: int) -> tuple[Tensor, Tensor]:
    """Digits with a little noise, as many as are asked for; labels at random where there are not ten classes."""
    source = torch.Generator().manual_seed(0)
    inputs, targets = digits()
    index = torch.randint(len(inputs), (samples,), generator=source)
    noisy = inputs[index] + 0.05 * torch.randn((samples, inputs.shape[1]), generator=source)
    labels = targets[index] if classes == 10 else torch.randint(classes, (samples,), generator=source)
    return noisy, labels


def _net(inputs: Tensor, targets: Tensor, *widths: int) -> Subject:
    model = initialised(mlp(*widths), 0).eval()
    return Subject("curve", "curve", model, inputs, targets, 0.0, "")
