"""Models of texts: what the declared tokenizer makes of them, and that every capability goes through it."""

import dataclasses
import json
import types

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import flataudit
from flataudit.backends import tokenizers
from flataudit.backends.text import DifferentiableOfTexts, PerturbableOfTexts, PredictorOfTexts, prepared
from flataudit.backends.tokenizers import make_reader
from flataudit.backends.torch_model import TorchModel
from flataudit.backends.verification import verify
from flataudit.config import parse_config
from flataudit.contracts import Candidate, Differentiable, Distribution, Meter, Perturbable, Predictor
from flataudit.curvature.losses import make_loss
from flataudit.data.examples import checked
from flataudit.errors import ConfigurationError, DataError, ModelError
from flataudit.probes.accuracy import Accuracy
from flataudit.probes.corruption import Corruption
from flataudit.probes.hessian_trace import HessianTrace
from flataudit.probes.weight_noise import WeightNoise
from flataudit.specs import Budget, Job, TokenizerSpec

TEXTS = np.array(["good good", "bad", "", "a good, bad day"])


def spec(use="words", **parameters):
    return TokenizerSpec(use=use, **({"max_length": 6} | parameters))


def ids(declared, texts=TEXTS, folder=None):
    return make_reader(declared, folder).ids(np.asarray(texts)).tolist()


# ── From a text to ids ──


def test_characters():
    declared = spec("characters", alphabet="_?abd ", padding=0, unknown=1)
    assert ids(declared, ["bad", "B a", "abdabdabd", ""]) == [
        [3, 2, 4, 0, 0, 0],
        [1, 5, 2, 0, 0, 0],
        [2, 3, 4, 2, 3, 4],
        [0] * 6,
    ]
    assert ids(declared.model_copy(update={"lowercase": True}), ["BAD"]) == [[3, 2, 4, 0, 0, 0]]


def test_bytes():
    assert ids(spec("bytes", first=3, max_length=4), ["é!", "日本"]) == [[198, 172, 36, 0], [233, 154, 168, 233]]
    assert ids(spec("bytes", max_length=2, padding=300), ["a"]) == [[97, 300]]


@pytest.mark.parametrize(
    ("split", "expected"),
    [(None, [3, 1, 1, 5, 0, 0]), ("words", [3, 2, 4, 1, 5, 0])],
)
def test_words(tmp_path, split, expected):
    (tmp_path / "vocabulary").write_text("<pad>\n<unk>\ngood\na\n,\nday\n")
    for place in ({"path": str(tmp_path / "vocabulary")}, {"in_artifact": "vocabulary"}):
        declared = spec(unknown=1, split=split, **place)
        assert ids(declared, ["a good, bad day"], tmp_path) == [expected]
    left_out = spec(path=str(tmp_path / "vocabulary"), split="words")
    assert ids(left_out, ["a bad day"], tmp_path) == [[3, 5, 0, 0, 0, 0]]


def test_the_same_ids_whatever_the_neighbours_are():
    declared = spec("bytes")
    assert ids(declared)[1:2] == ids(declared, TEXTS[1:2])


def bert():
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4, "bad": 5, "day": 6}
    special = [{"id": k, "content": c} for c, k in list(words.items())[:4]]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "added_tokens": [one | flags for one in special],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }


