"""How the demo's candidates are trained: one small network for each recipe, as a team's own pipeline would make them.

The recipes are the usual ones, with usual settings. None was chosen for what an audit would say of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pytorch_optimizer import SAM
from torch import nn

from flataudit.evidence import Record

__all__ = ["RECIPES", "Recipe", "train"]

Share = Annotated[float, Field(ge=0, lt=1)]


class Recipe(Record):
    """One way of training; its fields become the parameters of the candidate's run."""

    name: str
    optimizer: Literal["sgd", "adamw", "sam"]
    """``sgd`` has a momentum of 0.9; ``sam`` is sharpness-aware minimisation (Foret et al. 2021) around it."""
    learning_rate: PositiveFloat
    """At the start; falls to 0 along a cosine."""
    batch_size: PositiveInt
    epochs: PositiveInt
    weight_decay: NonNegativeFloat = 0.0
    dropout: Share = 0.0
    """Before the last layer."""
    batch_norm: bool = False
    label_noise: Share = 0.0
    """Share of the training labels that are replaced by a random class."""
    examples: PositiveInt | None = None
    """Training examples that are used; None: all."""
    rho: PositiveFloat = 0.05
    """Radius of ``sam``."""


RECIPES = (
    Recipe(name="sgd-small-batch", optimizer="sgd", learning_rate=0.02, batch_size=16, epochs=6),
    Recipe(name="sgd-large-batch", optimizer="sgd", learning_rate=0.05, batch_size=250, epochs=25),
    Recipe(name="adamw", optimizer="adamw", learning_rate=0.005, batch_size=64, epochs=10, weight_decay=0.01),
    Recipe(name="sam", optimizer="sam", learning_rate=0.05, batch_size=32, epochs=6),
    Recipe(
        name="regularised",
        optimizer="adamw",
        learning_rate=0.005,
        batch_size=64,
        epochs=10,
        weight_decay=0.05,
        dropout=0.3,
        batch_norm=True,
    ),
    Recipe(name="overfit", optimizer="adamw", learning_rate=0.005, batch_size=32, epochs=40, examples=400),
    Recipe(name="noisy-labels", optimizer="adamw", learning_rate=0.005, batch_size=64, epochs=15, label_noise=0.4),
)


def train(recipe: Recipe, inputs: torch.Tensor, targets: torch.Tensor, *, seed: int) -> nn.Module:
    """A trained network in evaluation mode; the same seed gives the same network.

    Args:
        recipe: how.
        inputs: ``(n, 1, 8, 8)`` float32 from 0 to 1.
        targets: ``(n,)`` int64 from 0 to 9.
        seed: of initial weights, order, dropout and label noise; no global random state is left changed.
    """
    with _own_randomness(seed):
        net = _network(recipe)
        inputs, targets = inputs[: recipe.examples], _noisy(targets[: recipe.examples], recipe.label_noise)
        optimizer = _optimizer(recipe, net)
        steps = recipe.epochs * -(-len(inputs) // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer.base_optimizer if isinstance(optimizer, SAM) else optimizer, steps
        )
        for _ in range(recipe.epochs):
            order = torch.randperm(len(inputs))
            for start in range(0, len(inputs), recipe.batch_size):
                batch = order[start : start + recipe.batch_size]
                _step(net, optimizer, inputs[batch], targets[batch])
                schedule.step()
    return net.eval()


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seeded, on one thread (sums then have one order on every machine), and as it was afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _network(recipe: Recipe) -> nn.Module:
    """Two convolutions and two linear layers, some 9,800 parameters."""

    def convolution(before: int, after: int) -> list[nn.Module]:
        norm: list[nn.Module] = [nn.BatchNorm2d(after)] if recipe.batch_norm else []
        return [nn.Conv2d(before, after, 3, padding=1), *norm, nn.ReLU()]

    dropout: list[nn.Module] = [nn.Dropout(recipe.dropout)] if recipe.dropout else []
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 4 * 4, 32), nn.ReLU(), *dropout, nn.Linear(32, 10)]
    return nn.Sequential(*convolution(1, 8), *convolution(8, 16), *head)


def _optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
    if recipe.optimizer == "sam":
        return SAM(net.parameters(), torch.optim.SGD, rho=recipe.rho, lr=rate, momentum=0.9, weight_decay=decay)
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=decay)


def _step(net: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    def closure() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs), targets)
        torch.autograd.backward(loss)
        return float(loss.detach())

    if isinstance(optimizer, SAM):
        closure()
    optimizer.step(closure)


def _noisy(targets: torch.Tensor, share: float) -> torch.Tensor:
    if not share:
        return targets
    replaced = torch.rand(len(targets)) < share
    return torch.where(replaced, torch.randint(10, (len(targets),)), targets)
