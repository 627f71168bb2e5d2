"""ONNX files read by our own reader: against the package ``onnx`` on honest ones, and what hostile ones try."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import artifacts as make
import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from flataudit.admission.examining import admit
from flataudit.admission.onnx_files import _BITS, FIELDS, _met, _Seen
from flataudit.admission.pieces import ExhaustedError, Work
from flataudit.admission.wire import Span, WireError
from flataudit.evidence import Admission

TEXT = "flavors: {onnx: {data: data/model.onnx}}"
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
Change = Callable[[onnx.ModelProto], None]


def test_the_table_is_onnx_s_own() -> None:
    """Every field that leads to a node, a tensor or a function is followed, and no other."""
    for kind, inner in FIELDS.items():
        fields = getattr(onnx, kind).DESCRIPTOR.fields
        theirs = {f.number: f.message_type.name for f in fields if f.message_type and f.message_type.name in FIELDS}
        assert theirs == inner, kind
    known = {number for name, number in TensorProto.DataType.items() if name not in ("UNDEFINED", "STRING")}
    assert known == set(_BITS)


def graph(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    """``y = relu(x w)`` with further nodes."""
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"]), *nodes],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(made, opset_imports=domains, ir_version=10, functions=functions)


def put(folder: Path, model: onnx.ModelProto | bytes, name: str = "data/model.onnx", text: str = TEXT) -> Admission:
    make.described(folder, text)
    (folder / "data/weights.bin").write_bytes(WEIGHT.tobytes())
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / name).write_bytes(content)
    return admit(folder)


def moved(**entries: str) -> onnx.ModelProto:
    """With its weight kept elsewhere."""
    model = graph()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, told in {"location": "weights.bin", **entries}.items():
        tensor.external_data.add(key=key, value=told)
    return model


def branch(*nodes: onnx.NodeProto) -> onnx.NodeProto:
    """A condition with operators in its branches."""
    inner = helper.make_graph(list(nodes), "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    return helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)


FUNCTION = helper.make_function(
    "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
)
HONEST = {
    "plain": graph(),
    "with a function of its own": graph(helper.make_node("Twice", ["y"], ["t"], domain="own"), functions=(FUNCTION,)),
    "quantised": graph(helper.make_node("QGemm", ["y"], ["q"], domain="com.microsoft")),
    "external": moved(),
    "external, its place told": moved(offset="0", length="48"),
    "with a branch": graph(branch(helper.make_node("Relu", ["y"], ["z"]))),
}
FOREIGN = {
    "a domain of somebody's": graph(helper.make_node("Read", ["y"], ["r"], domain="evil")),
    "in a branch of a branch": graph(branch(branch(helper.make_node("Read", ["y"], ["z"], domain="evil")))),
    "in a function": graph(
        functions=(
            helper.make_function(
                "own", "F", ["a"], ["b"], [helper.make_node("X", ["a"], ["b"], domain="evil")],
                [helper.make_opsetid("", 18), helper.make_opsetid("evil", 1)],
            ),
        )
    ),
    "a function of another name": graph(helper.make_node("Other", ["y"], ["t"], domain="own"), functions=(FUNCTION,)),
    "a domain that begins like ONNX's": graph(helper.make_node("Relu", ["y"], ["r"], domain="ai.onnx.evil")),
    "Python in onnxruntime": graph(helper.make_node("PythonOp", ["y"], ["r"], domain="com.microsoft")),
    "a compiled program": graph(helper.make_node("EPContext", ["y"], ["r"], domain="com.microsoft")),
}  # fmt: skip


def twice() -> bytes:
    """Two graphs, which a parser would make one of."""
    return graph().SerializeToString() + onnx.ModelProto(graph=graph().graph).SerializeToString()


def two_places() -> onnx.ModelProto:
    model = moved()
    model.graph.initializer[0].external_data.add(key="location", value="../../../etc/passwd")
    return model


def more(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = moved(offset="0", length="48")
    model.graph.initializer.append(tensor)
    return model


def overlapping() -> onnx.ModelProto:
    """A tensor in the middle of another's."""
    tensor = TensorProto(dims=[2], data_type=TensorProto.FLOAT, name="v", data_location=TensorProto.EXTERNAL)
    for key, told in (("location", "weights.bin"), ("offset", "8")):
        tensor.external_data.add(key=key, value=told)
    return more(tensor)


