"""`flataudit.yaml`, typed: unknown keys are errors that name the line and the nearest known key."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from flataudit.attestation.trustees import Trust, TrustedRegistry, TrustedSigner
from flataudit.audit import AuditPlan
from flataudit.errors import ConfigurationError
from flataudit.evidence import Record
from flataudit.plugins import nearest
from flataudit.policy import Policy
from flataudit.specs import (
    Architecture,
    AttestationTerms,
    Budget,
    DataSpec,
    Level,
    LossSpec,
    Outputs,
    Role,
    Spec,
    Task,
    TokenizerSpec,
    refuse_stray_levels,
)

__all__ = ["DEFAULT_PROBES", "AuditConfig", "Challengers", "DataSection", "Sweep", "load_config", "parse_config"]

DEFAULT_PROBES = (
    "accuracy",
    "calibration",
    "temperature",
    "groups",
    "training_loss",
    "hessian_trace",
    "relative_flatness",
    "spectrum",
    "sharpness",
    "weight_noise",
    "input_gradient",
    "input_noise",
    "corruption",
    "adversarial",
    "shift",
    "drift",
    "unlabelled",
    "label_free",
    "landscape",
    "invariance",
)


def _flat_spec(value: object) -> object:
    """``accuracy`` or ``{use: npz, path: …}`` as a `Spec`: what is not `use` is a parameter."""
    if isinstance(value, str):
        return Spec(use=value)
    if isinstance(value, Mapping) and "use" in value and "params" not in value:
        return Spec(use=str(value["use"]), params={k: v for k, v in value.items() if k != "use"})
    return value


_FLAT_SCHEMA = {"type": "object", "properties": {"use": {"type": "string"}}, "required": ["use"]}
_PLUGIN_SCHEMA = {"anyOf": [{"type": "string"}, _FLAT_SCHEMA]}
_NAMED_SCHEMA = {
    "type": "array",
    "items": _FLAT_SCHEMA
    | {"properties": {"name": {"type": "string"}, "use": {"type": "string"}}, "required": ["name", "use"]},
}

FlatSpec = Annotated[Spec, BeforeValidator(_flat_spec), WithJsonSchema(_PLUGIN_SCHEMA)]


def _named_specs(value: object) -> object:
    """A list of ``{name: …, use: …, …}`` as a mapping of name to `Spec`."""
    if not isinstance(value, list):
        return value
    named: dict[str, object] = {}
    for entry in value:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise ValueError("expected a list of {name: …, use: …, path: …}; give each set a name")
        if entry["name"] in named:
            raise ValueError(f"expected different names, got {entry['name']!r} twice")
        named[entry["name"]] = _flat_spec({k: v for k, v in entry.items() if k != "name"})
    return named


NamedSpecs = Annotated[Mapping[str, Spec], BeforeValidator(_named_specs), WithJsonSchema(_NAMED_SCHEMA)]


class DataSection(Record):
    """The audit's data by what it is for."""

    validation: FlatSpec
    """Labelled examples on which candidates are compared; not trained on."""
    train: FlatSpec | None = None
    """Where curvature is measured; on `validation` without it."""
    shifted: NamedSpecs = Field(default_factory=dict)
    """Labelled examples from elsewhere, by name."""
    unlabelled: NamedSpecs = Field(default_factory=dict)
    """Recent production inputs, by name."""

    def specs(self) -> tuple[DataSpec, ...]:
        """All sets, with role and name."""
        return tuple(DataSpec(name=name, role=role, source=spec) for role, name, spec in self._sets())

    def _sets(self) -> Iterator[tuple[Role, str, Spec]]:
        if self.train is not None:
            yield "train", "train", self.train
        yield "validation", "validation", self.validation
        yield from (("shifted", name, spec) for name, spec in self.shifted.items())
        yield from (("unlabelled", name, spec) for name, spec in self.unlabelled.items())


