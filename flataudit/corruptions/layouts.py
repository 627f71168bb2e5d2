"""From the form in which a data set is given to the one that corruptions take, and back with dtype and range."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from flataudit.corruptions.tokens import Tokenizer, code_points, decoded, encoded, texts
from flataudit.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ImageLayout", "Layout", "Numbers", "Order", "Strings", "Tokens", "channel_order"]

Order = Literal["first", "last", "none"]
"""Where an image's channels are: ``(n, channels, height, width)``, ``(n, height, width, channels)``, no such axis."""


class Layout(Protocol):
    """Two ways over the same bridge."""

    def opened(self, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """What the corruptions take."""
        ...

    def closed(self, changed: "NDArray[np.float64]", like: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """What the model takes, in the form of the clean inputs."""
        ...


@dataclass(frozen=True)
class Numbers:
    """Tables and series, as they are."""

    def opened(self, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """The same in float64."""
        return inputs.astype(np.float64)

    def closed(self, changed: "NDArray[np.float64]", like: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """In the dtype of the clean inputs; integers are rounded and stay within what the dtype holds."""
        return _typed(changed, like.dtype)


@dataclass(frozen=True)
class ImageLayout:
    """Images with their channels where they are."""

    order: Order
    limits: tuple[float, float]
    """Corrupted values stay within."""

    def opened(self, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """``(n, channels, height, width)`` in float64."""
        images = inputs.astype(np.float64)
        if self.order == "none":
            return images[:, None]
        return np.ascontiguousarray(np.moveaxis(images, 3, 1)) if self.order == "last" else images

    def closed(self, changed: "NDArray[np.float64]", like: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """Within the limits, with the channels back in their place."""
        clipped = np.clip(changed, *self.limits)
        if self.order == "none":
            return _typed(clipped[:, 0], like.dtype)
        return _typed(np.ascontiguousarray(np.moveaxis(clipped, 1, 3)) if self.order == "last" else clipped, like.dtype)


@dataclass(frozen=True)
class Strings:
    """An array of strings ``(n,)``."""

    def opened(self, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """Code points."""
        return code_points(inputs)

    def closed(self, changed: "NDArray[np.float64]", like: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """Strings; the longest may have become longer."""
        return texts(changed)


@dataclass(frozen=True)
class Tokens:
    """Token ids ``(n, tokens)``, through their texts."""

    tokenizer: Tokenizer

    def opened(self, inputs: "NDArray[np.generic]") -> "NDArray[np.float64]":
        """Code points of the texts."""
        return code_points(decoded(inputs, self.tokenizer))

    def closed(self, changed: "NDArray[np.float64]", like: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """Ids of the corrupted texts, as many as before: cut or padded at the end."""
        return encoded(texts(changed), self.tokenizer, like.shape[1]).astype(like.dtype)


def channel_order(shape: tuple[int, ...], declared: Order | None = None) -> Order:
    """Where the channels of images of this shape are: as declared, else second or last where those are 1 or 3.

    Raises:
        ConfigurationError: the shape is no images', or not as declared.

    >>> channel_order((10, 3, 32, 32)), channel_order((10, 32, 32, 3)), channel_order((10, 28, 28))
    ('first', 'last', 'none')
    """
    fits: dict[Order, bool] = {
        "first": len(shape) == 4 and shape[1] in {1, 3},
        "last": len(shape) == 4 and shape[3] in {1, 3},
        "none": len(shape) == 3,
    }
    found = [order for order, right in fits.items() if right and declared in (None, order)]
    if not found:
        told = "" if declared is None else f" with channels {declared}"
        remedy = "give (n, channels, height, width) with 1 or 3 channels, or say where they are with `channels`"
        raise ConfigurationError(f"images{told}", got=f"inputs of shape {shape}", remedy=remedy)
    return found[0]


def _typed(values: "NDArray[np.float64]", dtype: "np.dtype[np.generic]") -> "NDArray[np.generic]":
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype.name)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
