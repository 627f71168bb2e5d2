"""How right the model stays when its weights are disturbed in proportion to their size."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from flataudit.contracts import AuditData, Perturbable, Reading
from flataudit.curvature.deadline import Deadline, OutOfTime, out_of_time
from flataudit.evidence import Array, Metric, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.correctness import correctness
from flataudit.statistics.means import bounded_mean

__all__ = ["WeightNoise"]


class WeightNoise(Record):
    """Accuracy under relative Gaussian noise θᵢ(1 + σε): magnitude-aware flatness, in accuracy terms.

    Invariant to rescaling a unit's in- and outgoing weights. The interval is that of the validation examples as a
    sample; every example is averaged over the same draws of the noise.
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Perturbable
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="weight_noise_accuracy",
            unit="accuracy",
            better="higher",
            description="Accuracy on the validation examples, averaged over draws of relative weight noise.",
        ),
    )

    sigma: PositiveFloat = 0.1
    """Standard deviation of the noise, relative to each weight."""
    draws: PositiveInt = 10
    """Draws of the noise."""

    def measure(self, model: Perturbable, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Mean correctness of every example over the draws."""
        assert data.targets is not None
        total, deadline = np.zeros(len(data)), Deadline().sooner(budget.seconds)
        try:
            for weights in self._disturbed(model.weights(), seed):
                batches = deadline.each(data.batches(model.batch_size))
                answers = np.concatenate([model.predict_at(weights, inputs) for inputs, _ in batches])
                total += correctness(model.task, answers, data.targets)
        except OutOfTime:
            # Fewer draws would be another number: that of each example's mean over the same draws is what compares.
            return out_of_time(self.metrics, budget, "raise budget.seconds, or lower draws")
        right = total / self.draws
        name = self.metrics[0].name
        details = {"sigma": self.sigma, "draws": self.draws}
        measured = self.metrics[0].measured(**vars(bounded_mean(right)), samples=name, details=details)
        return [Reading(measured, {name: Array.pack(right)})]

    def _disturbed(self, weights: Mapping[str, NDArray[generic]], seed: int) -> Iterator[dict[str, NDArray[generic]]]:
        """Noisy copies; drawn by NumPy, so that a seed gives the same noise on every device and in every backend."""
        generator = np.random.default_rng([seed, 0x57E16])
        for _ in range(self.draws):
            yield {
                name: (value * (1.0 + self.sigma * generator.standard_normal(value.shape))).astype(value.dtype)  # type: ignore[operator]
                for name, value in weights.items()
            }
