"""The families of the selection study: data, network, and what is natural about their shifts.

Each draw splits anew: 2,000 training examples (or as many as there are), 1,000 for validation, the rest for the held-
out shifts. Of every shift 400 examples are the target inputs that a selector may see; regret is taken on the others.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from selection_shifts import IMAGE_SHIFTS, WEATHER_SHIFTS

from flataudit.specs import Task

__all__ = ["FAMILIES", "SEEN", "Family", "MissingFile", "Sets", "Target"]

Array = NDArray[np.float32]
Labels = NDArray[np.generic]
Labelled = tuple[Array, Labels]
Archive = Mapping[str, NDArray[np.generic]]
TRAINING, VALIDATION, MOST = 2000, 1000, 2000
SEEN = 400
"""Examples of each shift that are target inputs."""


class MissingFile(Exception):
    """A family's file is not in the data folder."""


@dataclass(frozen=True)
class Target:
    """A held-out shift."""

    name: str
    natural: bool
    """Real other data, not a corruption made here."""
    inputs: Array
    targets: Labels
    """The first `SEEN` are target inputs, of which 50 may be labelled; the rest judge."""


@dataclass(frozen=True)
class Sets:
    """The data of one draw."""

    training: Labelled
    validation: Labelled
    shifts: tuple[Target, ...]


@dataclass(frozen=True)
class Family:
    """One kind of data with one kind of network."""

    name: str
    title: str
    network: str
    """``cnn``, ``strided`` or ``mlp``."""
    task: Task
    split: Callable[[Path | None, int], Sets]
    """From the data folder and a seed."""
    patience: int = 1
    """Every recipe's epochs are multiplied by it; chosen on validation alone, so that the plain recipe learns."""


def _archive(folder: Path | None, name: str) -> Archive:
    if name == "optdigits8x8.npz":
        content = (resources.files("flataudit.demo") / "data" / name).read_bytes()
        return dict(np.load(io.BytesIO(content), allow_pickle=False))
    if folder is None or not (folder / name).is_file():
        raise MissingFile(f"{name} is not in {folder or 'any folder: give --data'}")
    return dict(np.load(folder / name, allow_pickle=False))


def _digits(found: Archive, part: str) -> Labelled:
    return found[f"x_{part}"][:, None].astype(np.float32) / 16, found[f"y_{part}"].astype(np.int64)


def _clothes(found: Archive, part: str) -> Labelled:
    """28 × 28 reduced to 14 × 14 by means, so that small networks are enough."""
    images = found[f"x_{part}"].astype(np.float32) / 255
    return images.reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5)), found[f"y_{part}"].astype(np.int64)


def _taken(data: Labelled, rows: NDArray[np.int64]) -> Labelled:
    return data[0][rows], data[1][rows]


def _both(*data: Labelled) -> Labelled:
    return np.concatenate([x for x, _ in data]), np.concatenate([y for _, y in data])


def _scaled(data: Labelled) -> Labelled:
    """Grey levels from −0.8 to 2.5, where small networks train well."""
    return (data[0] - np.float32(0.25)) / np.float32(0.3), data[1]


def _target(name: str, data: Labelled, source: np.random.Generator, *, natural: bool) -> Target:
    """A random `MOST` of them, shuffled."""
    return Target(name, natural, *_taken(data, source.permutation(len(data[0]))[:MOST]))


def _corrupted(data: Labelled, source: np.random.Generator) -> Iterator[Target]:
    """Every kind, on the same test examples."""
    chosen = _taken(data, source.permutation(len(data[0]))[:MOST])
    for name, change in IMAGE_SHIFTS.items():
        yield Target(name, False, *_scaled((change(chosen[0], source), chosen[1])))


