"""What an ONNX file must be before anything runs it: known operators, data inside its folder, sizes that are true.

The file is parsed and walked here, subgraphs and functions included, and its external data are read by our own rules
into one model in memory. onnxruntime gets that model as bytes, so that it never opens a file that the model names.
What operators compute from true sizes (a `ConstantOfShape` of 2⁴⁰ numbers) is bounded by the worker's memory alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from flataudit.backends.onnx_tensors import TensorError, check_tensor, fill_in, open_regular
from flataudit.errors import ModelError

__all__ = ["Limits", "admit", "nodes_of"]

QUANTISED_OPERATORS = frozenset(
    {
        "DequantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QuantizeLinear",
    }
)
"""What onnxruntime's quantisation puts into ``com.microsoft``; no other operator of that domain is admitted."""
_STANDARD = {"": "", "ai.onnx": "", "ai.onnx.ml": "ai.onnx.ml"}
_AGAIN = "export the model again"


@dataclass(frozen=True)
class Limits:
    """The most that an ONNX model may be; one of them passed is a refusal, never a cut."""

    file_bytes: int = 2**31 - 2**20
    """Of the graph's file, and of the whole model with its external data: what protobuf can hold."""
    nodes: int = 200_000
    """Operators of the graph, its subgraphs and functions."""
    depth: int = 16
    """Subgraphs within subgraphs, and functions that call functions."""


def admit(source: Path | bytes, folder: Path | None = None, *, limits: Limits | None = None) -> onnx.ModelProto:
    """The model in memory with all its data, once everything about it was found in order.

    Args:
        source: the file, or its bytes.
        folder: what external data must lie in; None: the file's own folder, and none for bytes.
        limits: the most that it may be.

    Raises:
        ModelError: damaged, too large or too deep, an operator that is not admitted, or data that are not where or
            what they are said to be.
    """
    allowed = limits or Limits()
    content = source if isinstance(source, bytes) else _content(source, allowed)
    where = folder if folder is not None or isinstance(source, bytes) else source.parent
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:
        got = f"{len(content)} bytes that are none ({type(error).__name__})"
        raise ModelError("a whole ONNX model", got=got, remedy=f"the file is damaged or cut short: {_AGAIN}") from error
    if not model.graph.node or not model.graph.output:
        remedy = f"the file is damaged or is no model: {_AGAIN}"
        raise ModelError("a graph with operators and outputs", got="none", remedy=remedy)
    _check_operators(model, allowed)
    _check_data(model, where, allowed)
    return model


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every operator of the graph, of its subgraphs and of the model's functions."""
    for nodes in [model.graph.node, *(function.node for function in model.functions)]:
        yield from _walked(nodes, 0, Limits())


def _content(file: Path, limits: Limits) -> bytes:
    """The bytes of a regular file of a size that is allowed; links are not followed."""
    remedy = "log the model again"
    try:
        opened, size = open_regular(file)
    except OSError as error:
        raise ModelError("an ONNX file", got=f"{file.name}: {error.strerror}", remedy=remedy) from error
    with opened:
        if size > limits.file_bytes:
            expected, smaller = f"a file of at most {limits.file_bytes:,} bytes", "audit a smaller model"
            raise ModelError(expected, got=f"{size:,} bytes", remedy=smaller)
        return opened.read()


def _check_operators(model: onnx.ModelProto, limits: Limits) -> None:
    own = {(function.domain, function.name): function for function in model.functions}
    count = 0
    for nodes in [model.graph.node, *(function.node for function in model.functions)]:
        for node in _walked(nodes, 0, limits):
            count += 1
            if count > limits.nodes:
                raise ModelError(f"at most {limits.nodes:,} operators", got="more", remedy="audit a smaller model")
            if (node.domain, node.op_type) not in own:
                _check_operator(node)
    for function in model.functions:
        _check_calls(function, own, [], limits)


def _check_operator(node: onnx.NodeProto) -> None:
    domain, name = node.domain, node.op_type
    if domain == "com.microsoft" and name in QUANTISED_OPERATORS:
        return
    if domain not in _STANDARD:
        expected = "operators of ONNX itself (ai.onnx, ai.onnx.ml), or quantised ones of com.microsoft"
        got, remedy = f"{domain[:80]}::{name[:80]}", "export without custom operators and offline optimisation"
        raise ModelError(expected, got=got, remedy=remedy)
    if not onnx.defs.has(name, _STANDARD[domain]):
        remedy = f"{_AGAIN} with an opset that this version of onnx knows"
        raise ModelError("an operator that ONNX has", got=repr(name[:80]), remedy=remedy)


def _check_calls(
    function: onnx.FunctionProto,
    own: dict[tuple[str, str], onnx.FunctionProto],
    callers: Sequence[tuple[str, str]],
    limits: Limits,
) -> None:
    """Functions that call each other must end."""
    key = (function.domain, function.name)
    if key in callers or len(callers) >= limits.depth:
        got = f"{function.name!r}, which calls itself" if key in callers else "more levels"
        raise ModelError(f"functions at most {limits.depth} levels deep", got=got, remedy=_AGAIN)
    called = {(node.domain, node.op_type) for node in _walked(function.node, 0, limits)}
    for one in sorted(called & own.keys()):
        _check_calls(own[one], own, [*callers, key], limits)


def _walked(nodes: Sequence[onnx.NodeProto], depth: int, limits: Limits) -> Iterator[onnx.NodeProto]:
    """These operators and those of their subgraphs."""
    if depth > limits.depth:
        remedy = "export without so many nested conditions and loops"
        raise ModelError(f"subgraphs at most {limits.depth} deep", got="deeper ones", remedy=remedy)
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _walked(graph.node, depth + 1, limits)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_data(model: onnx.ModelProto, folder: Path | None, limits: Limits) -> None:
    """Every tensor is what it says; external ones are read."""
    total = 0
    for tensor in _tensors(model):
        try:
            fill_in(tensor, folder, limits.file_bytes)
            total += check_tensor(tensor, limits.file_bytes)
        except TensorError as error:
            raise ModelError(
                f"{error.expected} in {tensor.name[:80]!r}", got=error.got, remedy=f"{error.remedy}: {_AGAIN}"
            ) from error
        if total > limits.file_bytes:
            remedy = "audit a smaller model, or its original"
            raise ModelError(f"at most {limits.file_bytes:,} bytes of numbers", got="more", remedy=remedy)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of graph, subgraphs, functions and attributes; the parts of a sparse one too."""
    yield from _tensors_of_graph(model.graph)
    for node in nodes_of(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for one in [*sparse, *attribute.sparse_tensors]:
                yield from _sparse_parts(one)
        for graph in _subgraphs(node):
            yield from _tensors_of_graph(graph)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from _sparse_parts(sparse)


def _sparse_parts(sparse: onnx.SparseTensorProto) -> Iterator[onnx.TensorProto]:
    dense = onnx.TensorProto(dims=sparse.dims, data_type=sparse.values.data_type, name=sparse.values.name)
    size = 1
    for dim in dense.dims:
        size *= max(0, int(dim))
        if dim < 0 or size > 2**31:
            got = f"dimensions {list(dense.dims)[:6]}"
            raise ModelError("a sparse tensor of at most 2³¹ numbers", got=got, remedy=_AGAIN)
    yield sparse.values
    yield sparse.indices
