"""What people build: right curvature, or a reason; eager, exported, compiled, scripted, frozen, in half precision."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flataudit
from flataudit.backends.torch_model import TorchModel
from flataudit.errors import ModelError
from flataudit.evidence import Evidence, Outcome

N, CLASSES = 20, 3


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, *shape))


LABELS = np.random.default_rng(1).integers(0, CLASSES, N)


class Heads(nn.Module):
    """Self-attention as a layer of its own; the mean over tokens is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(dim=1))


class Attention(nn.Module):
    """Scaled dot products as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found = nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), x)
        return self.head(found.mean(dim=1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer, self.head = kind(4, 3, batch_first=True), nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Tokens(nn.Module):
    """An embedding whose table is the classifier too, or a bag of embeddings."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(CLASSES, 4) if tied else nn.EmbeddingBag(7, 4)
        self.head = nn.Linear(4, CLASSES)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        found = self.table(x)
        return self.head(torch.tanh(found.mean(dim=1) if found.dim() == 3 else found))


def layers(*inside: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(4, 6), *inside, nn.Linear(6, CLASSES))


def normed(norm: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, CLASSES))


def old_weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


TOKENS = np.random.default_rng(2).integers(0, CLASSES, (N, 5))
ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], np.ndarray]] = {
    "mlp": (layers(nn.ReLU()), inputs(4)),
    "gelu": (layers(nn.GELU()), inputs(4)),
    "layer norm": (layers(nn.LayerNorm(6), nn.Tanh()), inputs(4)),
    "group norm": (layers(nn.GroupNorm(2, 6), nn.Tanh()), inputs(4)),
    "rms norm": (layers(nn.RMSNorm(6), nn.Tanh()), inputs(4)),
    "multi-head attention": (Heads, inputs(5, 4)),
    "dot products": (Attention, inputs(5, 4)),
    "transformer encoder": (Encoder, inputs(3, 4)),
    "lstm": (lambda: Recurrent(nn.LSTM), inputs(5, 4)),
    "gru": (lambda: Recurrent(nn.GRU), inputs(5, 4)),
    "tied embedding": (lambda: Tokens(True), TOKENS),
    "embedding bag": (lambda: Tokens(False), TOKENS),
    "weight norm": (normed(nn.utils.parametrizations.weight_norm), inputs(4)),
    "old weight norm": (normed(old_weight_norm), inputs(4)),
    "spectral norm": (normed(nn.utils.parametrizations.spectral_norm), inputs(4)),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 2, 3, groups=2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES)
        ),
        inputs(2, 4, 4),
    ),
}


def made(kind: str) -> nn.Module:
    torch.random.default_generator.manual_seed(3)
    with torch.random.fork_rng():
        return ARCHITECTURES[kind][0]().double().eval()


def dense(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """Central differences of the gradient in float64: no second derivative of torch is used."""
    names = [n for n, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    given = torch.tensor(x) if x.dtype.kind == "i" else torch.tensor(x).double()

    def slope(theta: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_()
        parts = [t.view(s) for t, s in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)]
        out = torch.func.functional_call(module, dict(zip(names, parts, strict=True)), (given,))
        return torch.autograd.grad(nn.functional.cross_entropy(out, torch.tensor(LABELS)), theta)[0]

    step, rows = 1e-5, []
    for i in range(flat.numel()):
        moved = torch.zeros_like(flat)
        moved[i] = step
        rows.append((slope(flat + moved) - slope(flat - moved)) / (2 * step))
    return torch.stack(rows).numpy()


def measured(module: object, x: np.ndarray, **options: object) -> Evidence:
    probes = [{"use": "hessian_trace", "relative_error": 0.02}, {"use": "spectrum", "relative_error": 1e-3}]
    return flataudit.measure(module, x, LABELS, probes=probes, task="multiclass", **options)


def agrees(found: Evidence, hessian: np.ndarray, rel: float = 1e-3) -> None:
    trace, largest = found["hessian_trace"], found["lambda_max"]
    assert trace.outcome is Outcome.MEASURED, trace.reason
    assert trace.estimate == pytest.approx(np.trace(hessian), rel=rel, abs=4 * (trace.standard_error or 0.0))
    assert largest.outcome is Outcome.MEASURED, largest.reason
    assert largest.estimate == pytest.approx(np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1], rel=0.01)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_eager_networks(kind: str) -> None:
    module, x = made(kind), ARCHITECTURES[kind][1]
    agrees(measured(module, x), dense(module, x))


EXPORTED = ["mlp", "multi-head attention", "transformer encoder", "weight norm", "depthwise", "layer norm"]


@pytest.mark.parametrize("batch", [None, 8])
@pytest.mark.parametrize("kind", EXPORTED)
def test_exported_programs_of_any_and_of_one_batch_size(kind: str, batch: int | None) -> None:
    module, x = made(kind), ARCHITECTURES[kind][1]
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (torch.tensor(x[: batch or 4]),), dynamic_shapes=dynamic)
    found = measured(program, x)
    agrees(found, dense(module, x))
    if kind in ("mlp", "depthwise") and batch is None:
        assert found["hessian_trace"].standard_error == 0, "a free program has the closed forms of its module"


