"""ONNX candidates beside the torch originals that they were exported from, and beside models written by hand."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import classifier, exported, linear, model, rows, stored, tensor, trained, value
from torch import nn

from flataudit.backends.onnx import OnnxBackend, onnx_model
from flataudit.backends.onnx_answers import OnnxAnswers, OnnxWeights
from flataudit.backends.onnx_twin import OnnxTwin
from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import Differentiable, Perturbable
from flataudit.curvature.moved_loss import MovedLoss
from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.evidence import Candidate
from flataudit.mlmodel import Signature, SignatureField
from flataudit.probes.hessian_trace import HessianTrace
from flataudit.probes.sharpness import Sharpness
from flataudit.probes.smoothed_curvature import SmoothedCurvature
from flataudit.specs import Budget, InputField, Job, TokenizerSpec

AMPLE = Budget(passes=1e5, seconds=600)
_made = {}


def made(kind, dynamo):
    """Each network and its export once."""
    if kind not in _made:
        _made[kind] = trained(kind)
    if (kind, dynamo) not in _made:
        _made[kind, dynamo] = exported(*_made[kind], dynamo=dynamo)
    return (*_made[kind], _made[kind, dynamo])


def job(folder, **fields):
    return Job(
        candidate=Candidate(name="m", uri="file:m", flavour="onnx"), artifact=str(folder), probes=(), data=(), **fields
    )


def readings(probe, model, data):
    return {r.measurement.metric: r.measurement for r in probe.measure(model, data, 0, AMPLE)}


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", ["table", "images"])
def test_an_export_measures_as_its_original(kind, dynamo):
    net, data, content = made(kind, dynamo)
    original, loaded = TorchModel(net, "multiclass"), onnx_model(content, data, "multiclass")
    assert isinstance(loaded.model, OnnxTwin) and isinstance(loaded.model, Differentiable)
    assert loaded.trust == "data_only" and "agrees with onnxruntime to" in loaded.notes[-1]
    np.testing.assert_allclose(loaded.model.predict(data.inputs), original.predict(data.inputs), atol=1e-5)
    folded = kind == "images"  # exporters fold batch normalisation into the convolution before it: other parameters
    if folded:
        net = nn.Sequential(torch.nn.utils.fusion.fuse_conv_bn_eval(net[0], net[1]), *net[2:])
        original = TorchModel(net, "multiclass")
    for probe in (HessianTrace(relative_error=0.05), Sharpness(draws=16, steps=1)):
        ours, theirs = readings(probe, loaded.model, data), readings(probe, original, data)
        for name, one in ours.items():
            if one.bound == "lower":
                continue  # an ascent of one step, from another start: parameters come in another order
            errors = np.hypot(one.standard_error or 0, theirs[name].standard_error or 0)
            assert one.estimate == pytest.approx(theirs[name].estimate, rel=1e-4, abs=4 * errors)


@pytest.mark.parametrize("dynamo", [False, True])
def test_without_a_twin_the_estimates_are_those_of_the_original(dynamo):
    net, data, content = made("table", dynamo)
    original, loaded = TorchModel(net, "multiclass"), onnx_model(content, data, "multiclass", twin=False)
    assert isinstance(loaded.model, OnnxWeights) and not isinstance(loaded.model, Differentiable)
    assert sum(v.size for v in loaded.model.weights().values()) == sum(p.numel() for p in net.parameters())
    probe = SmoothedCurvature(max_vectors=32, draws=16)
    ours, theirs = readings(probe, loaded.model, data), readings(probe, original, data)
    exact = readings(HessianTrace(relative_error=0.05), original, data)["hessian_trace"]
    average = readings(Sharpness(draws=16, steps=1), original, data)["sharpness_average"]
    found = ours["smoothed_trace"]
    for other in (theirs["smoothed_trace"], exact):
        assert abs(found.estimate - other.estimate) < 4 * np.hypot(found.standard_error, other.standard_error)
    assert found.standard_error < 0.15 * found.estimate
    rise = ours["smoothed_sharpness"]
    assert abs(rise.estimate - average.estimate) < 4 * np.hypot(rise.standard_error, average.standard_error)


def test_moved_weights_are_those_of_the_original_by_name():
    net, data, content = made("table", False)
    loaded = onnx_model(content, data, "multiclass", twin=False).model
    weights = loaded.weights()
    named = dict(net.named_parameters())
    assert set(weights) == set(named)
    moved = {name: value + 0.1 * np.sign(value) for name, value in weights.items()}
    theirs = torch.func.functional_call(net, {n: torch.tensor(v) for n, v in moved.items()}, torch.tensor(data.inputs))
    found = loaded.predict_at(moved, data.inputs)
    np.testing.assert_allclose(found, theirs.log_softmax(1).detach().numpy(), atol=1e-5)
    one = {"0.bias": weights["0.bias"] + 1}
    assert not np.allclose(loaded.predict_at(one, data.inputs), loaded.predict(data.inputs))
    assert np.array_equal(loaded.predict_at({}, data.inputs), loaded.predict_at(weights, data.inputs))
    with pytest.raises(ModelError, match=r"weights\(\)"):
        loaded.predict_at({"0.bias": np.zeros(3)}, data.inputs)


def test_a_model_with_its_data_beside_it(tmp_path):
    net, data, _ = made("table", True)
    exported(net, data, dynamo=True, path=tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").exists()
    (tmp_path / "MLmodel").write_text("flavors:\n  onnx:\n    data: model.onnx\n", encoding="utf-8")
    loaded = OnnxBackend().load(job(tmp_path), data)
    np.testing.assert_allclose(
        loaded.model.predict(data.inputs), TorchModel(net, "multiclass").predict(data.inputs), atol=1e-5
    )


def test_session_options_of_the_mlmodel_file_are_ignored(tmp_path):
    hostile = (
        "    providers: [NoSuchProvider]\n    onnx_session_options:\n"
        "      optimized_model_filepath: /tmp/never.onnx\n      execution_mode: nonsense\n"
    )
    loaded = OnnxBackend().load(job(stored(tmp_path, linear(), extra=hostile)), rows())
    assert isinstance(loaded.model, Perturbable)


def test_a_fixed_batch_is_cut_and_filled_up():
    net, data, _ = made("table", False)
    fixed = onnx_model(exported(net, data, dynamo=False, batch=False), data, "multiclass")
    assert fixed.model.batch_size == 5 and isinstance(fixed.model, OnnxTwin)
    original = TorchModel(net, "multiclass")
    for n in (1, 5, 13):
        np.testing.assert_allclose(fixed.model.predict(data.inputs[:n]), original.predict(data.inputs[:n]), atol=1e-5)
    ours = readings(HessianTrace(), fixed.model, data)["ggn_trace"].estimate
    assert ours == pytest.approx(readings(HessianTrace(), original, data)["ggn_trace"].estimate, rel=1e-3)


@pytest.mark.parametrize("zipmap", [False, True])
def test_a_converted_classifier_of_scikit_learn(zipmap):
    data = rows(names=("cat", "ant", "bee"))
    loaded = onnx_model(classifier(zipmap=zipmap).SerializeToString(), data, "multiclass")
    assert type(loaded.model) is OnnxAnswers and loaded.model.outputs == "probabilities"
    source = np.random.default_rng(3)
    logits = data.inputs @ source.normal(size=12).reshape(3, 4).T + [0.1, 0.2, 0.3]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), p[:, [2, 0, 1]], atol=1e-6)
    assert "no floating-point initialisers" in loaded.notes[-1] and loaded.model.no_curvature_because
    assert not isinstance(loaded.model, Perturbable)


def test_other_classes_than_the_data_are_refused():
    with pytest.raises(ModelError, match="the classes dog"):
        onnx_model(classifier(zipmap=True).SerializeToString(), rows(names=("dog", "ant", "bee")), "multiclass")


def two_outputs():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Neg", ["h"], ["22"])]
    return model(
        nodes, [value("x", [None, 4])], [value("h", [None, 3]), value("22", [None, 3])], linear().graph.initializer
    )


@pytest.mark.parametrize(("output", "sign"), [("h", 1), ("0", 1), ("22", -1), ("1", -1)])
def test_the_declared_output_counts(output, sign):
    data = rows()
    loaded = onnx_model(two_outputs().SerializeToString(), data, "multiclass", output=output)
    assert isinstance(loaded.model, OnnxTwin)
    raw = sign * data.inputs @ (np.arange(12.0).reshape(4, 3) / 7)
    np.testing.assert_allclose(loaded.model.raw(data.inputs), raw, atol=1e-6)
    np.testing.assert_allclose(loaded.model.twin_raw(data.inputs), raw, atol=1e-6)


def test_an_output_must_be_there_and_be_named_where_there_are_several():
    for output, told in ((None, "declare `output: h`"), ("7", "an output '7'"), ("logits", "only 'h', '22'")):
        with pytest.raises(ModelError, match=told):
            onnx_model(two_outputs().SerializeToString(), rows(), "multiclass", output=output)


def test_named_inputs_come_from_the_fields_of_that_name_in_any_order():
    nodes = [
        helper.make_node("Cast", ["count"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["image", "c"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    made = model(
        nodes,
        [value("image", [None, 3]), value("count", [None, 1], TensorProto.INT32)],
        [value("y", [None, 3])],
        linear().graph.initializer,
    )
    data = rows()
    packed = np.concatenate([np.rint(data.inputs[:, :1]), data.inputs[:, 1:]], axis=1)
    fields = (InputField(name="count", shape=(1,), kind="integer"), InputField(name="image", shape=(3,)))
    named = dataclasses.replace(data, inputs=packed, fields=fields)
    loaded = onnx_model(made.SerializeToString(), named, "multiclass")
    assert isinstance(loaded.model, OnnxTwin), loaded.notes
    wanted = packed[:, [1, 2, 3, 0]] @ (np.arange(12.0).reshape(4, 3) / 7)
    np.testing.assert_allclose(loaded.model.raw(packed), wanted, atol=1e-5)
    np.testing.assert_allclose(loaded.model.twin_raw(packed), wanted, atol=1e-5)
    lacking = dataclasses.replace(named, fields=(fields[0], InputField(name="picture", shape=(3,))))
    with pytest.raises(ModelError, match="'image'"):
        onnx_model(made.SerializeToString(), lacking, "multiclass")


def test_columns_of_a_signature_fill_the_one_input_in_its_order():
    data = dataclasses.replace(rows(), fields=tuple(InputField(name=name) for name in "dcba"))
    signature = Signature(inputs=tuple(SignatureField(name=name, dtype="double") for name in "abcd"))
    loaded = onnx_model(linear().SerializeToString(), data, "multiclass", signature=signature)
    raw = data.inputs[:, ::-1] @ (np.arange(12.0).reshape(4, 3) / 7)
    np.testing.assert_allclose(loaded.model.raw(data.inputs), raw, atol=1e-6)
    assert isinstance(loaded.model, OnnxTwin)
    np.testing.assert_allclose(loaded.model.twin_raw(data.inputs), raw, atol=1e-6)


def test_a_column_each_as_converters_make_them():
    nodes = [helper.make_node("Concat", list("abcd"), ["x"], axis=1), helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs = [value(name, [None, 1]) for name in "abcd"]
    made = model(nodes, inputs, [value("y", [None, 3])], linear().graph.initializer)
    data = dataclasses.replace(rows(), fields=tuple(InputField(name=name) for name in "bacd"))
    found = onnx_model(made.SerializeToString(), data, "multiclass").model
    raw = data.inputs[:, [1, 0, 2, 3]] @ (np.arange(12.0).reshape(4, 3) / 7)
    np.testing.assert_allclose(found.raw(data.inputs), raw, atol=1e-6)
    assert isinstance(found, OnnxTwin)


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
def test_whole_numbers_go_in_as_the_graph_declares(kind):
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["y"], axes=[1], keepdims=0),
    ]
    table = tensor(np.random.default_rng(0).normal(size=(9, 3)), "table")
    made = model(nodes, [value("x", [None, 5], kind)], [value("y", [None, 3])], [table])
    ids = np.random.default_rng(1).integers(0, 9, (20, 5)).astype("int16")
    data = dataclasses.replace(rows(20), inputs=ids)
    loaded = onnx_model(made.SerializeToString(), data, "multiclass")
    assert isinstance(loaded.model, OnnxTwin), loaded.notes
    np.testing.assert_allclose(loaded.model.raw(ids), table_of(table)[ids].mean(1), atol=1e-6)
    with pytest.raises(ModelError, match="whole numbers"):
        onnx_model(made.SerializeToString(), dataclasses.replace(data, inputs=ids + 0.5), "multiclass")


def table_of(made):
    return np.frombuffer(made.raw_data, "float32").reshape(9, 3)


def test_a_regression_has_its_closed_form():
    """Tr(H) = 2/N Σ‖x‖² of a linear least squares model, by its twin and without one."""
    w = np.random.default_rng(0).normal(size=(4, 1))
    data = rows()
    data = dataclasses.replace(data, targets=data.inputs @ w[:, 0] + 0.3)
    truth = 2 * np.square(data.inputs).sum() / len(data)
    made = linear(w)
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    loaded = onnx_model(made.SerializeToString(), data, "regression").model
    assert readings(HessianTrace(), loaded, data)["hessian_trace"].estimate == pytest.approx(truth, rel=1e-5)
    moved = onnx_model(made.SerializeToString(), data, "regression", twin=False).model
    found = readings(SmoothedCurvature(max_vectors=200), moved, data)["smoothed_trace"]
    assert found.interval[0] < truth < found.interval[1] and found.standard_error < 0.1 * truth


def test_a_twin_that_differs_is_not_accepted(monkeypatch):
    """A node that onnx2pytorch gets wrong: the answer is the zeroth-order way, with the reason."""
    from onnx2pytorch.operations.base import OperatorWrapper

    node = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Abs", ["h"], ["y"])]
    made = model(node, [value("x", [None, 4])], [value("y", [None, 3])], linear().graph.initializer)
    assert isinstance(onnx_model(made.SerializeToString(), rows(), "multiclass").model, OnnxTwin)
    monkeypatch.setattr(OperatorWrapper, "forward", lambda self, x: 1.01 * x.abs(), raising=False)
    monkeypatch.setattr(OperatorWrapper, "__call__", lambda self, x: 1.01 * x.abs(), raising=False)
    loaded = onnx_model(made.SerializeToString(), rows(), "multiclass")
    assert isinstance(loaded.model, OnnxWeights)
    assert "differs from onnxruntime by 1.0e-02" in loaded.notes[-2] and "differs" in loaded.model.no_curvature_because


def test_an_operator_without_a_twin_is_told():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Round", ["h"], ["r"])]
    nodes.append(helper.make_node("Add", ["r", "b"], ["y"]))
    weights = [*linear().graph.initializer, tensor([0.1, 0.2, 0.3], "b")]
    made = model(nodes, [value("x", [None, 4])], [value("y", [None, 3])], weights)
    loaded = onnx_model(made.SerializeToString(), rows(), "multiclass")
    assert isinstance(loaded.model, OnnxTwin | OnnxWeights) and np.isfinite(MovedLoss(loaded.model, rows()).here).all()


def test_functions_are_taken_apart_for_twin_and_weights():
    body = [helper.make_node("MatMul", ["a", "m"], ["h"]), helper.make_node("Tanh", ["h"], ["b"])]
    own = helper.make_function("own", "Layer", ["a", "m"], ["b"], body, [helper.make_opsetid("", 17)])
    call = helper.make_node("Layer", ["x", "w"], ["y"], domain="own")
    made = model(
        [call],
        [value("x", [None, 4])],
        [value("y", [None, 3])],
        linear().graph.initializer,
        functions=[own],
        opsets=[("", 17), ("own", 1)],
    )
    for twin, kind in ((True, OnnxTwin), (False, OnnxWeights)):
        loaded = onnx_model(made.SerializeToString(), rows(), "multiclass", twin=twin)
        assert isinstance(loaded.model, kind), loaded.notes


def test_precise_derivatives_are_those_of_the_declared_dtype():
    net, data, content = made("table", False)
    loaded = onnx_model(content, data, "multiclass", dtype="float64")
    assert loaded.model.dtype == "float64" and loaded.model.parameters["net.Gemm_y.weight"].dtype == torch.float64
    np.testing.assert_allclose(
        loaded.model.predict(data.inputs), TorchModel(net, "multiclass").predict(data.inputs), atol=1e-5
    )


@pytest.mark.parametrize("how", ["static", "dynamic", "operators"])
def test_quantised_models_answer_and_have_no_curvature(tmp_path, how):
    from onnxruntime import quantization

    _, data, content = made("table", False)
    (tmp_path / "f.onnx").write_bytes(content)
    if how == "dynamic":
        unsigned = quantization.QuantType.QUInt8  # signed weights saturate on processors without VNNI
        quantization.quantize_dynamic(tmp_path / "f.onnx", tmp_path / "q.onnx", weight_type=unsigned)
    else:
        way = quantization.QuantFormat.QOperator if how == "operators" else quantization.QuantFormat.QDQ

        class Reader(quantization.CalibrationDataReader):
            def __init__(self):
                self.left = iter([{"x": data.inputs[:32]}])

            def get_next(self):
                return next(self.left, None)

        quantization.quantize_static(tmp_path / "f.onnx", tmp_path / "q.onnx", Reader(), quant_format=way)
    loaded = onnx_model(tmp_path / "q.onnx", data, "multiclass")
    assert type(loaded.model) is OnnxAnswers and "quantised" in loaded.notes[-1]
    assert "quantised" in loaded.model.no_curvature_because
    full = onnx_model(content, data, "multiclass").model.predict(data.inputs)
    apart = np.abs(loaded.model.predict(data.inputs) - full)
    assert 0 < apart.mean() < 0.1


def test_cuda_is_refused_where_onnxruntime_has_none():
    with pytest.raises(ModelError, match="onnxruntime-gpu"):
        onnx_model(linear().SerializeToString(), rows(), "multiclass", device="cuda")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("flataudit.backends.onnx.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"flataudit\[onnx\]"):
        onnx_model(linear().SerializeToString(), rows(), "multiclass")
    (check,) = OnnxBackend().check()
    assert check.ok and "onnxruntime and onnx not installed" in check.found and "[onnx]" in str(check.remedy)


def test_the_check_tells_versions():
    (check,) = OnnxBackend().check()
    assert check.ok and "onnxruntime" in check.found


def test_a_quantised_operator_that_hangs_loose_hides_no_weights():
    net, data = trained("table")
    graph = onnx.load_from_string(exported(net, data, dynamo=False))
    loose = [
        onnx.numpy_helper.from_array(np.ones((2, 2), np.int8), "loose"),
        onnx.numpy_helper.from_array(np.float32(1), "scale"),
    ]
    graph.graph.initializer.extend(loose)
    graph.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["loose", "scale"], ["nowhere"]))
    assert isinstance(onnx_model(graph.SerializeToString(), data, "multiclass").model, OnnxTwin)


def test_a_graph_of_strings_takes_the_texts_and_one_of_ids_goes_through_the_tokenizer(tmp_path):
    """Both stand in one gate with one policy; ids in place of strings, and strings in place of ids, were refused."""
    words = [f"{word} day" for word in ("good", "bad", "fine")]
    picked = np.random.default_rng(0).integers(0, 3, 30)
    texts = checked("v", "validation", np.array(words)[picked], 1 * (picked != 1), source="memory")
    known = {"keys_strings": words, "values_floats": [2.0, -1.0, 0.5], "default_float": 0.0}
    nodes = [
        helper.make_node("LabelEncoder", ["text"], ["v"], domain="ai.onnx.ml", **known),
        helper.make_node("Neg", ["v"], ["u"]),
        helper.make_node("Concat", ["u", "v"], ["y"], axis=1),
    ]
    strings = model(nodes, [value("text", [None, 1], TensorProto.STRING)], [value("y", [None, 2])])
    declared = TokenizerSpec(use="bytes", max_length=4)
    for tokenizer in (None, declared):
        loaded = onnx_model(strings.SerializeToString(), texts, "multiclass", tokenizer=tokenizer)
        scores = np.array([2.0, -1.0, 0.5])[picked]
        expected = -np.logaddexp(0, -2 * np.stack([-scores, scores], 1))
        np.testing.assert_allclose(loaded.model.predict(texts.inputs), expected, rtol=1e-6)
        assert any("for candidates that have none" in note for note in loaded.notes) == (tokenizer is not None)
    table = np.random.default_rng(1).normal(size=(256, 2))
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["y"], axes=[1], keepdims=0),
    ]
    ids = model(nodes, [value("ids", [None, 4], TensorProto.INT64)], [value("y", [None, 2])], [tensor(table, "w")])
    (tmp_path / "m").mkdir()
    stored(tmp_path / "m", ids)
    loaded = OnnxBackend().load(job(tmp_path / "m", tokenizer=declared), texts)
    read = np.array([[table[byte] for byte in text.encode()[:4]] for text in texts.inputs.tolist()]).mean(1)
    expected = read - np.logaddexp(*read.T)[:, None]
    np.testing.assert_allclose(loaded.model.predict(texts.inputs), expected, atol=1e-6)
    assert isinstance(loaded.model, Perturbable)
    with pytest.raises(ModelError, match="texts without a tokenizer"):
        OnnxBackend().load(job(tmp_path / "m"), texts)
