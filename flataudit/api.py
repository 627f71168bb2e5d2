"""The notebook's door: `measure` and `compare` on live models, without a registry."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from flataudit import plugins
from flataudit.backends.torch_model import TorchModel, evaluation_mode, verify
from flataudit.contracts import AuditData, Budget, OutputKind, Probe, Spec, Task
from flataudit.data.examples import checked
from flataudit.decision import Comparison
from flataudit.errors import ConfigurationError
from flataudit.evidence import AuditProtocol, Candidate, Evidence, Examined
from flataudit.examination import libraries, make_probe, measure_all
from flataudit.policy import NonInferiority, Policy
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
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    budget: Budget | None = None,
    relative_error: float | None = None,
) -> Evidence:
    """Measure a live model; it is left bit for bit as it was.

    Args:
        model: a `torch.nn.Module` or a `torch.export.ExportedProgram`.
        inputs: ``(n, …)`` array or tensor, or an `AuditData`.
        targets: ``(n,)`` class numbers or values.
        probes: names of probes, names of metrics (the probe that declares one runs), or ``{use: …, …}``.
        task: inferred when None: whole-number targets are classes, others values.
        outputs: what the model returns; checked on the inputs.
        seed: of every random draw; the global random states are not touched.
        device: a copy of the model is moved there; None: where it is.
        dtype: a copy of the model is cast; None: its own.
        batch_size: most examples a pass.
        budget: of all probes together.
        relative_error: for the probes that have such a parameter.

    Returns:
        The evidence; ``evidence["hessian_trace"]`` is a `Measurement` with estimate, error and cost.

    Raises:
        ConfigurationError: a model, task or probe that is unknown.
        DataError: inputs or targets that cannot be used.
        ModelError: the model does not answer as declared.
    """
    data = _data(inputs, targets)
    chosen = [_spec(probe, relative_error) for probe in probes]
    made = [(spec.use, make_probe(spec)) for spec in {spec.use: spec for spec in chosen}.values()]
    module = _module(model, device, dtype)
    with _untouched_randomness(), evaluation_mode(module):
        wrapped = TorchModel(
            module,
            task or _task(data),
            outputs=outputs,
            batch_size=batch_size,
            example_bytes=64 * int(data.inputs[:1].nbytes),
        )
        verify(wrapped, data.inputs[:64])
        readings = measure_all(
            wrapped, [data], made, seed=seed, budget=budget or Budget(), announce=lambda what, share: None
        )
    protocol = AuditProtocol(
        probes=tuple(f"{name}@{probe.version}{_parameters(probe)}" for name, probe in made),
        data={data.name: data.digest},
        seed=seed,
        dtype=wrapped.dtype,
        device=wrapped.device.partition(":")[0],
        libraries=libraries(),
    )
    return Evidence(
        candidate=_candidate(module),
        protocol=protocol,
        trust="code_bearing",
        measurements=tuple(reading.measurement for reading in readings),
    )


def compare(champion: Evidence, challenger: Evidence, *, confidence: float = 0.95) -> list[Comparison]:
    """Two measured models, metric by metric, as challenger minus champion.

    Evidence alone holds no per-example numbers, so that these intervals are unpaired, and wider than a gate's.
    """
    labels = {"champion": champion, "challenger": challenger}
    examined = [
        Examined(e.model_copy(update={"candidate": e.candidate.model_copy(update={"name": label, "version": None})}))
        for label, e in labels.items()
    ]
    policy = Policy(non_inferiority=NonInferiority(confidence=confidence))
    found = PairedComparer().compare(examined, policy)
    return [c if c.champion == "champion" else c.reversed() for c in found]


def _data(inputs: "ArrayLike | Tensor | AuditData", targets: "ArrayLike | Tensor | None") -> AuditData:
    if isinstance(inputs, AuditData):
        return inputs
    arrays = [None if a is None else _array(a) for a in (inputs, targets)]
    assert arrays[0] is not None
    return checked("validation", "validation", arrays[0], arrays[1], source="the arguments")


def _array(values: "ArrayLike | Tensor") -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _task(data: AuditData) -> Task:
    if data.targets is None:
        raise ConfigurationError("targets, or an explicit task", got="neither", remedy="pass targets")
    return "multiclass" if data.targets.dtype.kind in "iu" else "regression"


def _module(model: object, device: str | None, dtype: str | None) -> nn.Module:
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if not isinstance(model, nn.Module):
        got, remedy = type(model).__name__, "models of other kinds are not yet measured"
        raise ConfigurationError("a torch.nn.Module or an exported program", got=got, remedy=remedy)
    if device is None and dtype is None:
        return model
    return deepcopy(model).to(device=device, dtype=getattr(torch, dtype) if dtype else None)


def _spec(probe: ProbeSpec, relative_error: float | None) -> Spec:
    if isinstance(probe, Mapping):
        spec = Spec(use=str(probe["use"]), params={k: v for k, v in probe.items() if k != "use"})
    elif isinstance(probe, Spec):
        spec = probe
    else:
        spec = Spec(use=probe if probe in plugins.names("probes") else _declaring(probe))
    fields = getattr(plugins.load("probes", spec.use), "model_fields", {})
    if relative_error is not None and "relative_error" in fields:
        return Spec(use=spec.use, params={"relative_error": relative_error, **spec.params})
    return spec


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


def _candidate(module: nn.Module) -> Candidate:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return Candidate(
        name=type(module).__name__, flavour="pytorch", uri="memory:", digest=f"sha256:{digest.hexdigest()}"
    )


@contextmanager
def _untouched_randomness() -> Iterator[None]:
    """Whatever a model's own forward draws, the global random states are afterwards what they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy)
