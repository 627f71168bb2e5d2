"""An admitted ONNX model as a function of arrays, run by onnxruntime with our own options and no others."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy import generic
from numpy.typing import NDArray

from flataudit.backends.feeding import Feed, Part, feed
from flataudit.contracts import AuditData
from flataudit.errors import ModelError
from flataudit.mlmodel import Signature, SignatureField

__all__ = ["Door", "Session", "door", "input_fields"]

_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    "string": "str",
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}
_MOST_THREADS = 8


class Session:
    """onnxruntime on one admitted model; nothing of the model's own metadata reaches its options.

    Args:
        model: admitted, with all its data inside.
        device: ``cpu``, or ``cuda`` with a number.
        one_by_one: the model's answers would depend on the other examples of a batch.

    Raises:
        ModelError: onnxruntime does not take the model, or has no such device.
    """

    def __init__(self, model: onnx.ModelProto, *, device: str = "cpu", one_by_one: bool = False) -> None:
        self.device = device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = _threads(), 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # what it has to say comes as an exception
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=_providers(device)
            )
        except ModelError:
            raise
        except Exception as error:
            remedy = "export it with an opset that this onnxruntime knows"
            raise ModelError("a model that onnxruntime takes", got=told(error), remedy=remedy) from error
        self.inputs = tuple(_field(one) for one in self._session.get_inputs())
        """Name, type and shape of each, -1 where any size will do."""
        self.outputs = tuple(one.name for one in self._session.get_outputs())
        self.output_types = tuple(one.type for one in self._session.get_outputs())
        first = [field.shape[0] for field in self.inputs if field.shape]
        declared = max(first) if first and max(first) > 0 else None
        self.fixed_batch = 1 if one_by_one and declared is None else declared
        """The only number of examples that it takes; None: any."""

    def run(self, arrays: Mapping[str, NDArray[generic]]) -> Sequence[object]:
        """All outputs, in the model's order.

        Raises:
            ModelError: it fails on these inputs.
        """
        try:
            return tuple(self._session.run(None, dict(arrays)))
        except Exception as error:
            remedy = "check the data's shape and values against the model's inputs"
            wanted = ", ".join(field.told for field in self.inputs[:8])
            raise ModelError(f"inputs that the model can use ({wanted})", got=told(error), remedy=remedy) from error


def told(error: Exception) -> str:
    r"""An exception of a library in a line.

    >>> told(ValueError("no\nyes"))
    'ValueError: no'
    """
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def _threads() -> int:
    """As many as torch may use: the worker's share of the machine."""
    declared = os.environ.get("OMP_NUM_THREADS", "")
    return int(declared) if declared.isdigit() and int(declared) > 0 else min(_MOST_THREADS, os.cpu_count() or 1)


def _providers(device: str) -> list[object]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if not device.startswith("cuda") or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        remedy = "install onnxruntime-gpu in place of onnxruntime, or audit on the CPU"
        raise ModelError("an onnxruntime for this device", got=f"none for {device}", remedy=remedy)
    number = device.partition(":")[2]
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]


def _field(one: onnxruntime.NodeArg) -> SignatureField:
    kind = one.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        remedy = "export a model whose inputs are tensors of numbers or texts"
        raise ModelError(f"a tensor as input {one.name!r}", got=one.type, remedy=remedy)
    shape = tuple(size if isinstance(size, int) else -1 for size in one.shape or ())
    return SignatureField(name=one.name, dtype=_DTYPES[kind], shape=shape)


@dataclass(frozen=True)
class Door:
    """The way from an audit's array to a session's named inputs."""

    feed: Feed
    inputs: tuple[SignatureField, ...]
    stacked: bool = False
    """The data's columns are side by side in the model's one input."""

    def arrays(self, inputs: NDArray[generic]) -> dict[str, NDArray[generic]]:
        """A batch ``(n, …)`` as the session's inputs, by name."""
        found = self.feed.arrays(inputs)
        if self.stacked:
            found = [np.stack(found, axis=1)]
        return {str(one.name): _typed(array, one) for array, one in zip(found, self.inputs, strict=True)}

    @property
    def parts(self) -> tuple[tuple[tuple[int, ...] | None, tuple[int, ...], str], ...] | None:
        """Columns, shape of an example and dtype of each input; None: some are texts or categories."""
        if self.stacked:
            places = [place for part in self.feed.parts for place in part.columns or ()]
            whole = len(places) == len(self.feed.parts) and not any(part.categories for part in self.feed.parts)
            return ((tuple(places), (len(places),), self.inputs[0].dtype),) if whole else None
        if any(part.categories or one.dtype == "str" for part, one in zip(self.feed.parts, self.inputs, strict=True)):
            return None
        shapes = [
            one.shape[1:] if part.shape == () and one.shape else part.shape
            for part, one in zip(self.feed.parts, self.inputs, strict=True)
        ]
        return tuple(
            (part.columns, shape, one.dtype)
            for part, shape, one in zip(self.feed.parts, shapes, self.inputs, strict=True)
        )


def _typed(array: NDArray[generic], wanted: SignatureField) -> NDArray[generic]:
    """A column as ``(n, 1)`` where the model asks for it, in the model's type."""
    if array.ndim == 1 and wanted.shape is not None and len(wanted.shape) == 2 and wanted.shape[1] in (1, -1):
        array = array[:, None]
    if wanted.dtype == "str":
        return array.astype(object)
    whole = np.dtype(wanted.dtype).kind in "iu" and array.dtype.kind == "f"
    return np.ascontiguousarray((np.rint(array) if whole else array).astype(wanted.dtype))


def door(inputs: Sequence[SignatureField], data: AuditData, signature: Signature | None) -> Door:
    """Match the data with the graph's own inputs; a signature of columns says which of them one input holds.

    Raises:
        ModelError: an input of the model that the data lack, or values of another kind, by name.
    """
    columns = signature is not None and len(signature.inputs) > 1
    if len(inputs) == 1 and columns and all(field.shape is None for field in signature.inputs):  # type: ignore[union-attr]
        return Door(feed(data, signature), tuple(inputs), stacked=True)
    if len(inputs) > 1 and all(field.shape is not None and field.shape[1:] == (1,) for field in inputs):
        named = tuple(field.model_copy(update={"shape": None}) for field in inputs)
        found = feed(data, Signature(inputs=named))
        return Door(found, _given(inputs, found))
    if len(inputs) == 1 and not (data.fields and data.fields[0].shape):
        return _single(inputs[0], data)
    found = feed(data, Signature(inputs=tuple(inputs)))
    return Door(found, _given(inputs, found))


def _single(wanted: SignatureField, data: AuditData) -> Door:
    """One tensor; texts ``(n,)`` go into ``(n, 1)`` too."""
    texts = data.inputs.ndim == 1 and wanted.shape is not None and len(wanted.shape) == 2
    asked = wanted.model_copy(update={"shape": (-1,)}) if texts else wanted
    if not asked.shape:
        asked = asked.model_copy(update={"shape": (-1,) * data.inputs.ndim})  # a graph that declares no shape
    return Door(feed(data, Signature(inputs=(asked,))), (wanted,))


def _given(inputs: Sequence[SignatureField], found: Feed) -> tuple[SignatureField, ...]:
    by_name = {field.name: field for field in inputs}
    return tuple(by_name[_name(part)] for part in found.parts)


def _name(part: Part) -> str:
    assert part.name is not None
    return part.name


def input_fields(session: Session) -> str:
    """The inputs in words, for notes."""
    return ", ".join(field.told for field in session.inputs[:8])
