"""The worker's side: read one request, confine oneself, examine, answer.

`flataudit.executors.process` starts it in a fresh interpreter, or `flataudit.executors.zygote` forks it from one that
has imported what a job needs. It confines itself while it has one thread and nothing of the candidate's has been
opened; in a fresh interpreter that is before anything heavy is imported, since what is imported may start threads,
and those would stay free. Then it tries what it must not be able to do, says what came of it, and waits for the word
to begin.
"""

import os
import socket
import sys
from pathlib import Path
from typing import BinaryIO

from flataudit.errors import FlatauditError
from flataudit.evidence import Examined
from flataudit.examination import examine
from flataudit.executors.frames import (
    ArrayHeader,
    Content,
    EvidenceHeader,
    Failure,
    ProgressNote,
    Request,
    SelfTest,
    encode,
    text_limit,
)
from flataudit.sandbox.apply import Confinement, apply
from flataudit.sandbox.limits import Limits
from flataudit.sandbox.selftest import tested
from flataudit.specs import Job

__all__ = ["BEGIN", "Answers", "confinement", "main", "serve"]

BEGIN = b"b"
"""The word."""


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
    """Confine this process, wait for the word, examine, and answer on the request's descriptor."""
    os.set_inheritable(request.answers, False)
    with open(request.answers, "wb") as stream:
        answers = Answers(stream, request.nonce)
        with socket.socket(fileno=request.channel) as channel:
            found = _confined(request, channel)
            answers.send(found)
            if request.job is None or channel.recv(1) != BEGIN:
                return
        _answer(request.job, answers)


def confinement(request: Request) -> Confinement:
    """What the request lets its worker reach."""
    reach, limits = request.reach, request.limits
    bounds = Limits(limits.address_space, cpu_seconds=limits.cpu_seconds, file_bytes=limits.file_bytes)
    return Confinement(
        scratch=Path(reach.scratch),
        limits=bounds,
        readable=tuple(map(Path, reach.readable)),
        code=tuple(map(Path, reach.code)),
        graphics=reach.graphics,
    )


def _confined(request: Request, channel: socket.socket) -> SelfTest:
    """All layers, and what they withstood; the listener is handed over before anything can wait for it."""
    listener = apply(confinement(request), parent=request.parent)
    if listener is not None:
        socket.send_fds(channel, [b"l"], [listener])
        os.close(listener)
    found = tested(Path(request.reach.canary), user=request.reach.user, memory=request.limits.address_space)
    return SelfTest(environment=tuple(sorted(os.environ)), found=found, tripwire=listener is not None)


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
