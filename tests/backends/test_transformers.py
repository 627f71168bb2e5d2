"""Hugging Face models from MLflow's folder: small ones made here, offline; their numbers against the model itself."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import job
from torch import nn

import flataudit
from flataudit.backends.tokenizers import make_reader
from flataudit.backends.transformers import TransformersBackend
from flataudit.contracts import AuditData, Differentiable
from flataudit.data.examples import checked
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Outcome
from flataudit.examination import measure_all
from flataudit.probes.spectrum import Spectrum
from flataudit.specs import Budget, InputField, TokenizerSpec

LENGTH, WORDS, CLASSES, N = 8, 12, 3, 24
MLMODEL = """flavors:
  transformers: {model_binary: model, components: [tokenizer], task: text-classification}
signature: {inputs: '[{"type": "string", "required": true}]'}
"""
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, **{word: 2 + i for i, word in enumerate("a b c d e f g h i j".split())}}


@pytest.fixture(scope="module")
def package() -> Iterator[Any]:
    """The package, hidden from a torchvision that does not fit this torch: it is not needed, and breaks the import."""
    hidden = False
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pass
    except Exception:  # noqa: BLE001  # a build for another torch raises anything
        hidden = True
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    found = pytest.importorskip("transformers")
    yield found
    if hidden:
        del sys.modules["torchvision"]


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


def bert(package: Any, **settings: Any) -> nn.Module:
    config = package.BertConfig(
        vocab_size=WORDS,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=LENGTH,
        num_labels=CLASSES,
        **settings,
    )
    return seeded(package.BertForSequenceClassification(config))


def saved(path: Path, module: Any) -> Path:
    module.save_pretrained(path / "model")
    (path / "MLmodel").write_text(MLMODEL)
    return path


@pytest.fixture(scope="module")
def folder(package: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with its tokenizer."""
    path = saved(tmp_path_factory.mktemp("bert"), bert(package))
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    place = path / "components" / "tokenizer"
    place.mkdir(parents=True)
    made.save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(json.dumps({"model_max_length": LENGTH}))
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same, to be spoiled."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def tokens() -> np.ndarray:
    """Texts of one to eight ids, padded at the end."""
    source = np.random.default_rng(0)
    found = source.integers(2, WORDS, (N, LENGTH))
    for row, length in zip(found, source.integers(1, LENGTH + 1, N), strict=True):
        row[length:] = 0
    return found


def data(inputs: np.ndarray | None = None) -> AuditData:
    given = tokens() if inputs is None else inputs
    return checked("validation", "validation", given, np.arange(len(given)) % CLASSES, source="test")


