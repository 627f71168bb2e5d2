"""What the parts ask of each other: the specs that go out, and the Protocols that a plugin implements.

A plugin is a class named in an entry-point group (`flataudit.plugins` lists them). It is made as
``cls(**spec.params)``, so its fields are its parameters; built-in plugins have no other way in.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from flataudit.decision import Comparison, Selection
from flataudit.evidence import Array, Candidate, Cost, Examined, Measurement, Metric, Record
from flataudit.ledger import LedgerEntry
from flataudit.policy import Policy

if TYPE_CHECKING:
    import torch
    from numpy import generic
    from numpy.typing import NDArray

    from flataudit.audit import AuditRecord
    from flataudit.curvature.losses import Loss

__all__ = [
    "Architecture",
    "AttestationTerms",
    "AuditData",
    "Backend",
    "Budget",
    "Check",
    "Comparer",
    "DataKind",
    "DataSource",
    "DataSpec",
    "Differentiable",
    "Executor",
    "Finished",
    "InputField",
    "Job",
    "Loaded",
    "LossSpec",
    "Meter",
    "OutputKind",
    "Perturbable",
    "Predictor",
    "Probe",
    "Progress",
    "Reading",
    "Receipt",
    "Registry",
    "Renderer",
    "Role",
    "Spec",
    "Task",
    "TokenizerSpec",
]

Task = Literal["multiclass", "binary", "multilabel", "regression"]
OutputKind = Literal["logits", "probabilities", "log_probabilities", "values"]
Role = Literal["train", "validation", "shifted", "unlabelled"]
DataKind = Literal["image", "table", "series", "text", "other"]


# ── Specs: plain records that travel to a worker as JSON ──────────────────────────────────────────


class Spec(Record):
    """A plugin by its name, with its parameters."""

    use: str
    params: Mapping[str, JsonValue] = Field(default_factory=dict)


class DataSpec(Record):
    """One data set of the audit: what it is for and how to read it."""

    name: str
    role: Role
    source: Spec
    digest: str | None = None
    """``sha256:…`` over all bytes, once it was read; a worker refuses data that changed since."""


class LossSpec(Record):
    """The loss that the candidates were trained with, where it is not the plain one of their task."""

    use: Literal["cross_entropy", "binary_cross_entropy", "mse", "huber"]
    label_weights: tuple[PositiveFloat, ...] | None = None
    """One a class (cross-entropy), or the weight of each label's positives (binary cross-entropy)."""
    ignore_index: int = -100
    """Targets of this number (padding tokens) weigh nothing."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    delta: PositiveFloat = 1.0
    """Where Huber's loss turns from squared to absolute."""

    _PARAMETERS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cross_entropy": ("label_weights", "ignore_index", "label_smoothing"),
        "binary_cross_entropy": ("label_weights", "label_smoothing"),
        "mse": (),
        "huber": ("delta",),
    }
    _TASKS: ClassVar[Mapping[str, tuple[Task, ...]]] = {
        "cross_entropy": ("multiclass", "binary"),
        "binary_cross_entropy": ("multilabel",),
        "mse": ("regression",),
        "huber": ("regression",),
    }

    @model_validator(mode="after")
    def _has_its_parameters(self) -> Self:
        known = self._PARAMETERS[self.use]
        given = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        for name in sorted(given - {"use", *known}):
            raise ValueError(f"expected parameters of {self.use} ({', '.join(known) or 'none'}), got {name}; remove it")
        return self

    def fits(self, task: Task) -> bool:
        """Whether models of a task are trained with it."""
        return task in self._TASKS[self.use]


class Architecture(Record):
    """The code that builds a module for candidates that are stored as weights alone: the user's own, never theirs."""

    use: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """``module:function``; it is called with `params` and returns a `torch.nn.Module`."""
    path: str | None = None
    """Folder that the module is imported from; None: the policy file's."""
    params: Mapping[str, JsonValue] = Field(default_factory=dict)


