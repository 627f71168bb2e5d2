import os

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import linear, model, rows, tensor, value

from flataudit.backends.onnx import onnx_model
from flataudit.backends.onnx_admission import Limits, admit
from flataudit.errors import ModelError

X, Y = [value("x", [None, 4])], [value("y", [None, 4])]


def external(location, *, offset=None, length=None, dims=(4, 3)):
    """The linear model with its weight in a file."""
    made = linear()
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[:] = dims
    weight.data_location = TensorProto.EXTERNAL
    for key, one in (("location", location), ("offset", offset), ("length", length)):
        if one is not None:
            weight.external_data.add(key=key, value=str(one))
    return made


def refused(made, folder=None, **limits):
    with pytest.raises(ModelError) as caught:
        admit(made if isinstance(made, bytes) else made.SerializeToString(), folder, limits=Limits(**limits))
    assert caught.value.expected and caught.value.got and caught.value.remedy
    return str(caught.value)


def test_a_plain_model_is_admitted():
    assert admit(linear().SerializeToString()) == linear()


@pytest.mark.parametrize(
    ("domain", "name"),
    [("evil.corp", "Run"), ("com.microsoft", "FusedConv"), ("ai.onnx.contrib", "PyOp"), ("", "NoSuchOperator")],
)
def test_operators_that_onnx_does_not_have_are_refused(domain, name):
    node = helper.make_node(name, ["x"], ["y"], domain=domain)
    assert name in refused(model([node], X, Y, opsets=[("", 17), (domain, 1)] if domain else [("", 17)]))


def test_a_quantised_operator_of_com_microsoft_is_admitted():
    node = helper.make_node("QLinearAdd", ["x"] * 8, ["y"], domain="com.microsoft")
    assert admit(model([node], X, Y, opsets=[("", 17), ("com.microsoft", 1)]).SerializeToString())


def nested(depth, inner):
    """A node within that many conditions."""
    node = inner
    for level in range(depth):
        branch = helper.make_graph([node], f"b{level}", [], [value(node.output[0], None)])
        node = helper.make_node("If", ["c"], [f"y{level}"], then_branch=branch, else_branch=branch)
    return model([node], [*X, value("c", [], TensorProto.BOOL)], [value(f"y{depth - 1}", None)])


def test_subgraphs_are_walked_and_not_too_deep():
    assert "Run" in refused(nested(2, helper.make_node("Run", ["x"], ["y"], domain="evil")))
    assert "subgraphs at most 4 deep" in refused(nested(6, helper.make_node("Relu", ["x"], ["y"])), depth=4)
    assert admit(nested(3, helper.make_node("Relu", ["x"], ["y"])).SerializeToString())


def function(name, *calls):
    nodes = [helper.make_node(op, ["a"], ["b"], domain=domain) for domain, op in calls]
    return helper.make_function("own", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def test_functions_are_walked_and_must_end():
    call = helper.make_node("F", ["x"], ["y"], domain="own")
    opsets = [("", 17), ("own", 1)]
    assert admit(model([call], X, Y, functions=[function("F", ("", "Relu"))], opsets=opsets).SerializeToString())
    assert "evil" in refused(model([call], X, Y, functions=[function("F", ("evil", "Run"))], opsets=opsets))
    circle = [function("F", ("own", "G")), function("G", ("own", "F"))]
    assert "calls itself" in refused(model([call], X, Y, functions=circle, opsets=opsets))


def test_external_data_inside_the_folder_are_read(tmp_path):
    weights = np.arange(12, dtype="float32").reshape(4, 3)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"\0" * 16 + weights.tobytes())
    (tmp_path / "model.onnx").write_bytes(external("data/w.bin", offset=16, length=48).SerializeToString())
    found = admit(tmp_path / "model.onnx").graph.initializer[0]
    assert found.raw_data == weights.tobytes() and found.data_location == TensorProto.DEFAULT


@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "/etc/hostname", "", "link", "out/secret", "*/x"])
def test_external_data_outside_the_folder_are_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 48)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    assert "external data" in refused(external(location), folder)


def test_external_data_that_are_no_file_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert "external data" in refused(external("pipe"), tmp_path)
    assert "external data" in refused(external("folder"), tmp_path)
    assert "external data" in refused(external("absent"), tmp_path)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 49), (40, 48), (-4, 48), (0, "0x30"), ("9" * 30, 1), (0, 40), (49, None)]
)
def test_external_parts_that_the_file_does_not_have_are_refused(tmp_path, offset, length):
    (tmp_path / "w").write_bytes(b"\0" * 48)
    refused(external("w", offset=offset, length=length), tmp_path)


def test_bytes_have_no_external_data():
    assert "give a path" in refused(external("w"))


@pytest.mark.parametrize("dims", [(4, 4), (-4, -3), (2**40, 2**20), (0, 3)])
def test_declared_sizes_must_be_those_of_the_bytes(dims):
    made = linear()
    made.graph.initializer[0].dims[:] = dims
    refused(made)


def test_numbers_in_lists_are_counted_and_unknown_types_refused():
    made = linear()
    made.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [4, 3], [1.0] * 12))
    assert admit(made.SerializeToString())
    made.graph.initializer[0].float_data.append(1.0)
    assert "12 numbers" in refused(made)
    made.graph.initializer[0].data_type = 99
    assert "type 99" in refused(made)


def test_tensors_in_attributes_and_sparse_ones_are_checked():
    wrong = tensor(np.ones(3), "c")
    wrong.dims[:] = [5]
    node = helper.make_node("Constant", [], ["y"], value=wrong)
    assert "20 bytes" in refused(model([node], X, Y))
    made = linear()
    sparse = made.graph.sparse_initializer.add(dims=[2**30, 2**30])
    sparse.values.CopyFrom(tensor([1.0], "s"))
    sparse.indices.CopyFrom(tensor([0], "i", "int64"))
    assert "sparse" in refused(made)


def test_damaged_and_large_files_are_refused(tmp_path):
    whole = linear().SerializeToString()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        refused(whole[:cut])
    refused(b"\x80" * 100)
    (tmp_path / "m.onnx").write_bytes(whole)
    with pytest.raises(ModelError, match="at most 100 bytes"):
        admit(tmp_path / "m.onnx", limits=Limits(file_bytes=100))
    (tmp_path / "l.onnx").symlink_to(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"l\.onnx"):
        admit(tmp_path / "l.onnx")
    assert "operators" in refused(model([helper.make_node("Relu", ["x"], ["y"])] * 9, X, Y), nodes=8)


def test_what_a_hostile_graph_computes_ends_as_an_error_of_the_model():
    """Sizes that only running it would show are onnxruntime's to fail on, and become evidence."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    hostile = model(nodes, X, Y, [tensor([2**45, 2**10], "shape", "int64")])
    with pytest.raises(ModelError):
        onnx_model(hostile.SerializeToString(), rows(4, classes=4), "multiclass")
