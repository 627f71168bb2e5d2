"""Traces of many kinds of networks against dense Hessians, and the structure that decides how they are measured."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, deep_mlp, dense_gauss_newton, dense_hessian, examples, seeded
from torch import Tensor, nn
from torch.nn import functional

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import AuditData
from flataudit.curvature.gauss_newton import gauss_newton
from flataudit.curvature.losses import BinaryCrossEntropy, CrossEntropy, Huber
from flataudit.curvature.structure import structure
from flataudit.curvature.surface import Surface
from flataudit.curvature.trace import hessian_trace, weighted_trace
from flataudit.data.examples import checked
from flataudit.specs import Budget

PLENTY = Budget(passes=4000)


class Residual(nn.Module):
    """Convolutions, batch norm with statistics of its own, an in-place ReLU and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.first(x)))
        h = self.relu(self.second(h) + h)
        return self.head(functional.max_pool2d(h, 2).mean(dim=(2, 3)))


class Convolutions(nn.Module):
    """Strides, dilation, groups, depthwise and 1-d and 3-d convolutions, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4)
        self.grouped = nn.Conv2d(4, 6, 1, groups=2)
        self.line = nn.Conv1d(6, 4, 2, dilation=2)
        self.space = nn.Conv3d(1, 2, (2, 1, 3), padding=(0, 0, 1))
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.grouped(torch.relu(self.depthwise(torch.relu(self.plane(x))))))
        h = torch.relu(self.line(h.flatten(2)))
        h = torch.relu(self.space(h.reshape(len(x), 1, 4, 7, 1).transpose(3, 4).contiguous()))
        return self.head(h.flatten(2).sum(dim=2))


class Words(nn.Module):
    """An embedding with repeated tokens, a learned position, and a ReLU layer on each token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 5, padding_idx=0)
        self.position = nn.Parameter(torch.zeros(4, 5))
        self.gain = nn.Parameter(torch.ones(5))
        self.layer = nn.Linear(5, 7)
        self.slope = nn.PReLU(7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer((self.table(x.long()) + self.position) * self.gain)
        return self.head(self.slope(h.movedim(2, 1)).sum(dim=2))


class Positions(nn.Module):
    """Positions that are looked up once, as in BERT or as in GPT-2, and added to every example."""

    def __init__(self, *, rows: bool) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(6, 5), nn.Embedding(4, 5)
        self.layer, self.head = nn.Linear(5, 7), nn.Linear(7, 3)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        h = self.table(x.long()) + self.places(places[None] if self.rows else places)
        return self.head(torch.relu(self.layer(h)).sum(dim=1))


class Attention(nn.Module):
    """A transformer layer as PyTorch has it, tokens first inside."""

    def __init__(self, activation: str = "gelu") -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation=activation, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x[..., None])).mean(dim=1))


class Recurrent(nn.Module):
    """A recurrent layer, whose weights have no closed form."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer = kind(1, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x[..., None])[0][:, -1])


class Tied(nn.Module):
    """One weight on two layers of one path."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.layer(torch.relu(self.layer(x)))))


def normed(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), norm, nn.ReLU(), nn.Linear(6, 3))


