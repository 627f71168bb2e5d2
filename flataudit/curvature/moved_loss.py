"""The mean loss of a model as a function of its parameters alone, for models that answer and give no derivatives."""

import math
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy import generic
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Perturbable
from flataudit.curvature.deadline import Deadline
from flataudit.curvature.losses import Loss, default_loss
from flataudit.errors import ModelError

__all__ = ["MovedLoss"]

RUNS = 8
"""Runs of examples with vectors of their own, at most."""
RUN_EXAMPLES = 16
"""Examples of a run, at least."""


class MovedLoss:
    """The mean loss of a model as a function of its parameters alone, in float64.

    Args:
        model: with at least one parameter.
        data: labelled.
        deadline: no batch is begun after it.

    Raises:
        ModelError: the loss is not finite at the model's own parameters.
        OutOfTime: the deadline came before it was known.
    """

    def __init__(self, model: Perturbable, data: AuditData, *, deadline: Deadline | None = None) -> None:
        assert data.targets is not None
        self.model, self.data, self.deadline = model, data, deadline or Deadline()
        self.weights = dict(model.weights())
        whole = getattr(model, "loss_function", None)
        self._loss = whole if isinstance(whole, Loss) else default_loss(model.task)
        self._targets = torch.from_numpy(np.ascontiguousarray(data.targets))
        self._total = self._loss.total(self._targets)
        count = max(1, min(RUNS, len(data) // RUN_EXAMPLES))
        self.edges = np.linspace(0, len(data), count + 1).round().astype(int).tolist()
        """Where the runs of examples begin and end."""
        self.here = [self.of_run(self.weights, run) for run in range(count)]
        """What each run adds to the loss at the model's own parameters."""
        if not math.isfinite(sum(self.here)):
            remedy = "check the model's outputs and the targets"
            raise ModelError("a finite loss at the model's own parameters", got=str(sum(self.here)), remedy=remedy)

    @property
    def size(self) -> float:
        """Root mean square of the parameters; 1 where all are 0."""
        squares = sum(float(np.square(value.astype(np.float64)).sum()) for value in self.weights.values())
        return math.sqrt(squares / sum(value.size for value in self.weights.values())) or 1.0

    def of_run(self, weights: Mapping[str, NDArray[generic]], run: int) -> float:
        """Share of one run of examples in the mean loss; infinite where the answers are not numbers.

        Raises:
            OutOfTime: the deadline came first.
        """
        start, stop, size = self.edges[run], self.edges[run + 1], self.model.batch_size
        parts = [
            self.model.predict_at(weights, self.data.inputs[first : min(first + size, stop)])
            for first in self.deadline.each(range(start, stop, size))
        ]
        answers = torch.from_numpy(np.concatenate(parts).astype(np.float64))
        if self.model.task == "multilabel":
            answers = answers - torch.log(-torch.expm1(answers.clamp_max(-torch.finfo(torch.float64).tiny)))
        terms = self._loss.terms(answers, self._targets[start:stop])
        found = float(terms.double().sum()) / self._total
        return found if math.isfinite(found) else math.inf

    def moved(self, direction: Mapping[str, NDArray[generic]], step: float) -> dict[str, NDArray[generic]]:
        """Θ + step × direction, in the model's dtype."""
        return {
            name: (value.astype(np.float64) + step * direction[name].astype(np.float64)).astype(value.dtype)
            for name, value in self.weights.items()
        }

    def at(self, direction: Mapping[str, NDArray[generic]], step: float) -> float:
        """The loss of all examples at θ + step × direction."""
        weights = self.moved(direction, step)
        return sum(self.of_run(weights, run) for run in range(len(self.here)))

    def draws(self, seed: int, purpose: str, vector: int, *, signs: bool) -> Iterator[dict[str, NDArray[generic]]]:
        """A vector for each run: ±1, or standard normal; the same for the same seed, purpose and number."""
        for run in range(len(self.here)):
            source = np.random.default_rng([seed, zlib.crc32(purpose.encode()), vector, run])
            yield {name: _drawn(source, value.shape, signs) for name, value in self.weights.items()}


def _drawn(source: np.random.Generator, shape: tuple[int, ...], signs: bool) -> NDArray[generic]:
    if not signs:
        return source.standard_normal(shape)
    return np.asarray(2 * source.integers(0, 2, size=shape, dtype=np.int8) - 1, dtype=np.int8)
