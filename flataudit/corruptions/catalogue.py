"""From the name of a corruption to corrupted inputs, calibrated to the data set that they are from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.effects import changes, edit_shares, effect
from flataudit.corruptions.graded import Graded
from flataudit.corruptions.image import IMAGE_CORRUPTIONS, IMAGE_DEFAULTS, Range
from flataudit.corruptions.layouts import ImageLayout, Layout, Numbers, Order, Strings, Tokens, channel_order
from flataudit.corruptions.scale import blocks, moments
from flataudit.corruptions.series import SERIES_CORRUPTIONS, SERIES_DEFAULTS, Channels
from flataudit.corruptions.table import TABLE_CORRUPTIONS, TABLE_DEFAULTS, Features
from flataudit.corruptions.text import TEXT_CORRUPTIONS, TEXT_DEFAULTS
from flataudit.corruptions.tokens import Tokenizer, decoded, encoded
from flataudit.errors import ConfigurationError
from flataudit.plugins import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CORRUPTIONS", "DATA_KINDS", "DEFAULT_KINDS", "EFFECTS", "KINDS", "SEVERITIES", "DataKind", "Suite"]

DataKind = Literal["image", "table", "series", "text"]
DATA_KINDS: tuple[DataKind, ...] = get_args(DataKind)
# Any: the scale that a corruption is measured in differs from one kind of data to the next.
CORRUPTIONS: Mapping[str, Mapping[str, Graded[Any]]] = {
    "image": IMAGE_CORRUPTIONS,
    "table": TABLE_CORRUPTIONS,
    "series": SERIES_CORRUPTIONS,
    "text": TEXT_CORRUPTIONS,
}
"""Every corruption, by kind of data."""
KINDS: Mapping[str, tuple[str, ...]] = {data: tuple(kinds) for data, kinds in CORRUPTIONS.items()}
"""Their names."""
DEFAULT_KINDS: Mapping[str, tuple[str, ...]] = {
    "image": IMAGE_DEFAULTS,
    "table": TABLE_DEFAULTS,
    "series": SERIES_DEFAULTS,
    "text": TEXT_DEFAULTS,
}
"""A modest and fast selection, for those who name none."""
SEVERITIES = (1, 2, 3, 4, 5)
EFFECTS = (0.1, 0.2, 0.3, 0.45, 0.6)
"""What `Suite.calibrated` makes severity 1 to 5 do: the root mean square change over the standard deviation."""
_TRIED, _HALVINGS = 64, 10
_CACHED_VALUES = 2**17


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

    data_kind: DataKind
    told: Mapping[str, float | str]
    """What the severities are measured in, and what was inferred about the data."""
    layout: Layout
    scale: object
    """What the corruptions of this kind of data take as the data set's scale."""
    spread: "NDArray[np.float64]"
    """Standard deviation that changes are measured in; empty for texts."""
    amounts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Strengths of severity 1 to 5 where they are not the kind's own."""

    @classmethod
    def of(
        cls,
        inputs: "NDArray[np.generic]",
        data_kind: DataKind,
        *,
        channels: Order | None = None,
        missing: Literal["median", "nan"] = "median",
        tokenizer: Tokenizer | None = None,
    ) -> "Suite":
        """The suite for a whole data set.

        Args:
            inputs: images ``(n, channels, height, width)``, ``(n, height, width, channels)`` or
                ``(n, height, width)``; tables ``(n, features)``; series ``(n, channels, time)``; texts as strings
                ``(n,)`` or as token ids ``(n, tokens)`` with their tokenizer.
            data_kind: which of them.
            channels: where an image's channels are; None: inferred from the shape.
            missing: what a missing value of a table is given as.
            tokenizer: of token ids.

        Raises:
            ConfigurationError: the inputs are not of this kind.
        """
        if data_kind not in CORRUPTIONS:
            raise ConfigurationError("a kind of data", got=repr(data_kind), remedy=nearest(str(data_kind), CORRUPTIONS))
        if data_kind == "image":
            return cls._of_images(inputs, channels)
        if data_kind == "text":
            return cls._of_texts(inputs, tokenizer)
        dimensions, shape = (2, "(n, features)") if data_kind == "table" else (3, "(n, channels, time)")
        if inputs.ndim != dimensions or inputs.dtype.kind not in "iuf":
            remedy = "check `data_kind` and the shape of the inputs"
            raise ConfigurationError(f"a {data_kind} of numbers {shape}", got=_described(inputs), remedy=remedy)
        if data_kind == "series":
            series = Channels.of(inputs)
            unit = "standard deviation of each channel, and the duration"
            return cls("series", {"unit": unit}, Numbers(), series, series.deviation)
        if missing == "nan" and inputs.dtype.kind != "f":
            remedy = "leave `missing` at median"
            raise ConfigurationError("a floating-point table for NaN", got=_described(inputs), remedy=remedy)
        features = Features.of(inputs, missing)
        words = {"unit": "standard deviation of each feature", "missing": _MISSING[missing]}
        return cls("table", words, Numbers(), features, features.deviation)

    @classmethod
    def _of_images(cls, images: "NDArray[np.generic]", declared: Order | None) -> "Suite":
        order = channel_order(images.shape, declared)
        span = replace(Range.of(images), channels={"first": images.shape[1], "last": images.shape[-1]}.get(order, 1))
        where = order if declared else f"{order} (inferred)"
        told: dict[str, float | str] = {"low": span.low, "high": span.high, "channels": where}
        _, spread = moments(images, by_feature=False)
        return cls("image", told, ImageLayout(order, (span.low, span.high)), span, spread)

    @classmethod
    def _of_texts(cls, inputs: "NDArray[np.generic]", tokenizer: Tokenizer | None) -> "Suite":
        if inputs.dtype.kind in "UOT" and inputs.ndim == 1:
            return cls("text", {"unit": "share of the characters"}, Strings(), None, np.zeros(0))
        if inputs.dtype.kind not in "iu" or inputs.ndim != 2 or tokenizer is None:
            got = _described(inputs) + ("" if tokenizer else " and no tokenizer")
            remedy = "give strings, or token ids with the tokenizer that they are from"
            raise ConfigurationError("texts (n,), or token ids (n, tokens)", got=got, remedy=remedy)
        first = inputs[:_TRIED]
        if not np.array_equal(encoded(decoded(first, tokenizer), tokenizer, inputs.shape[1]), first):
            remedy = "declare the tokenizer (alphabet, padding, unknown) that made these ids"
            raise ConfigurationError(
                "a tokenizer that gives an example's ids back", got="others for the first examples", remedy=remedy
            )
        told = {"unit": "share of the characters", "tokenizer": type(tokenizer).__name__}
        return cls("text", told, Tokens(tokenizer), None, np.zeros(0))

    @property
    def constant(self) -> bool:
        """Whether all numbers are equal (in every feature or channel), so that nothing has a scale."""
        return self.spread.size > 0 and not self.spread.any()

    def unfit(self, kind: str) -> str | None:
        """Why a corruption has no meaning on this data set; None where it has.

        Raises:
            ConfigurationError: the kind is not known.
        """
        return self._graded(kind).needs(self.scale)

    def corrupt(
        self,
        inputs: "NDArray[np.generic]",
        kind: str,
        severity: int,
        *,
        seed: int,
        indices: "NDArray[np.int64] | None" = None,
    ) -> "NDArray[np.generic]":
        """Corrupted copies, of the same shape and dtype; integers are rounded; strings may become longer.

        Args:
            inputs: some or all examples of the data set.
            kind: name of a corruption of this kind of data.
            severity: 1 to 5.
            seed: any integer; an example's corruption depends on it, kind, severity and the example's index alone.
            indices: ``(n,)`` numbers of these examples in the data set; None for the first n.

        Raises:
            ConfigurationError: the kind or the severity is not known, or the kind has no meaning on this data set.
        """
        graded, reason = self._graded(kind), self.unfit(kind)
        if reason is not None:
            raise ConfigurationError(f"data on which {kind} has a meaning", got=reason, remedy="leave the kind out")
        if severity not in SEVERITIES:
            raise ConfigurationError("a severity from 1 to 5", got=str(severity), remedy="choose one of 1, 2, 3, 4, 5")
        amount = self.amounts.get(kind, graded.amounts)[severity - 1]
        places = np.arange(len(inputs)) if indices is None else indices
        return self._changed(inputs, kind, amount, Draws(seed, f"{kind}/{severity}", places))

    def changes(self, clean: "NDArray[np.generic]", changed: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """How far each example was changed, ``(n,)``: see `flataudit.corruptions.effects`."""
        before, after = self.layout.opened(clean), self.layout.opened(changed)
        return edit_shares(before, after) if self.data_kind == "text" else changes(before, after, self.spread)

    def calibrated(self, inputs: "NDArray[np.generic]", kinds: tuple[str, ...], *, seed: int) -> "Suite":
        """The same with strengths at which severity 1 to 5 change this data set by `EFFECTS`.

        Found by bisection on up to 64 examples, evenly spaced, between no change and twice severity 5; where that is
        not enough, the largest that was tried. Estimated: on all examples the effect differs by what the sample does.
        """
        step = max(1, len(inputs) // _TRIED)
        places = np.arange(0, len(inputs), step)[:_TRIED]
        sample = inputs[places]
        found = {
            kind: tuple(self._amount(sample, kind, severity, seed, places) for severity in SEVERITIES) for kind in kinds
        }
        return replace(self, amounts=found)

    def _amount(
        self, sample: "NDArray[np.generic]", kind: str, severity: int, seed: int, places: "NDArray[np.int64]"
    ) -> float:
        graded, draws = self._graded(kind), Draws(seed, f"{kind}/{severity}", places)
        low, high = 0.0, 2.0
        for _ in range(_HALVINGS):
            share = (low + high) / 2
            reached = effect(self.changes(sample, self._changed(sample, kind, graded.at(share), draws)))
            low, high = (low, share) if reached > EFFECTS[severity - 1] else (share, high)
        return graded.at((low + high) / 2)

    def _changed(self, inputs: "NDArray[np.generic]", kind: str, amount: float, draws: Draws) -> "NDArray[np.generic]":
        """A few examples at a time, so that what is between stays in the processor's cache."""
        change, parts = self._graded(kind).change, []
        for block in blocks(inputs, _CACHED_VALUES):
            some, own = inputs[block], replace(draws, indices=draws.indices[block])
            parts.append(self.layout.closed(change(self.scale, self.layout.opened(some), own, amount), some))
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _graded(self, kind: str) -> Graded[Any]:
        known = CORRUPTIONS[self.data_kind]
        if kind not in known:
            expected = f"a corruption of data of kind {self.data_kind}"
            raise ConfigurationError(expected, got=repr(kind), remedy=nearest(kind, known))
        return known[kind]


_MISSING = {"median": "filled with each column's median", "nan": "given to the model as NaN"}


def _described(inputs: "NDArray[np.generic]") -> str:
    return f"inputs of shape {inputs.shape} and type {inputs.dtype}"
