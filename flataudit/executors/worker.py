"""The worker's side: read one request, lay limits upon oneself, examine, answer.

It runs in a fresh interpreter (`flataudit.executors.process` starts it) and imports nothing heavy itself: what a
job needs comes with its plugins, after the limits are set.
"""

import os
import resource
import signal
import sys
from typing import BinaryIO

from flataudit.contracts import Job
from flataudit.errors import FlatauditError
from flataudit.evidence import Examined
from flataudit.examination import examine
from flataudit.executors.frames import (
    ArrayHeader,
    Content,
    EvidenceHeader,
    Failure,
    Limits,
    ProgressNote,
    Request,
    SelfTest,
    encode,
    text_limit,
)

__all__ = ["Answers", "main", "restrain", "serve"]

_PR_SET_PDEATHSIG = 1


class Answers:
    """Writes frames of one request."""

    def __init__(self, stream: BinaryIO, nonce: str) -> None:
        self._stream, self._nonce = stream, nonce
        self._sent: set[str] = set()

    def send(self, content: Content, body: bytes = b"") -> None:
        """Write one frame, whole, now."""
        self._stream.write(encode(self._nonce, content, body))
        self._stream.flush()

    def progress(self, what: str, share: float) -> None:
        """Say what is done now."""
        self.send(ProgressNote(what=text_limit(what), share=min(1.0, max(0.0, share))))

    def evidence(self, examined: Examined, *, last: bool = True) -> None:
        """Arrays that were not sent before, then the evidence that names them."""
        for name, array in examined.arrays.items():
            if name not in self._sent:
                self._sent.add(name)
                self.send(ArrayHeader(name=name, format=array.format, shape=array.shape), array.data)
        self.send(EvidenceHeader(last=last), examined.evidence.model_dump_json().encode())


def main() -> None:
    """Answer the request on standard input."""
    serve(Request.model_validate_json(sys.stdin.buffer.read()))


def serve(request: Request) -> None:
    """Set the limits, examine, and answer on the request's descriptor."""
    restrain(request.limits)
    os.set_inheritable(request.answers, False)
    with open(request.answers, "wb") as stream:
        answers = Answers(stream, request.nonce)
        if request.job is None:
            answers.send(_self_test(request.limits))
        else:
            _answer(request.job, answers)


def restrain(limits: Limits) -> None:
    """Set the limits, hard, and die with the thread that supervises (Linux)."""
    if limits.address_space is not None:
        _limit(resource.RLIMIT_AS, limits.address_space)
    # Soft below hard: at the hard limit the kernel sends SIGKILL, which would not tell the reason.
    _limit(resource.RLIMIT_CPU, limits.cpu_seconds, slack=5)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(which: int, value: int, *, slack: int = 0) -> None:
    ceiling = resource.getrlimit(which)[1]
    hard = value + slack if ceiling == resource.RLIM_INFINITY else min(value + slack, ceiling)
    resource.setrlimit(which, (min(value, hard), hard))


def _answer(job: Job, answers: Answers) -> None:
    """Examine and send; a failure goes out after the `except` has freed what filled the memory."""
    exhausted = Failure(
        reason=f"ran out of memory (limit {job.budget.memory_bytes / 2**30:.3g} GiB)",
        advice="raise budget.memory_bytes",
    )
    try:
        answers.evidence(examine(job, answers.progress, lambda part: answers.evidence(part, last=False)))
        return
    except FlatauditError as error:
        failure = Failure(reason=text_limit(str(error)), advice=text_limit(error.remedy))
    except MemoryError:
        failure = exhausted
    except BaseException as error:  # noqa: BLE001  # a candidate may even call sys.exit
        told = " ".join(str(error).split())
        failure = Failure(reason=text_limit(f"stopped by {type(error).__name__}: {told}"))
    answers.send(failure)


def _self_test(limits: Limits) -> SelfTest:
    bounded = False
    if limits.address_space is not None:
        try:
            bytearray(limits.address_space)
        except MemoryError:
            bounded = True
    return SelfTest(environment=tuple(sorted(os.environ)), memory_bounded=bounded)
