"""A model in another process as a `Predictor` of this one: inputs go there, and what comes back is believed as answers.

What a process in which a stranger's code runs may say is one array of float64 a question, of as many rows as inputs
and always as many columns. Nothing else has a meaning here, so that whatever it says is an answer: it can be wrong, and
it cannot be a claim about how right it is.
"""

import secrets
from collections.abc import Iterator

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.contracts import Meter
from flataudit.errors import ModelError
from flataudit.executors.frames import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    ArrayHeader,
    Decoder,
    Failure,
    Frame,
    Ready,
)
from flataudit.executors.questions import asked
from flataudit.executors.shuffling import Order
from flataudit.executors.supervision import Worker
from flataudit.specs import Task

__all__ = ["Conversation", "EndedError", "RemotePredictor", "unexpected"]

_QUESTION_BYTES = 32 * 2**20
"""Of inputs sent at once, where that is more than a batch."""
_ITEM_BYTES = 8
_NORMALISED = 1e-9
"""Nats by which log-probabilities may miss 1 in all; what misses by more is divided by its sum."""


class EndedError(BaseException):
    """The other process can say nothing more that is believed; its cause says why.

    Not an `Exception`, so that no probe takes it for a failure of its own and goes on.
    """


class Conversation:
    """One question, one answer, of a worker that has begun.

    Args:
        worker: it listens (`Worker.post`).
        chunks: what it writes, from `Worker.answers`.
    """

    def __init__(self, worker: Worker, chunks: Iterator[bytes]) -> None:
        self._worker, self._chunks = worker, chunks

    def answer(self, inputs: NDArray[generic], *, most: int = MAX_BODY_BYTES) -> Frame:
        """The one frame that answers.

        Args:
            inputs: ``(n, …)``.
            most: bytes of the answer's body.

        Raises:
            WorkerError: it has gone, or exceeded its bounds.
            ModelError: it did not answer with one frame to this question.
        """
        nonce = secrets.token_hex(8)
        decoder = Decoder(nonce, most=most + MAX_HEADER_BYTES)
        self._worker.post(*asked(nonce, inputs))
        for chunk in self._chunks:
            frames = list(decoder.feed(chunk))
            if len(frames) > 1 or (frames and decoder.unfinished):
                raise unexpected("one answer to one question", "more")
            if frames:
                self._worker.rest()
                return frames[0]
        raise self._worker.ending()


