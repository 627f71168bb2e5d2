"""The one loop: candidates, evidence, comparisons, decision, record. Six hops, no way back.

Everything arrives from outside: the registry, the executor, the comparer and what publishes the record are
arguments, so that this file holds the order of things and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, NonNegativeInt

from flataudit.attestation.trustees import Granted, Trust, granted
from flataudit.contracts import AuditData, Comparer, Executor, Progress, Receipt, Registry
from flataudit.decision import Comparison, Decision, Selection, Stopping, Verdict
from flataudit.errors import ConfigurationError, ModelError, NotFoundError
from flataudit.evidence import Admission, Array, Candidate, Evidence, Examined, Outcome, Record
from flataudit.examination import artifact_size, failed_evidence, load_data, make_probe, merged
from flataudit.judge import decide, limits
from flataudit.ledger import validation_use
from flataudit.policy import Policy
from flataudit.reuse import EvidenceStore
from flataudit.specs import (
    Architecture,
    AttestationTerms,
    Budget,
    DataSpec,
    Job,
    Level,
    LossSpec,
    Outputs,
    Role,
    Spec,
    Task,
    TokenizerSpec,
    strangers,
)
from flataudit.stopping import early_stopping
from flataudit.trust import ruled, turned_away
from flataudit.vocabulary import aligned

__all__ = ["AuditKind", "AuditPlan", "AuditRecord", "DataSummary", "Parts", "run"]

AuditKind = Literal["gate", "score", "audit"]
Arrays = Mapping[str, Mapping[str, Array]]
"""By candidate label, then by array name."""


class AuditPlan(Record):
    """What to measure and how to judge it; everything but who the candidates are."""

    model: str
    task: Task = "multiclass"
    outputs: Outputs | None = None
    quantiles: tuple[Level, ...] = ()
    output: str | None = None
    architecture: Architecture | None = None
    loss: LossSpec | None = None
    tokenizer: TokenizerSpec | None = None
    data: tuple[DataSpec, ...]
    probes: tuple[Spec, ...]
    policy: Policy = Policy()
    budget: Budget = Budget()
    seed: NonNegativeInt = 0
    device: str = "cpu"
    dtype: Literal["float32", "float64"] | None = None
    batch_size: int | None = None
    trust: Trust = False
    attestation: AttestationTerms = AttestationTerms()

    def job(self, candidate: Candidate, artifact: Path, *, trust: bool = False) -> Job:
        """The job that examines one fetched candidate; ``trust``: whether loading it may run its own code."""
        shared = self.model_dump(include=set(Job.model_fields) - {"candidate", "artifact", "trust"})
        return Job.model_validate(shared | {"candidate": candidate, "artifact": str(artifact), "trust": trust})

    def leave(self, candidate: Candidate, *, registry: str | None = None) -> Granted:
        """By which entry of `trust` a fetched candidate's own code may run, if any.

        Args:
            candidate: as it was fetched.
            registry: the URI that it was fetched from.
        """
        return granted(self.trust, candidate, registry=registry)


class DataSummary(Record):
    """A data set as the report names it."""

    name: str
    role: Role
    n: int
    shape: tuple[int, ...]
    """Of one example."""
    kind: str
    declared: bool = False
    """Whether `kind` was declared; else inferred from shape and dtype."""
    classes: int | None
    groups: int | None
    digest: str


class AuditRecord(Record):
    """Everything about one audit; reports are made from this and its arrays alone."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_name: Literal["flataudit/audit/1"] = Field("flataudit/audit/1", alias="schema")
    id: str
    kind: AuditKind
    created: str
    """UTC, ISO 8601."""
    actor: str
    """Who or what ran it, as it says itself."""
    flataudit_version: str
    plan: AuditPlan
    data: tuple[DataSummary, ...]
    champion: Candidate | None = None
    evidences: tuple[Evidence, ...]
    comparisons: tuple[Comparison, ...] = ()
    decision: Decision | None = None
    """Of a gate."""
    selection: Selection | None = None
    """Of a gate among several: the best one's number without its luck."""
    stopping: tuple[Stopping, ...] = ()
    """Of scored checkpoints: where to stop each run."""
    alarms: tuple[Verdict, ...] = ()
    """Of a scheduled audit: every absolute limit, as the champion meets it today."""
    dry_run: bool = False
    reused: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """By candidate: the probes whose numbers were kept from an earlier audit of the same bytes by the same protocol."""
    receipt: Receipt | None = None
    """What the registry did; None before it did, and in a dry run."""

    @property
    def policy_digest(self) -> str:
        """Digest of the policy that judged."""
        return self.plan.policy.digest

    def evidence(self, label: str) -> Evidence:
        """The evidence of one candidate, by its label."""
        return next(e for e in self.evidences if e.candidate.label == label)