class Filters(nn.Module):
    """A smooth convolution, which meets each example several times."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.head = nn.Conv1d(1, 3, 2), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.line(x[:, None])).flatten(1))


def images(n: int = 24) -> AuditData:
    source = np.random.default_rng(5)
    return checked("train", "train", source.standard_normal((n, 1, 6, 6)), source.integers(0, 3, n), source="test")


def tokens(n: int = 24) -> AuditData:
    source = np.random.default_rng(6)
    return checked("train", "train", source.integers(0, 6, (n, 4)), source.integers(0, 3, n), source="test")


AFFINE: dict[str, tuple[Callable[[], nn.Module], Callable[[], AuditData]]] = {
    "linear": (lambda: nn.Linear(4, 3), examples),
    "relu": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), examples),
    "residual": (Residual, images),
    "convolutions": (Convolutions, images),
    "words": (Words, tokens),
    "positions in a row": (lambda: Positions(rows=True), tokens),
    "positions": (lambda: Positions(rows=False), tokens),
    "batch norm": (lambda: normed(nn.BatchNorm1d(6)), examples),
}
SMOOTH: dict[str, tuple[Callable[[], nn.Module], Callable[[], AuditData]]] = {
    "tanh": (lambda: normed(nn.Tanh()), examples),
    "deep": (deep_mlp, examples),
    "filters": (Filters, examples),
    "layer norm": (lambda: normed(nn.LayerNorm(6)), examples),
    "group norm": (lambda: normed(nn.GroupNorm(2, 6)), examples),
    "rms norm": (lambda: normed(nn.RMSNorm(6)), examples),
    "transformer": (Attention, lambda: examples(24)),
}
GENERIC: dict[str, tuple[Callable[[], nn.Module], Callable[[], AuditData]]] = {
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: examples(24)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: examples(24)),
    "tied": (Tied, examples),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", AFFINE)
def test_piecewise_affine_networks_are_exact(kind: str, device: str) -> None:
    make, data = AFFINE[kind][0], AFFINE[kind][1]()
    network = Network(seeded(make()), device=device)
    hessian = dense_hessian(network, data)
    surface = Surface.of(network, data)
    assert structure(surface).affine, structure(surface)
    for measure, truth in (
        (hessian_trace, np.trace(hessian)),
        (weighted_trace, (surface.origin.cpu().numpy() ** 2) @ np.diag(hessian)),
    ):
        found = measure(surface, 0, relative_error=0.01, budget=PLENTY)
        assert found is not None and found.trace.standard_error == 0.0
        assert found.trace.estimate == pytest.approx(truth, rel=1e-8)
    diagonal = surface.parts(torch.tensor(np.diag(hessian)))
    shares = hessian_trace(surface, 0, relative_error=0.01, budget=PLENTY).trace.by_parameter
    for name, part in diagonal.items():
        assert shares[name] == pytest.approx(float(part.sum()), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("kind", SMOOTH)
def test_smooth_networks_have_an_exact_gauss_newton_part_and_an_error_on_the_rest(kind: str) -> None:
    make, data = SMOOTH[kind][0], SMOOTH[kind][1]()
    network = Network(seeded(make()))
    surface = Surface.of(network, data)
    assert not structure(surface).affine and structure(surface).layouts is not None, structure(surface)
    part = gauss_newton(surface, 0, relative_error=0.01, budget=PLENTY, weighted=True)
    squares = surface.origin.numpy() ** 2
    gauss = dense_gauss_newton(network, data)
    assert part is not None and part.trace.estimate == pytest.approx(np.trace(gauss), rel=1e-8)
    assert part.weighted is not None and part.weighted.estimate == pytest.approx(squares @ np.diag(gauss), rel=1e-8)
    hessian = dense_hessian(network, data, reverse=True)
    for measure, truth in ((hessian_trace, np.trace(hessian)), (weighted_trace, squares @ np.diag(hessian))):
        found = measure(surface, 0, relative_error=0.02, budget=Budget(passes=300))
        assert found is not None and found.trace.standard_error > 0
        assert abs(found.trace.estimate - truth) < 4 * found.trace.standard_error


def test_single_precision_loses_nothing_in_wide_layers() -> None:
    """Half a million squares are summed in double precision: a plain sum was 0.1 % too small."""
    source = np.random.default_rng(2)
    x = source.standard_normal((4, 3, 768))

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.head = seeded(nn.Linear(768, 700)), seeded(nn.Linear(700, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.wide(x)).mean(dim=1))

    data = checked("train", "train", x, np.array([0, 1, 1, 0]), source="test")
    kinds = (torch.float32, torch.float64)
    single, double = (Surface.of(TorchModel(Wide().to(kind), "multiclass"), data) for kind in kinds)
    found = [gauss_newton(one, 0, relative_error=0.01, budget=PLENTY, weighted=True) for one in (single, double)]
    assert found[0] is not None and found[1] is not None and found[0].exact
    assert found[0].trace.estimate == pytest.approx(found[1].trace.estimate, rel=1e-5)
    assert found[0].weighted is not None and found[1].weighted is not None
    assert found[0].weighted.estimate == pytest.approx(found[1].weighted.estimate, rel=1e-5)


@pytest.mark.parametrize("kind", GENERIC)
def test_what_has_no_closed_form_is_estimated_and_says_so(kind: str) -> None:
    make, data = GENERIC[kind][0], GENERIC[kind][1]()
    network = Network(seeded(make()))
    surface = Surface.of(network, data)
    assert structure(surface).layouts is None and structure(surface).opaque
    found = hessian_trace(surface, 0, relative_error=0.02, budget=Budget(passes=300))
    assert found is not None and found.trace.standard_error > 0 and "random vectors on H" in found.method
    assert (
        abs(found.trace.estimate - np.trace(dense_hessian(network, data, reverse=True)))
        < 4 * found.trace.standard_error
    )
    part = gauss_newton(surface, 0, relative_error=0.05, budget=Budget(passes=300))
    assert abs(part.trace.estimate - np.trace(dense_gauss_newton(network, data))) < 4 * part.trace.standard_error


def test_a_network_that_hides_its_curvature_from_the_scan_is_caught_by_the_residual_probes() -> None:
    """A custom function calls itself an affine operation; its second derivative does not."""

    class Bent(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            context.save_for_backward(x)
            return x + 0.3 * x**2

        @staticmethod
        def backward(context: object, g: Tensor) -> Tensor:
            (x,) = context.saved_tensors
            return g * (1 + 0.6 * x)

    class Liar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(Bent.apply(self.layer(x)))

    network, data = Network(seeded(Liar())), examples(60)
    surface = Surface.of(network, data)
    assert not structure(surface).affine
    found = hessian_trace(surface, 0, relative_error=0.02, budget=PLENTY)
    whole = torch.autograd.functional.hessian(lambda theta: next(surface.batches()).loss(theta), surface.origin)
    assert abs(found.trace.estimate - float(whole.trace())) < 4 * found.trace.standard_error


def test_quotients_by_parameters_are_not_affine() -> None:
    class Quotient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.unit = nn.Linear(4, 3), nn.Parameter(torch.full((3,), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) / self.unit

    surface = Surface.of(Network(Quotient()), examples())
    assert not structure(surface).affine


LOSSES = {
    "label weights": (CrossEntropy(label_weights=(0.5, 1.0, 3.0)), "multiclass", (3,)),
    "smoothing": (CrossEntropy(label_smoothing=0.2, label_weights=(0.5, 1.0, 3.0)), "multiclass", (3,)),
    "ignored": (CrossEntropy(ignore_index=1), "multiclass", (3,)),
    "labels": (BinaryCrossEntropy(label_smoothing=0.1, label_weights=(1.0, 2.0, 0.5)), "multilabel", (3,)),
    "huber": (Huber(delta=0.7), "regression", ()),
    "squares": (None, "regression", ()),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_as_trained(kind: str) -> None:
    """The batches of 64 and 36 weigh what their examples weigh; the traces are those of the loss that was declared."""
    loss, task, shape = LOSSES[kind]
    source = np.random.default_rng(2)
    x = source.standard_normal((100, 4))
    y: np.ndarray = source.integers(0, 3, 100)
    if task == "multilabel":
        y = source.integers(0, 2, (100, 3))
    if task == "regression":
        y = source.standard_normal(100)
    data = AuditData("train", "train", x, y, None, f"sha256:{kind}")
    network = Network(seeded(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, *shape or (1,)))), task, loss=loss)
    surface = Surface.of(network, data)
    found = hessian_trace(surface, 0, relative_error=0.01, budget=PLENTY)
    assert found is not None and found.trace.standard_error == 0
    assert found.trace.estimate == pytest.approx(np.trace(dense_hessian(network, data)), rel=1e-8)
    whole = network.loss(network.parameters, *network.tensors(data.inputs, data.targets))
    assert surface.loss(surface.origin) == pytest.approx(float(whole), rel=1e-12)


class Tagger(nn.Module):
    """Classes for each token; the tokens see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(1, 5), nn.Linear(4, 4), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.embed(x[..., None]))
        return self.head(torch.relu(self.mix(h.transpose(1, 2))).transpose(1, 2))


