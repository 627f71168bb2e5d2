"""The worker's side: read one request, confine oneself, examine or only answer for a model.

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

from flataudit.errors import FlatauditError
from flataudit.examination import examine
from flataudit.executors.frames import Failure, Request, SelfTest, text_limit
from flataudit.executors.writing import Answers
from flataudit.sandbox.apply import Confinement, apply
from flataudit.sandbox.limits import Limits
from flataudit.sandbox.selftest import tested
from flataudit.specs import Job

__all__ = ["BEGIN", "confinement", "main", "serve"]

BEGIN = b"b"
"""The word."""


def main() -> None:
    """Answer the request on standard input."""
    serve(Request.model_validate_json(sys.stdin.buffer.read()))


def serve(request: Request) -> None:
    """Confine this process, wait for the word, do what is asked, and answer on the request's descriptor."""
    os.set_inheritable(request.answers, False)
    with open(request.answers, "wb") as stream:
        answers = Answers(stream, request.nonce)
        with socket.socket(fileno=request.channel) as channel:
            found = _confined(request, channel)
            answers.send(found)
            if request.job is None or channel.recv(1) != BEGIN:
                return
            if request.sample is not None:
                from flataudit.executors.answering import attend  # NumPy starts threads, which would stay free

                attend(request.job, request.sample, channel, stream)
                return
        _answer(request.job, answers)


def confinement(request: Request) -> Confinement:
    """What the request lets its worker reach."""
    reach, limits = request.reach, request.limits
    bounds = Limits(
        limits.address_space,
        cpu_seconds=limits.cpu_seconds,
        file_bytes=limits.file_bytes,
        open_files=limits.open_files,
        processes=limits.processes,
    )
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
