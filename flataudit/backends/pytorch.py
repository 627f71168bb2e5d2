"""PyTorch candidates: exported programs (``.pt2``, the default of MLflow 3) and, when trusted, pickled modules."""

import zipfile
import zlib
from pathlib import Path
from typing import Literal, cast

import torch
import yaml
from torch import nn
from torch.export.passes import move_to_device_pass

from flataudit.backends.pt2 import fixed_batch, read_archive
from flataudit.backends.torch_model import TorchModel, plain_module
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Check, Job, Loaded
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Record

__all__ = ["PyTorchBackend"]

Trust = Literal["data_only", "code_bearing"]


class PyTorchBackend(Record):
    """Loads the ``pytorch`` flavour of an MLflow model folder, without MLflow."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """The model in evaluation mode on the job's device, checked on the sample.

        Raises:
            ModelError: damaged, of an unknown layout, or answering wrongly.
            UntrustedError: loading would run its code.
        """
        file = _model_file(Path(job.artifact))
        module, trust, batch = _program(file, job) if file.suffix == ".pt2" else (*_pickled(file, job), None)
        if job.dtype is not None:
            module = module.to(getattr(torch, job.dtype))
        example = int(sample.inputs[:1].nbytes)
        model = TorchModel(
            module,
            job.task,
            outputs=job.outputs,
            loss=job.loss,
            batch_size=job.batch_size,
            example_bytes=example * 64,
            fixed_batch=batch,
        )
        verify(model, sample)
        return Loaded(model, trust)

    def check(self) -> list[Check]:
        """Version and devices."""
        devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
        return [Check(name="backends: pytorch", ok=True, found=f"torch {torch.__version__} on {', '.join(devices)}")]


def _model_file(folder: Path) -> Path:
    """The file that the MLmodel's ``pytorch`` flavour points to, inside the folder."""
    remedy = "log the model again with mlflow.pytorch.log_model"
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        data = (folder / str(described["flavors"]["pytorch"]["model_data"])).resolve()
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ModelError("an MLmodel file with a pytorch flavour", got=got, remedy=remedy) from error
    if not data.is_relative_to(folder.resolve()):
        raise ModelError("model data inside the artifact", got="a path that leaves it", remedy=remedy)
    for name in ("model.pt2", "model.pth"):
        if (data / name).is_file():
            return data / name
    raise ModelError("model.pt2 or model.pth in the artifact", got="neither", remedy=remedy)


def _program(file: Path, job: Job) -> tuple[nn.Module, Trust, int | None]:
    remedy = "the file is damaged: log the model again"
    try:
        archive, code = read_archive(file)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise ModelError("a whole .pt2 archive", got=_told(error), remedy=remedy) from error
    if code is not None and not job.trust:
        raise UntrustedError("a program that is data only", got=code, remedy="pass --trust if you trust its author")
    try:
        program = torch.export.load(archive)
    except Exception as error:
        raise ModelError("a program that this torch can load", got=_told(error), remedy=remedy) from error
    if job.device != "cpu":
        program = move_to_device_pass(program, job.device)
    trust: Trust = "data_only" if code is None else "code_bearing"
    return cast("nn.Module", program.module()), trust, fixed_batch(program)


def _pickled(file: Path, job: Job) -> tuple[nn.Module, Trust]:
    if not job.trust:
        raise UntrustedError(
            "a format that is data only",
            got="a pickled module, whose loading runs its own code",
            remedy="log it with an input example (MLflow then exports a .pt2 program), or pass --trust",
        )
    try:
        loaded = torch.load(file, map_location=job.device, weights_only=False)
    except Exception as error:
        got, remedy = _told(error), "install the package that defines its class, or log the model again"
        raise ModelError("a pickled module that loads here", got=got, remedy=remedy) from error
    module = plain_module(loaded)
    if module is None:
        remedy = "log the eager module, or export it with torch.export"
        raise ModelError("a torch.nn.Module", got=f"a {type(loaded).__name__}", remedy=remedy)
    return module.to(job.device).eval(), "code_bearing"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
