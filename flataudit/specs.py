"""What travels to a worker: plain records, the same on both sides, as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flataudit.evidence import Candidate, Record

__all__ = [
    "Architecture",
    "AttestationTerms",
    "Budget",
    "DataKind",
    "DataSpec",
    "InputField",
    "Job",
    "Level",
    "LossSpec",
    "OutputKind",
    "Outputs",
    "Role",
    "Spec",
    "Task",
    "TokenizerSpec",
    "outputs_of",
    "refuse_stray_levels",
    "strangers",
]

Task = Literal["multiclass", "binary", "multilabel", "regression"]
OutputKind = Literal["logits", "probabilities", "log_probabilities", "values", "quantiles", "normal", "normal_variance"]
Level = Annotated[float, Field(gt=0, lt=1)]
"""Of a quantile."""
Outputs = Annotated[
    Annotated[OutputKind, Tag("kind")] | Annotated[Mapping[str, OutputKind], Tag("each")],
    Discriminator(lambda value: "each" if isinstance(value, Mapping) else "kind"),
]
"""What the models return: of all candidates, or of each by its version, model or run, else by its flavour."""
Role = Literal["train", "validation", "shifted", "unlabelled"]
DataKind = Literal["image", "table", "series", "text", "other"]


def outputs_of(declared: OutputKind | Mapping[str, OutputKind] | None, candidate: Candidate) -> OutputKind | None:
    """What is declared of one candidate; None: nothing.

    >>> candidate = Candidate(name="m", version="8", flavour="pytorch", uri="")
    >>> declared = {"pytorch": "logits", "v8": "probabilities"}
    >>> outputs_of(declared, candidate), outputs_of(declared, candidate.model_copy(update={"version": "7"}))
    ('probabilities', 'logits')
    """
    if declared is None or isinstance(declared, str):
        return declared
    return next((declared[name] for name in _names(candidate) if name in declared), None)


def strangers(declared: OutputKind | Mapping[str, OutputKind] | None, candidates: Sequence[Candidate]) -> list[str]:
    """Names in `outputs` that no fetched candidate bears: misspelt, or of candidates of another day.

    >>> candidate = Candidate(name="m", version="8", flavour="pytorch", uri="")
    >>> strangers({"pytorch": "logits", "v9": "probabilities"}, [candidate]), strangers("logits", [candidate])
    (['v9'], [])
    """
    if declared is None or isinstance(declared, str):
        return []
    known = {name for candidate in candidates for name in _names(candidate)}
    return [name for name in declared if name not in known]


def _names(candidate: Candidate) -> tuple[str, ...]:
    """By which a candidate may be meant, the most particular first."""
    version = candidate.version
    numbered = () if version is None else (f"v{version}", version)
    known = (*numbered, candidate.model_id, candidate.run_id, candidate.name, candidate.flavour)
    return tuple(name for name in known if name)


def refuse_stray_levels(declared: OutputKind | Mapping[str, OutputKind] | None, levels: Sequence[float]) -> None:
    """Levels belong to quantiles: one is not declared without the other.

    Raises:
        ValueError: with the remedy.
    """
    kinds = set(declared.values()) if isinstance(declared, Mapping) else {declared}
    if levels and "quantiles" not in kinds:
        raise ValueError("expected outputs: quantiles beside levels, got none; declare it, or remove quantiles")
    if "quantiles" in kinds and not levels:
        raise ValueError("expected the levels of the columns, got none; write for example quantiles: [0.05, 0.5, 0.95]")
    rising = all(a < b for a, b in zip((0.0, *levels), (*levels, 1.0), strict=True))
    if levels and not (rising and levels[0] <= 0.5 <= levels[-1]):
        got = ", ".join(f"{level:g}" for level in levels)
        raise ValueError(f"expected rising levels on both sides of 0.5, got {got}; list them in the columns' order")


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
    fractional: bool = False
    """Whether some value of the whole set is no whole number, which a few examples need not show."""

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
    """What the model returns; None: found on the data, where rows tell (`flataudit.backends.outputs`)."""
    quantiles: tuple[Level, ...] = ()
    """Levels of the columns of a regression model that returns quantiles."""
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

    @field_validator("outputs", mode="before")
    @classmethod
    def _of_its_candidate(cls, value: object, known: ValidationInfo) -> object:
        """Of what is declared of each candidate, this one's."""
        candidate = known.data.get("candidate")
        return outputs_of(value, candidate) if isinstance(value, Mapping) and candidate is not None else value
