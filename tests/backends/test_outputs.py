"""What candidates return is found on the data where nobody declares it, and only what it cannot fail to be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from programs import examples as labelled
from programs import exported, job, network, pickled
from pydantic import ValidationError
from torch import Tensor, nn

import flataudit
from flataudit.backends.answers import Answering
from flataudit.backends.outputs import settle
from flataudit.backends.pytorch import PyTorchBackend
from flataudit.backends.torch_model import TorchModel
from flataudit.backends.verification import verify
from flataudit.config import parse_config
from flataudit.contracts import Loaded
from flataudit.errors import ConfigurationError, ModelError
from flataudit.evidence import Candidate
from flataudit.specs import OutputKind

DATA = labelled()


def load(path: Path, **fields: object) -> Loaded:
    return PyTorchBackend().load(job(path, **fields), DATA)


def probabilities(n: int = 64, classes: int = 3) -> NDArray[np.float64]:
    return np.random.default_rng(1).dirichlet(np.ones(classes), n)


def answering(rows: NDArray[np.float64], declared: OutputKind | None = None, **fields: str) -> Answering:
    """A model that knows the answers to `DATA` by its first column."""
    place = {float(x): number for number, x in enumerate(DATA.inputs[:, 0])}

    def answer(x: NDArray[np.generic]) -> NDArray[np.generic]:
        return rows[[place[float(v)] for v in x[:, 0]]]

    return Answering(answer, "multiclass", outputs=declared, **fields)


@pytest.mark.parametrize(
    ("last", "kind", "what"),
    [
        (nn.Softmax(1), "probabilities", "its outputs are taken for probabilities"),
        (nn.LogSoftmax(1), "log_probabilities", "its outputs are taken for logarithms of probabilities"),
        (nn.Identity(), "logits", None),
    ],
)
def test_networks_of_every_ending_are_one_classifier(
    tmp_path: Path, last: nn.Module, kind: OutputKind, what: str | None
) -> None:
    """They answer alike, and the loss that is differentiated is the same function of the parameters."""
    loaded = load(exported(tmp_path / "m", network(last)))
    truth = network()(torch.tensor(DATA.inputs)).log_softmax(1).detach().numpy()
    np.testing.assert_allclose(loaded.model.predict(DATA.inputs), truth, atol=1e-5)
    assert isinstance(loaded.model, TorchModel) and loaded.model.outputs == kind
    assert [note for note in loaded.notes if "outputs" in note] == (
        [] if what is None else [f"{what}, since nothing is declared and all 64 rows add up to 1 within 1e-06"]
    )
    plain = flataudit.measure(network(), DATA, probes=["hessian_trace"], dtype="float64")["hessian_trace"]
    found = flataudit.measure(network(last), DATA, probes=["hessian_trace"], dtype="float64")
    assert found["hessian_trace"].estimate == pytest.approx(plain.estimate, rel=1e-6)
    assert any(what in note for note in found.notes) if what else not found.notes


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_an_onnx_network_is_settled_like_the_others(last: nn.Module) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx_models = pytest.importorskip("onnx_models")
    content = onnx_models.exported(network(last), DATA, dynamo=False)
    found = flataudit.measure(content, DATA, probes=["accuracy", "hessian_trace"])
    plain = flataudit.measure(network(), DATA, probes=["accuracy", "hessian_trace"])
    for metric in ("validation_accuracy", "validation_loss", "hessian_trace"):
        assert found[metric].estimate == pytest.approx(plain[metric].estimate, rel=1e-3), found[metric].reason
    assert any("its outputs are taken for" in note for note in found.notes)


def test_a_declared_kind_stands(tmp_path: Path) -> None:
    softmax, plain = exported(tmp_path / "s", network(nn.Softmax(1))), exported(tmp_path / "p", network())
    assert not any("taken for" in note for note in load(softmax, outputs="probabilities").notes)
    for path, outputs in ((softmax, "logits"), (softmax, "log_probabilities"), (plain, "probabilities")):
        with pytest.raises(ModelError, match=r"declare it for this candidate alone"):
            load(path, outputs=outputs)
    with pytest.raises(ModelError, match="logarithms of probabilities"):
        load(plain, outputs="log_probabilities")


def nearly(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows * np.where(np.arange(len(rows)) == 40, 1 + 1e-4, 1)[:, None]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (probabilities(), "probabilities"),
        (np.eye(3)[np.arange(64) % 3], "probabilities"),
        (np.log(probabilities()), "log_probabilities"),
        (np.vstack([probabilities(63), [[0.2, 0.3, 0.6]]]), None),  # one row is none
        (np.vstack([probabilities(63), [[-0.1, 0.5, 0.6]]]), None),
        (np.log(np.vstack([probabilities(63), [[0.2, 0.3, 0.6]]])), None),
        (probabilities() - 0.5, None),
    ],
)
def test_only_what_holds_on_every_row_is_found(rows: NDArray[np.float64], found: OutputKind | None) -> None:
    model = answering(rows, dtype="float64")
    told = settle(model, DATA)
    assert (model.declared, bool(told)) == (found, found is not None)
    assert model.outputs == (found or "logits")


def test_sums_that_are_nearly_1_are_refused_and_not_guessed() -> None:
    model = answering(nearly(probabilities()))
    assert settle(model, DATA) == () and model.declared is None
    with pytest.raises(ModelError, match=r"logits, got rows that add up to 1 within 0\.0001; declare `outputs: prob"):
        verify(model, DATA)
    verify(answering(nearly(probabilities()), "probabilities"), DATA)
    assert settle(answering(nearly(probabilities())), DATA, tolerance=1e-3)  # of code that rounds


def test_half_precision_is_given_its_rounding(tmp_path: Path) -> None:
    """Probabilities of bfloat16 miss 1 by more than 1e-3, and were taken for logits in silence."""
    net = network(nn.Softmax(1)).to(torch.bfloat16)
    off = net(torch.tensor(DATA.inputs).bfloat16()).double().sum(1).sub(1).abs().max()
    assert off > 1e-3
    loaded = load(pickled(tmp_path / "m", net), trust=True)
    assert isinstance(loaded.model, TorchModel) and loaded.model.outputs == "probabilities"


class Tokens(nn.Module):
    """A class for each of two tokens."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.inner = network(outputs=6)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x).reshape(len(x), 2, 3))