def test_sequences_mean_over_tokens_that_count() -> None:
    source = np.random.default_rng(3)
    y = source.integers(0, 3, (60, 4))
    y[source.random((60, 4)) < 0.3] = -100
    data = AuditData("train", "train", source.standard_normal((60, 4)), y, None, "sha256:sequences")
    network = Network(seeded(Tagger()))
    surface = Surface.of(network, data)
    found = hessian_trace(surface, 0, relative_error=0.01, budget=PLENTY)
    truth = np.trace(dense_hessian(network, data))
    assert "mixtures" in found.method and 0 < found.trace.standard_error < 0.02 * truth
    assert abs(found.trace.estimate - truth) < 4 * found.trace.standard_error


def test_many_classes_take_random_mixtures_of_the_outputs() -> None:
    source = np.random.default_rng(4)
    data = checked("train", "train", source.standard_normal((40, 4)), source.integers(0, 60, 40), source="test")
    network = Network(seeded(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 60))))
    found = hessian_trace(Surface.of(network, data), 0, relative_error=0.02, budget=PLENTY)
    truth = np.trace(dense_hessian(network, data))
    assert "mixtures" in found.method and abs(found.trace.estimate - truth) < 4 * found.trace.standard_error


def test_a_subset_of_the_parameters() -> None:
    network, data = Network(seeded(normed(nn.Tanh()))), examples()
    hessian = dense_hessian(network, data)
    surface = Surface.of(network, data, ("last:1",))
    assert surface.names == ["3.weight", "3.bias"]
    found = hessian_trace(surface, 0, relative_error=0.01, budget=PLENTY)
    # The last layer of a tanh network is linear: its own block is exact.
    assert found.trace.standard_error == 0
    assert found.trace.estimate == pytest.approx(np.diag(hessian)[-21:].sum(), rel=1e-8)


