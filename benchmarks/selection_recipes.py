"""How the candidates of the selection study are trained: the usual recipes, of which every draw takes eight at random.

None was chosen for what an audit would say of it, and none was changed after the first results.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["RECIPES", "Recipe", "described", "network", "trained"]


@dataclass(frozen=True)
class Recipe:
    """One way of training; the plain one is AdamW without any regularisation."""

    optimizer: Literal["sgd", "adamw"] = "adamw"
    """``sgd`` has a momentum of 0.9."""
    rate: float = 1e-2
    """At the start; falls to 0 along a cosine."""
    batch: int = 64
    epochs: int = 12
    decay: float = 0.0
    dropout: float = 0.0
    """Before the last layer."""
    norm: bool = False
    """Batch norm after every hidden layer."""
    sam: float = 0.0
    """Radius of sharpness-aware minimisation (Foret et al. 2021); 0: none."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on the inputs, as augmentation."""
    jitter: bool = False
    """Augmentation: images moved by up to one pixel; of rows, each value is lost with a probability of 10 %."""
    wrong: float = 0.0
    """Share of the training targets that are replaced by those of other examples."""
    share: float = 1.0
    """Of the training examples that is used."""
    smoothing: float = 0.0
    """Label smoothing; of a regression, targets shrunk by as much."""
    wider: float = 1.0
    """Hidden units, in multiples of the family's."""


RECIPES: Mapping[str, Recipe] = {
    "adamw": Recipe(),
    "adamw, hot": Recipe(rate=3e-2),
    "adamw, decay": Recipe(decay=0.3),
    "adamw, long": Recipe(epochs=30),
    "sgd, small batch": Recipe("sgd", rate=0.05, batch=16, epochs=8),
    "sgd, large batch": Recipe("sgd", rate=0.1, batch=250, epochs=25),
    "sgd, decay": Recipe("sgd", rate=0.1, decay=2e-3, epochs=15),
    "sam": Recipe("sgd", rate=0.1, sam=0.05),
    "sam, wide": Recipe("sgd", rate=0.1, sam=0.1),
    "dropout": Recipe(dropout=0.3, epochs=15),
    "batch norm": Recipe(norm=True),
    "regularised": Recipe(norm=True, dropout=0.5, decay=0.1, epochs=15),
    "input noise": Recipe(noise=0.3, epochs=15),
    "jitter": Recipe(jitter=True, epochs=15),
    "noise and jitter": Recipe(noise=0.3, jitter=True, norm=True, epochs=15),
    "wrong labels": Recipe(wrong=0.2),
    "few examples": Recipe(share=0.5, epochs=24),
    "overfit": Recipe(share=0.3, epochs=50),
    "smoothed": Recipe(smoothing=0.1),
    "wider": Recipe(wider=3.0),
}


def network(kind: str, shape: tuple[int, ...], outputs: int, recipe: Recipe) -> nn.Sequential:
    """A network whose every layer flataudit can name.

    Args:
        kind: ``cnn`` (two convolutions with pooling, two linear layers), ``strided`` (the same, its first pooling a
            stride) or ``mlp`` (two hidden layers of 64).
        shape: of one example.
        outputs: classes, or 1 for a regression, which answers ``(n,)``.
        recipe: gives width, batch norm and dropout.
    """
    drop: list[nn.Module] = [nn.Dropout(recipe.dropout)] if recipe.dropout else []
    if kind != "mlp":
        pool, stride = ([nn.MaxPool2d(2)], 1) if kind == "cnn" else ([], 2)
        narrow, wide, hidden = (round(n * recipe.wider) for n in (8, 16, 32))
        flat = wide * (shape[1] // 4) * (shape[2] // 4)
        body = [
            *_layer(nn.Conv2d(shape[0], narrow, 3, stride, padding=1), nn.BatchNorm2d(narrow), recipe),
            *pool,
            *_layer(nn.Conv2d(narrow, wide, 3, padding=1), nn.BatchNorm2d(wide), recipe),
            nn.MaxPool2d(2),
            nn.Flatten(),
            *_layer(nn.Linear(flat, hidden), nn.BatchNorm1d(hidden), recipe),
        ]
    else:
        hidden = round(64 * recipe.wider)
        first = nn.Linear(int(torch.tensor(shape).prod()), hidden)
        body = [
            nn.Flatten(),
            *_layer(first, nn.BatchNorm1d(hidden), recipe),
            *_layer(nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), recipe),
        ]
    last: list[nn.Module] = [nn.Flatten(0)] if outputs == 1 else []
    return nn.Sequential(*body, *drop, nn.Linear(hidden, outputs), *last)