class Padded(nn.Module):
    """Sums over embeddings, those of the padding too, as many text classifiers do."""

    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 3, padding_idx=padding), nn.Linear(3, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).sum(dim=1).tanh())


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("padding", [0, -1])
def test_the_row_of_the_padding_has_its_derivatives(exported: bool, padding: int) -> None:
    """torch gives it none, so that every curvature of such a model failed its self-check."""
    x = np.random.default_rng(3).integers(0, 6, (N, 5))
    module, plain = Padded(padding).double(), Padded(None).double()
    plain.load_state_dict(module.state_dict())
    with torch.no_grad():
        for net in (module, plain):
            net.table.weight.copy_(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)))
    dynamic = ({0: torch.export.Dim("batch")},)
    taken = torch.export.export(module, (torch.tensor(x[:4]),), dynamic_shapes=dynamic) if exported else module
    agrees(measured(taken, x), dense(plain, x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_modules_are_their_originals() -> None:
    module, x = made("mlp"), ARCHITECTURES["mlp"][1]
    agrees(measured(torch.compile(module), x), dense(module, x))


def test_frozen_parameters_count_and_shared_ones_count_once() -> None:
    module = made("tied embedding")
    frozen = made("mlp")
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    agrees(measured(frozen, ARCHITECTURES["mlp"][1]), dense(made("mlp"), ARCHITECTURES["mlp"][1]))
    assert len(TorchModel(module, "multiclass").parameters) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_its_curvature_in_float32(dtype: torch.dtype) -> None:
    module, x = made("gelu").to(dtype), ARCHITECTURES["gelu"][1]
    found = measured(module, x)
    assert found.protocol.dtype == str(dtype).removeprefix("torch.")
    agrees(found, dense(made("gelu").to(dtype).double(), x), rel=5e-3)


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.round()


class Argmax(nn.Module):
    """The class alone, as one-hot numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x[:, :CLASSES].argmax(dim=1), CLASSES).to(x.dtype) * 5.0


class Constant(nn.Module):
    """Answers without its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :CLASSES] * 1.0


class Without(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :CLASSES] * 1.0


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (Constant(), "depend on the parameters"),
        (Without(), "no curvature to measure"),
        (nn.Sequential(nn.Linear(4, CLASSES), Rounded()), None),
        (nn.Sequential(nn.Linear(4, CLASSES), Argmax()), "depend on the parameters"),
    ],
)
def test_models_without_a_curvature_are_an_outcome_with_a_reason(module: nn.Module, told: str | None) -> None:
    """Rounding has a gradient in torch, and it is zero: then so is the curvature, and that is what is said."""
    found = measured(module.double().eval(), inputs(4), outputs="logits")
    for metric in ("hessian_trace", "lambda_max"):
        one = found[metric]
        if told is None:
            assert one.estimate == 0
        else:
            assert one.outcome is Outcome.FAILED and told in (one.reason or ""), one


@pytest.mark.parametrize(("n", "classes"), [(1, 3), (5, 1)])
def test_one_example_and_one_class(n: int, classes: int) -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, classes)).double()
    targets = np.zeros(n, dtype=np.int64) if classes == 1 else LABELS[:n]
    probes = ["hessian_trace", "spectrum", "sharpness"]
    if classes == 1:
        with pytest.raises(ModelError, match="column"):
            flataudit.measure(module, inputs(4)[:n], targets, probes=probes, task="multiclass")
        return
    found = flataudit.measure(module, inputs(4)[:n], targets, probes=probes, task="multiclass")
    assert found["hessian_trace"].outcome is Outcome.MEASURED and found["hessian_trace"].standard_error == 0
