"""What the parts ask of each other: the specs that go out, and the Protocols that a plugin implements.

A plugin is a class named in an entry-point group (`flataudit.plugins` lists them). It is made as
``cls(**spec.params)``, so its fields are its parameters; built-in plugins have no other way in.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field

from flataudit.decision import Comparison, Selection
from flataudit.evidence import Array, Candidate, Cost, Examined, Measurement, Metric, Record
from flataudit.ledger import LedgerEntry
from flataudit.policy import Policy
from flataudit.specs import Budget, DataKind, DataSpec, InputField, Job, Role, Task

if TYPE_CHECKING:
    import torch
    from numpy import generic
    from numpy.typing import NDArray

    from flataudit.audit import AuditRecord
    from flataudit.curvature.losses import Loss

__all__ = [
    "AuditData",
    "Backend",
    "Check",
    "Comparer",
    "DataSource",
    "Differentiable",
    "Distribution",
    "Executor",
    "Finished",
    "Loaded",
    "Meter",
    "Perturbable",
    "Predictor",
    "Probe",
    "Progress",
    "Reading",
    "Receipt",
    "Registry",
    "Renderer",
]


@dataclass(frozen=True, eq=False)
class AuditData:
    """A data set of the audit, checked and in memory; `flataudit.data.examples` makes them."""

    name: str
    role: Role
    inputs: "NDArray[generic]"
    """``(n, …)``, floating point or integer, finite; texts are unicode ``(n,)``."""
    targets: "NDArray[generic] | None"
    """``(n,)``: class numbers (int64) or values (float64), ``(n, labels)`` or ``(n, tokens)``; None: unlabelled."""
    groups: "NDArray[generic] | None"
    """``(n,)`` group numbers (int64)."""
    digest: str
    """``sha256:…`` over all bytes, dtypes and shapes."""
    kind: DataKind = "other"
    """Images are ``(n, channels, height, width)``, tables ``(n, features)``, series ``(n, channels, time)``, texts
    ``(n,)``; declared images may have their channels last or none."""
    group_names: tuple[str, ...] = ()
    fields: tuple[InputField, ...] = ()
    """The parts of an example, in the order in which `inputs` ``(n, sum of sizes)`` holds them; none: one array without
    names."""
    class_names: tuple[str, ...] = ()
    """Of the class numbers, where the data name their classes."""
    declared: bool = False
    """Whether `kind` was declared; else it was inferred from shape and dtype, which tell no series."""
    reference: "AuditData | None" = None
    """The set to compare with, for a probe that names its role as its ``reference``; None for all others."""

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    @property
    def movable(self) -> tuple[bool, ...] | None:
        """For each value of an example, whether it is a number, which may be moved a little; None: all are."""
        if all(field.kind == "number" for field in self.fields):
            return None
        return tuple(field.kind == "number" for field in self.fields for _ in range(field.size))

    def head(self, n: int) -> "AuditData":
        """The first examples alone; keeps name and digest."""
        targets = None if self.targets is None else self.targets[:n]
        groups = None if self.groups is None else self.groups[:n]
        return replace(self, inputs=self.inputs[:n], targets=targets, groups=groups)

    def replace_inputs(self, inputs: "NDArray[generic]") -> "AuditData":
        """The same examples with other inputs (corrupted ones); keeps name, targets and digest."""
        return replace(self, inputs=inputs)

    def batches(self, size: int) -> "Iterator[tuple[NDArray[generic], NDArray[generic] | None]]":
        """``(inputs, targets)`` in order; the last batch may be short and is never dropped."""
        for start in range(0, len(self), size):
            stop = start + size
            yield self.inputs[start:stop], None if self.targets is None else self.targets[start:stop]


@dataclass
class Meter:
    """Counts the examples that went through a model; the difference before and after a probe is its cost.

    It lives as long as the model, and so does what the probes share.
    """

    forward: int = 0
    backward: int = 0
    matvecs: int = 0
    reused: float = 0.0
    """What other probes had already spent, in passes of one example each."""
    shared: "dict[Hashable, object]" = field(default_factory=dict, repr=False)
    """What probes of this model have computed and others may use (`flataudit.curvature.surface`)."""

    def add(self, other: "Meter") -> None:
        """Charge what went through another form of the same model."""
        self.forward, self.backward = self.forward + other.forward, self.backward + other.backward
        self.matvecs, self.reused = self.matvecs + other.matvecs, self.reused + other.reused

    def cost(self, since: "Meter", n: int) -> Cost:
        """What was spent since an earlier copy, in passes over ``n`` examples."""
        return Cost(
            forward=(self.forward - since.forward) / n,
            backward=(self.backward - since.backward) / n,
            matvecs=(self.matvecs - since.matvecs) / n,
            reused=max(0.0, self.reused - since.reused) / n,
        )


@runtime_checkable
class Predictor(Protocol):
    """A model that answers.

    It may carry two reasons, as sentences: ``no_curvature_because`` (why it is neither perturbable nor differentiable)
    and ``no_probabilities_because`` (why its answers rank classes and state no confidence). A regression model that
    says how sure it is carries a `Distribution` as ``distribution``, or a reason ``no_distribution_because``.
    """

    task: Task
    meter: Meter
    batch_size: int
    dtype: str
    device: str

    def predict(self, inputs: "NDArray[generic]") -> "NDArray[generic]":
        """Classification: log-probabilities ``(n, classes)``; regression: values ``(n,)``. Float64, batched inside."""
        ...


@runtime_checkable
class Distribution(Protocol):
    """What a regression model states of a value beyond its answer: a normal distribution, or quantiles."""

    levels: tuple[float, ...]
    """Of the quantiles, rising, between 0 and 1; none: it states mean and standard deviation."""
    origin: str
    """How it comes to be stated, in a sentence's part."""

    def __call__(self, inputs: "NDArray[generic]") -> "NDArray[generic]":
        """``(n, 2)``: mean and standard deviation; or the quantiles ``(n, levels)``. Float64, batched inside."""
        ...


