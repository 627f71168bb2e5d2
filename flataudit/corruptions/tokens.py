"""Between token ids, texts and code points: a corruption acts on characters, most models take numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from flataudit.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Characters", "Encoder", "Tokenizer", "code_points", "decoded", "encoded", "texts"]


class Encoder(Protocol):
    """From a text to ids."""

    @property
    def padding(self) -> int:
        """The id that fills an example after its text's end."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """The ids of a text, without padding."""
        ...


class Tokenizer(Encoder, Protocol):
    """How the ids of a data set came from texts; declared, since nothing in the ids tells it."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, padding left out."""
        ...


@dataclass(frozen=True)
class Characters:
    """A tokenizer whose ids are places in an alphabet.

    >>> tokenizer = Characters("_abc ", padding=0)
    >>> list(tokenizer.encode("cab")), tokenizer.decode([3, 1, 2])
    ([3, 1, 2], 'cab')
    """

    alphabet: str
    """The character of each id; what stands at the padding's and at the unknown's place is never read."""
    padding: int = 0
    unknown: int | None = None
    """The id of characters outside the alphabet; None: they are left out."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids; an unknown one becomes U+FFFD.

        Raises:
            ConfigurationError: an id lies outside the alphabet.
        """
        outside = next((i for i in ids if not 0 <= i < len(self.alphabet)), None)
        if outside is not None:
            remedy = "give the alphabet that the inputs were made with"
            raise ConfigurationError(f"ids from 0 to {len(self.alphabet) - 1}", got=str(outside), remedy=remedy)
        return "".join("\ufffd" if i == self.unknown else self.alphabet[i] for i in ids if i != self.padding)

    def encode(self, text: str) -> Sequence[int]:
        """The ids of a text."""
        ids = [self._places.get(letter, self.unknown) for letter in text]
        return [i for i in ids if i is not None]

    @cached_property
    def _places(self) -> "dict[str, int]":
        return {letter: i for i, letter in enumerate(self.alphabet) if i not in (self.padding, self.unknown)}


def code_points(strings: "NDArray[np.generic]") -> "NDArray[np.float64]":
    """Code points ``(n, characters)`` of an array of strings ``(n,)``, 0 after each text's end.

    >>> code_points(np.array(["ab", "c"])).tolist()
    [[97.0, 98.0], [99.0, 0.0]]
    """
    plain = np.ascontiguousarray(strings.astype(np.str_))
    width = max(1, plain.dtype.itemsize // 4)
    return plain.astype(f"=U{width}").view(np.uint32).reshape(len(plain), width).astype(np.float64)


def texts(codes: "NDArray[np.float64]") -> "NDArray[np.str_]":
    """Strings ``(n,)`` of code points ``(n, characters)``.

    >>> texts(np.array([[97.0, 98.0], [99.0, 0.0]])).tolist()
    ['ab', 'c']
    """
    plain = np.ascontiguousarray(codes.astype(np.uint32))
    return plain.view(f"=U{codes.shape[1]}").reshape(len(codes))


def decoded(ids: "NDArray[np.generic]", tokenizer: Tokenizer) -> "NDArray[np.str_]":
    """The texts ``(n,)`` of ids ``(n, tokens)``."""
    return np.array([tokenizer.decode([i for i in row if i != tokenizer.padding]) for row in ids.tolist()], dtype=str)


def encoded(strings: "NDArray[np.str_]", tokenizer: Encoder, length: int) -> "NDArray[np.int64]":
    """Ids ``(n, length)`` of texts ``(n,)``, cut or padded at the end."""
    found = np.full((len(strings), length), tokenizer.padding, dtype=np.int64)
    for row, text in zip(found, strings.tolist(), strict=True):
        ids = list(tokenizer.encode(text))[:length]
        row[: len(ids)] = ids
    return found
