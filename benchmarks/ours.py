"""flataudit through its public door alone: `flataudit.measure` with a probe's name and parameters."""

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import torch
from peers import Quadrature
from subjects import Subject
from torch import Tensor, nn

import flataudit
from flataudit import plugins
from flataudit.backends.torch_model import TorchModel, evaluation_mode
from flataudit.data.examples import checked
from flataudit.evidence import Evidence, Measurement
from flataudit.probes.spectral_density import SpectralDensity
from flataudit.specs import Budget

__all__ = ["AUDIT", "density", "first", "installed", "measured", "passes", "probe", "quadrature"]

UNLIMITED = Budget(passes=1e6, seconds=3600)

AUDIT = (
    ("hessian_trace", {"relative_error": 0.01, "max_matvecs": 100_000}),
    ("spectrum", {"relative_error": 0.01, "ends": ["largest"]}),
    ("sharpness", {}),
    ("input_gradient", {}),
    ("adversarial", {"starts": 1, "check": 0, "max_examples": 1_000_000}),
    ("calibration", {}),
)
"""The whole audit, probe by probe; `adversarial` is PGD-10 from the
input, on every example."""


def installed(name: str) -> bool:
    """Whether there is a probe of this name."""
    return name in plugins.names("probes")


def probe(use: str, **wanted: object) -> dict[str, object]:
    """A spec with those of the wanted parameters that the installed probe has."""
    known = getattr(plugins.load("probes", use), "model_fields", {})
    return {"use": use, **{name: value for name, value in wanted.items() if name in known}}


def measured(subject: Subject, *probes: dict[str, object], seed: int = 0) -> Evidence:
    """The evidence of these probes, without a budget that would cut them short."""
    return flataudit.measure(
        subject.model, subject.inputs, subject.targets, probes=list(probes), seed=seed, budget=UNLIMITED
    )


def first(model: nn.Module, inputs: Tensor, targets: Tensor, use: str, **wanted: object) -> Measurement:
    """The first metric of one probe on any model; whatever goes wrong is in the measurement's outcome."""
    with torch.enable_grad():
        evidence = flataudit.measure(model, inputs, targets, probes=[probe(use, **wanted)], budget=UNLIMITED)
    return evidence.measurements[0]


def passes(measurements: Iterable[Measurement]) -> float:
    """Forward-and-backward passes by the measurements' own account; all metrics of a probe share one cost."""
    return sum({m.probe: m.cost.passes for m in measurements}.values())


def density(subject: Subject, plan: Mapping[str, int], alpha: float, seed: int) -> Evidence:
    """The evidence of the density probe; the plan holds those of its parameters that are not its defaults."""
    return measured(subject, probe("spectral_density", alpha=alpha, max_change=1e6, **plan), seed=seed)


def quadrature(subject: Subject, plan: Mapping[str, int], seed: int) -> Quadrature:
    """The nodes and weights behind the same seed's `density`, which evidence alone does not carry."""
    data = checked("validation", "validation", subject.inputs.numpy(), subject.targets.numpy(), source="digits")
    made = cast("SpectralDensity", plugins.make("probes", "spectral_density", dict(plan)))
    with evaluation_mode(subject.model), torch.enable_grad():
        model = TorchModel(subject.model, "multiclass")
        arrays = made.measure(model, data, seed, UNLIMITED)[0].arrays
    nodes, weights = (np.asarray(arrays[f"spectrum/{name}"].view()) for name in ("nodes", "weights"))
    return Quadrature(nodes, weights / weights.sum(), round(model.meter.matvecs / len(data)))
