"""From the name of a corruption to corrupted inputs, calibrated to the data set that they are from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.image import IMAGE_CORRUPTIONS, Range
from flataudit.corruptions.table import TABLE_CORRUPTIONS, Features
from flataudit.errors import ConfigurationError
from flataudit.plugins import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KINDS", "SEVERITIES", "Suite"]

KINDS: Mapping[str, tuple[str, ...]] = {"image": tuple(IMAGE_CORRUPTIONS), "table": tuple(TABLE_CORRUPTIONS)}
"""Names of the corruptions by kind of data."""
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, eq=False)
class Suite:
    """All corruptions of one data set, in units of its own scale; seeded for each example by its index.

    >>> images = np.random.default_rng(0).random((4, 1, 8, 8))
    >>> suite = Suite.of(images, "image")
    >>> whole = suite.corrupt(images, "noise", 3, seed=0)
    >>> part = suite.corrupt(images[2:], "noise", 3, seed=0, indices=np.array([2, 3]))
    >>> bool((whole[2:] == part).all())
    True
    """

    data_kind: Literal["image", "table"]
    scale: Mapping[str, float | str]
    """What the severities are measured in."""
    limits: tuple[float, float] | None
    """Corrupted values stay within; None where the data has no range of its own (tables)."""
    corruptions: "Mapping[str, Callable[[NDArray[np.float64], Draws, int], NDArray[np.float64]]]"

    @classmethod
    def of(cls, inputs: "NDArray[np.generic]", data_kind: Literal["image", "table"]) -> "Suite":
        """The suite for a whole data set, ``(n, channels, height, width)`` or ``(n, features)``."""
        if data_kind == "image":
            span = Range.of(inputs)
            images = {name: partial(function, span) for name, function in IMAGE_CORRUPTIONS.items()}
            return cls("image", {"low": span.low, "high": span.high}, (span.low, span.high), images)
        features = Features.of(inputs)
        rows = {name: partial(function, features) for name, function in TABLE_CORRUPTIONS.items()}
        return cls("table", {"unit": "standard deviation of each feature"}, None, rows)

    def corrupt(
        self,
        inputs: "NDArray[np.generic]",
        kind: str,
        severity: int,
        *,
        seed: int,
        indices: "NDArray[np.int64] | None" = None,
    ) -> "NDArray[np.generic]":
        """Corrupted copies, of the same shape and dtype; integers are rounded.

        Args:
            inputs: some or all examples of the data set.
            kind: name of a corruption of this kind of data.
            severity: 1 to 5.
            seed: any integer; an example's corruption depends on it, kind, severity and the example's index alone.
            indices: ``(n,)`` numbers of these examples in the data set; None for the first n.

        Raises:
            ConfigurationError: the kind or the severity is not known.
        """
        if kind not in self.corruptions:
            expected = f"a corruption of data of kind {self.data_kind}"
            raise ConfigurationError(expected, got=repr(kind), remedy=nearest(kind, self.corruptions))
        if severity not in SEVERITIES:
            raise ConfigurationError("a severity from 1 to 5", got=str(severity), remedy="choose one of 1, 2, 3, 4, 5")
        places = np.arange(len(inputs)) if indices is None else indices
        draws = Draws(seed, f"{kind}/{severity}", places)
        changed = self.corruptions[kind](inputs.astype(np.float64), draws, severity)
        if self.limits is not None:
            changed = np.clip(changed, *self.limits)
        return (np.rint(changed) if inputs.dtype.kind in "iu" else changed).astype(inputs.dtype)
