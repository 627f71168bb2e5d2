"""Every probe that has begun ends in time: with what it has, or saying that it had no room."""

from collections.abc import Iterator, Mapping
from typing import Any

import networks
import numpy as np
import pytest
import torch

from flataudit.contracts import Probe
from flataudit.curvature import deadline
from flataudit.evidence import Measurement, Outcome
from flataudit.probes.description_length import DescriptionLength
from flataudit.probes.geometric_complexity import GeometricComplexity
from flataudit.probes.group_sharpness import GroupSharpness
from flataudit.probes.hessian_trace import HessianTrace
from flataudit.probes.input_gradient import InputGradient
from flataudit.probes.invariance import Invariance
from flataudit.probes.landscape import Landscape
from flataudit.probes.local_entropy import LocalEntropy
from flataudit.probes.pac_bayes import PacBayes
from flataudit.probes.relative_flatness import RelativeFlatness
from flataudit.probes.sharpness import Sharpness
from flataudit.probes.smoothed_curvature import SmoothedCurvature
from flataudit.probes.spectral_density import SpectralDensity
from flataudit.probes.spectrum import Spectrum
from flataudit.probes.training_loss import TrainingLoss
from flataudit.probes.weight_noise import WeightNoise
from flataudit.specs import Budget

PROBES: tuple[Probe, ...] = (
    DescriptionLength(most_bits=4),
    GeometricComplexity(),
    GroupSharpness(draws=2, min_members=2),
    HessianTrace(relative_error=0.2),
    InputGradient(),
    Invariance(examples=16),
    Landscape(),
    LocalEntropy(chains=8, rungs=2),
    PacBayes(draws=2, tolerance=0.3, bound_draws=2),
    RelativeFlatness(relative_error=0.2),
    Sharpness(draws=2, steps=3),
    SmoothedCurvature(max_vectors=4, draws=2),
    SpectralDensity(outlier_steps=3, vectors=2, steps=2),
    Spectrum(max_steps=4),
    TrainingLoss(),
    WeightNoise(draws=3),
)
BATCH = 8
ONE = 4 * BATCH
"""A batch forward, its gradient with a graph, and a product with that: what may still be done after the end."""


class Clock:
    """Work is time: every example forward takes a second, every backward pass as many as a batch has."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Worker(networks.Network):
    """A network that winds the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(networks.tanh_mlp())
        self.batch_size, self.clock = BATCH, clock

    def raw_outputs(self, parameters: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        self.clock.seconds += len(inputs)
        return super().raw_outputs(parameters, inputs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found, grad = Clock(), torch.autograd.grad

    def ticking(*args: Any, **given: Any) -> tuple[torch.Tensor, ...]:
        found.seconds += BATCH
        return grad(*args, **given)

    monkeypatch.setattr(deadline, "now", found)
    monkeypatch.setattr(torch.autograd, "grad", ticking)
    yield found


def measured(probe: Probe, worker: Worker, seconds: float) -> tuple[list[Measurement], float]:
    """What it says when it has so many seconds, and how many it took; nothing is known beforehand."""
    worker.meter.shared.clear()
    data = networks.examples(32)
    groups = np.arange(32) % 4
    marked = type(data)(data.name, "train", data.inputs, data.targets, groups, data.digest)
    began = worker.clock()
    readings = probe.measure(worker, marked, 0, Budget(passes=1e6, seconds=seconds))
    return [reading.measurement for reading in readings], worker.clock() - began


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_it_ends_within_a_batch_of_its_time_and_says_so(probe: Probe, clock: Clock) -> None:
    worker = Worker(clock)
    _, needed = measured(probe, worker, 1e9)
    for share in (0.02, 0.3, 0.7):
        found, spent = measured(probe, worker, share * needed)
        assert spent <= share * needed + ONE, (share, needed, spent)
        for one in found:
            assert one.outcome is not Outcome.FAILED, one.reason
            assert one.outcome is not Outcome.OVER_BUDGET or (one.reason and one.advice)
    nothing, spent = measured(probe, worker, 1e-9)
    assert spent <= ONE and all(m.outcome is not Outcome.MEASURED or m.bound != "estimate" for m in nothing)