class Sweep(Record):
    """Runs of an experiment as MLflow searches them; the last model that each logged is a candidate."""

    experiment: str
    """Its name."""
    filter: str = ""
    """MLflow's filter string: ``params.optimiser = 'adam' and metrics.accuracy > 0.9``."""
    order_by: str | None = None
    """``metrics.accuracy DESC``; None: newest first."""
    top: Annotated[int, Field(ge=1, le=200)] = 10
    """The most runs that are taken."""


class Challengers(Record):
    """Which versions are compared with the champion; exactly one way of choosing."""

    alias: str | None = None
    newest: PositiveInt | None = None
    """The newest N versions that are not the champion."""
    versions: tuple[int, ...] | None = None
    tag: Mapping[str, str] | None = None
    """Versions that carry all these tags."""
    aliases: tuple[str, ...] | None = None
    """Versions behind several aliases, each once."""
    run: str | None = None
    """Every model that a run logged."""
    sweep: Sweep | None = None
    """The last model of each of the best runs of an experiment."""


class Isolation(Record):
    """What the worker must be kept from; an audit that cannot have it does not start."""

    minimum: tuple[Literal["env", "time", "mem", "fs", "net", "proc", "uid"], ...] = ("env", "time", "mem")
    grace_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Wall clock beyond ``budget.seconds`` until the worker is killed; its processor time ends there too. None: 60."""
    disk_bytes: Annotated[int, Field(ge=2**20)] | None = None
    """What a worker may hold on disk, all of it in its own folder. None: 1 GiB."""
    open_files: Annotated[int, Field(ge=64, le=65_536)] | None = None
    """Descriptors at a time. None: 512."""
    processes: Annotated[int, Field(ge=16, le=65_536)] | None = None
    """Threads of a worker that has a user of its own; no worker may start a process. None: 512."""
    output_bytes: Annotated[int, Field(ge=2**10, le=2**26)] | None = None
    """Of what a worker prints, the end that is kept; all of it is read. None: 1 MiB."""

    @property
    def limits(self) -> dict[str, JsonValue]:
        """Those that are set, as parameters of the executor."""
        given = self.model_dump(mode="json", exclude={"minimum"}, exclude_none=True)
        return {{"grace_seconds": "grace"}.get(name, name): value for name, value in given.items()}


class ReportSection(Record):
    """What is written, and where."""

    directory: str = "flataudit-audits"
    formats: tuple[str, ...] = ("html", "md", "junit", "json")


class AuditConfig(Record):
    """`flataudit.yaml`, whole."""

    model: str
    """Registered model."""
    champion: str = "champion"
    """Alias of the champion."""
    challengers: Challengers = Challengers(alias="challenger")
    task: Task = "multiclass"
    outputs: Outputs | None = None
    """What the models return, of all or of each by version, model, run or flavour; checked on the data. Where nothing
    is declared the data tell, and the evidence says what was found."""
    quantiles: tuple[Level, ...] = ()
    """Levels of the columns of regression models that return quantiles."""
    output: str | None = None
    """Where in what the model returns the scores are, where it returns several things: ``logits``, ``0``, ``out.1``."""
    architecture: Architecture | None = None
    """Your own code that builds the module of candidates stored as weights alone (state dict, safetensors)."""
    loss: LossSpec | None = None
    """What the candidates were trained with, where it is not plain cross-entropy or squared error."""
    tokenizer: TokenizerSpec | None = None
    """What stands between texts and the candidates; without it they take the data's numbers as they are."""
    data: DataSection
    probes: tuple[FlatSpec, ...] = tuple(Spec(use=name) for name in DEFAULT_PROBES)
    policy: Policy = Policy()
    budget: Budget = Budget()
    isolation: Isolation = Isolation()
    registry: FlatSpec = Spec(use="mlflow")
    executor: FlatSpec = Spec(use="process")
    comparer: FlatSpec = Spec(use="paired")
    report: ReportSection = ReportSection()
    seed: NonNegativeInt = 0
    device: str = "cpu"
    dtype: Literal["float32", "float64"] | None = None
    batch_size: PositiveInt | None = None
    trust: Trust = False
    """May loading run the candidates' own code? Needed for pickled modules. A list trusts those alone that an entry
    names: ``{registry: URI}``, ``{signer: key file}``, ``{digest: sha256:…}``, ``{version: 8}``; a signer's approval
    and a digest are bound to the bytes."""
    attestation: AttestationTerms = AttestationTerms()
    """How long the decision's attestation holds; that it is signed needs a key (`flataudit keygen`)."""

    @model_validator(mode="after")
    def _levels_beside_quantiles(self) -> Self:
        refuse_stray_levels(self.outputs, self.quantiles)
        return self

    @model_validator(mode="after")
    def _each_limit_once(self) -> Self:
        twice = sorted(self.isolation.limits.keys() & self.executor.params.keys())
        if twice:
            raise ValueError(f"expected each limit once, got {twice[0]} in isolation and in executor; keep the first")
        return self

    @model_validator(mode="after")
    def _metric_fits_the_task(self) -> Self:
        metric = self.policy.non_inferiority.metric
        if self.task == "regression" and metric == "validation_accuracy":
            raise ValueError(
                "expected a metric that a regression has, got validation_accuracy; write policy: "
                "non_inferiority: {metric: validation_r2, margin: …} with the margin you accept"
            )
        return self

    @model_validator(mode="after")
    def _loss_fits_the_task(self) -> Self:
        if self.loss is not None and not self.loss.fits(self.task):
            raise ValueError(f"expected a loss of a {self.task} model, got {self.loss.use}; correct loss.use or task")
        return self

    def plan(self) -> AuditPlan:
        """The part that the audit itself needs."""
        return AuditPlan(
            **{name: getattr(self, name) for name in AuditPlan.model_fields if name != "data"}, data=self.data.specs()
        )

    def executor_params(self) -> dict[str, JsonValue]:
        """Parameters of the executor plugin: its own, the limits, and what the worker must be kept from.

        ``local`` runs candidates in this process, which no limit holds; its records say that nothing is enforced.
        """
        limits = {} if self.executor.use == "local" else self.isolation.limits
        return dict(self.executor.params) | limits | {"minimum": list(self.isolation.minimum)}

    def registry_params(self, tracking_uri: str | None = None) -> dict[str, JsonValue]:
        """Parameters of the registry plugin: its own, and who the candidates are."""
        chosen: dict[str, JsonValue] = {
            "model": self.model,
            "champion_alias": self.champion,
            "challengers": self.challengers.model_dump(exclude_none=True, mode="json"),
        }
        if tracking_uri:
            chosen["tracking_uri"] = tracking_uri
        return dict(self.registry.params) | chosen


