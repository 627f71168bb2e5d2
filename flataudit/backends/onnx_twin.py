"""A differentiable twin of an ONNX graph: a torch module that answers as onnxruntime does, or the reason why not.

onnxruntime computes no derivatives of a finished graph. onnx2pytorch makes a module of it; whether that is the same
function is not believed but measured, on the audit's own examples, and whether it has second derivatives is tried.
"""

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy import generic
from numpy.typing import NDArray
from torch import Tensor, nn

from flataudit.backends.answers import Answering
from flataudit.backends.onnx_session import Door, told
from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import AuditData
from flataudit.errors import ModelError
from flataudit.specs import LossSpec

__all__ = ["TOLERANCE", "OnnxTwin", "TwinError", "agreement", "make_twin", "refuse_undifferentiable"]

TOLERANCE = 1e-4
"""The largest difference of outputs, as a share of the largest output, with which a twin is accepted."""
_HVP_EXAMPLES = 4


class TwinError(Exception):
    """There is no twin of this model; the message says why, in a sentence's part."""


class OnnxTwin(TorchModel):
    """Predictions by onnxruntime, gradients and curvature by a torch module that agrees with it.

    What is served is the session: `predict` and `raw` are its own; all that takes parameters is the twin's.
    """

    def __init__(self, served: Answering, module: nn.Module, *, loss: LossSpec | None, fixed_batch: int | None) -> None:
        super().__init__(
            module,
            served.task,
            outputs=served.outputs if served.declared is None else served.declared,
            loss=loss,
            batch_size=served.batch_size,
            fixed_batch=fixed_batch,
        )
        self.declared = served.declared
        if isinstance(module, _Entered):
            self.rounded = module.rounded
        self._session_model = served
        served.meter = self.meter

    def raw(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """What onnxruntime returns, ``(n, …)``; counts a forward pass."""
        return self._session_model.raw(inputs)

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)`` or values ``(n,)``, from onnxruntime's outputs."""
        return self._session_model.predict(inputs)

    def twin_raw(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """What the twin returns, ``(n, …)``."""
        return super().raw(inputs)


def make_twin(
    plain: onnx.ModelProto,
    names: Sequence[str],
    entrance: Door,
    *,
    output: int,
    columns: Sequence[int] | None = None,
) -> nn.Module:
    """A module of the audit's inputs, with exactly the graph's weights as parameters.

    Args:
        plain: plain form of an admitted model.
        names: its weights.
        entrance: from the audit's array to the graph's inputs.
        output: place of the scores among the outputs.
        columns: the model's column for each of the data's classes; None: as they are.

    Raises:
        TwinError: why there is none.
    """
    if entrance.parts is None:
        raise TwinError("its inputs are texts or categories")
    try:
        with _StandInTorchvision():
            from onnx2pytorch import ConvertModel
    except ImportError as error:
        raise TwinError(f"{error.name or 'onnx2pytorch'} is not installed (pip install 'flataudit[onnx]')") from error
    named, renamed = _plainly_named(plain)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="No explicit conversion")
            net = ConvertModel(named)
    except Exception as error:
        raise TwinError(f"onnx2pytorch cannot convert it ({told(error)[:160]})") from error
    _promote(net, {renamed[name] for name in names})
    del net.onnx_model.graph.initializer[:]  # its forward reads the operators alone; copies of the module copy this
    return _Entered(net, entrance.parts, output, columns).eval()


def agreement(model: OnnxTwin, data: AuditData) -> float:
    """The largest difference from onnxruntime's outputs, as a share of the largest of them.

    Raises:
        TwinError: the twin does not run, or answers in another shape or not finitely.
    """
    theirs = model.raw(data.inputs)
    try:
        ours = model.twin_raw(data.inputs)
        alone = model.twin_raw(data.inputs[:1])
    except Exception as error:
        raise TwinError(f"onnx2pytorch's module does not run on the data ({told(error)[:160]})") from error
    if ours.shape != theirs.shape or alone.shape != theirs[:1].shape:
        raise TwinError(f"onnx2pytorch's module answers in shape {ours.shape}, onnxruntime in {theirs.shape}")
    scale = max(float(np.abs(theirs).max()), 1e-30)
    apart = max(float(np.abs(ours - theirs).max()), float(np.abs(alone - theirs[:1]).max())) / scale
    if not apart <= TOLERANCE:
        raise TwinError(f"onnx2pytorch's module differs from onnxruntime by {apart:.1e} of its outputs")
    return apart


def refuse_undifferentiable(model: OnnxTwin, data: AuditData, weights: int) -> None:
    """Refuse a module whose loss cannot be differentiated twice in exactly the graph's weights.

    Args:
        model: agrees with onnxruntime.
        data: labelled examples.
        weights: numbers in the graph's weights.

    Raises:
        TwinError: with what failed.
    """
    count = sum(parameter.numel() for parameter in model.parameters.values())
    if count != weights:
        raise TwinError(f"onnx2pytorch's module has {count:,} parameters, the graph {weights:,} weights")
    x, y = model.tensors(data.inputs[:_HVP_EXAMPLES], None if data.targets is None else data.targets[:_HVP_EXAMPLES])
    try:
        with torch.enable_grad():
            moving = {name: value.clone().requires_grad_() for name, value in model.parameters.items()}
            loss = model.loss(moving, x, y) if y is not None else model.raw_outputs(moving, x).square().mean()
            first = torch.autograd.grad(loss, list(moving.values()), create_graph=True, allow_unused=True)
            lost = [name for name, part in zip(moving, first, strict=True) if part is None]
            if lost:
                raise TwinError(f"the loss of onnx2pytorch's module does not depend on {lost[0]!r}")
            slope = torch.stack([part.square().sum() for part in first if part is not None]).sum()
            second: Sequence[Tensor | None] = ()
            if slope.requires_grad:
                second = torch.autograd.grad(slope, list(moving.values()), allow_unused=True)
    except TwinError:
        raise
    except Exception as error:
        raise TwinError(f"onnx2pytorch's module has no second derivatives ({told(error)[:160]})") from error
    if not all(bool(part.isfinite().all()) for part in [*first, *second] if part is not None):
        raise TwinError("the derivatives of onnx2pytorch's module are not finite")


