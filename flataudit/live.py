"""A live model of any kind, ready to be measured: what a notebook has in hand, without a registry or a file format."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from flataudit.backends.arguments import Arguments
from flataudit.backends.feeding import feed
from flataudit.backends.intervals import as_stated
from flataudit.backends.outputs import settle
from flataudit.backends.pt2 import fixed_batch
from flataudit.backends.text import through
from flataudit.backends.torch_model import TorchModel, evaluation_mode, plain_module
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Loaded
from flataudit.errors import ConfigurationError
from flataudit.evidence import Candidate
from flataudit.specs import LossSpec, OutputKind, Task, TokenizerSpec

__all__ = ["Asked", "live"]

_T = TypeVar("_T")
_SAMPLE = 64
_CALLS = 4
"""Between two answers: a model in the caller's own hands hides no counter, and small ones take milliseconds."""


@dataclass(frozen=True)
class Asked:
    """How a live model is to be taken."""

    task: Task
    outputs: OutputKind | None = None
    quantiles: tuple[float, ...] = ()
    output: str | None = None
    loss: LossSpec | None = None
    device: str | None = None
    dtype: Literal["float32", "float64"] | None = None
    batch_size: int | None = None
    tokenizer: TokenizerSpec | None = None


@contextmanager
def live(model: object, data: AuditData, asked: Asked) -> Iterator[tuple[Loaded, Candidate]]:
    """The model as the probes see it, and who it is; it is left as it was.

    Args:
        model: a `torch.nn.Module`, an exported program, a path or the bytes of an ONNX model, or a scikit-learn
            estimator.
        data: what it will be measured on.
        asked: how to take it.

    Raises:
        ConfigurationError: something else.
        ModelError: it does not answer as declared.
    """
    if isinstance(model, str | Path | bytes):
        yield _onnx(model, data, asked)
    elif _is_estimator(model):
        yield _estimator(model, data, asked)
    else:
        module = _module(model, asked.device, asked.dtype)
        batch = fixed_batch(model) if isinstance(model, torch.export.ExportedProgram) else None
        with evaluation_mode(module):
            yield _torch(module, batch, data, asked), _candidate(type(module).__name__, "pytorch", _state(module))


def _onnx(source: str | Path | bytes, data: AuditData, asked: Asked) -> tuple[Loaded, Candidate]:
    from flataudit.backends.onnx import onnx_model  # an extra

    path = None if isinstance(source, bytes) else Path(source)
    if path is not None and not path.is_file():
        remedy = "name a .onnx file, or pass its bytes"
        raise ConfigurationError("a path of an ONNX model", got=str(path), remedy=remedy)
    loaded = onnx_model(
        source,
        data,
        asked.task,
        outputs=asked.outputs,
        quantiles=asked.quantiles,
        output=asked.output,
        loss=asked.loss,
        device=asked.device or "cpu",
        dtype=asked.dtype,
        batch_size=asked.batch_size,
        tokenizer=asked.tokenizer,
    )
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    return loaded, _candidate(path.stem if path else "onnx", "onnx", hashlib.sha256(content).hexdigest())


def _is_estimator(model: object) -> bool:
    """Whether it predicts as scikit-learn's estimators do; those of xgboost and lightgbm do so too."""
    return callable(getattr(model, "predict", None)) and callable(getattr(model, "get_params", None))


def _estimator(model: object, data: AuditData, asked: Asked) -> tuple[Loaded, Candidate]:
    from flataudit.backends.sklearn_model import sklearn_model  # an extra

    if asked.tokenizer is not None:
        got, remedy = f"a {type(model).__name__}, which takes the texts themselves", "leave `tokenizer` out"
        raise ConfigurationError("a model of token ids for `tokenizer`", got=got, remedy=remedy)
    loaded = sklearn_model(
        model,
        data,
        asked.task,
        outputs=asked.outputs,
        loss=asked.loss,
        batch_size=asked.batch_size,
        dtype=asked.dtype,
        device=asked.device or "cpu",
    )
    return loaded, _candidate(type(model).__name__, "sklearn", _fitted(model))


def _fitted(estimator: object) -> str | None:
    """Digest of a fitted estimator, the same in every process; None: parts of it cannot be read."""
    import joblib  # comes with scikit-learn

    # A search keeps a table of what it tried, with masked arrays that cannot be read; the best of it is what answers.
    final = getattr(estimator, "best_estimator_", estimator)
    try:
        return hashlib.sha256(joblib.hash(final).encode()).hexdigest()
    except Exception:  # noqa: BLE001  # whatever pickling may raise, of lambdas and open files among others
        return None


def _torch(module: nn.Module, batch: int | None, data: AuditData, asked: Asked) -> Loaded:
    data, of_texts = through(asked.tokenizer, Path(), data)
    arguments = Arguments.of(feed(data, None), module)
    model = TorchModel(
        module,
        asked.task,
        outputs=asked.outputs,
        loss=asked.loss,
        fixed_batch=batch,
        batch_size=asked.batch_size,
        example_bytes=64 * int(data.inputs[:1].nbytes),
        arguments=arguments,
        output=asked.output,
    )
    sample = data.head(_SAMPLE)
    stated = as_stated(model, asked.outputs, asked.quantiles, sample=sample, calls=_CALLS)
    if stated is not None:
        return Loaded(of_texts(stated[0]), "code_bearing", (*arguments.notes, stated[1]))
    notes = (*arguments.notes, *settle(model, sample))
    verify(model, sample, calls=_CALLS)
    if not model.follows_its_parameters(data.inputs[:8]):
        got, remedy = "a script that keeps some where they cannot be replaced", "export it with torch.export"
        raise ConfigurationError("a function of its parameters", got=got, remedy=remedy)
    return Loaded(of_texts(model), "code_bearing", notes)


def _module(model: object, device: str | None, dtype: str | None) -> nn.Module:
    if isinstance(model, torch.export.ExportedProgram):
        moved = move_to_device_pass(_copied(model), device) if device else model
        return _copied(moved.module()).to(getattr(torch, dtype)) if dtype else moved.module()
    module = plain_module(model)
    if module is None:
        known = "a torch.nn.Module, an exported program, a path or bytes of an ONNX model, or a scikit-learn estimator"
        raise ConfigurationError(known, got=f"a {type(model).__name__}", remedy="pass one of these")
    if device is None and dtype is None and not isinstance(module, torch.jit.ScriptModule):
        return module
    return _copied(module).to(device=device, dtype=getattr(torch, dtype) if dtype else None)


def _copied(thing: _T) -> _T:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns of a class of its own in every exported program
        return deepcopy(thing)


def _state(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _candidate(name: str, flavour: str, digest: str | None) -> Candidate:
    return Candidate(name=name, flavour=flavour, uri="memory:", digest=None if digest is None else f"sha256:{digest}")
