"""The parent's side of a model that only answers: the probes run here, on the parent's own copy of the data.

Whatever the answering process says, labels, arithmetic and verdicts are not its affair: an accuracy of 1 takes answers
that are right. Importing this file imports NumPy.
"""

import time
from collections.abc import Callable, Sequence

from flataudit.contracts import AuditData, Loaded
from flataudit.errors import ModelError
from flataudit.evidence import Examined
from flataudit.examination import Refusal, examine_loaded, sample_of
from flataudit.executors.behaviour import refuse_unsteady
from flataudit.executors.frames import Failure, Ready, Sample
from flataudit.executors.remote import Conversation, EndedError, RemotePredictor, unexpected
from flataudit.executors.steps import JUDGED
from flataudit.specs import Job

__all__ = ["judged", "sample_without_labels"]

Announce = Callable[[str, float], None]


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
    started, sample = time.monotonic(), sample_of(data)
    said = talk.answer(sample.inputs).content
    if isinstance(said, Failure):
        return Refusal(said.reason, said.advice)
    if not isinstance(said, Ready):
        raise unexpected("a model that is ready", f"a frame of kind {said.kind}")
    model = RemotePredictor(talk, said, job.task, device=job.device)
    loaded = Loaded(model, "code_bearing", (*said.notes, JUDGED))
    try:
        try:
            refuse_unsteady(model, sample.inputs)
        except ModelError as error:
            return Refusal(f"cannot be loaded: {error}", error.remedy)
        return examine_loaded(job, loaded, data, announce=announce, started=started, finished=finished)
    except EndedError as ended:
        assert isinstance(ended.__cause__, ModelError)
        raise ended.__cause__ from None