def test_a_row_of_a_sequence_is_a_token() -> None:
    """Rows of a whole sequence add up to the number of its tokens, by which nothing was recognised."""
    plain, found = (TorchModel(Tokens(last), "multiclass") for last in (nn.Identity(), nn.Softmax(-1)))
    assert settle(plain, DATA) == () and settle(found, DATA)
    np.testing.assert_allclose(found.predict(DATA.inputs), plain.predict(DATA.inputs), atol=1e-5)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_what_has_no_sum_must_be_declared(tmp_path: Path, task: str) -> None:
    path = exported(tmp_path / "m", network(nn.Sigmoid(), outputs=1 if task == "binary" else 3))
    with pytest.raises(ModelError, match=r"declare `outputs: probabilities`, or .*`outputs: \{v8: probabilities\}`"):
        load(path, task=task)
    assert load(path, task=task, outputs="probabilities").notes == ()


# ── Declared for each candidate ──

POLICY = """
model: m
data: {validation: {use: npz, path: v.npz}}
"""


def test_each_candidate_may_have_its_own(tmp_path: Path) -> None:
    """A sigmoid beside log-odds, which no data tell apart."""
    sigmoid = exported(tmp_path / "s", network(nn.Sigmoid(), outputs=1))
    logits = exported(tmp_path / "l", network(outputs=1))
    declared = {"pytorch": "logits", "v1": "probabilities"}
    both = [
        load(path, task="binary", outputs=declared, candidate=one)
        for path, one in zip(
            (sigmoid, logits), (Candidate(name="m", version=v, flavour="pytorch", uri="") for v in "12"), strict=True
        )
    ]
    one, two = (loaded.model.predict(DATA.inputs) for loaded in both)
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_policy_file_takes_one_kind_or_one_for_each() -> None:
    assert parse_config(POLICY + "outputs: logits").outputs == "logits"
    found = parse_config(POLICY + "outputs: {v8: probabilities, onnx: logits}").outputs
    assert found == {"v8": "probabilities", "onnx": "logits"}
    for wrong in ("probabilites", "{v8: probabilites}"):
        with pytest.raises(ConfigurationError, match=r"in line 4 of flataudit.yaml, got 'probabilites'"):
            parse_config(POLICY + f"outputs: {wrong}")
    with pytest.raises(ValidationError, match="outputs"):
        job(Path(), outputs={"v1": "probabilites"})