@runtime_checkable
class Perturbable(Predictor, Protocol):
    """A model whose parameters can be read, and that answers as if they were others."""

    def weights(self) -> "Mapping[str, NDArray[generic]]":
        """Copies of the trainable parameters, by name."""
        ...

    def predict_at(self, weights: "Mapping[str, NDArray[generic]]", inputs: "NDArray[generic]") -> "NDArray[generic]":
        """`predict` with these parameters; the model itself stays as it is."""
        ...


@runtime_checkable
class Differentiable(Perturbable, Protocol):
    """A torch model whose loss is a twice differentiable function of its parameters and inputs."""

    parameters: "Mapping[str, torch.Tensor]"
    """Detached floating-point parameters, on the model's device and dtype; never written to."""
    loss_function: "Loss"
    """The loss as a function of `raw_outputs` and targets."""

    def loss(
        self, parameters: "Mapping[str, torch.Tensor]", inputs: "torch.Tensor", targets: "torch.Tensor"
    ) -> "torch.Tensor":
        """``loss_function.mean`` over the examples, a scalar in the model's dtype."""
        ...

    def raw_outputs(self, parameters: "Mapping[str, torch.Tensor]", inputs: "torch.Tensor") -> "torch.Tensor":
        """What `loss_function` takes, at these parameters; counts a forward pass.

        Logits ``(n, classes)``, of sequences ``(n, tokens, classes)``; log-odds ``(n, labels)``; values ``(n,)``.
        """
        ...

    def precise(self) -> "Differentiable | None":
        """The same model in float64, to check numbers against; None where it cannot be had."""
        ...

    def tensors(
        self, inputs: "NDArray[generic]", targets: "NDArray[generic] | None"
    ) -> "tuple[torch.Tensor, torch.Tensor | None]":
        """A batch on the model's device and dtype."""
        ...


@dataclass(frozen=True)
class Reading:
    """What a probe returns for one metric: the record, and the arrays that it names."""

    measurement: Measurement
    arrays: Mapping[str, Array] = field(default_factory=dict)


@runtime_checkable
class Probe(Protocol):
    """Measures; never judges, never draws, never changes the model or the data.

    A class may declare three things more: ``families: ClassVar[tuple[Metric, ...]]``, metrics with a member for each
    thing that the data happen to have (``group_accuracy/north``); ``reference: ClassVar[Role]``, the role of the set
    that comes with each of its own as ``data.reference``; ``also: ClassVar[tuple[Role, ...]]``, further roles that it
    runs on.
    """

    version: ClassVar[str]
    """Raise it whenever the numbers change: other versions do not compare."""
    requires: ClassVar[type]
    """The capability the model must have: `Predictor`, `Perturbable` or `Differentiable`."""
    role: ClassVar[Role]
    """The data it runs on, once for each set of that role; `train` falls back to `validation`."""
    metrics: ClassVar[tuple[Metric, ...]]

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """Numbers for all its metrics; ``budget`` is what is left of the candidate's."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A candidate's model, ready to be measured."""

    model: Predictor
    trust: Literal["data_only", "code_bearing"]
    """`code_bearing`: the candidate's own code runs beside the probes."""
    notes: tuple[str, ...] = ()
    """How it was read and what was checked, a sentence each; they become part of the evidence."""