def test_the_batch_size_and_what_ran_before_change_nothing() -> None:
    data, results = examples(), []
    for size, first in ((64, False), (7, True)):
        network = Network(seeded(normed(nn.Tanh())))
        network.batch_size = size
        surface = Surface.of(network, data)
        if first:
            weighted_trace(surface, 3, relative_error=0.1, budget=PLENTY)
            gauss_newton(surface, 0, relative_error=0.05, budget=PLENTY)
        results.append(hessian_trace(surface, 0, relative_error=0.05, budget=PLENTY).trace.estimate)
    assert results[0] == pytest.approx(results[1], rel=1e-10)


def test_what_another_probe_computed_is_reused_and_booked() -> None:
    network = Network(seeded(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))))
    surface = Surface.of(network, examples())
    gauss_newton(surface, 0, relative_error=0.01, budget=PLENTY)
    spent = (network.meter.forward, network.meter.backward)
    hessian_trace(surface, 0, relative_error=0.01, budget=PLENTY)
    assert network.meter.reused > 0 and network.meter.backward == spent[1]


def _covered(interval: tuple[float, float] | None, truth: float) -> bool:
    assert interval is not None
    return interval[0] <= truth <= interval[1]


def test_the_intervals_of_all_estimated_traces_cover_the_truth() -> None:
    """400 seeds each: signs at outputs and in weights on H − G, mixtures by ghost norms, mixtures by gradients."""
    small = Budget(passes=36)
    data = examples(24)
    smooth, filters, rare = (Network(seeded(make())) for make in (deep_mlp, Filters, Tied))
    source = np.random.default_rng(4)
    many = checked("train", "train", source.standard_normal((24, 4)), source.integers(0, 60, 24), source="test")
    wide = Network(seeded(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 60))))
    shares = {}
    for name, network, examined, truth in (
        ("residual", smooth, data, np.trace(dense_hessian(smooth, data))),
        ("residual by weights", filters, data, np.trace(dense_hessian(filters, data))),
        ("mixtures", wide, many, np.trace(dense_gauss_newton(wide, many))),
        ("gradients", rare, data, np.trace(dense_gauss_newton(rare, data))),
    ):
        covered, surface = [], Surface.of(network, examined)
        for seed in range(400):
            if name.startswith("residual"):
                found = hessian_trace(surface, seed, relative_error=0.1, budget=small).trace
            else:
                found = gauss_newton(surface, seed, relative_error=0.1, budget=small).trace
            covered.append(_covered(found.interval, truth))
        shares[name] = float(np.mean(covered))
    assert 0.93 <= np.mean(list(shares.values())) <= 0.97, shares
    assert all(abs(share - 0.95) < 3.3 * (0.95 * 0.05 / 400) ** 0.5 for share in shares.values()), shares