class _StandInTorchvision:
    """Empty modules while onnx2pytorch is imported, which asks for torchvision for five operators of detectors.

    A torchvision of another build than torch's fails to import and takes onnx2pytorch with it; those operators then
    fail when they run, which is a reason for no twin like any other.
    """

    def __enter__(self) -> None:
        self._added: list[str] = []
        for name in ("torchvision", "torchvision.ops", "torchvision.io"):
            if name not in sys.modules:
                stand_in = ModuleType(name)
                stand_in.__spec__ = ModuleSpec(name, None)
                for missing in ("deform_conv2d", "roi_pool", "roi_align", "decode_image", "ImageReadMode"):
                    setattr(stand_in, missing, None)
                sys.modules[name] = stand_in
                self._added.append(name)

    def __exit__(self, *_: object) -> None:
        for name in self._added:
            del sys.modules[name]


def _plainly_named(plain: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy whose values have names that torch takes for one step in a module's tree, and the new names."""
    named = onnx.ModelProto()
    named.CopyFrom(plain)
    new = _Names()
    for graph in _graphs(named.graph):
        for value in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]:
            value.name = new[value.name]
        for node in graph.node:
            node.input[:] = [new[name] for name in node.input]
            node.output[:] = [new[name] for name in node.output]
    return named, new


class _Names(dict[str, str]):
    """One new name for each old one; different ones stay different."""

    def __missing__(self, name: str) -> str:
        base = re.sub(r"\W+", "_", name, flags=re.ASCII)[:80]
        taken = set(self.values())
        self[name] = found = "" if not name else base if base and base not in taken else f"{base}_{len(taken)}"
        return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(inner)


def _promote(net: nn.Module, names: set[str]) -> None:
    """Weights that operators take from buffers become parameters; copies that nobody reads go."""
    read = _read_buffers(net)
    for key in [key for key in net._buffers if key.startswith("_initializer_")]:
        name = key.removeprefix("_initializer_")
        if name not in read:
            del net._buffers[key]
        elif name in names:
            value = net._buffers.pop(key)
            assert value is not None
            net.register_parameter(key, nn.Parameter(value))


def _read_buffers(net: Any) -> set[str]:
    """The initialisers that its forward fetches by name: those of operators that are not layers with their own."""
    from onnx2pytorch.constants import COMPOSITE_LAYERS, STANDARD_LAYERS

    found: set[str] = set()
    graph, mapping = net.onnx_model.graph, net.mapping
    for node in graph.node:
        module = getattr(net, mapping[node.output[0]])
        composite = isinstance(module, COMPOSITE_LAYERS)
        own = isinstance(module, STANDARD_LAYERS) or (
            composite and any(isinstance(part, STANDARD_LAYERS) for part in module.modules())
        )
        if not own:
            found.update(node.input)
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                found.update(name for each in _graphs(inner) for one in each.node for name in one.input)
    return found


class _Entered(nn.Module):
    """A converted graph as a function of the audit's one array."""

    def __init__(
        self,
        net: nn.Module,
        parts: Sequence[tuple[tuple[int, ...] | None, tuple[int, ...], str]],
        output: int,
        columns: Sequence[int] | None,
    ) -> None:
        super().__init__()
        self.net, self._parts, self._output = net, tuple(parts), output
        self._columns = None if columns is None else list(columns)

    @property
    def rounded(self) -> tuple[int, ...] | Literal["all"]:
        """Which values of an example the graph takes as whole numbers."""
        whole = [columns for columns, _, dtype in self._parts if not dtype.startswith("float")]
        return "all" if None in whole else tuple(place for columns in whole for place in columns or ())

    def forward(self, inputs: Tensor) -> Tensor:
        """The scores, ``(n, …)``."""
        kind = next((value.dtype for value in self.net.parameters()), torch.get_default_dtype())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx2pytorch indexes with lists, of which torch warns
            found = self.net(*[_cut(inputs, kind, *part) for part in self._parts])
        scores = found[self._output] if isinstance(found, list | tuple) else found
        if not isinstance(scores, Tensor):
            raise ModelError("a tensor of scores", got=f"a {type(scores).__name__}", remedy="export plain scores")
        return scores if self._columns is None else scores[:, self._columns]


def _cut(
    inputs: Tensor, floats: torch.dtype, columns: tuple[int, ...] | None, shape: tuple[int, ...], dtype: str
) -> Tensor:
    """One input of the graph; fractions in the precision that the module computes in."""
    found = inputs if columns is None else inputs[:, list(columns)].reshape(len(inputs), *shape)
    if dtype.startswith("float"):
        return found if found.is_floating_point() else found.to(floats)
    return (found.round() if found.is_floating_point() else found).to(getattr(torch, dtype))
