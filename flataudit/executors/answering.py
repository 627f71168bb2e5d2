"""The worker's side of a model that only answers: inputs come in, what it says of them goes out.

No label comes here: not in the request, not in a question, and no file that holds them is named. What is made of the
answers is the parent's affair (`flataudit.executors.judging`). This file is imported once the process is confined,
since NumPy starts threads.
"""

import socket
from io import BufferedReader
from typing import BinaryIO

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Predictor
from flataudit.errors import FlatauditError
from flataudit.examination import Refusal, opened, told
from flataudit.executors.frames import ArrayHeader, Content, Failure, Ready, Sample, text_limit
from flataudit.executors.questions import questions
from flataudit.executors.writing import Answers
from flataudit.specs import Job

__all__ = ["attend"]


def attend(job: Job, sample: Sample, channel: socket.socket, stream: BinaryIO) -> None:
    """Load the model with the first question's inputs, then answer every other, until the parent has no more."""
    model: Predictor | None = None
    with socket.SocketIO(channel, "r") as raw, BufferedReader(raw, 2**20) as asked:
        for nonce, inputs in questions(asked):
            answers = Answers(stream, nonce)
            if model is None:
                said, model = _loaded(job, _few(sample, inputs))
                answers.send(said)
                if model is None:
                    return
            else:
                answers.send(*_answer(model, inputs))


def _few(sample: Sample, inputs: NDArray[generic]) -> AuditData:
    """The examples that a backend checks a model with.

    Of their targets it is told how many classes they have, in a shape in which nothing takes them for labels: ONNX
    classifiers, which name their classes, are put in the data's order by that number.
    """
    targets = None if sample.classes is None else np.full((len(inputs), 1), sample.classes - 1)
    return AuditData(
        "sample",
        "validation",
        inputs,
        targets,
        None,
        "",
        sample.kind,
        fields=sample.fields,
        class_names=sample.class_names,
        declared=sample.declared,
    )


def _loaded(job: Job, data: AuditData) -> tuple[Content, Predictor | None]:
    try:
        found = opened(job, [data])
    except BaseException as error:  # noqa: BLE001  # a candidate may even call sys.exit
        return _stopped(error), None
    if isinstance(found, Refusal):
        advice = None if found.advice is None else text_limit(found.advice)
        return Failure(reason=text_limit(found.reason), advice=advice), None
    model = found.model
    ready = Ready(
        batch_size=model.batch_size,
        dtype=model.dtype,
        notes=tuple(note[:1000] for note in found.notes[:12]),
        no_curvature_because=_because(model, "no_curvature_because"),
        no_probabilities_because=_because(model, "no_probabilities_because"),
        no_distribution_because=_no_distribution(model),
    )
    return ready, model


def _no_distribution(model: Predictor) -> str | None:
    if getattr(model, "distribution", None) is not None:
        return "it states a distribution, which no code that runs apart is asked: log it as data (skops, .pt2, ONNX)"
    return _because(model, "no_distribution_because")


def _because(model: Predictor, name: str) -> str | None:
    reason = getattr(model, name, None)
    return None if reason is None else str(reason)[:1000]


def _answer(model: Predictor, inputs: NDArray[generic]) -> tuple[Content, bytes]:
    """An array of what the model says, or why it says nothing; both are of one batch and end nothing."""
    try:
        found = np.ascontiguousarray(model.predict(inputs), dtype=np.float64)
        return ArrayHeader(name="answer", format="d", shape=found.shape), found.tobytes()
    except Exception as error:  # noqa: BLE001  # a model may raise anything
        advice = error.remedy if isinstance(error, FlatauditError) else None
        return Failure(reason=text_limit(told(error)), advice=advice), b""
    except BaseException as error:  # noqa: BLE001  # a candidate may even call sys.exit
        return _stopped(error), b""


def _stopped(error: BaseException) -> Failure:
    return Failure(reason=text_limit(f"stopped by {type(error).__name__}: {' '.join(str(error).split())}"))
