"""What one worker has said so far, as far as it may be believed, and the evidence that is made of it."""

from collections.abc import Callable, Collection, Mapping, Sequence

from pydantic import ValidationError

from flataudit.errors import ModelError
from flataudit.evidence import Array, Evidence, Examined
from flataudit.examination import failed_evidence, merged
from flataudit.executors.frames import (
    ArrayHeader,
    EvidenceHeader,
    Failure,
    Frame,
    ProgressNote,
    SelfTest,
)
from flataudit.executors.isolation import Kind, lacking_from, measured
from flataudit.executors.supervision import WorkerError
from flataudit.specs import Job

__all__ = ["Received", "stamped"]

Announce = Callable[[str, float], None]
_MOST_ATTEMPTS = 20


class Received:
    """What one worker has said; of a worker that dies, what its finished probes found."""

    def __init__(
        self,
        job: Job,
        announce: Announce,
        finished: Callable[[Examined | None], None],
        *,
        kept: Mapping[str, str],
    ) -> None:
        self.job, self.finished, self._announce = job, finished, announce
        self.kept = kept
        """What it is kept from: by its supervisor at first, then as its self-test found."""
        self.tested = False
        self.ran_code = False
        """Whether it said that the candidate's own code runs in it."""
        self._arrays: dict[str, Array] = {}
        self._fresh: dict[str, Array] = {}
        """Since the last probe ended."""
        self._parts: list[Examined] = []

    def take_self_test(self, frame: Frame, *, variables: Collection[str], minimum: Sequence[Kind]) -> None:
        """The first frame, written before anything of the candidate's was opened.

        Raises:
            ModelError: another frame came first.
            WorkerError: it is kept from less than the minimum.
        """
        if not isinstance(frame.content, SelfTest):
            raise _unexpected(frame, "a self-test first")
        self.kept = measured(self.kept, frame.content, variables)
        self.tested = True
        missing = lacking_from(minimum, self.kept)
        if missing:
            got = f"a worker that found itself not kept from {', '.join(missing)}"
            remedy = "set isolation.minimum to no more than `flataudit doctor` finds on this machine"
            raise WorkerError(f"isolation of {', '.join(minimum)}", got=got, remedy=remedy)

    def take(self, frame: Frame) -> Examined | None:
        """Take one frame in; the result, once it is the last.

        Raises:
            ModelError: it is about another candidate, or no evidence at all.
        """
        content = frame.content
        if isinstance(content, ProgressNote):
            self._announce(content.what, content.share)
        elif isinstance(content, ArrayHeader):
            self._arrays[content.name] = self._fresh[content.name] = frame.array
        elif isinstance(content, EvidenceHeader):
            evidence = _evidence(frame.body, self.job)
            self.ran_code = self.ran_code or evidence.trust == "code_bearing"
            if content.last:
                return Examined(evidence, self._arrays)
            part = Examined(evidence, self._fresh)
            self._fresh = {}
            self.keep(part)
        elif isinstance(content, Failure):
            return self.with_the_rest(failed_evidence(self.job, content.reason, content.advice))
        else:
            raise _unexpected(frame, "evidence from the worker")
        return None

    def keep(self, part: Examined) -> None:
        """Take what one probe found, and tell of it."""
        part = stamped(part, self.kept)
        self._parts.append(part)
        self.finished(part)

    def with_the_rest(self, failure: Examined) -> Examined:
        """What the finished probes found, and the failure for all others."""
        if not self._parts:
            return failure
        done = {m.probe for part in self._parts for m in part.evidence.measurements}
        rest = tuple(m for m in failure.evidence.measurements if m.probe not in done)
        evidence = self._parts[-1].evidence.model_copy(update={"measurements": rest})
        return merged(self.job, [*self._parts, Examined(evidence)])


def stamped(examined: Examined, kept: Mapping[str, str], attempts: Sequence[str] = ()) -> Examined:
    """The evidence with what its worker was kept from, and what it tried and was refused."""
    notes = tuple(f"the model tried to {what}, and was refused" for what in attempts[:_MOST_ATTEMPTS])
    if len(attempts) > _MOST_ATTEMPTS:
        notes += (f"the model tried {len(attempts) - _MOST_ATTEMPTS} other things, and was refused",)
    update = {"isolation": dict(kept), "notes": (*examined.evidence.notes, *notes)}
    return Examined(examined.evidence.model_copy(update=update), examined.arrays)


def _unexpected(frame: Frame, expected: str) -> ModelError:
    return ModelError(expected, got=f"a frame of kind {frame.content.kind}", remedy="reinstall flataudit")


def _evidence(body: bytes, job: Job) -> Evidence:
    remedy = "the worker's answer cannot be trusted: examine this candidate by hand"
    try:
        evidence = Evidence.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        got = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        raise ModelError("evidence as flataudit writes it", got=got, remedy=remedy) from error
    if evidence.candidate != job.candidate:
        raise ModelError(f"evidence about {job.candidate.label}", got="evidence about another candidate", remedy=remedy)
    return evidence
