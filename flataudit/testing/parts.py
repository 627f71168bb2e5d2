"""What registries and executors must keep to, as far as it can be tried without writing anything."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flataudit.contracts import Executor, Registry
from flataudit.evidence import Candidate, Outcome
from flataudit.ledger import Ledger
from flataudit.manifest import manifest_digest
from flataudit.specs import Budget, DataSpec, Job, Spec
from flataudit.testing.expectations import require

__all__ = ["check_executor", "check_registry"]

_KINDS = ("env", "time", "mem", "fs", "net", "proc", "uid")
_WORDS = ("enforced", "partial", "none")


def check_registry(registry: Registry) -> None:
    """Fail unless what a registry says holds together; it is only read, and must have a candidate.

    Labels differ, the champion is not its own challenger, a fetch keeps the candidate's name and version and gives
    flavour and digest, the digest is that of the files, and a second fetch gives the same. The history is a chain:
    numbers without a gap, each entry with its own digest and that of the one before.

    Raises:
        AssertionError: says what was expected, what was got and what to do.
    """
    champion, challengers = registry.champion(), list(registry.challengers())
    found = ([champion] if champion else []) + challengers
    require(found, "a champion or a challenger", got="neither", remedy="register a model before this check")
    labels = [candidate.label for candidate in found]
    require(
        len(set(labels)) == len(labels),
        "candidates with different labels, the champion not among the challengers",
        got=labels,
        remedy="leave the champion out of challengers()",
    )
    for candidate in found:
        _check_fetch(registry, candidate)
    entries = tuple(registry.history())
    problems = Ledger(model=entries[0].model, entries=entries).problems() if entries else ()
    # Whether a move has ended is the registry's own business: it is not in the entries.
    broken = [problem for problem in problems if "unfinished" not in problem]
    require(not broken, "a history that is a chain", got=broken, remedy="give each number once, and hash it")


def _check_fetch(registry: Registry, candidate: Candidate) -> None:
    fetched = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(prefix="flataudit-testing-") as folder:
            fetched.append(registry.fetch(candidate, Path(folder)))
            digest = manifest_digest(Path(folder))
        require(
            fetched[-1].digest == digest,
            f"the digest of the fetched files of {candidate.label}, {digest}",
            got=fetched[-1].digest,
            remedy="return the candidate with manifest_digest(into)",
        )
    require(
        fetched[0] == fetched[1],
        f"the same from two fetches of {candidate.label}",
        got=f"{fetched[0]} and {fetched[1]}",
        remedy="fetch by version, not by alias",
    )
    kept = fetched[0].model_copy(update={"flavour": candidate.flavour, "digest": candidate.digest})
    require(
        kept == candidate and fetched[0].flavour != "unknown",
        f"{candidate} with flavour and digest",
        got=fetched[0],
        remedy="change nothing else when fetching",
    )


def check_executor(executor: Executor) -> None:
    """Fail unless an executor gives one result a job, in order, and turns what befalls a candidate into evidence.

    Its jobs name a flavour that no backend loads, and a data file that is not there: neither may raise or stop the
    others.

    Raises:
        AssertionError: says what was expected, what was got and what to do.
    """
    require(not list(executor.map([], _silent)), "nothing from no jobs", got="something", remedy="return no result")
    with tempfile.TemporaryDirectory(prefix="flataudit-testing-") as folder:
        np.savez(Path(folder) / "validation.npz", x=np.zeros((8, 2)), y=np.arange(8) % 2)
        jobs = [_job(Path(folder), index, data) for index, data in enumerate(("validation", "absent", "validation"))]
        examined = list(executor.map(jobs, _silent))
    given = [one.evidence.candidate for one in examined]
    require(
        given == [job.candidate for job in jobs],
        "one result a job, in the jobs' order",
        got=[candidate.label for candidate in given],
        remedy="yield results by the order of the jobs, not of their ends",
    )
    for one in examined:
        _check_kept(one.evidence.isolation)
        outcomes = {measurement.outcome for measurement in one.evidence.measurements}
        require(
            outcomes and Outcome.MEASURED not in outcomes,
            "evidence that nothing could be measured",
            got=sorted(outcomes),
            remedy="use flataudit.examination.failed_evidence",
        )


def _check_kept(isolation: Mapping[str, str]) -> None:
    require(
        set(isolation) == set(_KINDS) and set(isolation.values()) <= set(_WORDS),
        f"isolation that says {', '.join(_WORDS)} of each of {', '.join(_KINDS)}",
        got=isolation,
        remedy="stamp Evidence.isolation; say none of what is not kept from the candidate",
    )


def _job(folder: Path, index: int, data: str) -> Job:
    artifact = folder / f"artifact-{index}"
    artifact.mkdir()
    (artifact / "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
    source = Spec(use="npz", params={"path": str(folder / f"{data}.npz")})
    return Job(
        candidate=Candidate(name="tried", version=str(index + 1), flavour="no-such-flavour", uri=artifact.as_uri()),
        artifact=str(artifact),
        probes=(Spec(use="accuracy"),),
        data=(DataSpec(name="validation", role="validation", source=source),),
        budget=Budget(seconds=60),
    )


def _silent(label: str, what: str, share: float) -> None:
    """Progress that nobody watches."""