def sized(*dims: int) -> onnx.ModelProto:
    return more(TensorProto(dims=dims, data_type=TensorProto.FLOAT, name="v"))


def sparse() -> onnx.ModelProto:
    model = graph()
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=[2**40, 2**40]))
    return model


def lying_inside() -> onnx.ModelProto:
    model = graph()
    model.graph.initializer[0].dims[0] = 1000
    return model


REFUSED = {
    "an absolute path": moved(location="/etc/passwd"),
    "a path that goes up": moved(location="a/../../../etc/passwd"),
    "a backslash": moved(location="..\\..\\etc"),
    "a control character": moved(location="weights.bin\0.txt"),
    "external data in no path": moved(location=""),
    "no file of the artifact": moved(location="missing.bin"),
    "no file of the artifact ": moved(location="x" * 1000),
    "no other file of the artifact": moved(location="model.onnx"),
    "no other file of the artifact ": moved(location="."),
    "a place that is no number": moved(offset="-1"),
    "a place that is no number ": moved(offset="9" * 30),
    "a place that is no number  ": moved(length="0x30"),
    "other bytes than it declares": moved(length=str(2**62)[:18]),
    "that its file does not have": moved(offset="4"),
    "that its file does not have ": moved(offset="9" * 18),
    "'location' twice": two_places(),
    "a tensor that lies over another": overlapping(),
    "a tensor of more bytes than are admitted": sized(2**40),
    "a tensor of more bytes than are admitted ": sized(2**62, 2**62, 2**62),
    "a dimension below 0": sized(-1, -4),
    "more bytes than are admitted": sparse(),
    "holds other bytes": lying_inside(),
    "field 7 of ModelProto twice": twice(),
    "more than 64 dimensions": sized(*[1] * 65),
    "a damaged ONNX model": graph().SerializeToString()[:-3],
    "without operators": b"",
}


@pytest.mark.parametrize("model", HONEST.values(), ids=HONEST)
def test_honest_graphs_pass(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert put(tmp_path / "m", model) == Admission.of([])


@pytest.mark.parametrize("model", FOREIGN.values(), ids=FOREIGN)
def test_operators_of_a_library_of_its_own(model: onnx.ModelProto, tmp_path: Path) -> None:
    for number, name in enumerate(("data/model.onnx", "data/weights")):
        found = put(tmp_path / str(number), model, name, "flavors: {python_function: {}}")
        assert found.verdict == "carries code" and "library of its own" in found.listed("code")


@pytest.mark.parametrize(("told", "model"), REFUSED.items(), ids=[ascii(told) for told in REFUSED])
def test_what_no_honest_graph_declares(told: str, model: onnx.ModelProto | bytes, tmp_path: Path) -> None:
    found = put(tmp_path / "m", model)
    assert found.verdict == "refused" and told.strip() in found.listed("refusal"), found


def test_a_graph_by_its_setting_alone(tmp_path: Path) -> None:
    text = "flavors: {onnx: {data: data/w}}"
    assert put(tmp_path / "m", b"\x08\x0a\x3a", "data/w", text).verdict == "refused"
    assert put(tmp_path / "n", b"\x08\x0a\x3a", "data/w").verdict == "no code found"


@pytest.mark.parametrize("make_one", [lambda p: p.symlink_to("/etc/passwd"), os.mkfifo, lambda p: p.mkdir()])
def test_external_data_that_is_no_file(make_one: Callable[[Path], None], tmp_path: Path) -> None:
    make.described(tmp_path / "m", TEXT)
    make_one(tmp_path / "m/data/weights.bin")
    (tmp_path / "m/data/model.onnx").write_bytes(moved().SerializeToString())
    assert "no other file of the artifact" in admit(tmp_path / "m").listed("refusal", 9)


def test_tied_weights_share_their_place(tmp_path: Path) -> None:
    model = moved(offset="0", length="48")
    model.graph.initializer.append(model.graph.initializer[0])
    assert put(tmp_path / "m", model).verdict == "no code found"


def walked(content: bytes, most_steps: int = 10**6) -> _Seen:
    seen = _Seen(Path("m.onnx"), 2**30, Work(most_steps=most_steps))
    _met(Span(memoryview(content), 0, len(content)), "ModelProto", seen, 0)
    return seen


def test_numbers_are_not_read() -> None:
    """A tensor inside costs its length, whatever its bytes are."""
    model = graph()
    model.graph.initializer[0].dims[:] = [2**20, 4]
    model.graph.initializer[0].raw_data = bytes([8]) * 2**24
    seen = walked(model.SerializeToString())
    assert seen.total == 2**24 and not seen.faults and seen.messages < 10 and seen.work.steps < 50


def test_fields_that_mean_nothing_are_counted_and_not_kept(tmp_path: Path) -> None:
    content = graph().SerializeToString() + b"\x72\0" * 10_000
    walked(content)
    with pytest.raises(ExhaustedError):
        walked(content, most_steps=9_000)


def test_dimensions_are_counted_as_they_are_read() -> None:
    """Three million in one field; the first are enough."""
    model = graph()
    model.graph.initializer[0].dims[:] = [1] * 3_000_000
    content = model.SerializeToString()
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="64 dimensions"):
            walked(content)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    model = graph()
    model.graph.sparse_initializer.add().dims[:] = [1] * 65
    with pytest.raises(WireError, match="64 dimensions"):
        walked(model.SerializeToString())


