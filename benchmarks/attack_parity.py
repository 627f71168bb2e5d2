"""Our attacks beside ART's, and our square attack beside the published one, on four small networks trained here.

``python benchmarks/attack_parity.py``; ART (`adversarial-robustness-toolbox`) is optional, and what needs it is left
out with its reason where it is missing. Robust accuracy is over all examples, wrong ones included: lower is a stronger
attack. Every attack is given the same examples, radius and limits; gradient attacks the same steps and starts, searches
the same number of queries.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from square_reference import square_l2, square_linf
from torch import nn

from flataudit.attacks.gradient import pgd
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Norm, Region, Room
from flataudit.attacks.schedule import Schedule
from flataudit.attacks.search import search
from flataudit.attacks.victims import Victims, margins, wrong
from flataudit.backends.torch_model import TorchModel
from flataudit.specs import Budget

__all__ = ["Row", "rows"]

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
UNLIMITED = Budget(passes=1e9, seconds=1e6)
TRAINED = 1200
RADII: dict[int, dict[Norm, float]] = {1: {"linf": 0.06, "l2": 0.4}, 3: {"linf": 0.03, "l2": 0.5}}
"""By the number of channels; pixels are in [0, 1]."""


@dataclass(frozen=True)
class Row:
    """One attack of ours and of somebody else's at equal effort."""

    network: str
    norm: str
    attack: str
    peer: str
    ours: float
    """Robust accuracy, the mean over seeds."""
    peers: float
    clean: float
    seeds: int

    @property
    def holds(self) -> bool:
        """Ours leaves at most one point more right."""
        return self.ours <= self.peers + 0.01


def digits() -> tuple[Images, Labels]:
    """scikit-learn's 1,797 digits, ``(n, 1, 8, 8)`` in [0, 1]."""
    found = load_digits()
    return (found.images / 16).astype(np.float32)[:, None], found.target.astype(np.int64)


def tinted(images: Images) -> Images:
    """The same twice as large, each in a colour of its own on a dark ground, with a little noise."""
    source, n = np.random.default_rng(0), len(images)
    large = images.repeat(2, axis=2).repeat(2, axis=3)
    ink, ground = source.uniform(0.3, 1.0, (n, 3, 1, 1)), source.uniform(0.0, 0.3, (n, 3, 1, 1))
    noise = 0.03 * source.standard_normal((n, 3, 16, 16))
    return np.clip(ground + large * ink * (1 - ground) + noise, 0, 1).astype(np.float32)


