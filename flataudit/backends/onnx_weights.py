"""Which numbers of an ONNX graph are its weights, and a form of the graph that takes them as inputs.

A graph does not say which of its constants were trained. What counts here is how an operator uses them: kernels,
matrices, scales, biases and tables do; the bounds of a `Clip`, running statistics, axes and single numbers (the 0.5 of
a GELU) do not. Constants that were written into a graph beside its initialisers count alike. A normalisation of the
inputs (a `Sub` of means, say) cannot be told from a bias, and counts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx.inliner
from numpy import generic
from numpy.typing import NDArray
from onnx import numpy_helper

from flataudit.backends.onnx_admission import nodes_of
from flataudit.backends.onnx_session import Session
from flataudit.errors import ModelError

__all__ = ["WeightInputs", "plain_form", "quantised", "scales_by_batch", "weight_names"]

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
_ANY = -1
_MOST_NODES = 100_000
_SLOTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "DeformConv", "BatchNormalization", "InstanceNormalization"), (1, 2)),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "RMSNormalization"), (1, 2)),
    "Gemm": (0, 1, 2),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (1, 2, 3, 7)),
    **dict.fromkeys(("MatMul", "Einsum"), (_ANY,)),
    "PRelu": (1,),
    **dict.fromkeys(("Gather", "GatherND", "GatherElements"), (0,)),
}
"""The inputs at which an operator takes weights."""
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Sum")
"""Take weights at any input; a single number only behind a layer, as its bias or scale."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LAYOUT = ("Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""Operators behind which weights are still the same numbers."""
_QUANTISED = ("QLinear", "QGemm", "DequantizeLinear", "QuantizeLinear", "DynamicQuantize")
_WHOLE = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4)


def quantised(model: onnx.ModelProto) -> str | None:
    """What is quantised about a model; None: nothing.

    Its weights are whole numbers with a scale: no function that a derivative, or a small step, says anything about.
    """
    reached, names = _reached(model)
    for node in reached:
        if node.op_type.startswith(_QUANTISED) or "Integer" in node.op_type:
            return f"it computes with {node.op_type}"
    whole = (t for t in model.graph.initializer if t.data_type in _WHOLE and len(t.dims) >= 2 and t.name in names)
    found = next(whole, None)
    return None if found is None else f"its {found.name[:80]!r} is of whole numbers"


def _reached(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], set[str]]:
    """Nodes that the outputs depend on, those of functions and inner graphs too, and the names that they read.

    What hangs loose in a graph changes no answer, and must not change what is measured.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    bodies = {function.name: function.node for function in model.functions}
    wanted, names = [output.name for output in model.graph.output], set()
    reached: list[onnx.NodeProto] = []
    seen: set[int] = set()
    while wanted:
        name = wanted.pop()
        names.add(name)
        node = made.get(name)
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        inner = _inner(node, bodies)
        reached += inner
        wanted += [read for one in inner for read in one.input if read and read not in names]
    return reached, names


def _inner(node: onnx.NodeProto, bodies: "Mapping[str, Sequence[onnx.NodeProto]]") -> list[onnx.NodeProto]:
    """A node, and all of its inner graphs and of the function that it calls."""
    found, left = [], [node]
    while left:
        one = left.pop()
        found.append(one)
        for attribute in one.attribute:
            for graph in (attribute.g, *attribute.graphs):
                left += list(graph.node)
        if one.op_type in bodies and len(found) < _MOST_NODES:
            left += list(bodies[one.op_type])
    return found


def scales_by_batch(model: onnx.ModelProto) -> bool:
    """Whether activations are quantised while it runs, with a scale that all examples of a batch share."""
    return any(node.op_type.startswith("DynamicQuantize") for node in nodes_of(model))