@dataclass(frozen=True)
class Parts:
    """The live parts of an audit, made by name from the configuration."""

    registry: Registry
    executor: Executor
    comparer: Comparer
    publish: Callable[[AuditRecord, Arrays], Path]
    """Writes records and reports; returns their folder."""
    progress: Progress
    workdir: Path
    """An own, empty folder for the candidates' files."""
    store: EvidenceStore | None = None
    """Where evidence is kept; None: everything is measured."""


@dataclass(frozen=True)
class Occasion:
    """What an audit cannot know by itself: its name, the time and who asks."""

    id: str
    created: str
    actor: str
    flataudit_version: str
    dry_run: bool = False


def run(kind: AuditKind, plan: AuditPlan, parts: Parts, occasion: Occasion) -> AuditRecord:
    """Measure, compare, decide, record.

    Args:
        kind: ``gate`` decides between champion and challengers, ``score`` measures the selected candidates,
            ``audit`` measures the champion against the absolute limits.
        plan: what to measure and by which policy to judge.
        parts: the live parts.
        occasion: name, time and actor; with ``dry_run`` the registry is only read.

    Raises:
        ConfigurationError: the plan cannot be carried out; nothing was measured.
        RegistryError: the registry failed, or refused because something moved meanwhile.
    """
    _check(plan)
    data = aligned([load_data(spec) for spec in plan.data])
    specs = tuple(spec.model_copy(update={"digest": d.digest}) for spec, d in zip(plan.data, data, strict=True))
    plan = plan.model_copy(update={"data": specs})
    champion, candidates = _candidates(kind, plan, parts.registry)
    found, reused = _examine(plan, candidates, parts)
    found = _told_of_strangers(plan, found)
    examined = parts.comparer.score(found, plan.policy)
    evidences = tuple(one.evidence for one in examined)
    record = AuditRecord(
        **vars(occasion),
        kind=kind,
        plan=plan,
        data=tuple(_summary(d) for d in data),
        champion=_fetched(champion, evidences),
        evidences=evidences,
        reused=reused,
    )
    if kind == "gate":
        comparisons = tuple(parts.comparer.compare(examined, plan.policy))
        decision = decide(
            plan.policy,
            evidences,
            comparisons,
            champion=champion.label if champion else None,
            today=_day(occasion),
            validation_use=_use(parts.registry, record),
        )
        chosen = parts.comparer.selection(examined, plan.policy)
        record = record.model_copy(update={"comparisons": comparisons, "decision": decision, "selection": chosen})
    if kind == "score":
        record = record.model_copy(update={"stopping": _stopping(plan, examined, parts.comparer)})
    if kind == "audit":
        record = record.model_copy(update={"alarms": limits(plan.policy, evidences[0], today=_day(occasion))})
    files = parts.publish(record, {one.evidence.candidate.label: one.arrays for one in examined})
    if occasion.dry_run:
        return record
    promotes = record.decision is not None and record.decision.decision == "promote"
    receipt = parts.registry.record(record, files, promote=promotes)
    return record.model_copy(update={"receipt": receipt})


def _told_of_strangers(plan: AuditPlan, found: list[Examined]) -> list[Examined]:
    """With a note of the names in `outputs` that none of the candidates bears."""
    names = strangers(plan.outputs, [one.evidence.candidate for one in found])
    if not names:
        return found
    note = f"`outputs` also declares {', '.join(names)}, which no candidate of this audit is called: check the spelling"
    told = [one.evidence.model_copy(update={"notes": (*one.evidence.notes, note)}) for one in found]
    return [Examined(evidence, one.arrays) for evidence, one in zip(told, found, strict=True)]


def _stopping(plan: AuditPlan, examined: Sequence[Examined], comparer: Comparer) -> tuple[Stopping, ...]:
    """Where to stop each run; pairs are compared only where there are checkpoints."""
    steps = [one for one in examined if one.evidence.candidate.step is not None]
    if len(steps) < 2:
        return ()
    return early_stopping(plan.policy, [one.evidence for one in steps], comparer.compare(steps, plan.policy))


def _day(occasion: Occasion) -> date:
    return date.fromisoformat(occasion.created[:10])


def _use(registry: Registry, record: AuditRecord) -> int:
    """Which question to this validation set the decision answers, by the registry's own account."""
    return validation_use(
        registry.history(),
        next(data.digest for data in record.data if data.role == "validation"),
        policy_digest=record.policy_digest,
        evidence={one.candidate.label: one.digest for one in record.evidences},
        champion=record.champion.version if record.champion else None,
    )


def _candidates(kind: AuditKind, plan: AuditPlan, registry: Registry) -> tuple[Candidate | None, list[Candidate]]:
    champion = registry.champion() if kind != "score" else None
    challengers = list(registry.challengers()) if kind != "audit" else []
    found = ([champion] if champion else []) + challengers
    if not found:
        remedy = f"register a version of {plan.model}, or change `champion` and `challengers`"
        raise NotFoundError(f"candidates of {plan.model!r} to {kind}", got="none", remedy=remedy)
    return champion, found


