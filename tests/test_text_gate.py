"""Models of texts end to end: three kinds in one gate, on a real registry and by one policy; and mistakes."""

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from flataudit import cli

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and torch.export's own

WORDS = ("<pad>", "<unk>", "good", "fine", "bad", "poor", "day", "film", "the")
POLICY = """
model: m
champion: champion
challengers: {newest: 5}
data: {validation: {use: parquet, path: v.parquet, text: review, targets: label}}
architecture: {use: nets:Net, params: {words: 9}}
tokenizer: {use: words, path: vocabulary, max_length: 8, unknown: 1}
probes: [accuracy, {use: hessian_trace, relative_error: 0.5}]
policy: {first_promotion: allow}
report: {formats: [json]}
"""
TRANSFORMER = """flavors:
  transformers: {model_binary: model, components: [tokenizer], task: text-classification}
signature: {inputs: '[{"type": "string", "required": true}]'}
"""


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.table, self.head = nn.Embedding(words, 2, padding_idx=0), nn.Linear(2, 2)

    def forward(self, ids):
        return self.head(self.table(ids).sum(1)).log_softmax(-1)
"""


def network() -> Mapping[str, str | bytes]:
    """Sums of embeddings, those of the padding too; it returns log-probabilities, the transformer logits."""
    table = torch.zeros(len(WORDS), 2)
    table[2:6] = torch.tensor([[0.0, 2.0], [0.0, 1.5], [2.0, 0.0], [1.5, 0.0]])
    buffer = io.BytesIO()
    torch.save({"table.weight": table, "head.weight": torch.eye(2), "head.bias": torch.zeros(2)}, buffer)
    return {"MLmodel": "flavors:\n  pytorch: {model_data: data}\n", "data/model.pth": buffer.getvalue()}


def transformer(folder: Path) -> Mapping[str, str | bytes]:
    """With a tokenizer of its own, which numbers the same words the other way round."""
    package, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    own = {"[PAD]": 0, "[UNK]": 1, **{word: 2 + place for place, word in enumerate(WORDS[:1:-1])}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(own, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    small = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    config = package.BertConfig(vocab_size=len(own), max_position_embeddings=8, num_labels=2, **small)
    package.BertForSequenceClassification(config).save_pretrained(folder / "model")
    files = {f"model/{file.name}": file.read_bytes() for file in (folder / "model").iterdir()}
    return {"MLmodel": TRANSFORMER, "components/tokenizer/tokenizer.json": made.to_str(), **files}


def pipeline(texts: list[str], labels: list[int]) -> Mapping[str, str | bytes]:
    pytest.importorskip("sklearn")
    skops = pytest.importorskip("skops.io")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    fitted = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, labels)
    return {"MLmodel": "flavors:\n  sklearn: {pickled_model: model.skops}\n", "model.skops": skops.dumps(fitted)}


def reviews(n: int = 60) -> tuple[list[str], list[int]]:
    """A word that tells, at most one that does not, and some that say nothing at all."""
    source = np.random.default_rng(0)
    labels = source.integers(0, 2, n)
    told = np.array([WORDS[4:6], WORDS[2:4]])[labels, source.integers(0, 2, n)]
    texts = [f"the {word} day" if i % 3 else str(word) for i, word in enumerate(told)]
    return ["" if i % 10 == 9 else text for i, text in enumerate(texts)], labels.tolist()


def test_three_kinds_of_text_models_in_one_gate(
    trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = reviews()

    def gate(policy: str = POLICY, column: object = None) -> tuple[int, dict[str, Any]]:
        written = pyarrow.table({"review": texts if column is None else column, "label": labels})
        pyarrow.parquet.write_table(written, tmp_path / "v.parquet")
        (tmp_path / "flataudit.yaml").write_text(policy)
        arguments = ["gate", "--json", "-q", "--engine", "local", "--tracking-uri", trainer.uri]
        monkeypatch.setattr(sys, "argv", ["flataudit", *arguments, "--dry-run"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "vocabulary").write_text("\n".join(WORDS))
    (tmp_path / "nets.py").write_text(NETS)
    kinds = {"net": network(), "bert": transformer(tmp_path / "made"), "pipe": pipeline(texts, labels)}
    version = {kind: trainer.version(tmp_path / kind, "m", files=files) for kind, files in kinds.items()}
    trainer.client.set_registered_model_alias("m", "champion", version["net"].version)

    code, document = gate()
    found = {one["flavour"]: one for one in document["candidates"]}
    number = {kind: {m["metric"]: m for m in one["measurements"]} for kind, one in found.items()}
    empty = [label for text, label in zip(texts, labels, strict=True) if not text]
    told = (len(labels) - len(empty) + empty.count(0)) / len(labels)  # an empty text is the first of two equal classes
    assert number["pytorch"]["validation_accuracy"]["estimate"] == pytest.approx(told)
    assert number["sklearn"]["validation_accuracy"]["estimate"] >= 0.9
    for kind in found:
        assert number[kind]["hessian_trace"]["outcome"] == "measured", number[kind]["hessian_trace"]["reason"]
    assert any("own tokenizer; the policy's is for" in note for note in found["transformers"]["notes"])
    assert any("taken for logarithms of probabilities" in note for note in found["pytorch"]["notes"])
    assert code in (1, 3) and document["promoted"] is None

    for policy, column, message in (
        (POLICY.replace("text: review", "text: reveiw"), None, "did you mean review"),
        (POLICY, [None, *texts[1:]], "fill or remove these examples yourself: flataudit never fills gaps"),
        (POLICY, list(range(len(texts))), "name a column of strings"),
        (POLICY.replace("path: vocabulary", "path: none"), None, "check `tokenizer: path`"),
    ):
        code, document = gate(policy, column)
        assert code == 2 and message in document["error"]["remedy"]

    # A model of a run can be the best of all, and no alias can point to it.
    once = POLICY.replace("champion: champion", "champion: none").replace(
        "challengers: {newest: 5}", f"challengers: {{run: {version['net'].run_id}}}"
    )
    code, document = gate(once)
    assert (code, document["decision"], document["promoted"]) == (1, "hold", None)
    assert document["unregistered"] == document["candidates"][0]["label"]
