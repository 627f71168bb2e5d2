"""The parent's side of a model that only answers: the probes run here, on the parent's own copy of the data.

Whatever the answering process says, labels, arithmetic and verdicts are not its affair: an accuracy of 1 takes answers
that are right. Importing this file imports NumPy.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flataudit.contracts import AuditData, Loaded, Predictor
from flataudit.errors import ModelError
from flataudit.evidence import Examined
from flataudit.examination import Refusal, examine_loaded, sample_of, told
from flataudit.executors.frames import Failure, Ready, Sample
from flataudit.executors.remote import Conversation, EndedError, RemotePredictor, unexpected
from flataudit.executors.shuffling import Order, few_of
from flataudit.executors.steps import JUDGED, as_said
from flataudit.specs import Job
from flataudit.statistics.exchanged_classes import refuse_exchanged_classes, refuse_other_numbers
from flataudit.statistics.steadiness import refuse_unsteady, rounding

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

__all__ = ["judged", "sample_without_labels"]

Announce = Callable[[str, float], None]
_SHARE = 4
"""Of the memory of a candidate's worker, the part (one in so many) that its answers to one call may take here."""


def sample_without_labels(data: Sequence[AuditData]) -> Sample:
    """What a model is loaded with: the kinds and names of things, and the number of classes."""
    sample = sample_of(data)
    numbered = sample.targets is not None and sample.targets.ndim == 1 and sample.targets.dtype.kind in "iu"
    return Sample(
        kind=sample.kind,
        fields=sample.fields,
        class_names=sample.class_names,
        declared=sample.declared,
        classes=int(sample.targets.max()) + 1 if numbered and sample.targets is not None else None,
    )


def judged(
    job: Job, data: Sequence[AuditData], talk: Conversation, announce: Announce, finished: Callable[[Examined], None]
) -> Examined | Refusal:
    """Every probe of a job on what a worker answers; a refusal where it cannot load or answers by more than inputs.

    Args:
        job: of probes that need answers alone.
        data: its sets, aligned.
        talk: with a worker that has begun.
        announce: told what is done now.
        finished: given each probe's part of the evidence as soon as it is there.

    Raises:
        WorkerError: the worker has gone, or exceeded its bounds.
        ModelError: it said what no answer is.
    """
    started, order = time.monotonic(), Order.of(data)
    whole = next(one for one in data if one.role == "validation")
    sample = few_of(whole, len(sample_of(data)), order)
    said = talk.answer(sample.inputs).content
    if isinstance(said, Failure):
        return Refusal(said.reason, said.advice)
    if not isinstance(said, Ready):
        raise unexpected("a model that is ready", f"a frame of kind {said.kind}")
    most = job.budget.memory_bytes // _SHARE
    model = RemotePredictor(talk, said, job.task, device=job.device, order=order, most=most)
    loaded = Loaded(model, "code_bearing", (*as_said(said.notes), JUDGED))
    try:
        try:
            _tried(model, sample)
        except ModelError as error:
            return Refusal(f"cannot be loaded: {error}", error.remedy)
        return examine_loaded(job, loaded, data, announce=announce, started=started, finished=finished, sample=sample)
    except EndedError as ended:
        assert isinstance(ended.__cause__, ModelError)
        raise ended.__cause__ from None
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        # Of a stranger's answers; the evidence of the other candidates must not end with it.
        return Refusal(f"its answers cannot be judged: {told(error)}", "check what it answers with")


def _tried(model: Predictor, sample: AuditData) -> None:
    """The trials of a backend, each a question like any other: that the worker made them proves nothing here.

    Raises:
        ModelError: with what the answers depend on, or the classes that they exchange.
    """

    def answered(inputs: "NDArray[generic]") -> "NDArray[np.float64]":
        found = np.asarray(model.predict(inputs), dtype=np.float64)
        return found if model.task == "regression" else np.exp(found)

    refuse_unsteady(answered, sample.inputs, tolerance=rounding(model.dtype))
    if model.task in ("multiclass", "binary"):
        answers = model.predict(sample.inputs)
        refuse_other_numbers(answers, sample.targets)
        refuse_exchanged_classes(answers, sample.targets)