def plain_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without functions, whose `Constant` numbers are initialisers and whose initialisers are no inputs."""
    plain = onnx.ModelProto()
    plain.CopyFrom(onnx.inliner.inline_local_functions(model) if model.functions else model)
    plain.ir_version = max(plain.ir_version, 4)  # before it, every initialiser had to be an input too
    graph = plain.graph
    kept = []
    for node in graph.node:
        value = _constant(node)
        if value is None:
            kept.append(node)
            continue
        lifted = graph.initializer.add()
        lifted.CopyFrom(value)
        lifted.name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)
    names = {tensor.name for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    return plain


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The floating-point tensor that a `Constant` holds."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    held = [attribute.t for attribute in node.attribute if attribute.name == "value"]
    return held[0] if held and held[0].data_type in _FLOATS else None


def weight_names(plain: onnx.ModelProto) -> tuple[str, ...]:
    """The initialisers of a plain form that take part as weights, in their order.

    >>> w = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    >>> low = numpy_helper.from_array(np.zeros((1,), np.float32), "low")
    >>> nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("Max", ["h", "low"], ["y"])]
    >>> weight_names(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], [w, low])))
    ('w',)
    """
    floats = [t for t in plain.graph.initializer if t.data_type in _FLOATS and t.dims and 0 not in t.dims]
    single = {tensor.name for tensor in floats if np.prod(tensor.dims) == 1}
    origins: dict[str, set[str]] = {tensor.name: {tensor.name} for tensor in floats}
    behind_layer: set[str] = set()
    found: set[str] = set()
    for node in nodes_of(plain):
        if node.op_type in _LAYERS:
            behind_layer.update(node.output)
        if node.op_type in _LAYOUT:
            sources: set[str] = set().union(*(origins.get(name, set()) for name in node.input))
            for name in node.output:
                origins.setdefault(name, set()).update(sources)
            continue
        for name in _taken(node):
            first = origins.get(name, set())
            if node.op_type in _ELEMENTWISE and first <= single and not behind_layer & set(node.input):
                continue
            found |= first
    return tuple(tensor.name for tensor in floats if tensor.name in found)


def _taken(node: onnx.NodeProto) -> list[str]:
    """The inputs that are weights where they are constants."""
    slots = (_ANY,) if node.op_type in _ELEMENTWISE else _SLOTS.get(node.op_type, ())
    return [name for place, name in enumerate(node.input) if name and (_ANY in slots or place in slots)]


class WeightInputs:
    """A graph that takes its weights as inputs, made and loaded when it is first asked.

    Args:
        plain: plain form of an admitted model.
        names: its weights.
        device: where it runs.
    """

    def __init__(self, plain: onnx.ModelProto, names: Sequence[str], *, device: str = "cpu") -> None:
        wanted = set(names)
        self.own: dict[str, NDArray[generic]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in plain.graph.initializer if tensor.name in wanted
        }
        """The weights as they are stored, by name."""
        self._make: Callable[[], Session] | None = lambda: Session(_open_form(plain, wanted), device=device)
        self._session: Session | None = None

    def session(self) -> Session:
        """The form that takes weights."""
        if self._make is not None:
            self._session, self._make = self._make(), None
        assert self._session is not None
        return self._session

    def run(self, arrays: Mapping[str, NDArray[generic]], weights: Mapping[str, NDArray[generic]]) -> Sequence[object]:
        """All outputs with these weights; those that are not named are the model's own.

        Raises:
            ModelError: weights that the model does not have, or of another shape.
        """
        for name, value in weights.items():
            if name not in self.own or np.shape(value) != self.own[name].shape:
                got, remedy = f"{name!r} of shape {np.shape(value)}", "take names and shapes from weights()"
                raise ModelError("weights of the model", got=got, remedy=remedy)
        moved = {name: np.asarray(weights.get(name, value), value.dtype) for name, value in self.own.items()}
        return self.session().run({**arrays, **moved})


def _open_form(plain: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """The plain form with weights as inputs in place of initialisers."""
    opened = onnx.ModelProto()
    opened.CopyFrom(plain)
    opened.graph.input.extend(_declared(opened.graph.initializer, names))
    kept = [tensor for tensor in opened.graph.initializer if tensor.name not in names]
    del opened.graph.initializer[:]
    opened.graph.initializer.extend(kept)
    return opened


def _declared(tensors: Sequence[onnx.TensorProto], names: set[str]) -> Iterator[onnx.ValueInfoProto]:
    for tensor in tensors:
        if tensor.name in names:
            yield onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
