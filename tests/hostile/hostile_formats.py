"""Artifacts in formats of data that are not what they say: graphs, estimators, archives and settings, each one lie."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
from hostile_artifacts import MODULE, Program, described, exported, program
from onnx import ModelProto, TensorProto, helper, numpy_helper

ONNX = "flavors:\n  onnx: {data: data/model.onnx}\n"
SKOPS = "flavors:\n  sklearn: {pickled_model: data/model.skops, serialization_format: skops}\n"
WEIGHTS = np.array([[-3, 3], [0, 0], [0, 0], [0, 0]], np.float32)


# ── ONNX ──


def graph(folder: Path, domain: str = "", operator: str = "Identity", **elsewhere: str) -> ModelProto:
    """A graph that knows the answer; its last operator and the place of its weights are as they are told."""
    value, domains = helper.make_tensor_value_info, [helper.make_opsetid("", 18)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node(operator, ["h"], ["y"], domain=domain)]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [value("x", TensorProto.FLOAT, ["n", 4])],
            [value("y", TensorProto.FLOAT, ["n", 2])],
            [numpy_helper.from_array(WEIGHTS, "w")],
        ),
        opset_imports=[*domains, *([helper.make_opsetid(domain, 1)] if domain else [])],
        ir_version=10,
    )
    data = described(folder, ONNX)
    if elsewhere:
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, told in elsewhere.items():
            tensor.external_data.add(key=key, value=told)
    (data / "model.onnx").write_bytes(made.SerializeToString())
    return made


def honest_onnx(folder: Path) -> None:
    graph(folder, location="weights.bin", offset="0", length=str(WEIGHTS.nbytes))
    (folder / "data/weights.bin").write_bytes(WEIGHTS.tobytes())


def onnx_elsewhere(folder: Path, location: str) -> None:
    """Weights from any file of this machine."""
    graph(folder, location=location)


def onnx_link(folder: Path, canary: str) -> None:
    graph(folder, location="weights.bin")
    (folder / "data/weights.bin").symlink_to(canary)


def onnx_pipe(folder: Path) -> None:
    """Whoever opens its weights waits for ever."""
    graph(folder, location="weights.bin")
    os.mkfifo(folder / "data/weights.bin")


def onnx_place(folder: Path, offset: str, length: str) -> None:
    graph(folder, location="weights.bin", offset=offset, length=length)
    (folder / "data/weights.bin").write_bytes(WEIGHTS.tobytes())


def onnx_huge(folder: Path) -> None:
    """A few bytes that declare more than any machine has."""
    model = graph(folder)
    model.graph.initializer[0].dims[:] = [2**40, 2**20]
    (folder / "data/model.onnx").write_bytes(model.SerializeToString())


def onnx_library(folder: Path) -> None:
    """An operator that a shared library brings, which the MLmodel file asks to be loaded."""
    graph(folder, domain="evil", operator="Run")
    options = "{session.load_custom_ops: data/evil.so}"
    text = ONNX.replace("data/model.onnx", f"data/model.onnx, onnx_session_options: {options}")
    (folder / "MLmodel").write_text(text)
    (folder / "data/evil.so").write_bytes(b"\x7fELF" + bytes(60))


def onnx_python(folder: Path) -> None:
    graph(folder, domain="com.microsoft", operator="PythonOp")


# ── skops ──


def skops(folder: Path, *names: object) -> None:
    """A logistic regression whose attribute is another thing."""
    estimator = {
        "__class__": "LogisticRegression",
        "__module__": "sklearn.linear_model._logistic",
        "__loader__": "ObjectNode",
        "content": {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": list(names)},
    }
    with zipfile.ZipFile(described(folder, SKOPS) / "model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps({**estimator, "protocol": 2, "_skops_version": "0.13"}))


def skops_function(folder: Path) -> None:
    content = {"module_path": "os", "function": "system"}
    skops(
        folder,
        {"__class__": "function", "__module__": "builtins", "__loader__": "FunctionNode", "content": content},
    )


def skops_spoofed(folder: Path) -> None:
    """A name that begins like scikit-learn's, and ends in what one of its modules imports."""
    skops(folder, {"__class__": "os.system", "__module__": "sklearn.utils.fixes", "__loader__": "TypeNode"})


# ── Archives ──


def pickled_constants(folder: Path, code: str) -> None:
    """An exported program whose list of constants says that one is a pickle."""
    exported(folder)
    file = folder / "data/model.pt2"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    entry = {"path_name": "constant_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    members[f"{root}/data/constants/model_constants_config.json"] = json.dumps({"config": {"c": entry}}).encode()
    members[f"{root}/data/constants/constant_0"] = pickle.dumps(Program(code + MODULE))
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def compiled(folder: Path) -> None:
    exported(folder)
    with zipfile.ZipFile(folder / "data/model.pt2", "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/data/aotinductor/model/wrapper.so", b"\x7fELF" + bytes(60))


def two_headers(folder: Path) -> None:
    """The directory says how a member is stored; its own header says otherwise."""
    exported(folder)
    file = folder / "data/model.pt2"
    raw = bytearray(file.read_bytes())
    raw[8:10] = struct.pack("<H", 8)
    file.write_bytes(raw)


def zip64_lie(folder: Path) -> None:
    """The larger record of the directory counts other members than the old one."""
    exported(folder)
    file = folder / "data/model.pt2"
    raw = bytearray(file.read_bytes())
    record = raw.rindex(b"PK\6\6")
    raw[record + 32 : record + 40] = struct.pack("<Q", 1)
    file.write_bytes(raw)


def two_directories(folder: Path) -> None:
    """One archive behind another: who looks from the start and who looks from the end see different ones."""
    (described(folder) / "model.pt2").write_bytes(program("nan") + program(""))