def expected(module: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits = module(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
    return logits.double().log_softmax(-1).numpy()


def load(path: Path, sample: AuditData, **fields: object) -> Any:
    return TransformersBackend().load(job(path, **fields), sample)


def test_ids_alone_are_masked_after_their_end_and_each_answer_is_its_own(package: Any, folder: Path) -> None:
    loaded = load(folder, data())
    assert loaded.trust == "data_only" and isinstance(loaded.model, Differentiable)
    truth = expected(bert(package), tokens(), (tokens() != 0).astype(np.int64))
    np.testing.assert_allclose(loaded.model.predict(tokens()), truth, atol=1e-5)
    for row in range(3):
        length = int((tokens()[row] != 0).sum())
        alone = loaded.model.predict(tokens()[row : row + 1, :length])
        np.testing.assert_allclose(alone, truth[row : row + 1], atol=1e-5)


def test_ids_and_mask_as_fields_become_arguments_of_these_names(package: Any, folder: Path) -> None:
    mask = np.ones((N, LENGTH), dtype=np.int64)
    mask[::2, 5:] = 0
    fields = [InputField(name=name, shape=(LENGTH,), kind="integer") for name in ("attention_mask", "input_ids")]
    both = np.hstack([mask, tokens()])
    sample = AuditData("v", "validation", both, np.arange(N) % CLASSES, None, "", fields=tuple(fields))
    loaded = load(folder, sample)
    np.testing.assert_allclose(loaded.model.predict(both), expected(bert(package), tokens(), mask), atol=1e-5)


def test_texts_go_through_the_candidates_own_tokenizer(package: Any, folder: Path) -> None:
    texts = np.array(["a b c", "j i h g f e d c b a", "unknown a", "b"] * 6)
    loaded = load(folder, data(texts))
    assert any("tokens by the candidate's own tokenizer" in note for note in loaded.notes)
    ids = [[VOCABULARY.get(word, 1) for word in text.split()][:LENGTH] for text in texts]
    padded = np.array([row + [0] * (LENGTH - len(row)) for row in ids])
    truth = expected(bert(package), padded, (padded != 0).astype(np.int64))
    np.testing.assert_allclose(loaded.model.predict(texts), truth, atol=1e-5)


def test_a_policy_tokenizer_is_for_candidates_without_one(package: Any, folder: Path, tmp_path: Path) -> None:
    """Ids of the policy's alphabet mean other words to this candidate, and it would answer them all the same."""
    texts = np.array(["a b c", "j i h", "b", "c d"] * 6)
    alphabet = TokenizerSpec(use="characters", alphabet="_abcdefghij ", max_length=LENGTH)
    own = load(folder, data(texts))
    found = load(folder, data(texts), tokenizer=alphabet)
    np.testing.assert_array_equal(found.model.predict(texts), own.model.predict(texts))
    assert any(note.endswith("the policy's is for candidates that have none") for note in found.notes)

    named = TokenizerSpec(use="tokenizers", in_artifact="components/tokenizer/tokenizer.json", max_length=1)
    short = load(folder, data(texts), tokenizer=named)
    first = np.array([text[0] for text in texts])
    np.testing.assert_allclose(short.model.predict(texts), own.model.predict(first), atol=1e-5)

    without = saved(tmp_path, bert(package))
    theirs = load(without, data(texts), tokenizer=alphabet)
    ids = make_reader(alphabet, without).ids(texts)
    np.testing.assert_allclose(
        theirs.model.predict(texts), expected(bert(package), ids, (ids != 0).astype(np.int64)), atol=1e-5
    )


def test_its_curvature_is_that_of_differences_of_the_gradient(package: Any, folder: Path) -> None:
    loaded, sample = load(folder, data(), dtype="float64"), data()
    readings = measure_all(
        loaded.model,
        [sample],
        [("spectrum", Spectrum(relative_error=1e-3))],
        seed=0,
        budget=Budget(),
        announce=lambda what, share: None,
    )
    (found,) = [r.measurement for r in readings if r.measurement.metric == "lambda_max"]
    assert found.outcome is Outcome.MEASURED, found.reason
    module = bert(package).double()
    names = [name for name, _ in module.named_parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    ids, labels = torch.tensor(tokens()), torch.tensor(sample.targets)

    def slope(theta: torch.Tensor) -> torch.Tensor:
        theta = theta.detach().requires_grad_()
        cut = theta.split([p.numel() for p in module.parameters()])
        parts = {n: t.view(p.shape) for n, t, p in zip(names, cut, module.parameters(), strict=True)}
        given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        logits = torch.func.functional_call(module, parts, (), given).logits
        return torch.autograd.grad(nn.functional.cross_entropy(logits, labels), theta)[0]

    vector = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(120):  # the power method on differences of the gradient, shifted to the positive end
        vector = vector / vector.norm()
        product = (slope(flat + 1e-4 * vector) - slope(flat - 1e-4 * vector)) / 2e-4
        largest, vector = float(vector @ product), product + 0.5 * vector
    assert found.estimate == pytest.approx(largest, rel=0.02)


def test_a_language_model_predicts_each_token(package: Any, tmp_path: Path) -> None:
    config = package.GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2)
    path = saved(tmp_path, seeded(package.GPT2LMHeadModel(config)))
    targets = np.hstack([tokens()[:, 1:], np.full((N, 1), -100)])
    sample = checked("validation", "validation", tokens(), targets, source="test")
    found = load(path, sample).model.predict(tokens())
    assert found.shape == (N, LENGTH, WORDS)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, atol=1e-5)


def test_a_live_model_is_measured_with_its_output_named(package: Any) -> None:
    full = np.random.default_rng(0).integers(2, WORDS, (N, LENGTH))
    with pytest.raises(ModelError, match="declare `output:`, where the scores are, for example `output: logits`"):
        flataudit.measure(bert(package), full, np.arange(N) % CLASSES, probes=["accuracy"])
    found = flataudit.measure(bert(package), full, np.arange(N) % CLASSES, probes=["accuracy"], output="logits")
    truth = expected(bert(package), full, np.ones_like(full)).argmax(-1) == np.arange(N) % CLASSES
    assert found["validation_accuracy"].estimate == pytest.approx(truth.mean())


def test_a_weight_that_the_file_lacks_is_no_random_number(copied: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    file = copied / "model" / "model.safetensors"
    state = safetensors.load_file(file)
    state.pop("classifier.weight")
    safetensors.save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing or of another shape: classifier\.weight"):
        load(copied, data())


def test_code_in_the_configuration_is_refused_unread(copied: Path, tmp_path: Path) -> None:
    file = copied / "model" / "config.json"
    config = json.loads(file.read_text()) | {"auto_map": {"AutoModelForSequenceClassification": "evil.Evil"}}
    file.write_text(json.dumps(config))
    (copied / "model" / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')\n")
    with pytest.raises(UntrustedError, match="auto_map"):
        load(copied, data())
    assert not (tmp_path / "exploded").exists()


def test_pickled_weights_ask_for_trust(package: Any, copied: Path) -> None:
    (copied / "model" / "model.safetensors").unlink()
    torch.save(bert(package).state_dict(), copied / "model" / "pytorch_model.bin")
    with pytest.raises(UntrustedError, match="pickled"):
        load(copied, data())
    loaded = load(copied, data(), trust=True)
    assert loaded.trust == "code_bearing"
    truth = expected(bert(package), tokens(), (tokens() != 0).astype(np.int64))
    np.testing.assert_allclose(loaded.model.predict(tokens()), truth, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "mlmodel", "message"),
    [
        ({"architectures": ["BertModel"]}, MLMODEL, "ends in ForSequenceClassification"),
        ({}, MLMODEL.replace("model_binary: model", "source_model_name: bert"), "a name on the Hugging Face hub"),
        ({}, MLMODEL.replace("model_binary: model", "model_binary: ../x"), "which leaves it"),
        ({}, MLMODEL.replace("model_binary: model", "model_binary: model, peft_adaptor: peft"), "merge_and_unload"),
    ],
)
def test_what_cannot_be_loaded_says_why(copied: Path, config: dict[str, object], mlmodel: str, message: str) -> None:
    file = copied / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    (copied / "MLmodel").write_text(mlmodel)
    with pytest.raises(ModelError, match=message):
        load(copied, data())


def test_an_index_may_not_name_files_elsewhere(copied: Path) -> None:
    index = {"weight_map": {"classifier.weight": "../../elsewhere.safetensors"}}
    (copied / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="elsewhere"):
        load(copied, data())


def test_named_classes_in_another_order_are_refused(package: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, bert(package, id2label={0: "ant", 1: "bee", 2: "cow"}))
    sample = data()
    given = dict(inputs=sample.inputs, targets=sample.targets, groups=None, digest="")
    load(path, AuditData("v", "validation", **given, class_names=("ant", "bee", "cow")))
    with pytest.raises(ModelError, match="got ant, bee, cow; number the classes alike"):
        load(path, AuditData("v", "validation", **given, class_names=("bee", "ant", "cow")))