def test_kinds_of_operators_are_bounded() -> None:
    with pytest.raises(WireError, match="more kinds"):
        walked(graph(*(helper.make_node(f"O{i}", ["x"], ["y"]) for i in range(10_001))).SerializeToString())


def test_a_type_is_cut_as_parsers_cut_it(tmp_path: Path) -> None:
    """2**32 + 1 is FLOAT to all who read 32 bits of it, and the sizes are those of FLOAT."""
    model = graph()
    model.graph.initializer[0].raw_data = b""
    model.graph.initializer[0].ClearField("float_data")
    plain = model.graph.initializer[0]
    plain.dims[:] = [3]
    plain.raw_data = bytes(40)
    plain.data_type = 1
    content = model.SerializeToString()
    inner = plain.SerializeToString()
    wide = inner.replace(b"\x10\x01", b"\x10\x81\x80\x80\x80\x10", 1)
    assert onnx.TensorProto.FromString(wide).data_type == 1
    assert "holds other bytes" in " ".join(walked(content).faults)
    seen = _Seen(Path("m.onnx"), 2**30, Work())
    _met(Span(memoryview(wide), 0, len(wide)), "TensorProto", seen, 0)
    assert "holds other bytes" in " ".join(seen.faults)


def test_the_graph_that_is_loaded_is_one_however_its_path_is_written(tmp_path: Path) -> None:
    """An unknown group, which parsers pass over and our reader does not, is no way past it."""
    content = graph(helper.make_node("Evil", ["x"], ["y"], domain="my.library")).SerializeToString() + b"\xa3\6\xa4\6"
    assert onnx.load_from_string(content).graph.node[-1].domain == "my.library"
    found = put(tmp_path / "m", content, "data/weights.bin", "flavors: {onnx: {data: ./data//weights.bin}}")
    assert found.verdict == "refused"


def test_subgraphs_without_end(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["y"], ["z"])
    for _ in range(20):
        node = branch(node)
        node.attribute.pop()  # one branch, or it doubles each time
    assert "a damaged ONNX model" in put(tmp_path / "m", graph(node)).listed("refusal")


SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
SEED = moved(offset="0", length="48").SerializeToString()


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_changed_graphs_have_an_answer_and_show_what_onnx_would_see(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever a graph that onnx parses keeps elsewhere, and whatever domain it calls, is found here as well."""
    raw = bytearray(SEED)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path / "m"
    if not folder.exists():
        put(folder, graph())
    (folder / "data/model.onnx").write_bytes(bytes(raw))
    found = admit(folder)
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(bytes(raw))
    except DecodeError:
        return
    if found.verdict == "no code found":
        assert {node.domain for node in parsed.graph.node} <= {"", "ai.onnx", "com.microsoft"}
        places = {e.value for t in parsed.graph.initializer for e in t.external_data if e.key == "location"}
        assert all((folder / "data" / place).is_file() for place in places)
