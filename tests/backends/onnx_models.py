"""Small ONNX models: exported by both of torch's exporters, and written by hand where no exporter makes them."""

import io
import logging
import warnings
from contextlib import redirect_stdout

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from flataudit.data.examples import checked

CLASSES = 3


def network(kind):
    """Trained a little, so that its curvature is that of a network and not of noise."""
    source = torch.Generator().manual_seed(0)
    if kind == "images":
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
        )
        net(torch.randn(64, 1, 8, 8, generator=source))  # running statistics that are not those of a fresh module
    else:
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, CLASSES))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=source) / parameter[0].numel() ** 0.5)
    return net.eval()


def examples(kind, n=64):
    source = np.random.default_rng(1)
    shape = (1, 8, 8) if kind == "images" else (6,)
    inputs = source.normal(size=(n, *shape)).astype("float32")
    return checked("validation", "validation", inputs, source.integers(0, CLASSES, n), source="memory")


def trained(kind):
    net, data = network(kind), examples(kind)
    x, y = torch.tensor(data.inputs), torch.tensor(data.targets)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), data


def exported(net, data, *, dynamo, batch=True, path=None):
    """The bytes of the model, with a free batch unless told otherwise; into a file with its data beside it."""
    x = torch.tensor(data.inputs[:5])
    if dynamo:
        logging.disable(logging.WARNING)
        shapes = ({0: torch.export.Dim("n")},) if batch else None
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(net, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)
            if path is not None:
                program.save(path, external_data=True)
        logging.disable(logging.NOTSET)
        return program.model_proto.SerializeToString()
    axes = {"x": {0: "n"}, "y": {0: "n"}} if batch else None
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), held, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes)
    return held.getvalue()


def tensor(array, name, kind="float32"):
    return numpy_helper.from_array(np.asarray(array, kind), name)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights=(), *, functions=(), opsets=(("", 17), ("ai.onnx.ml", 3))):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    imports = [helper.make_opsetid(domain, number) for domain, number in opsets]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)


def linear(weight=None, *, batch=None):
    """The product of x ``(n, 4)`` with w ``(4, 3)``."""
    w = np.arange(12.0).reshape(4, 3) / 7 if weight is None else weight
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [value("x", [batch, 4])], [value("y", [batch, 3])], [tensor(w, "w")])


def classifier(*, zipmap, labels=("ant", "bee", "cat")):
    """What scikit-learn's converters make of a logistic regression: labels, and probabilities behind a ZipMap."""
    source = np.random.default_rng(3)
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "p"],
            domain="ai.onnx.ml",
            coefficients=source.normal(size=12).tolist(),
            intercepts=[0.1, 0.2, 0.3],
            classlabels_strings=list(labels),
            post_transform="SOFTMAX",
        )
    ]
    outputs = [value("label", [None], TensorProto.STRING)]
    if zipmap:
        nodes.append(helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_strings=list(labels)))
        kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs.append(helper.make_value_info("z", helper.make_sequence_type_proto(kind)))
    else:
        outputs.append(value("p", [None, 3]))
    return model(nodes, [value("x", [None, 4])], outputs)


def rows(n=64, columns=4, *, classes=CLASSES, names=()):
    source = np.random.default_rng(2)
    data = checked(
        "validation",
        "validation",
        source.normal(size=(n, columns)).astype("float32"),
        source.integers(0, classes, n),
        source="memory",
    )
    return data if not names else type(data)(**{**vars(data), "class_names": tuple(names)})


def stored(folder, content, flavour="onnx", extra=""):
    """An MLflow model folder."""
    (folder / "model.onnx").write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    (folder / "MLmodel").write_text(f"flavors:\n  {flavour}:\n    data: model.onnx\n{extra}", encoding="utf-8")
    return folder


__all__ = [
    "classifier",
    "examples",
    "exported",
    "linear",
    "model",
    "network",
    "onnx",
    "rows",
    "stored",
    "tensor",
    "trained",
    "value",
]