def test_a_tokenizer_json(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(json.dumps(bert()))
    declared = spec("tokenizers", in_artifact="tokenizer.json", max_length=5)
    # A text that is cut keeps its closing token.
    assert ids(declared, ["Good", "good bad day good", ""], tmp_path) == [
        [2, 4, 3, 0, 0],
        [2, 4, 5, 6, 3],
        [2, 3, 0, 0, 0],
    ]
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": 5}')
    with pytest.raises(ModelError, match=r"tokenizer\.json in the artifact"):
        make_reader(declared, tmp_path)


def test_a_tokenizer_json_through_a_stand_in_for_the_package(tmp_path, monkeypatch):
    class Stub:
        def __init__(self, text):
            assert json.loads(text) == {"a": 1}

        from_str = classmethod(lambda cls, text: cls(text))
        padded = True

        def no_padding(self):
            self.padded = False

        def enable_truncation(self, length):
            self.length = length

        def encode(self, text):
            assert not self.padded
            return types.SimpleNamespace(ids=[len(word) for word in text.split()][: self.length])

    monkeypatch.setitem(__import__("sys").modules, "tokenizers", types.SimpleNamespace(Tokenizer=Stub))
    (tmp_path / "t.json").write_text('{"a": 1}')
    assert ids(spec("tokenizers", path=str(tmp_path / "t.json"), max_length=3)) == [
        [4, 4, 0],
        [3, 0, 0],
        [0] * 3,
        [1, 5, 3],
    ]
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'flataudit\[text\]'"):
        ids(spec("tokenizers", path=str(tmp_path / "t.json")))


def test_files_that_cannot_be_used(tmp_path, monkeypatch):
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    file = tmp_path / "vocabulary"
    file.write_text("a\nb")
    with pytest.raises(ModelError, match="leaves the candidate's folder"):
        make_reader(spec(in_artifact="../vocabulary"), artifact)
    with pytest.raises(ModelError, match="No such file"):
        make_reader(spec(in_artifact="vocabulary"), artifact)
    with pytest.raises(DataError, match="No such file"):
        make_reader(spec(path=str(tmp_path / "none")), artifact)
    with pytest.raises(DataError, match=r"with digest sha256:0.*changed"):
        make_reader(spec(path=str(file), digest="sha256:0"), artifact)
    monkeypatch.setattr(tokenizers, "_MOST_BYTES", 2)
    with pytest.raises(DataError, match="more than"):
        make_reader(spec(path=str(file)), artifact)
    file.write_bytes(b"\xff")
    with pytest.raises(DataError, match="no UTF-8"):
        make_reader(spec(path=str(file)), artifact)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"use": "characters"}, "got no alphabet"),
        ({"use": "bytes", "alphabet": "ab"}, "parameters of bytes.*got alphabet"),
        ({"use": "words"}, "path or in_artifact, got both or neither"),
        ({"use": "words", "path": "a", "in_artifact": "b"}, "got both or neither"),
        ({"use": "tokenizers", "path": "a", "split": "words"}, "got split"),
    ],
)
def test_wrong_declarations_are_refused(parameters, words):
    with pytest.raises(ValidationError, match=words):
        TokenizerSpec(max_length=4, **parameters)


# ── A model of ids as a model of texts ──


ALPHABET = "_abcdefghijklmnopqrstuvwxyz ,"


