"""PyTorch candidates in every form that people save: programs, modules, scripts, and weights alone.

What is data: an exported program (``.pt2``) whose archive holds nothing else, and weights that torch's restricted
unpickler or safetensors reads, in an architecture of the user's own. What runs code of the candidate, and so asks for
trust: a pickled module; and TorchScript, which is no Python but a program all the same: its interpreter runs while the
archive is read (``__setstate__``) and reaches every registered operator, among them some that map files.
"""

import warnings
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from flataudit.backends.answers import Answering
from flataudit.backends.arguments import Arguments
from flataudit.backends.building import build
from flataudit.backends.feeding import feed
from flataudit.backends.intervals import as_stated
from flataudit.backends.outputs import settle
from flataudit.backends.pt2 import fixed_batch, read_archive
from flataudit.backends.text import prepared
from flataudit.backends.torch_model import TorchModel, plain_module
from flataudit.backends.verification import verify
from flataudit.backends.weights import FLAVOUR, fill, read_safetensors, state_of
from flataudit.contracts import AuditData, Check, Loaded
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Record
from flataudit.mlmodel import MLModel, read_mlmodel
from flataudit.specs import Job

__all__ = ["PyTorchBackend"]

_SUFFIXES = (".pt2", ".pth", ".pt", ".ckpt", ".safetensors")
_USUAL = ("model.pt2", "model.pth")
"""What MLflow writes."""
_SAFER = "log it with an input example (MLflow then exports a .pt2 program), or pass --trust"


Trust = Literal["data_only", "code_bearing"]


@dataclass(frozen=True)
class _Read:
    """A candidate's module, in evaluation mode."""

    module: nn.Module
    trust: Trust
    batch: int | None = None
    """The only number of examples that it takes."""
    notes: tuple[str, ...] = ()