class InputField(Record):
    """One named part of an example, where it has several: a column of a table, or one of a model's tensors."""

    name: str
    shape: tuple[PositiveInt, ...] = ()
    """Of one example; ``()``: a single value."""
    kind: Literal["number", "integer", "boolean", "category"] = "number"
    """Only numbers may be moved a little; a category is stored as its place in `categories`."""
    categories: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Values of one example."""
        return math.prod(self.shape)


class TokenizerSpec(Record):
    """How a text becomes the whole numbers that the candidates take: ``max_length`` each, cut or padded at the end."""

    use: Literal["characters", "bytes", "words", "tokenizers"]
    """Places in an alphabet, bytes of UTF-8, places in a vocabulary, or a ``tokenizer.json`` of that package."""
    max_length: PositiveInt
    padding: NonNegativeInt = 0
    """The id after a text's end."""
    unknown: NonNegativeInt | None = None
    """The id of what the alphabet or vocabulary lacks; None: it is left out."""
    alphabet: str | None = None
    """The character of each id."""
    first: NonNegativeInt | None = None
    """The id of byte 0; None: 0."""
    path: str | None = None
    """A file of yours: the vocabulary, a word a line, the first one's id 0; or ``tokenizer.json``."""
    in_artifact: str | None = None
    """The same as a file of each candidate's own, relative to its folder."""
    split: Literal["whitespace", "words"] | None = None
    """At white space, or runs of letters and digits and every other mark by itself; None: at white space."""
    lowercase: bool = False
    """Before anything else."""
    digest: str | None = None
    """``sha256:…`` of the file at `path`; a worker refuses one that changed since."""

    _PARAMETERS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "characters": ("alphabet", "unknown"),
        "bytes": ("first",),
        "words": ("path", "in_artifact", "split", "unknown", "digest"),
        "tokenizers": ("path", "in_artifact", "digest"),
    }

    @model_validator(mode="after")
    def _has_its_parameters(self) -> Self:
        known = ("max_length", "padding", "lowercase", *self._PARAMETERS[self.use])
        # Not `model_fields_set`, which holds all fields after a round trip through JSON.
        given = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        for name in sorted(set(given) - {"use", *known}):
            raise ValueError(f"expected parameters of {self.use} ({', '.join(known)}), got {name}; remove it")
        if self.use == "characters" and not self.alphabet:
            raise ValueError("expected the character of each id, got no alphabet; add it")
        if "path" in known and (self.path is None) == (self.in_artifact is None):
            raise ValueError("expected one file, path or in_artifact, got both or neither; keep one")
        return self


class Budget(Record):
    """The most that the probes of one candidate may use."""

    passes: PositiveFloat = 300.0
    """Forward-and-backward passes over the data."""
    seconds: PositiveFloat = 900.0
    """Wall-clock seconds of the worker, loading included."""
    memory_bytes: PositiveInt = 8 * 2**30
    """Memory limit of the worker (address space, on CPU)."""


class AttestationTerms(Record):
    """What the attestation of a gate's decision promises."""

    expires_days: PositiveInt | None = None
    """Days after which it is no longer to be believed; None: it holds until another decision."""


class Job(Record):
    """All that a worker needs to examine one candidate; it holds no credentials."""

    candidate: Candidate
    artifact: str
    """Local folder with the candidate's files."""
    probes: tuple[Spec, ...]
    data: tuple[DataSpec, ...]
    task: Task = "multiclass"
    outputs: OutputKind | None = None
    """What the model returns; None: logits for classifiers unless the outputs look like probabilities (an error)."""
    output: str | None = None
    """Where in what the model returns the scores are: ``logits``, ``0``, ``out.1``; None: it returns one array."""
    architecture: Architecture | None = None
    """What builds the module of a candidate that is stored as weights alone."""
    loss: LossSpec | None = None
    """What it was trained with; None: cross-entropy or squared error, by the task."""
    tokenizer: TokenizerSpec | None = None
    """What stands between texts and the candidates; None: they take the inputs as they are."""
    seed: NonNegativeInt = 0
    budget: Budget = Budget()
    device: str = "cpu"
    dtype: Literal["float32", "float64"] | None = None
    """Cast the model; None keeps its own."""
    batch_size: PositiveInt | None = None
    """None: as many examples as memory allows."""
    trust: bool = False
    """May loading run the candidate's own code?"""


# ── Live things: frozen dataclasses and Protocols ─────────────────────────────────────────────────


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
    and ``no_probabilities_because`` (why its answers rank classes and state no confidence).
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
