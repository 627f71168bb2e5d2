"""What `flataudit corruptions` prints: the kinds with their strengths, their effect on data, a sample and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.catalogue import CORRUPTIONS, DATA_KINDS, DEFAULT_KINDS, KINDS, SEVERITIES, DataKind, Suite
from flataudit.corruptions.effects import effect
from flataudit.corruptions.png import png
from flataudit.corruptions.samples import sample
from flataudit.errors import ConfigurationError
from flataudit.plugins import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Shown", "listed", "show"]

_SHADES = " ░▒▓█"
_BLOCKS = "▁▂▃▄▅▆▇█"
_IMAGES, _GAP, _PRINTED = 6, 2, 16
_MEASURED = 256


@dataclass(frozen=True)
class Shown:
    """One corruption on one data set."""

    data_kind: str
    kind: str
    summary: str
    amounts: tuple[float, ...]
    """Strength of severity 1 to 5, in the unit that the summary names."""
    effects: tuple[float, ...]
    """Root mean square change over the inputs' standard deviation (texts: share of edited characters), each."""
    told: dict[str, float | str]
    """What was inferred about the data."""
    printed: str
    """A clean example and its five corrupted copies, as text."""
    picture: bytes | None
    """A PNG of six images, clean and at each severity; None for other data."""


def listed(data_kind: str | None = None) -> list[dict[str, object]]:
    """Every corruption: its kind of data, name, summary, amounts, and whether the probe uses it by default."""
    wanted = DATA_KINDS if data_kind is None else (_data_kind(data_kind),)
    return [
        {
            "data_kind": data,
            "kind": kind,
            "amounts": list(CORRUPTIONS[data][kind].amounts),
            "default": kind in DEFAULT_KINDS[data],
            "summary": CORRUPTIONS[data][kind].summary,
        }
        for data in wanted
        for kind in KINDS[data]
    ]


def show(
    kind: str,
    data_kind: str | None = None,
    *,
    inputs: "NDArray[np.generic] | None" = None,
    seed: int = 0,
    calibrate: bool = False,
) -> Shown:
    """One corruption at all severities, on given inputs or on made-up ones.

    Args:
        kind: its name.
        data_kind: of which data; None: the first that has a corruption of this name.
        inputs: a data set of that kind.
        seed: of the draws.
        calibrate: strengths at which the effects are `flataudit.corruptions.catalogue.EFFECTS`.

    Raises:
        ConfigurationError: no such corruption, or it has no meaning on this data set.
    """
    data = _data_kind(data_kind) if data_kind is not None else _first_with(kind)
    clean = sample(data) if inputs is None else inputs
    suite = Suite.of(clean, data)
    if calibrate:
        suite = suite.calibrated(clean, (kind,), seed=seed)
    places = np.arange(0, len(clean), max(1, len(clean) // _MEASURED))
    copies = [suite.corrupt(clean[places], kind, severity, seed=seed, indices=places) for severity in SEVERITIES]
    graded = CORRUPTIONS[data][kind]
    columns = [clean[places], *copies]
    return Shown(
        data,
        kind,
        graded.summary,
        suite.amounts.get(kind, graded.amounts),
        tuple(effect(suite.changes(clean[places], copy)) for copy in copies),
        dict(suite.told),
        _PRINTERS[data](suite, columns),
        _picture(suite, columns) if data == "image" else None,
    )


def _first_with(kind: str) -> DataKind:
    found = [data for data in DATA_KINDS if kind in KINDS[data]]
    if not found:
        known = {name for names in KINDS.values() for name in names}
        raise ConfigurationError("the name of a corruption", got=repr(kind), remedy=nearest(kind, known))
    return found[0]


def _data_kind(name: str) -> DataKind:
    if name not in DATA_KINDS:
        raise ConfigurationError("a kind of data", got=repr(name), remedy=nearest(name, DATA_KINDS))
    return name


def _picture(suite: Suite, columns: "Sequence[NDArray[np.generic]]") -> bytes:
    """One image a row, clean and from severity 1 to 5, each value as its share of the range."""
    low, width = float(suite.told["low"]), float(suite.told["high"]) - float(suite.told["low"])
    grids = [suite.layout.opened(column[:_IMAGES]) for column in columns]
    count, channels, height, breadth = grids[0].shape
    canvas = np.full((count * (height + _GAP) - _GAP, len(grids) * (breadth + _GAP) - _GAP, channels), 255.0)
    for column, grid in enumerate(grids):
        for row in range(count):
            top, left = row * (height + _GAP), column * (breadth + _GAP)
            shares = (np.moveaxis(grid[row], 0, 2) - low) / (width or 1.0)
            canvas[top : top + height, left : left + breadth] = 255 * shares
    pixels = np.rint(np.clip(canvas, 0, 255)).astype(np.uint8)
    return png(pixels if channels == 3 else pixels[..., 0])


def _print_images(suite: Suite, columns: "Sequence[NDArray[np.generic]]") -> str:
    """The first image in shades of grey, clean and at each severity side by side, at most 16 pixels wide."""
    low, width = float(suite.told["low"]), float(suite.told["high"]) - float(suite.told["low"])
    greys = [suite.layout.opened(column[:1])[0].mean(axis=0) for column in columns]
    step = max(1, -(-max(greys[0].shape) // _PRINTED))
    shades = [np.rint((grey[::step, ::step] - low) / (width or 1.0) * 4).astype(int) for grey in greys]
    return "\n".join(
        "  ".join("".join(_SHADES[v] for v in grid[row]) for grid in shades) for row in range(len(shades[0]))
    )


def _print_rows(suite: Suite, columns: "Sequence[NDArray[np.generic]]") -> str:
    """The second row (the first has none before it), clean and at each severity."""
    return "\n".join(
        f"{name:>7}  " + " ".join(f"{value:>10.4g}" for value in column[min(1, len(column) - 1)].tolist())
        for name, column in zip(_NAMES, columns, strict=True)
    )


def _print_series(suite: Suite, columns: "Sequence[NDArray[np.generic]]") -> str:
    """The first channel of the first series as bars, clean and at each severity."""
    clean = columns[0][0, 0].astype(np.float64)
    step = max(1, -(-len(clean) // 96))
    low, width = float(clean.min()), float(np.ptp(clean)) or 1.0
    lines = []
    for name, column in zip(_NAMES, columns, strict=True):
        levels = np.clip(np.rint((column[0, 0, ::step].astype(np.float64) - low) / width * 7), 0, 7).astype(int)
        lines.append(f"{name:>7}  " + "".join(_BLOCKS[level] for level in levels))
    return "\n".join(lines)


def _print_texts(suite: Suite, columns: "Sequence[NDArray[np.generic]]") -> str:
    return "\n".join(f"{name:>7}  {column[0]}" for name, column in zip(_NAMES, columns, strict=True))


_NAMES = ("clean", *map(str, SEVERITIES))
_PRINTERS = {"image": _print_images, "table": _print_rows, "series": _print_series, "text": _print_texts}
