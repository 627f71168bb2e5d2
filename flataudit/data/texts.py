"""Texts on their way into an audit: one unicode array, nothing unpickled, and the same bytes on every machine."""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["as_texts", "looks_like_texts", "text_array", "utf8"]

_MOST_BYTES = 2**31
"""An array of strings takes four bytes a character of its longest text, for every text."""


def looks_like_texts(values: "ArrayLike") -> bool:
    """Whether these are strings, one an example: ``(n,)`` of NumPy's unicode, or a list of `str`."""
    if isinstance(values, list | tuple):
        return bool(values) and all(isinstance(value, str) for value in values)
    return isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind == "U"


def as_texts(values: "ArrayLike", source: str) -> "NDArray[np.str_]":
    """Strings ``(n,)``, each one valid unicode without NUL, which NumPy takes for a text's end.

    Args:
        values: an array of unicode, or a list of `str`; objects are refused, since what is no string among them would
            become one silently.
        source: where they come from, for messages.

    Raises:
        DataError: not strings, or not one an example.

    >>> as_texts(["a", "bc", ""], "a list").tolist()
    ['a', 'bc', '']
    """
    found = np.asarray(values)
    if found.dtype.kind != "U" or found.ndim != 1:
        remedy = "give one string an example: .astype(str) of an array of strings, decoded from bytes"
        raise DataError(f"texts (n,) in {source}", got=f"shape {found.shape} of {found.dtype}", remedy=remedy)
    for place, text in enumerate(found.tolist()):
        if "\0" in text or not _is_unicode(text):
            got = f"a {'NUL' if chr(0) in text else 'lone surrogate'} in example {place}"
            remedy = "remove the character, or decode the text with the right encoding"
            raise DataError(f"texts of unicode characters in {source}", got=got, remedy=remedy)
    return np.ascontiguousarray(found, dtype=found.dtype.newbyteorder("="))


def text_array(texts: "Sequence[str]", source: str) -> "NDArray[np.str_]":
    """The strings as one array.

    Raises:
        DataError: it would be large, because one of the texts is long.
    """
    longest = max(map(len, texts), default=0)
    if 4 * longest * len(texts) > _MOST_BYTES:
        got = f"{len(texts)} texts, the longest of {longest} characters"
        remedy = "cut the longest texts (a model reads only the first part of them), or take fewer"
        raise DataError(f"texts of {source} that take less than 2 GiB", got=got, remedy=remedy)
    return np.array(texts, dtype=np.str_)


def utf8(texts: "NDArray[np.generic]") -> "Iterator[bytes]":
    r"""What identifies texts on every machine: of each the number of its bytes, and its UTF-8.

    >>> list(utf8(np.array(["a", "é"])))
    [b'1:a', b'2:\xc3\xa9']
    """
    for text in texts.tolist():
        encoded = text.encode()
        yield b"%d:%s" % (len(encoded), encoded)


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
