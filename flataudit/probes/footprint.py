"""What it costs to serve the model: time of one answer, answers a second, and how large it is."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from flataudit.contracts import AuditData, Perturbable, Predictor, Reading
from flataudit.evidence import Array, Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.percentiles import percentile

__all__ = ["Footprint"]

MEDIAN = Metric(
    name="latency_p50",
    unit="ms",
    better="lower",
    description="Median time of one answer to one example on the audit's device. Order-statistic interval.",
)
TAIL = Metric(
    name="latency_p95",
    unit="ms",
    better="lower",
    description="95th percentile of the time of one answer to one example. Order-statistic interval.",
)
BULK_MEDIAN = Metric(
    name="batch_latency_p50",
    unit="ms",
    better="lower",
    description="Median time of the answers to one large batch on the audit's device. Order-statistic interval.",
)
BULK_TAIL = Metric(
    name="batch_latency_p95",
    unit="ms",
    better="lower",
    description="95th percentile of the time of the answers to one large batch. Order-statistic interval.",
)
RATE = Metric(
    name="throughput",
    unit="examples/s",
    better="higher",
    description="Examples a second in one large batch, the median of some repetitions. Order-statistic interval.",
)
PARAMETERS = Metric(
    name="parameter_count",
    unit="1",
    better="lower",
    description="Number of trainable parameters. Exact.",
)


class Footprint(Record):
    """Latency and throughput of `predict` with its checks and copies, warm, and the number of parameters.

    A wall clock on the machine of the audit, with whatever else runs there: the intervals hold what varied during the
    audit, not other machines. Percentiles have the distribution-free interval of order statistics (binomial), those at
    95 % only from 72 calls on. Half of `seconds` is for single answers and half for large batches, which also take at
    most half of the passes that are left; the detail ``batch`` says how many examples a batch had. Arrays: ``latency``
    and ``batch_latency``, each call's milliseconds. Memory is not measured: what a process holds of it comes in the
    pages and caches of its libraries, and says little about one model.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (MEDIAN, TAIL, BULK_MEDIAN, BULK_TAIL, RATE, PARAMETERS)
    timed: ClassVar[bool] = True
    """Its numbers are those of a clock: no seed repeats them."""

    calls: PositiveInt = 200
    """Single answers that are timed, each to another example."""
    warm_up: PositiveInt = 5
    """Calls of each kind that are made before and not timed."""
    batch: PositiveInt = 256
    """Examples of the large batch."""
    repetitions: PositiveInt = 80
    """Large batches that are timed."""
    seconds: PositiveInt = 10
    """No new call after these."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All six metrics."""
        began, seconds = time.monotonic(), min(self.seconds, budget.seconds)
        singles = self._timed(
            lambda i: model.predict(data.inputs[i % len(data)][None]), self.calls, began + seconds / 2
        )
        large = data.inputs[: self.batch]
        affordable = int(budget.passes * len(data) / len(large)) - self.warm_up
        times = max(1, min(self.repetitions, affordable))
        bulk = self._timed(lambda i: model.predict(large), times, began + seconds)
        told = {"batch": float(len(large))}
        return [
            Reading(_percentile(MEDIAN, 1000 * singles, 0.5), {"latency": Array.pack(1000 * singles)}),
            Reading(_percentile(TAIL, 1000 * singles, 0.95)),
            Reading(_percentile(BULK_MEDIAN, 1000 * bulk, 0.5, told), {"batch_latency": Array.pack(1000 * bulk)}),
            Reading(_percentile(BULK_TAIL, 1000 * bulk, 0.95, told)),
            Reading(_percentile(RATE, len(large) / bulk, 0.5, told)),
            Reading(_count(model)),
        ]

    def _timed(self, call: Callable[[int], object], times: int, until: float) -> NDArray[np.float64]:
        """Seconds of each call; one at least, after a first that is not timed."""
        for index in range(min(self.warm_up, times)):
            call(index)
            if time.monotonic() >= until:
                break
        found: list[float] = []
        while len(found) < times and (not found or time.monotonic() < until):
            began = time.perf_counter()
            call(len(found))
            found.append(time.perf_counter() - began)
        return np.array(found)


def _percentile(
    metric: Metric, values: NDArray[np.float64], share: float, details: Mapping[str, float] | None = None
) -> Measurement:
    return metric.measured(**vars(percentile(values, share)), details=details or {})


def _count(model: Predictor) -> Measurement:
    if not isinstance(model, Perturbable):
        return PARAMETERS.missing(Outcome.NOT_APPLICABLE, "the model's parameters cannot be read")
    total = sum(int(np.asarray(weight).size) for weight in model.weights().values())
    return PARAMETERS.measured(float(total), standard_error=0.0)
