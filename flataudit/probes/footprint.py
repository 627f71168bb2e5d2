"""What it costs to serve the model: time of one answer, answers a second, and how large it is."""

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from scipy.stats import binom

from flataudit.contracts import AuditData, Perturbable, Predictor, Reading
from flataudit.evidence import Array, Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role

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
    """Latency and throughput of `predict` with its checks and copies, and the number of parameters.

    A wall clock on the machine of the audit, with whatever else runs there: the intervals hold what varied during the
    audit, not other machines. Percentiles have the distribution-free interval of order statistics (binomial).
    """

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (MEDIAN, TAIL, RATE, PARAMETERS)
    timed: ClassVar[bool] = True
    """Its numbers are those of a clock: no seed repeats them."""

    calls: PositiveInt = 200
    """Single answers that are timed, each to another example."""
    warm_up: PositiveInt = 5
    batch: PositiveInt = 256
    """Examples of the large batch."""
    repetitions: PositiveInt = 9
    seconds: PositiveInt = 10
    """No new call after these."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All four metrics."""
        until = time.monotonic() + min(self.seconds, budget.seconds)
        singles = self._timed(lambda i: model.predict(data.inputs[i % len(data)][None]), self.calls, until)
        large = data.inputs[: self.batch]
        bulk = len(large) / self._timed(lambda i: model.predict(large), self.repetitions, until)
        array = {"latency": Array.pack(1000 * singles)}
        return [
            Reading(_percentile(MEDIAN, 1000 * singles, 0.5), array),
            Reading(_percentile(TAIL, 1000 * singles, 0.95)),
            Reading(_percentile(RATE, bulk, 0.5)),
            Reading(_count(model)),
        ]

    def _timed(self, call: Callable[[int], object], times: int, until: float) -> NDArray[np.float64]:
        """Seconds of each call; one at least."""
        for index in range(min(self.warm_up, times)):
            call(index)
        found: list[float] = []
        while len(found) < times and (not found or time.monotonic() < until):
            began = time.perf_counter()
            call(len(found))
            found.append(time.perf_counter() - began)
        return np.array(found)


def _percentile(metric: Metric, values: NDArray[np.float64], share: float) -> Measurement:
    """With the 95 % interval between two order statistics; none where too few values could hold it."""
    ordered, n = np.sort(values), len(values)
    estimate = float(np.quantile(ordered, share))
    low, high = int(binom.ppf(0.025, n, share)) - 1, int(binom.ppf(0.975, n, share))
    if low < 0 or high >= n:
        return metric.measured(estimate, n=n)
    return metric.measured(estimate, interval=(float(ordered[low]), float(ordered[high])), n=n)


def _count(model: Predictor) -> Measurement:
    if not isinstance(model, Perturbable):
        return PARAMETERS.missing(Outcome.NOT_APPLICABLE, "the model's parameters cannot be read")
    total = sum(int(np.asarray(weight).size) for weight in model.weights().values())
    return PARAMETERS.measured(float(total), standard_error=0.0)