class PyTorchBackend(Record):
    """Loads the flavours ``pytorch`` and ``flataudit.state_dict`` of an MLflow model folder, without MLflow."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """The model in evaluation mode on the job's device, checked on the sample.

        Raises:
            ModelError: damaged, of an unknown layout, or answering wrongly.
            UntrustedError: loading would run its code.
            ConfigurationError: the architecture that the policy names cannot be built.
        """
        described = read_mlmodel(Path(job.artifact))
        read = _read(_model_file(described), job)
        sample, of_texts = prepared(job, sample)
        module = read.module if job.dtype is None else read.module.to(getattr(torch, job.dtype))
        # With a tokenizer the model takes ids, whatever its signature says of texts.
        arguments = Arguments.of(feed(sample, None if job.tokenizer else described.signature), module)
        model = TorchModel(
            module,
            job.task,
            outputs=job.outputs,
            loss=job.loss,
            batch_size=job.batch_size,
            example_bytes=int(sample.inputs[:1].nbytes) * 64,
            fixed_batch=read.batch,
            arguments=arguments,
            output=job.output,
        )
        stated = as_stated(model, job.outputs, job.quantiles, sample=sample)
        if stated is not None:
            return Loaded(of_texts(stated[0]), read.trust, (*read.notes, *arguments.notes, stated[1]))
        notes = (*read.notes, *arguments.notes, *settle(model, sample))
        verify(model, sample)
        if model.follows_its_parameters(sample.inputs[:8]):
            return Loaded(of_texts(model), read.trust, notes)
        notes += ("predictions alone: the script keeps parameters where they cannot be replaced; export it as .pt2",)
        return Loaded(of_texts(_answering(model, job)), read.trust, notes)

    def check(self) -> list[Check]:
        """Version and devices."""
        devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
        return [Check(name="backends: pytorch", ok=True, found=f"torch {torch.__version__} on {', '.join(devices)}")]


def _answering(model: TorchModel, job: Job) -> Answering:
    """The same predictions, without parameters."""
    return Answering(
        model.raw,
        job.task,
        outputs=model.declared,
        batch_size=model.batch_size,
        dtype=model.dtype,
        device=model.device,
    )


def _model_file(described: MLModel) -> Path:
    """The one file of the folder that the flavour points to."""
    flavour = FLAVOUR if FLAVOUR in described.flavours else "pytorch"
    data = described.inside(described.flavour(flavour).get("model_data"))
    if data.is_file():
        return data
    found = {file.name: file for file in sorted(data.iterdir()) if file.suffix in _SUFFIXES and file.is_file()}
    usual = [found[name] for name in _USUAL if name in found] or list(found.values())
    if len(usual) != 1:  # of two, MLflow might serve the one that was not audited
        expected = f"model.pt2 or model.pth in the artifact, or one file that ends in {', '.join(_SUFFIXES)}"
        got = ", ".join(found) or "neither"
        raise ModelError(expected, got=got, remedy="log the model again with mlflow.pytorch.log_model")
    return usual[0]


def _read(file: Path, job: Job) -> _Read:
    if file.suffix == ".pt2":
        return _program(file, job)
    if file.suffix == ".safetensors":
        return _filled(read_safetensors(file), job, "data_only")
    if _is_script(file):
        return _script(file, job)
    try:
        plain = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001  # damaged, or more than tensors: the unrestricted reader tells which
        return _pickled(file, job)
    state = state_of(plain)
    if state is None:
        remedy = "log the eager module, export it with torch.export, or save its state_dict()"
        raise ModelError("a torch.nn.Module or its state", got=f"a {type(plain).__name__}", remedy=remedy)
    return _filled(state, job, "data_only")


def _program(file: Path, job: Job) -> _Read:
    remedy = "the file is damaged: log the model again"
    try:
        archive = read_archive(file)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise ModelError("a whole .pt2 archive", got=_told(error), remedy=remedy) from error
    if archive.code is not None and not job.trust:
        expected, remedy = "a program that is data only", "pass --trust if you trust its author"
        raise UntrustedError(expected, got=archive.code, remedy=remedy)
    try:
        program = torch.export.load(archive.stream)
    except Exception as error:
        raise ModelError("a program that this torch can load", got=_told(error), remedy=remedy) from error
    if job.device != "cpu":
        program = move_to_device_pass(program, job.device)
    moved = f"exported for {', '.join(archive.devices)}, moved to {job.device}"
    notes = [moved] if set(archive.devices) - {job.device.partition(":")[0]} else []
    batch = fixed_batch(program)
    if batch is not None:
        notes.append(f"it takes {batch} examples at a time, as it was exported")
    trust: Trust = "data_only" if archive.code is None else "code_bearing"
    return _Read(cast("nn.Module", program.module()), trust, batch, tuple(notes))


def _is_script(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _script(file: Path, job: Job) -> _Read:
    if not job.trust:
        got = "a TorchScript program, whose interpreter may read and write files"
        raise UntrustedError("a format that is data only", got=got, remedy=_SAFER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
        try:
            module = torch.jit.load(file, map_location=job.device)  # type: ignore[no-untyped-call]
        except Exception as error:
            remedy = "the file is damaged: log the model again"
            raise ModelError("a script that this torch can load", got=_told(error), remedy=remedy) from error
        return _Read(module.eval(), "code_bearing")


def _pickled(file: Path, job: Job) -> _Read:
    if not job.trust:
        got = "a pickled module, whose loading runs its own code"
        raise UntrustedError("a format that is data only", got=got, remedy=_SAFER)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        got, remedy = _told(error), "install the package that defines its class, or log the model again"
        raise ModelError("a pickled module that loads here", got=got, remedy=remedy) from error
    module, state = plain_module(loaded), state_of(loaded)
    if module is None and state is not None:
        return _filled(state, job, "code_bearing")
    if module is None:
        remedy = "log the eager module, or export it with torch.export"
        raise ModelError("a torch.nn.Module", got=f"a {type(loaded).__name__}", remedy=remedy)
    return _Read(module.to(job.device).eval(), "code_bearing")


def _filled(state: dict[str, torch.Tensor], job: Job, trust: Trust) -> _Read:
    """Weights in the architecture that the policy names."""
    if job.architecture is None:
        remedy = "declare `architecture: {use: module:function}` with code of yours, or log an exported program"
        raise ModelError("the architecture of weights alone", got="none in the policy", remedy=remedy)
    module = build(job.architecture, Path(job.artifact))
    told = fill(module, state)
    read = _Read(module.to(job.device), trust, notes=(f"weights alone, in {job.architecture.use} of the policy",))
    return replace(read, notes=(*read.notes, told)) if told else read


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