def load_config(path: Path) -> AuditConfig:
    """Read and check a policy file; paths of data are resolved against its folder.

    Raises:
        ConfigurationError: missing, not YAML, or with unknown, missing or impossible values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        remedy = "write one with `flataudit init --model NAME`, or name it with --config"
        raise ConfigurationError(f"a policy file at {path}", got=error.strerror or str(error), remedy=remedy) from error
    return parse_config(text, name=str(path), base=path.parent)


def parse_config(text: str, *, name: str = "flataudit.yaml", base: Path | None = None) -> AuditConfig:
    """`load_config` of a text."""
    values, lines = _parse_yaml(text, name)
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"keys and values in {name}", got="something else", remedy="start from `flataudit init`"
        )
    try:
        config = AuditConfig.model_validate(values)
    except ValidationError as error:
        raise _explained(error, name, lines) from error
    chosen = config.challengers.model_dump(exclude_none=True)
    if len(chosen) != 1:
        raise ConfigurationError(
            f"one way to choose challengers in {name}",
            got=" and ".join(chosen) or "none",
            remedy="keep one of alias, aliases, newest, versions, tag, run, sweep",
        )
    if base is None:
        return config
    trust = _below(config.trust, base, f"line {lines.get(('trust',), 1)} of {name}")
    return _resolved(config, base).model_copy(update={"trust": trust})


def _below(trust: Trust, base: Path, where: str) -> Trust:
    """With every path resolved, and every signer's key read once: who names one that is not there trusts nobody."""
    if isinstance(trust, bool):
        return trust
    found = tuple(entry.below(base) if isinstance(entry, TrustedSigner | TrustedRegistry) else entry for entry in trust)
    for entry in found:
        if isinstance(entry, TrustedSigner):
            try:
                _ = entry.keys
            except ConfigurationError as error:
                raise ConfigurationError(f"{error.expected} in {where}", got=error.got, remedy=error.remedy) from error
    return found


