"""Examines in this process, one candidate after the other: for debugging, with no isolation at all."""

from collections.abc import Sequence
from functools import partial

from flataudit.contracts import Check, Finished, Progress
from flataudit.errors import FlatauditError, PluginError
from flataudit.evidence import Examined, Record
from flataudit.examination import examine, failed_evidence
from flataudit.executors.isolation import Kind, demand, isolation
from flataudit.specs import Job

__all__ = ["UNJUDGED", "LocalExecutor"]

UNJUDGED = "its own code ran in the process that has the labels and makes the numbers: it could forge any of them"
"""The note of a candidate that brings code."""


class LocalExecutor(Record):
    """The examination without a process around it: breakpoints work, and a crash takes the audit with it."""

    minimum: tuple[Kind, ...] = ()
    """Isolation that is demanded; anything at all is refused here."""

    def map(self, jobs: Sequence[Job], progress: Progress, finished: Finished | None = None) -> list[Examined]:
        """One result per job, in order; what flataudit itself refuses becomes evidence, other errors rise.

        Raises:
            ConfigurationError: isolation was demanded.
        """
        demand(self.minimum, isolation(), where="the local executor")
        return [_examined(job, progress, finished) for job in jobs]

    def check(self) -> list[Check]:
        """That it isolates nothing."""
        return [Check(name="local executor", ok=True, found="no isolation; for debugging, never for strangers' models")]


def _examined(job: Job, progress: Progress, finished: Finished | None) -> Examined:
    def done(part: Examined) -> None:
        if finished is not None:
            finished(job, _isolated(part))

    try:
        examined = examine(job, partial(progress, job.candidate.label), done)
    except PluginError:
        raise
    except FlatauditError as error:
        examined = failed_evidence(job, str(error), error.remedy)
    return _isolated(examined)


def _isolated(examined: Examined) -> Examined:
    evidence = examined.evidence
    notes = (*evidence.notes, UNJUDGED) if evidence.trust == "code_bearing" else evidence.notes
    return Examined(evidence.model_copy(update={"isolation": isolation(), "notes": notes}), examined.arrays)