class Bag(torch.nn.Module):
    """The mean embedding of the characters, and a linear layer."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(len(ALPHABET), 4, generator=generator))
        self.head = torch.nn.Parameter(torch.randn(4, 2, generator=generator))

    def forward(self, ids):
        return self.table[ids].mean(dim=1) @ self.head


def job(**fields):
    candidate = Candidate(name="m", uri="m")
    return Job(candidate=candidate, artifact=".", probes=(), data=(), **fields)


def data(n=80):
    words = np.array(["good", "fine", "bad", "awful"])
    picked = np.random.default_rng(0).integers(0, 4, n)
    return checked("validation", "validation", np.char.add(words[picked], " day"), picked // 2, source="memory")


def model():
    declared = TokenizerSpec(use="characters", alphabet=ALPHABET, max_length=12)
    sample, of_texts = prepared(job(tokenizer=declared), data().head(8))
    assert sample.inputs.shape == (8, 12) and sample.kind == "other"
    plain = TorchModel(Bag(), "multiclass")
    plain.predict(sample.inputs)
    return plain, of_texts(plain), make_reader(declared, None)


def test_every_capability_goes_through_the_tokenizer():
    plain, found, encoder = model()
    texts, labels = data().inputs, data().targets
    numbers = encoder.ids(texts)
    assert isinstance(found, Differentiable) and isinstance(found, DifferentiableOfTexts)
    np.testing.assert_array_equal(found.predict(texts), plain.predict(numbers))
    doubled = {name: 2 * value for name, value in found.weights().items()}
    np.testing.assert_array_equal(found.predict_at(doubled, texts), plain.predict_at(doubled, numbers))
    x, y = found.tensors(texts, labels)
    assert x.dtype == torch.int64 and x.tolist() == numbers.tolist() and y.tolist() == labels.tolist()
    assert found.loss(found.parameters, x, y) == plain.loss(plain.parameters, x, y)
    exact = found.precise()
    assert exact.dtype == "float64" and exact.meter is not found.meter
    np.testing.assert_allclose(exact.predict(texts), found.predict(texts), atol=1e-5)
    assert found.meter is plain.meter and found.meter.forward > 0


def test_probes_of_outputs_of_weights_and_of_corruptions():
    _, found, _ = model()
    (accuracy, *_) = Accuracy().measure(found, data(), 0, Budget())
    (corrupted,) = Corruption(kinds=("typos", "drop"), severities=(1, 5)).measure(found, data(), 0, Budget())
    (trace, *_) = HessianTrace().measure(found, data(), 0, Budget())
    assert accuracy.measurement.estimate is not None and trace.measurement.estimate is not None
    assert corrupted.measurement.details["data_kind"] == "text (inferred)"
    assert (
        0 < corrupted.arrays["corruption/effect"].values()[0][0] < corrupted.arrays["corruption/effect"].values()[0][1]
    )


def test_a_black_box_stays_one():
    class Length:
        task, batch_size, dtype, device = "regression", 8, "float32", "cpu"
        meter = Meter()

        def predict(self, inputs):
            return (inputs > 0).sum(axis=1).astype(np.float64)

    declared = TokenizerSpec(use="bytes", max_length=4)
    _, of_texts = prepared(job(tokenizer=declared), data())
    found = of_texts(Length())
    assert isinstance(found, PredictorOfTexts) and isinstance(found, Predictor)
    assert not isinstance(found, Differentiable)
    assert found.predict(np.array(["ab", "", "abcdef"])).tolist() == [2, 0, 4]


def test_what_a_regression_states_goes_through_the_tokenizer():
    class Stated:
        levels, origin = (), "two columns"

        def __call__(self, inputs):
            return np.stack([(inputs > 0).sum(axis=1), np.ones(len(inputs))], axis=1).astype(np.float64)

    class Length:
        task, batch_size, dtype, device = "regression", 8, "float32", "cpu"
        meter, distribution, no_distribution_because = Meter(), Stated(), "none"

        def predict(self, inputs):
            return (inputs > 0).sum(axis=1).astype(np.float64)

    _, of_texts = prepared(job(tokenizer=TokenizerSpec(use="bytes", max_length=4)), data())
    found = of_texts(Length())
    assert isinstance(found.distribution, Distribution) and found.distribution.origin == "two columns"
    assert found.distribution(np.array(["ab", ""])).tolist() == [[2, 1], [0, 1]]
    assert found.no_distribution_because == "none"
    assert model()[1].distribution is None


def test_weights_that_are_moved_without_derivatives_stay_movable():
    """An ONNX graph with its weights as inputs, of texts: noise on its weights and smoothed curvature are measured."""

    class Movable:
        task, batch_size, dtype, device, meter = "multiclass", 8, "float32", "cpu", Meter()
        loss_function = make_loss(None, "multiclass")

        def __init__(self):
            self.plain = TorchModel(Bag(), "multiclass")

        def predict(self, inputs):
            return self.plain.predict(inputs)

        def weights(self):
            return self.plain.weights()

        def predict_at(self, weights, inputs):
            return self.plain.predict_at(weights, inputs)

    declared = TokenizerSpec(use="characters", alphabet=ALPHABET, max_length=12)
    _, of_texts = prepared(job(tokenizer=declared), data())
    found, plain = of_texts(Movable()), model()[1]
    assert isinstance(found, PerturbableOfTexts) and isinstance(found, Perturbable)
    assert not isinstance(found, Differentiable) and found.loss_function is Movable.loss_function
    doubled = {name: 2 * value for name, value in found.weights().items()}
    texts = data().inputs
    np.testing.assert_array_equal(found.predict_at(doubled, texts), plain.predict_at(doubled, texts))
    (noisy, *_) = WeightNoise().measure(found, data(), 0, Budget())
    assert noisy.measurement.estimate is not None


def test_a_live_model_of_ids_is_measured_on_texts(tmp_path):
    texts, labels = data().inputs.tolist(), data().targets
    declared = {"use": "characters", "alphabet": ALPHABET, "max_length": 12}
    found = flataudit.measure(Bag(), texts, labels, probes=["accuracy", "hessian_trace"], tokenizer=declared)
    plain = flataudit.measure(
        Bag(), make_reader(TokenizerSpec(**declared), None).ids(data().inputs), labels, probes=["accuracy"]
    )
    assert found["validation_accuracy"].estimate == plain["validation_accuracy"].estimate
    assert found["hessian_trace"].estimate is not None
    assert found.protocol.tokenizer != plain.protocol.tokenizer
    words, digests = tmp_path / "vocabulary", []
    for line in ("good", "bad"):
        words.write_text(f"_\n{line}")
        by_words = {"use": "words", "path": str(words), "max_length": 3}
        digests.append(flataudit.measure(Bag(), texts, labels, probes=["accuracy"], tokenizer=by_words).protocol)
    assert digests[0].differences(digests[1])
    for wrong, message in (
        ({"use": "characters", "max_length": 3}, "got .*no alphabet"),
        ({"use": "words", "path": str(tmp_path / "none"), "max_length": 3}, "No such file"),
        ({"use": "words", "in_artifact": "v", "max_length": 3}, "a file in its artifact"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            flataudit.measure(Bag(), texts, labels, probes=["accuracy"], tokenizer=wrong)
    with pytest.raises(ModelError, match="texts without a tokenizer"):
        flataudit.measure(Bag(), texts, labels, probes=["accuracy"])


def test_a_vocabulary_of_something_else_is_refused():
    """Texts that differ and become the same ids: the model would answer all of them alike."""
    declared = TokenizerSpec(use="characters", alphabet="_ABCDEFG", max_length=12)
    with pytest.raises(ModelError, match=r"tells apart, got the same ids for all 80.*`lowercase`"):
        prepared(job(tokenizer=declared), data())
    short = TokenizerSpec(use="characters", alphabet=ALPHABET + "ABC", max_length=12)
    sample, _ = prepared(job(tokenizer=short), data())
    few = dataclasses.replace(sample, inputs=sample.inputs + 20)
    with pytest.raises(ModelError, match=r"the ids go up to \d+: check that the vocabulary"):
        verify(TorchModel(Bag(), "multiclass"), few)


def test_texts_and_tokenizer_belong_together():
    with pytest.raises(ModelError, match=r"texts without a tokenizer.*declare `tokenizer:`"):
        prepared(job(), data())
    sample, same = prepared(job(), data(), strings=True)
    assert sample.kind == "text" and same(3) == 3
    table = checked("v", "validation", np.zeros((2, 3)), [0, 1], source="memory")
    assert prepared(job(), table)[0] is table
    with pytest.raises(ModelError, match="inputs of kind table"):
        prepared(job(tokenizer=TokenizerSpec(use="bytes", max_length=4)), table)


# ── In a policy file ──


POLICY = """
model: m
data: {validation: {use: npz, path: v.npz, inputs: words, kind: text}}
tokenizer: {use: words, path: vocabulary, max_length: 8, unknown: 1}
"""


def test_the_policy_file_names_the_tokenizer_and_binds_it_to_its_bytes(tmp_path):
    file = tmp_path / "vocabulary"
    file.write_text("<pad>\n<unk>\ngood")
    found = parse_config(POLICY, base=tmp_path).plan()
    assert found.tokenizer.path == str(file) and found.tokenizer.digest.startswith("sha256:")
    worker = found.job(Candidate(name="m", uri="m"), tmp_path)
    assert worker.tokenizer == found.tokenizer and ids(worker.tokenizer, ["good day"]) == [[2, 1] + [0] * 6]
    file.write_text("<pad>\n<unk>\nbad")
    assert parse_config(POLICY, base=tmp_path).plan().tokenizer.digest != found.tokenizer.digest
    with pytest.raises(DataError, match="changed while the audit ran"):
        make_reader(worker.tokenizer, tmp_path)
    file.unlink()
    with pytest.raises(ConfigurationError, match=r"readable file .*vocabulary.*`tokenizer: path`"):
        parse_config(POLICY, base=tmp_path)
    with pytest.raises(ConfigurationError, match="did you mean max_length"):
        parse_config(POLICY.replace("max_length", "max_lenght"), base=tmp_path)