def _resolved(config: AuditConfig, base: Path) -> AuditConfig:
    def resolve(spec: Spec) -> Spec:
        path = spec.params.get("path")
        if not isinstance(path, str) or "://" in path:
            return spec
        return spec.model_copy(update={"params": dict(spec.params) | {"path": str((base / path).resolve())}})

    data = config.data
    moved = DataSection(
        validation=resolve(data.validation),
        train=resolve(data.train) if data.train else None,
        shifted={name: resolve(spec) for name, spec in data.shifted.items()},
        unlabelled={name: resolve(spec) for name, spec in data.unlabelled.items()},
    )
    built = config.architecture
    if built is not None:
        built = built.model_copy(update={"path": str((base / (built.path or ".")).resolve())})
    return config.model_copy(update={"data": moved, "architecture": built, "tokenizer": _found(config.tokenizer, base)})


def _found(tokenizer: TokenizerSpec | None, base: Path) -> TokenizerSpec | None:
    """With the digest of its file: what was measured through another vocabulary does not compare."""
    if tokenizer is None or tokenizer.path is None:
        return tokenizer
    path = (base / tokenizer.path).resolve()
    try:
        digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        remedy = "check `tokenizer: path`; it is relative to the policy file's folder"
        raise ConfigurationError(f"a readable file {path}", got=error.strerror or str(error), remedy=remedy) from error
    return tokenizer.model_copy(update={"path": str(path), "digest": digest})


Path_ = tuple[str | int, ...]


def _parse_yaml(text: str, name: str) -> tuple[JsonValue, dict[Path_, int]]:
    """The values, and the line of every key and item by its path."""
    lines: dict[Path_, int] = {}

    def walk(node: yaml.Node, path: Path_) -> None:
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, str(key.value))
                if here in lines:
                    got = f"{key.value!r} twice, again in line {key.start_mark.line + 1}"
                    raise ConfigurationError(f"each key once in {name}", got=got, remedy="remove one of them")
                lines[here] = key.start_mark.line + 1
                walk(value, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, (*path, index))

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ConfigurationError(f"plain YAML in {name}", got="an alias (*name)", remedy="write the value out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            walk(node, ())
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigurationError(f"YAML in {name}", got=f"{problem}{where}", remedy="mend the line") from error


def _explained(error: ValidationError, name: str, lines: Mapping[Path_, int]) -> ConfigurationError:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = first["loc"]
    known = next((path[:k] for k in range(len(path), -1, -1) if path[:k] in lines), ())
    key = ".".join(str(part) for part in path)
    where = f"line {lines.get(known, 1)} of {name}"
    if first["type"] == "extra_forbidden":
        remedy = nearest(str(path[-1]), _fields_at(AuditConfig, path[:-1]))
        return ConfigurationError(f"a known key in {where}", got=repr(key), remedy=remedy)
    if first["type"] == "missing":
        return ConfigurationError(f"the key {key!r} in {name}", got="nothing", remedy="add it")
    message = first["msg"].removeprefix("Value error, ")
    return ConfigurationError(
        f"a valid {key!r} in {where}", got=f"{first['input']!r}", remedy=message[:1].lower() + message[1:]
    )


def _fields_at(model: type[BaseModel], path: Path_) -> list[str]:
    """Names of the fields that may stand at a path of the configuration."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is not None and isinstance(part, str) and part in current.model_fields:
            current = _model_in(current.model_fields[part].annotation)
    return list(current.model_fields) if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple):
        return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
    return None
