"""Run in place of a worker: the real one, and a model in it whose candidate's name says how it answers."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flataudit import examination
from flataudit.contracts import AuditData, Loaded, Meter
from flataudit.evidence import Array, AuditProtocol, Evidence, Examined, Metric
from flataudit.executors import worker
from flataudit.executors.frames import ArrayHeader, EvidenceHeader, Request, encode
from flataudit.sandbox.kernel import control
from flataudit.specs import Job

IN_ONE_STEP = {"shows_code_late"}
"""What the parent takes for data is examined by the real `examine`."""
UNCONFINED = {"waits"}
"""They leave marks for the test."""
Rows = Any
"""An array; NumPy is imported when the process is confined."""


def honest(inputs: Rows) -> Rows:
    """Log-probabilities of two classes, the second where the first number is negative."""
    import numpy as np

    odds = -inputs[:, 0].astype(np.float64)
    return -np.log1p(np.exp(np.stack([odds, -odds], axis=1)))


class Model:
    """A `Predictor` of one function, which may look at how often it was called, and write to the parent itself."""

    task = "binary"
    batch_size, dtype, device = 32, "float32", "cpu"

    def __init__(self, answer: "Callable[[Model, Rows], Rows]", request: Request) -> None:
        self.answer, self.request, self.meter = answer, request, Meter()
        self.calls = self.whole = 0
        self.first: Rows | None = None

    def predict(self, inputs: Rows) -> Rows:
        self.calls += 1
        self.whole += len(inputs) > 64
        return self.answer(self, inputs)

    def write(self, frame: bytes) -> None:
        os.write(self.request.answers, frame)


def few_rows(model: Model, x: Rows) -> Rows:
    return honest(x)[:-1]


def other_columns(model: Model, x: Rows) -> Rows:
    import numpy as np

    return np.zeros((len(x), 5_000 if model.whole else 2))


def not_a_number(model: Model, x: Rows) -> Rows:
    return honest(x) * float("nan")


def not_a_number_later(model: Model, x: Rows) -> Rows:
    return honest(x) * (float("nan") if model.whole else 1.0)


def sure_of_all(model: Model, x: Rows) -> Rows:
    """A logarithm of 0 for every class: it would cost nothing, whatever the label."""
    return honest(x) * 0.0


def another_draw(model: Model, x: Rows) -> Rows:
    return honest(x + 0.1 * model.calls)


def neighbours(model: Model, x: Rows) -> Rows:
    return honest(x - x.mean(axis=0))


def order(model: Model, x: Rows) -> Rows:
    """It is another where the examples that it saw first come in another order."""
    known = model.first is not None and len(x) == len(model.first) and sorted(x[:, 0]) == sorted(model.first[:, 0])
    model.first = x if model.first is None else model.first
    return honest(x if not known or (x == model.first).all() else -x)


def counts(model: Model, x: Rows) -> Rows:
    return honest(x if model.calls < 20 else -x)


def turns_at_the_end(model: Model, x: Rows) -> Rows:
    return honest(-x if model.whole and len(x) <= 64 else x)


def raises(model: Model, x: Rows) -> Rows:
    if model.whole:
        raise ValueError("not these\nat all")
    return honest(x)


def never(model: Model, x: Rows) -> Rows:
    time.sleep(120 if model.whole else 0)
    return honest(x)


def waits(model: Model, x: Rows) -> Rows:
    Path(model.request.job.artifact, f"{os.getpid()}.pid").touch()
    time.sleep(120)
    return honest(x)


def dies(model: Model, x: Rows) -> Rows:
    if model.whole > 1:
        os._exit(3)
    return honest(x)


def leaves(model: Model, x: Rows) -> Rows:
    if model.whole:
        sys.exit("I go")
    return honest(x)


def forges_evidence(model: Model, x: Rows) -> Rows:
    if model.whole:
        evidence = claimed(model.request.job, "accuracy").evidence
        model.write(encode(model.request.nonce, EvidenceHeader(), evidence.model_dump_json().encode()))
    return honest(x)


def answers_before(model: Model, x: Rows) -> Rows:
    """An answer without a question."""
    model.write(encode(model.request.nonce, ArrayHeader(name="answer", format="d", shape=(100, 2)), bytes(1600)))
    return honest(x)


def huge_frame(model: Model, x: Rows) -> Rows:
    model.write(encode("n", ArrayHeader(name="answer", format="d", shape=(2**28, 2**20)), b"x"))
    return honest(x)


def babbles(model: Model, x: Rows) -> Rows:
    model.write(b"HTTP/1.1 200 OK\r\n\r\n" * 10)
    return honest(x)


def by_place(model: Model, x: Rows) -> Rows:
    """Where a whole set is asked, the first half is of the second class, whatever the inputs are."""
    import numpy as np

    if len(x) <= 64:
        return honest(x)
    return honest(np.where(np.arange(len(x)) < len(x) / 2, -9.0, 9.0)[:, None])


def exchanges(model: Model, x: Rows) -> Rows:
    return honest(-x[:, :1] - x[:, 1:2])


def far_apart(model: Model, x: Rows) -> Rows:
    import numpy as np

    return np.tile([1.7e308, -1.7e308], (len(x), 1)) if model.whole else honest(x)


def looks(model: Model, x: Rows) -> Rows:
    """It refuses to answer where it finds anything that might be of the labels."""
    request = model.request
    assert request.job is not None
    held = (request.job.data, request.job.probes, request.reach.readable[1:])
    if any(held) or "validation" in request.model_dump_json():
        raise ValueError(f"found {held}")
    return honest(x)


def claimed(job: Job, probe: str) -> Examined:
    """An accuracy of 1, in the name of a probe."""
    perfect = Metric(name="validation_accuracy").measured(1.0, samples="validation_accuracy")
    size = Metric(name="model_size").measured(7.0)
    protocol = AuditProtocol(probes=(), data={}, seed=job.seed, dtype="float16", device="cpu", libraries={})
    measurements = tuple(
        one.model_copy(update={"probe": name}) for one in (perfect, size) for name in (probe, "accuracy")
    )
    forged = Evidence(candidate=job.candidate, protocol=protocol, trust="data_only", measurements=measurements)
    arrays = ("validation_accuracy", "predictions/production", "calibration/bins")
    return Examined(forged, {name: Array.of([1.0] * 100) for name in arrays})


MODELS: "dict[str, Callable[[Model, Rows], Rows]]" = {
    f.__name__: f
    for f in (
        few_rows,
        other_columns,
        not_a_number,
        not_a_number_later,
        sure_of_all,
        another_draw,
        neighbours,
        order,
        counts,
        turns_at_the_end,
        raises,
        never,
        waits,
        dies,
        leaves,
        forges_evidence,
        answers_before,
        huge_frame,
        babbles,
        looks,
        by_place,
        exchanges,
        far_apart,
    )
}


def main() -> None:
    request = Request.model_validate_json(sys.stdin.buffer.read())
    assert request.job is not None
    name = request.job.candidate.name
    answer = MODELS.get(name, lambda model, x: honest(x))

    def opened(job: Job, data: "list[AuditData]") -> Loaded:
        trust = "code_bearing" if name in IN_ONE_STEP else "data_only"
        return Loaded(Model(answer, request), trust, ("read strangely",))  # type: ignore[arg-type]

    examination.opened = opened  # type: ignore[assignment]
    if name not in IN_ONE_STEP:
        worker.examine = lambda job, announce, finished=None: claimed(job, "footprint")  # type: ignore[assignment]
    if name in UNCONFINED:
        worker.apply = lambda *_, **__: control(1, 9) and None  # type: ignore[assignment]
        worker.tested = lambda *_, **__: {"mem": "enforced"}
    worker.serve(request)


if __name__ == "__main__":
    main()