class RemotePredictor:
    """A `Predictor` whose answers come from a worker; log-probabilities are normalised here.

    Inputs are sent in multiples of the model's own batches, so that it computes in the same batches as at home.

    Args:
        talk: with a worker that is `Ready`.
        ready: what it said of its model.
        task: what the answers mean.
        device: of the job.
        order: in which examples are sent; answers come back in the caller's.
        most: bytes of the answers to one call; this process must hold them, and a stranger says how many there are.
    """

    def __init__(
        self,
        talk: Conversation,
        ready: Ready,
        task: Task,
        *,
        device: str,
        order: Order = Order(),  # noqa: B008  # it is frozen
        most: int = 2 * 2**30,
    ) -> None:
        self.task: Task = task
        self.meter = Meter()
        self.batch_size, self.dtype, self.device = ready.batch_size, ready.dtype, device
        self.no_curvature_because = ready.no_curvature_because
        self.no_probabilities_because = ready.no_probabilities_because
        self.no_distribution_because = ready.no_distribution_because
        self._talk, self._order, self._most_bytes = talk, order, most
        self._columns: tuple[int, ...] | None = None

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)``, of sequences ``(n, tokens, classes)``, or values ``(n,)``.

        Raises:
            ModelError: the model failed on these inputs, or answered with something else than finite numbers.
            EndedError: there is no more to be had from it.
        """
        size = max(1, inputs[:1].nbytes)
        rows = min(self.batch_size, max(1, MAX_BODY_BYTES // size))
        rows *= max(1, _QUESTION_BYTES // (size * rows))
        order, parts = self._order(len(inputs)), list[NDArray[np.float64]]()
        for start in range(0, len(inputs), rows):
            parts.append(self._part(inputs[order[start : start + rows]]))
            if parts[0].nbytes // len(parts[0]) * len(inputs) > self._most_bytes:
                raise EndedError from _too_many(parts[0].shape, len(inputs), self._most_bytes)
        found = np.empty_like(parts[0], shape=(len(inputs), *parts[0].shape[1:]))
        found[order] = np.concatenate(parts)
        return found

    def _part(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        self.meter.forward += len(inputs)
        try:
            frame = self._talk.answer(inputs, most=self._most(len(inputs)))
            if isinstance(frame.content, ArrayHeader):
                found = self._shaped(frame, frame.content, len(inputs))
            elif not isinstance(frame.content, Failure):
                raise unexpected("an array of answers", f"a frame of kind {frame.content.kind}")
        except ModelError as error:
            raise EndedError from error
        if isinstance(frame.content, Failure):
            remedy = frame.content.advice or "check that it takes such inputs"
            raise ModelError("an answer to these inputs", got=frame.content.reason, remedy=remedy)
        # Logarithms so far apart that their difference has no number are no answer either.
        told = _normalised(found, self.task) if np.isfinite(found).all() else found
        if not np.isfinite(told).all():
            share = f"{np.mean(~np.isfinite(told)):.0%} NaN or infinite"
            raise ModelError("finite answers", got=share, remedy="the model overflows on these inputs")
        return told

    def _most(self, rows: int) -> int:
        """Bytes of an answer: known after the first."""
        columns = self._columns
        return MAX_BODY_BYTES if columns is None else _ITEM_BYTES * rows * int(np.prod(columns, dtype=np.int64))

    def _shaped(self, frame: Frame, content: ArrayHeader, rows: int) -> NDArray[np.float64]:
        """The body as an array, of the form that it always has."""
        columns = content.shape[1:]
        known = {"regression": (0,), "multiclass": (1, 2), "binary": (1,), "multilabel": (1,)}[self.task]
        right = content.format == "d" and content.shape[:1] == (rows,) and len(columns) in known
        if not right or self._columns not in (None, columns) or (self.task == "binary" and columns != (2,)):
            kind = "values" if self.task == "regression" else "log-probabilities of every class"
            like = f", {', '.join(map(str, self._columns))} each" if self._columns else ""
            got = f"{content.shape} of {content.format!r}"
            raise unexpected(f"float64 {kind} of {rows} examples{like}", got)
        self._columns = columns
        return np.frombuffer(frame.body, dtype=np.float64).reshape(content.shape)


def _normalised(found: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """Logarithms of probabilities: of classes that add up to 1, of labels that are at most 1.

    >>> _normalised(np.zeros((1, 4)), "multiclass").round(3).tolist()
    [[-1.386, -1.386, -1.386, -1.386]]
    """
    if task == "regression":
        return found
    if task == "multilabel":
        return np.minimum(found, 0.0)
    with np.errstate(over="ignore"):
        largest = found.max(axis=-1, keepdims=True)
        total = largest + np.log(np.exp(found - largest).sum(axis=-1, keepdims=True))
        return np.where(np.abs(total) > _NORMALISED, found - total, found)


def _too_many(shape: tuple[int, ...], rows: int, most: int) -> ModelError:
    got = f"{', '.join(map(str, shape[1:]))} numbers for each of {rows:,} examples"
    remedy = "raise budget.memory_bytes, of which answers may take a quarter, or audit fewer examples"
    return ModelError(f"answers of at most {most:,} bytes", got=got, remedy=remedy)


def unexpected(expected: str, got: str) -> ModelError:
    """The error of an answer that is none."""
    remedy = "the worker's answer cannot be trusted: look at what the model does beside answering"
    return ModelError(expected, got=got, remedy=remedy)