Reused = dict[str, tuple[str, ...]]


def _examine(plan: AuditPlan, candidates: Sequence[Candidate], parts: Parts) -> tuple[list[Examined], Reused]:
    """Fetch all, examine what is not known; what cannot be fetched or examined has evidence that says so."""
    jobs: list[Job] = []
    done: dict[str, Examined] = {}
    admissions: dict[str, Admission] = {}
    for index, candidate in enumerate(candidates):
        parts.progress(candidate.label, "fetching", 0.0)
        folder = parts.workdir / f"candidate-{index}"
        folder.mkdir()
        try:
            fetched = parts.registry.fetch(candidate, folder)
        except ModelError as error:
            done[candidate.label] = failed_evidence(plan.job(candidate, folder), str(error), error.remedy)
            continue
        leave = plan.leave(fetched, registry=getattr(parts.registry, "uri", None))
        job = plan.job(fetched, folder, trust=leave.by is not None)
        admissions[candidate.label], away = turned_away(job, leave)
        if away is None:
            jobs.append(job)
        else:
            done[candidate.label] = away
    found, reused = _examined(jobs, parts)
    for job, one in zip(jobs, found, strict=True):
        label = job.candidate.label
        done[label] = ruled(job, one, admissions[label], plan.policy)
    return [done[candidate.label] for candidate in candidates], reused


def _examined(jobs: Sequence[Job], parts: Parts) -> tuple[list[Examined], Reused]:
    """What is kept of each candidate, and what the probes that are left find."""
    store = parts.store
    known = [store.kept(job) if store else (None, job.probes) for job in jobs]
    left = [job.model_copy(update={"probes": todo}) for job, (_, todo) in zip(jobs, known, strict=True) if todo]
    reused: Reused = {}
    for job, (_, todo) in zip(jobs, known, strict=True):
        names = tuple(spec.use for spec in job.probes if spec not in todo)
        if names:
            reused[job.candidate.label] = names
            parts.progress(job.candidate.label, f"{len(names)} of {len(job.probes)} probes known", 0.0)
    whole = {job.candidate.label: job for job in jobs}

    def finished(job: Job, part: Examined | None) -> None:
        if store is not None and part is not None:
            store.keep(whole[job.candidate.label], part)
        elif store is not None:
            store.forget(whole[job.candidate.label])

    found = dict(
        zip((job.candidate.label for job in left), parts.executor.map(left, parts.progress, finished), strict=True)
    )
    for label, one in found.items():
        if store is not None and not any(m.outcome is Outcome.MEASURED for m in one.evidence.measurements):
            store.forget(whole[label])  # also what its first probes found, if it changed after them
    pairs = zip(jobs, known, strict=True)
    return [_whole(job, kept, found.get(job.candidate.label)) for job, (kept, _) in pairs], reused


def _whole(job: Job, kept: Examined | None, new: Examined | None) -> Examined:
    parts = [part for part in (kept, new) if part is not None]
    examined = merged(job, parts) if kept is not None else parts[0]
    size = artifact_size(Path(job.artifact))
    return Examined(examined.evidence.with_measurements([size]), examined.arrays)


def _fetched(champion: Candidate | None, evidences: Sequence[Evidence]) -> Candidate | None:
    """The champion as it was fetched, with its digest."""
    if champion is None:
        return None
    return next(e.candidate for e in evidences if e.candidate.label == champion.label)


def _check(plan: AuditPlan) -> None:
    """Refuse a plan that cannot give an honest answer, before anything runs."""
    probes = [spec.use for spec in plan.probes]
    twice = sorted({name for name in probes if probes.count(name) > 1})
    if twice:
        raise ConfigurationError(
            "each probe once",
            got=f"{twice[0]!r} twice",
            remedy="merge the two: their metrics would overwrite each other",
        )
    metrics = [metric.name for spec in plan.probes for metric in make_probe(spec).metrics]
    claimed = sorted({name for name in metrics if metrics.count(name) > 1})
    if claimed:
        raise ConfigurationError(
            "each metric from one probe", got=f"{claimed[0]!r} from two", remedy="remove one of the two probes"
        )
    if not probes:
        raise ConfigurationError("at least one probe", got="none", remedy="list probes, or leave the key out")
    if not any(spec.role == "validation" for spec in plan.data):
        raise ConfigurationError("validation data", got="none", remedy="declare data: validation: {use: npz, path: …}")


def _summary(data: AuditData) -> DataSummary:
    integer = data.targets is not None and data.targets.dtype.kind == "i"
    return DataSummary(
        name=data.name,
        role=data.role,
        n=len(data),
        shape=tuple(data.inputs.shape[1:]),
        kind=data.kind,
        declared=data.declared,
        classes=int(data.targets.max()) + 1 if integer and data.targets is not None else None,
        groups=int(data.groups.max()) + 1 if data.groups is not None else None,
        digest=data.digest,
    )