class Backend(Protocol):
    """Loads candidates of one flavour, by the entry point of the flavour's name."""

    def load(self, job: Job, sample: AuditData) -> "Loaded":
        """The model, whether the candidate's own code runs in it, and how it was read.

        Args:
            job: candidate, artifact folder, task, outputs, device, dtype.
            sample: a few validation examples, on which the model must answer finitely, in the declared kind of
                outputs, twice the same, and whatever its neighbours in the batch are.

        Raises:
            ModelError: it cannot be loaded, with the remedy.
            UntrustedError: loading would run its code and the job does not trust it.
        """
        ...


class DataSource(Protocol):
    """Reads a data set."""

    def load(self, name: str, role: Role) -> AuditData:
        """All examples, checked.

        Raises:
            DataError: missing, empty, misshapen or not finite.
        """
        ...


Progress = Callable[[str, str, float], None]
"""``(candidate label, what it does now, share done)``."""
Finished = Callable[[Job, Examined | None], None]
"""``(job, evidence of one of its probes)``; None: nothing that was told of this job is to be believed."""


class Executor(Protocol):
    """Runs `flataudit.examination.examine` somewhere."""

    def map(self, jobs: Sequence[Job], progress: Progress, finished: "Finished | None" = None) -> Iterable[Examined]:
        """One result per job, in the jobs' order; whatever befalls a worker becomes evidence.

        Args:
            jobs: one a candidate.
            progress: told what is done now.
            finished: given each probe's part of a candidate's evidence as soon as it is there; called from one
                thread at a time.
        """
        ...


class Comparer(Protocol):
    """Pairs candidates on the same examples and seeds."""

    def score(self, examined: Sequence[Examined], policy: Policy) -> Sequence[Examined]:
        """The same, each with the measurement ``score`` added (and what it is made of)."""
        ...

    def compare(self, examined: Sequence[Examined], policy: Policy) -> Sequence[Comparison]:
        """Each ordered pair, for every metric both have; refusals are comparisons with a reason."""
        ...

    def selection(self, examined: Sequence[Examined], policy: Policy) -> Selection | None:
        """What having chosen the best of several means for its number; None where it cannot be said."""
        ...


class Receipt(Record):
    """What a registry did with a decision."""

    audit_runs: Mapping[str, str] = Field(default_factory=dict)
    """Audit run of each candidate, by its label."""
    promoted: str | None = None
    """Version that the alias points to now, if this audit moved it."""
    sequence: int | None = None
    """Number of the decision in the model's ledger."""
    attestation: str | None = None
    """``sha256:…`` of the signed envelope of the decision; None: nobody signed it."""
    notes: tuple[str, ...] = ()
    """Anything a person should know (an alias that could not be read, a mirror that failed)."""


class Check(Record):
    """One line of `flataudit doctor`."""

    name: str
    ok: bool
    found: str
    remedy: str | None = None


class Registry(Protocol):
    """Where candidates come from and decisions go to."""

    def champion(self) -> Candidate | None:
        """What the champion alias points to; None only if the registry says there is no such alias."""
        ...

    def challengers(self) -> Sequence[Candidate]:
        """The selected candidates, without the champion.

        Raises:
            NotFoundError: the selection names what does not exist.
            UnreachableError: the registry does not answer.
        """
        ...

    def fetch(self, candidate: Candidate, into: Path) -> Candidate:
        """Copy its files into an empty folder; the same candidate with flavour and digest."""
        ...

    def datasets(self) -> Sequence[DataSpec]:
        """Data that the candidates' runs logged and that can be read from here."""
        ...

    def record(self, audit: "AuditRecord", files: Path, *, promote: bool) -> Receipt:
        """Write evidence and decision back; move the alias to the promoted candidate.

        Args:
            audit: the finished audit.
            files: folder with the rendered reports and records, to be kept with the audit.
            promote: whether the decision moves the alias (a dry run never reaches this).

        Raises:
            ConflictError: the champion moved since it was compared; nothing was promoted.
            TamperedError: the promoted bytes changed since they were audited; nothing was promoted.
        """
        ...

    def history(self) -> Sequence[LedgerEntry]:
        """Every decision on the model, oldest first; the chain was verified.

        Raises:
            RegistryError: the chain is broken.
        """
        ...


class Renderer(Protocol):
    """One output format of a report, made from records alone."""

    suffix: ClassVar[str]

    def render(self, audit: "AuditRecord", arrays: Mapping[str, Mapping[str, Array]]) -> str:
        """The document; ``arrays`` are by candidate label and array name."""
        ...