def cnn(channels: int, side: int) -> nn.Module:
    """Two convolutions with max pooling."""
    return nn.Sequential(
        nn.Conv2d(channels, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24 * (side // 4) ** 2, 10),
    )


def mlp(channels: int, side: int) -> nn.Module:
    """One hidden layer of 64."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, 64), nn.ReLU(), nn.Linear(64, 10))


def trained(module: nn.Module, images: Images, labels: Labels) -> nn.Module:
    """By Adam, 15 epochs, from a fixed seed."""
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            size = (2 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.0
            parameter.copy_(size * torch.randn(parameter.shape, generator=source))
    x, y, optimiser = torch.tensor(images), torch.tensor(labels), torch.optim.Adam(module.parameters(), 2e-3)
    for _ in range(15):
        for part in torch.randperm(len(x), generator=source).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(x[part]), y[part]).backward()
            optimiser.step()
    return module.eval()


def installed() -> str | None:
    """ART's version, or None."""
    try:
        return version("adversarial-robustness-toolbox")
    except PackageNotFoundError:
        return None


class Arena:
    """One network with its examples, and both sides' attacks as robust accuracies."""

    def __init__(self, name: str, module: nn.Module, images: Images, labels: Labels) -> None:
        self.name, self.module, self.images, self.labels = name, module, images, labels
        self.model = TorchModel(module, "multiclass", batch_size=512, example_bytes=1)
        answers = self.model.predict(images).astype(np.float64)
        right = ~wrong(answers, labels)
        self.clean = float(right.mean())
        self.victims = Victims(images, labels, np.arange(len(images)), answers).only(right)

    def _share(self, fooled: NDArray[np.bool_]) -> float:
        return self.clean * float(np.mean(~fooled))

    def _region(self, norm: Norm) -> Region:
        return Region(Room(np.ones(()), np.zeros(()), np.ones(())), norm, RADII[self.images.shape[1]][norm])

    def _purse(self) -> Purse:
        return Purse(self.model, UNLIMITED, len(self.victims))

    def pgd(self, norm: Norm, starts: int, seed: int) -> float:
        """Ours, 40 steps."""
        schedule, region = Schedule(40, 2.5 / 40, starts), self._region(norm)
        return self._share(pgd(self.model, self.victims, region, seed=seed, schedule=schedule, purse=self._purse()))

    def square(self, norm: Norm, queries: int, seed: int) -> float:
        """Ours."""
        region, purse = self._region(norm), self._purse()
        found = search(self.model, self.victims, region, seed=seed, proposals="square", queries=queries, purse=purse)
        return self._share(found)

    def published(self, norm: Norm, queries: int, seed: int) -> float:
        """The square attack as it is published."""

        def margin(inputs: NDArray[np.float64], which: NDArray[np.int64]) -> NDArray[np.float64]:
            return margins(self.model.predict(inputs.astype(np.float32)), self.victims.labels[which])

        attack, inputs = square_linf if norm == "linf" else square_l2, self.victims.inputs.astype(np.float64)
        epsilon = self._region(norm).epsilon
        return self._share(attack(margin, inputs, epsilon=epsilon, limits=(0.0, 1.0), queries=queries, seed=seed))

    def art(self, norm: Norm, attack: str, effort: int, seed: int) -> float:
        """ART's; ``effort``: starts of its PGD, queries of its square attack."""
        from art.attacks.evasion import ProjectedGradientDescent, SquareAttack
        from art.estimators.classification import PyTorchClassifier

        # ART draws from NumPy's global generator and takes no other.
        np.random.seed(seed)  # noqa: TID251
        shape, epsilon = self.images.shape[1:], self._region(norm).epsilon
        model = PyTorchClassifier(
            self.module, nn.CrossEntropyLoss(), shape, 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        order, x, y = np.inf if norm == "linf" else 2, np.asarray(self.victims.inputs), self.victims.labels
        if attack == "pgd":
            step = 2.5 * epsilon / 40
            made = ProjectedGradientDescent(
                model, norm=order, eps=epsilon, eps_step=step, max_iter=40,
                num_random_init=effort - 1, batch_size=512, verbose=False,
            )  # fmt: skip
        else:
            first = 0.8 if norm == "linf" else 0.1
            made = SquareAttack(
                model, norm=order, eps=epsilon, max_iter=effort, p_init=first, nb_restarts=1, batch_size=512,
                verbose=False,
            )  # fmt: skip
        moved = np.asarray(made.generate(x, y), dtype=np.float64)
        beyond = np.abs(moved - x).reshape(len(x), -1)
        reach = beyond.max(axis=1) if norm == "linf" else np.sqrt((beyond**2).sum(axis=1))
        fooled = model.predict(moved.astype(np.float32)).argmax(axis=1) != y
        return self._share(fooled & (reach <= epsilon * (1 + 1e-4)))


def arenas(count: int) -> Iterator[Arena]:
    """The four networks, each with ``count`` examples that it was not trained on."""
    images, labels = digits()
    makers: tuple[tuple[str, Callable[[int, int], nn.Module]], ...] = (("CNN", cnn), ("MLP", mlp))
    for given, size in ((images, "8×8"), (tinted(images), "16×16×3")):
        for name, make in makers:
            module = trained(make(given.shape[1], given.shape[2]), given[:TRAINED], labels[:TRAINED])
            part = slice(TRAINED, TRAINED + count)
            yield Arena(f"{name} {size}", module, given[part], labels[part])


def rows(arena: Arena, seeds: int) -> Iterator[Row]:
    """Each attack of one network."""

    def row(norm: Norm, attack: str, peer: str, ours: Callable[[int], float], theirs: Callable[[int], float]) -> Row:
        mine, other = (float(np.mean([call(seed) for seed in range(seeds)])) for call in (ours, theirs))
        return Row(arena.name, norm, attack, peer, mine, other, arena.clean, seeds)

    norms: tuple[Norm, ...] = ("linf", "l2")
    for norm in norms:
        for starts in (1, 2) if installed() else ():
            yield row(
                norm, f"PGD-40, {starts} start{'s' * (starts > 1)}", "ART",
                lambda s, n=norm, k=starts: arena.pgd(n, k, s), lambda s, n=norm, k=starts: arena.art(n, "pgd", k, s),
            )  # fmt: skip
        for queries in (200, 1000):
            yield row(
                norm, f"square, {queries} queries", "published",
                lambda s, n=norm, q=queries: arena.square(n, q, s),
                lambda s, n=norm, q=queries: arena.published(n, q, s),
            )  # fmt: skip
            if installed():
                yield row(
                    norm, f"square, {queries} queries", "ART",
                    lambda s, n=norm, q=queries: arena.square(n, q, s),
                    lambda s, n=norm, q=queries: arena.art(n, "square", q, s),
                )  # fmt: skip


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    logging.getLogger("art").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(f"Robust accuracy on {asked.examples} digits, mean of {asked.seeds} seeds; lower is the stronger attack.")
    print(f"ART {installed()}." if installed() else "ART is not installed: `pip install flataudit[art]` for its rows.")
    print(f"\n{'network':12} {'norm':5} {'attack':22} {'peer':10} {'clean':>6} {'ours':>7} {'peer':>7}  within a point")
    found = []
    for arena in arenas(asked.examples):
        for one in rows(arena, asked.seeds):
            found.append(asdict(one) | {"holds": one.holds})
            print(
                f"{one.network:12} {one.norm:5} {one.attack:22} {one.peer:10} {one.clean:6.3f} {one.ours:7.3f} "
                f"{one.peers:7.3f}  {'yes' if one.holds else 'NO'}",
                flush=True,
            )
    if asked.json:
        asked.json.write_text(json.dumps({"art": installed(), "rows": found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
