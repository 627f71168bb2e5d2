"""The notebook's door: `measure` and `compare` on live models, without a registry."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import JsonValue, ValidationError
from torch import Tensor

from flataudit import plugins
from flataudit.contracts import AuditData, Probe
from flataudit.data.examples import checked
from flataudit.data.labels import numbered
from flataudit.decision import Comparison
from flataudit.errors import ConfigurationError
from flataudit.evidence import AuditProtocol, Evidence, Examined
from flataudit.examination import libraries, make_probe, measure_all
from flataudit.live import Asked, live
from flataudit.policy import NonInferiority, Policy
from flataudit.specs import Budget, LossSpec, OutputKind, Spec, Task, TokenizerSpec
from flataudit.statistics.comparer import PairedComparer

__all__ = ["compare", "measure"]

ProbeSpec = str | Mapping[str, object] | Spec


def measure(
    model: object,
    inputs: "ArrayLike | Tensor | AuditData",
    targets: "ArrayLike | Tensor | None" = None,
    *,
    probes: Sequence[ProbeSpec] = ("accuracy", "hessian_trace", "lambda_max", "sharpness"),
    task: Task | None = None,
    outputs: OutputKind | None = None,
    quantiles: Sequence[float] = (),
    output: str | None = None,
    loss: LossSpec | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    batch_size: int | None = None,
    budget: Budget | None = None,
    relative_error: float | None = None,
    classes: Sequence[str | int] | None = None,
    tokenizer: TokenizerSpec | Mapping[str, object] | None = None,
) -> Evidence:
    """Measure a live model; it is left bit for bit as it was.

    Args:
        model: a `torch.nn.Module` (also compiled or a script), a `torch.export.ExportedProgram`, a fitted scikit-learn
            estimator, or an ONNX model by its path or bytes.
        inputs: ``(n, …)`` array or tensor, or an `AuditData`.
        targets: ``(n,)`` class numbers or values.
        probes: names of probes, names of metrics (the probe that declares one runs), or ``{use: …, …}``.
        task: inferred when None: integer targets are classes, floating-point ones values, unless all are 0 or 1.
        outputs: what the model returns; checked on the inputs. None: found on them where rows tell, with a note in the
            evidence.
        quantiles: levels of the columns of a regression with ``outputs="quantiles"``: ``(0.05, 0.5, 0.95)``.
        output: where in what it returns the scores are: ``logits``, ``0``, ``out.1``; None: it returns one tensor.
        loss: what it was trained with, where that is not the plain loss of its task.
        seed: of every random draw; the global random states are not touched.
        device: a copy of the model is moved there; None: where it is.
        dtype: a copy of the model is cast; None: its own.
        batch_size: most examples a pass.
        budget: of all probes together.
        relative_error: for the probes that have such a parameter.
        classes: all classes in the order of the model's columns, where targets are no numbers from 0.
        tokenizer: what makes ids of texts, for a model that takes ids: ``{"use": "bytes", "max_length": 64}``.

    Returns:
        The evidence; ``evidence["hessian_trace"]`` is a `Measurement` with estimate, error and cost.

    Raises:
        ConfigurationError: a model, task or probe that is unknown.
        DataError: inputs or targets that cannot be used.
        ModelError: the model does not answer as declared.
    """
    data = _data(inputs, targets, classes)
    made = [(spec.use, make_probe(spec)) for spec in _specs(probes, relative_error)]
    spec = None if tokenizer is None else _tokenizer(tokenizer)
    levels = _levels(outputs, quantiles)
    asked = Asked(task or _task(data), outputs, levels, output, loss, device, dtype, batch_size, spec)
    with _untouched_randomness(), live(model, data, asked) as (loaded, candidate), torch.enable_grad():
        readings = measure_all(
            loaded.model, [data], made, seed=seed, budget=budget or Budget(), announce=lambda what, share: None
        )
    protocol = AuditProtocol(
        probes=tuple(f"{name}@{probe.version}{_parameters(probe)}" for name, probe in made),
        data={data.name: data.digest},
        seed=seed,
        loss="default" if loss is None else loss.model_dump_json(exclude_unset=True),
        tokenizer="none" if spec is None else spec.model_dump_json(exclude_defaults=True, exclude={"path"}),
        dtype=loaded.model.dtype,
        device=loaded.model.device.partition(":")[0],
        libraries=libraries(),
    )
    return Evidence(
        candidate=candidate,
        protocol=protocol,
        trust=loaded.trust,
        notes=loaded.notes,
        measurements=tuple(reading.measurement for reading in readings),
    )


def compare(champion: Evidence, challenger: Evidence, *, confidence: float = 0.95) -> list[Comparison]:
    """Two measured models as challenger minus champion, for every metric that both have.

    Evidence alone holds no per-example numbers, so that these intervals are unpaired, and wider than a gate's; models
    that were measured differently are refused, each comparison with the reason.
    """
    ordered = [_named(champion, "1"), _named(challenger, "2")]
    policy = Policy(non_inferiority=NonInferiority(confidence=confidence))
    shared = {m.metric for m in champion.measurements} & {m.metric for m in challenger.measurements}
    found = PairedComparer().compare(ordered, policy)
    roles = {"champion": "champion", "challenger": "challenger"}
    return [comparison.model_copy(update=roles) for comparison in found if comparison.metric in shared]


def _named(evidence: Evidence, name: str) -> Examined:
    """Under a name by which the comparer puts the champion first, even if both are one model."""
    candidate = evidence.candidate.model_copy(update={"name": name, "version": None, "model_id": None})
    return Examined(evidence.model_copy(update={"candidate": candidate}))


def _levels(outputs: OutputKind | None, quantiles: Sequence[float]) -> tuple[float, ...]:
    """Levels of columns, which nothing but quantiles has."""
    levels = tuple(float(level) for level in quantiles)
    if levels and outputs != "quantiles":
        got, remedy = f"outputs={outputs!r} and levels", "pass outputs='quantiles', or leave `quantiles` out"
        raise ConfigurationError("outputs='quantiles' beside their levels", got=got, remedy=remedy)
    return levels


def _tokenizer(declared: TokenizerSpec | Mapping[str, object]) -> TokenizerSpec:
    """With the digest of its file: numbers through another vocabulary do not compare."""
    try:
        spec = TokenizerSpec.model_validate(declared)
        content = b"" if spec.path is None else Path(spec.path).read_bytes()
    except (ValidationError, OSError) as error:
        got = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        remedy = "write it as in a policy file: {'use': 'words', 'path': 'vocabulary.txt', 'max_length': 64}"
        raise ConfigurationError("a tokenizer", got=got, remedy=remedy) from error
    if spec.in_artifact is not None:
        remedy = "name the file with `path`"
        raise ConfigurationError("a tokenizer of a live model", got="a file in its artifact", remedy=remedy)
    return spec if not content else spec.model_copy(update={"digest": f"sha256:{sha256(content).hexdigest()}"})


def _data(
    inputs: "ArrayLike | Tensor | AuditData", targets: "ArrayLike | Tensor | None", classes: Sequence[str | int] | None
) -> AuditData:
    if isinstance(inputs, AuditData):
        return inputs
    features, labels = (None if a is None else _array(a) for a in (inputs, targets))
    assert features is not None
    names: tuple[str, ...] = ()
    if classes is not None and labels is not None:
        labels, names = numbered(labels, classes, "the arguments")
    return checked("validation", "validation", features, labels, source="the arguments", class_names=names)


def _array(values: "ArrayLike | Tensor") -> "NDArray[np.generic]":
    if not isinstance(values, Tensor):
        return np.asarray(values)
    brief = values.detach().cpu()
    return cast("NDArray[np.generic]", (brief.float() if brief.dtype == torch.bfloat16 else brief).numpy())


def _task(data: AuditData) -> Task:
    if data.targets is None:
        raise ConfigurationError("targets, or an explicit task", got="neither", remedy="pass targets")
    if data.targets.dtype.kind in "iu":
        return "multiclass"
    if np.isin(data.targets, (0, 1)).all():
        remedy = "pass task='binary' and integer targets, or task='regression'"
        raise ConfigurationError("an explicit task", got="floating-point targets that are all 0 or 1", remedy=remedy)
    return "regression"


def _specs(probes: Sequence[ProbeSpec], relative_error: float | None) -> list[Spec]:
    """Each probe once, however many of its metrics were named; with its parameters, where some were given."""
    chosen: dict[str, Spec] = {}
    for one in probes:
        spec = _spec(one)
        if spec.use in chosen and spec.params and chosen[spec.use].params not in ({}, spec.params):
            remedy = "measure twice"
            raise ConfigurationError(f"one set of parameters of {spec.use!r}", got="two", remedy=remedy)
        if spec.use not in chosen or spec.params:
            chosen[spec.use] = spec
    return [_with_relative_error(spec, relative_error) for spec in chosen.values()]


def _spec(probe: ProbeSpec) -> Spec:
    if isinstance(probe, Spec):
        return probe
    if isinstance(probe, str):
        return Spec(use=probe if probe in plugins.names("probes") else _declaring(probe))
    if "use" not in probe:
        remedy = "write {'use': 'hessian_trace', 'relative_error': 0.01}"
        raise ConfigurationError("a probe's name under 'use'", got=f"the keys {sorted(probe)}", remedy=remedy)
    flat = {key: value for key, value in probe.items() if key not in ("use", "params")}
    nested = cast("Mapping[str, JsonValue]", probe.get("params", {}))
    return Spec.model_validate({"use": probe["use"], "params": {**nested, **flat}})


def _with_relative_error(spec: Spec, relative_error: float | None) -> Spec:
    fields = getattr(plugins.load("probes", spec.use), "model_fields", {})
    if relative_error is None or "relative_error" not in fields:
        return spec
    return Spec(use=spec.use, params={"relative_error": relative_error, **spec.params})


def _declaring(metric: str) -> str:
    """The probe that declares a metric."""
    declared: dict[str, str] = {}
    for name in plugins.names("probes"):
        for one in cast("type[Probe]", plugins.load("probes", name)).metrics:
            declared[one.name] = name
    if metric not in declared:
        known = {*declared, *plugins.names("probes")}
        remedy = plugins.nearest(metric, known)
        raise ConfigurationError("the name of a probe or a metric", got=repr(metric), remedy=remedy)
    return declared[metric]


def _parameters(probe: Probe) -> str:
    return str(getattr(probe, "model_dump_json", lambda: "{}")())


@contextmanager
def _untouched_randomness() -> Iterator[None]:
    """Whatever a model's own forward draws, the global random states are afterwards what they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