def _layer(layer: nn.Module, norm: nn.Module, recipe: Recipe) -> list[nn.Module]:
    return [layer, norm, nn.ReLU()] if recipe.norm else [layer, nn.ReLU()]


def trained(kind: str, recipe: Recipe, inputs: Tensor, targets: Tensor, *, seed: int) -> nn.Module:
    """A trained network in evaluation mode; the same seed gives the same network.

    Args:
        kind: of network.
        recipe: how.
        inputs: ``(n, …)`` float32.
        targets: ``(n,)`` class numbers (int64, at most 10) or values (float32).
        seed: of everything random; no global state is left changed.
    """
    with _own_randomness(seed):
        regression = targets.is_floating_point()
        net = network(kind, tuple(inputs.shape[1:]), 1 if regression else 10, recipe)
        inputs, targets = _altered(recipe, inputs, targets)
        optimizer = _optimizer(recipe, net)
        steps = recipe.epochs * (len(inputs) // min(recipe.batch, len(inputs)))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for batch in _batches(recipe, len(inputs)):
            _step(recipe, net, optimizer, _augmented(recipe, inputs[batch]), targets[batch])
            schedule.step()
    return net.eval()


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


def _altered(recipe: Recipe, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    kept = torch.randperm(len(inputs))[: round(recipe.share * len(inputs))]
    inputs, targets = inputs[kept], targets[kept]
    wrong = torch.rand(len(targets)) < recipe.wrong
    targets = torch.where(wrong, targets[torch.randperm(len(targets))], targets)
    return inputs, targets * (1 - recipe.smoothing) if targets.is_floating_point() else targets


def _optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    return torch.optim.SGD(net.parameters(), lr=recipe.rate, momentum=0.9, weight_decay=recipe.decay)


def _batches(recipe: Recipe, n: int) -> Iterator[Tensor]:
    """Whole batches only: batch norm cannot take one example."""
    for _ in range(recipe.epochs):
        order, size = torch.randperm(n), min(recipe.batch, n)
        yield from (order[i : i + size] for i in range(0, n - size + 1, size))


def _augmented(recipe: Recipe, inputs: Tensor) -> Tensor:
    if recipe.noise:
        inputs = inputs + recipe.noise * torch.randn_like(inputs)
    if not recipe.jitter:
        return inputs
    if inputs.dim() == 2:
        return inputs * (torch.rand_like(inputs) >= 0.1)
    padded = nn.functional.pad(inputs, (1, 1, 1, 1), value=float(inputs.min()))
    moves, (height, width) = torch.randint(3, (len(inputs), 2)), inputs.shape[2:]
    rows = (torch.arange(height) + moves[:, :1])[:, None, :, None]
    columns = (torch.arange(width) + moves[:, 1:])[:, None, None, :]
    examples = torch.arange(len(inputs))[:, None, None, None]
    return padded[examples, torch.zeros_like(examples), rows, columns]


def _step(recipe: Recipe, net: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    loss = _loss(recipe, targets)
    optimizer.zero_grad()
    loss(net(inputs)).backward()
    if not recipe.sam:
        optimizer.step()
        return
    parameters = [p for p in net.parameters() if p.grad is not None]
    length = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm() + 1e-12
    moves = [recipe.sam / length * p.grad for p in parameters if p.grad is not None]
    _moved(parameters, moves, 1.0)
    optimizer.zero_grad()
    loss(net(inputs)).backward()
    _moved(parameters, moves, -1.0)
    optimizer.step()


@torch.no_grad()
def _moved(parameters: list[nn.Parameter], moves: list[Tensor], by: float) -> None:
    for parameter, move in zip(parameters, moves, strict=True):
        parameter.add_(move, alpha=by)


def _loss(recipe: Recipe, targets: Tensor) -> Callable[[Tensor], Tensor]:
    if targets.is_floating_point():
        return lambda outputs: nn.functional.mse_loss(outputs, targets)
    return lambda logits: nn.functional.cross_entropy(logits, targets, label_smoothing=recipe.smoothing)


def described() -> dict[str, dict[str, object]]:
    """Every recipe with what differs from the plain one."""
    plain = asdict(Recipe())
    return {name: {k: v for k, v in asdict(r).items() if v != plain[k]} for name, r in RECIPES.items()}