def _writers(folder: Path | None, seed: int) -> Sets:
    """30 writers' digits; natural shifts: 13 other writers, and MNIST at the same size."""
    source, found = np.random.default_rng([seed, 1]), _archive(folder, "optdigits8x8.npz")
    own = _digits(found, "train")
    order = source.permutation(len(own[0]))
    natural = [_target("other writers", _scaled(_digits(found, "test")), source, natural=True)]
    try:
        mnist = _archive(folder, "mnist8x8.npz")
        every = _scaled(_both(_digits(mnist, "train"), _digits(mnist, "test")))
        natural.append(_target("MNIST", every, source, natural=True))
    except MissingFile:
        pass
    first, last = 1800, 1800 + VALIDATION
    shifts = (*natural, *_corrupted(_taken(own, order[last:]), source))
    return Sets(_scaled(_taken(own, order[:first])), _scaled(_taken(own, order[first:last])), shifts)


def _mnist(folder: Path | None, seed: int) -> Sets:
    """MNIST at 8 × 8; natural shift: optdigits."""
    source, found = np.random.default_rng([seed, 2]), _archive(folder, "mnist8x8.npz")
    own, other = _digits(found, "train"), _archive(None, "optdigits8x8.npz")
    order = source.permutation(len(own[0]))
    every = _scaled(_both(_digits(other, "train"), _digits(other, "test")))
    natural = _target("optdigits", every, source, natural=True)
    shifts = (natural, *_corrupted(_digits(found, "test"), source))
    last = TRAINING + VALIDATION
    return Sets(_scaled(_taken(own, order[:TRAINING])), _scaled(_taken(own, order[TRAINING:last])), shifts)


def _fashion(folder: Path | None, seed: int) -> Sets:
    """Fashion-MNIST; there is no natural shift."""
    source, found = np.random.default_rng([seed, 3]), _archive(folder, "fashion_mnist_subset.npz")
    train, val = _clothes(found, "train"), _clothes(found, "val")
    rows = source.permutation(len(train[0]))[:TRAINING], source.permutation(len(val[0]))[:VALIDATION]
    shifts = tuple(_corrupted(_clothes(found, "test"), source))
    return Sets(_scaled(_taken(train, rows[0])), _scaled(_taken(val, rows[1])), shifts)


def _bicycles(folder: Path | None, seed: int) -> Sets:
    """Hourly bicycle hire, January to June by whole days; natural shifts: July to September, October to December.

    The target is √count and every feature is in standard deviations, both of the training hours.
    """
    source, found = np.random.default_rng([seed, 4]), _archive(folder, "bikeshare.npz")
    rows, counts = found["X"].astype(np.float32), np.sqrt(found["y"].astype(np.float64))
    month, day = rows[:, 0] - rows[:, 0].min() + 1, rows[:, 1]
    days = source.permutation(np.unique(day[month <= 6]))
    parts = [np.flatnonzero(np.isin(day, chosen)) for chosen in np.split(days, [95, 140])]
    training, validation, test = parts
    mean, deviation = rows[training].mean(axis=0), rows[training].std(axis=0)
    deviation = np.where(deviation > 0, deviation, np.float32(1))  # a draw may train on no holiday
    centre, spread = counts[training].mean(), counts[training].std()

    def scaled(inputs: Array, at: NDArray[np.int64]) -> Labelled:
        return ((inputs - mean) / deviation).astype(np.float32), (counts[at] - centre) / spread

    seasons = {"July to September": (7, 9), "October to December": (10, 12)}
    chosen = {name: np.flatnonzero((month >= a) & (month <= b)) for name, (a, b) in seasons.items()}
    natural = [_target(name, scaled(rows[at], at), source, natural=True) for name, at in chosen.items()]
    made = [
        _target(name, scaled(change(rows[test], source), test), source, natural=False)
        for name, change in WEATHER_SHIFTS.items()
    ]
    kept = np.sort(source.permutation(validation)[:VALIDATION])
    return Sets(scaled(rows[training], training), scaled(rows[kept], kept), (*natural, *made))


FAMILIES = {
    family.name: family
    for family in (
        Family("fashion", "Fashion-MNIST at 14 × 14, CNN", "strided", "multiclass", _fashion),
        Family("writers", "digits of 30 writers, CNN", "cnn", "multiclass", _writers),
        Family("mnist", "MNIST at 8 × 8, MLP", "mlp", "multiclass", _mnist),
        Family("bicycles", "hourly bicycle hire, MLP", "mlp", "regression", _bicycles, patience=2),
    )
}
