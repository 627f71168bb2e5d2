"""Corruptions of texts at five severities: what fingers, scanners, scrapers and adversaries do to characters.

Every function takes code points ``(n, characters)`` in float64, 0 after a text's end, and gives as many rows, which
may be longer. The strength is a probability for each character that the fault can befall.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.graded import Graded

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TEXT_CORRUPTIONS", "TEXT_DEFAULTS"]

_SPACE = float(ord(" "))
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LOOKALIKES = dict(zip("aceijopsxyABCEHIKMOPTXY", "асеіјорѕхуАВСЕНІКМОРТХУ", strict=True))
"""Latin letters and the Cyrillic ones of the same shape (Unicode Technical Standard 39)."""


def _beside() -> dict[str, str]:
    """The keys left, right, above and below of each letter."""
    found = {}
    for row, keys in enumerate(_KEYBOARD):
        for place, key in enumerate(keys):
            rows = [(row, place - 1), (row, place + 1), (row - 1, place), (row - 1, place + 1), (row + 1, place - 1)]
            near = [_KEYBOARD[r][p] for r, p in rows if 0 <= r < 3 and 0 <= p < len(_KEYBOARD[r])]
            found[key], found[key.upper()] = "".join(near), "".join(near).upper()
    return found


_BESIDE = _beside()


def typos(scale: None, codes: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Letters become, with this probability, a key beside them on a QWERTY keyboard."""
    drawn = _twice(draws, codes)
    return np.where(drawn[..., 0] < amount, _replaced(codes, _BESIDE, drawn[..., 1]), codes)


def case(scale: None, codes: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Letters change, with this probability, from small to capital or back."""
    letters = {chr(int(code)) for code in np.unique(codes)} - {"\0"}
    swapped = {letter: letter.swapcase() for letter in letters if len(letter.swapcase()) == 1}
    drawn = _twice(draws, codes)
    return np.where(drawn[..., 0] < amount, _replaced(codes, swapped, drawn[..., 1]), codes)


def lookalikes(scale: None, codes: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Latin letters become, with this probability, the Cyrillic letter of the same shape."""
    drawn = _twice(draws, codes)
    return np.where(drawn[..., 0] < amount, _replaced(codes, _LOOKALIKES, drawn[..., 1]), codes)


def whitespace(scale: None, codes: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Spaces are, with this probability, lost or doubled."""
    drawn = _twice(draws, codes)
    chosen = (codes == _SPACE) & (drawn[..., 0] < amount)
    return _repeated(codes, np.where(chosen, np.where(drawn[..., 1] < 0.5, 0, 2), 1))


def drop(scale: None, codes: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Characters are lost with this probability."""
    return _repeated(codes, np.where(draws.uniforms(codes.shape[1]) < amount, 0, 1))


def swap(scale: None, codes: "NDArray[np.float64]", draws: Draws, amount: float) -> "NDArray[np.float64]":
    """Characters change places with the next one, with this probability; no character moves twice."""
    after = np.pad(codes[:, 1:], ((0, 0), (0, 1)))
    drawn = (draws.uniforms(codes.shape[1]) < amount) & (codes > 0) & (after > 0)
    first = drawn & ~np.pad(drawn[:, :-1], ((0, 0), (1, 0)))
    second = np.pad(first[:, :-1], ((0, 0), (1, 0)))
    before = np.pad(codes[:, :-1], ((0, 0), (1, 0)))
    return np.where(first, after, np.where(second, before, codes))


def _twice(draws: Draws, codes: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Two numbers a character, ``(n, characters, 2)``; those of a character depend on its place alone."""
    return draws.uniforms(2 * codes.shape[1]).reshape(*codes.shape, 2)


def _replaced(
    codes: "NDArray[np.float64]", table: Mapping[str, str], drawn: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Each character of the table replaced by one of its characters there."""
    known, which = np.unique(codes, return_inverse=True)
    options = [table.get(chr(int(code)), chr(int(code))) for code in known]
    counts = np.array([len(option) for option in options])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    letters = np.array([ord(letter) for option in options for letter in option], dtype=np.float64)
    which = which.reshape(codes.shape)
    return np.asarray(letters[starts[which] + np.floor(drawn * counts[which]).astype(np.int64)])


def _repeated(codes: "NDArray[np.float64]", times: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """Each character as many times, closed up to the left."""
    times = np.where(codes > 0, times, 0)
    lengths = times.sum(axis=1)
    total = int(lengths.sum())
    changed = np.zeros((len(codes), max(codes.shape[1], int(lengths.max(initial=0)))))
    rows = np.repeat(np.arange(len(codes)), lengths)
    starts = np.cumsum(lengths) - lengths
    changed[rows, np.arange(total) - np.repeat(starts, lengths)] = np.repeat(codes.ravel(), times.ravel())
    return changed


TEXT_CORRUPTIONS: Mapping[str, Graded[None]] = {
    "typos": Graded(typos, (0.02, 0.04, 0.07, 0.11, 0.16)),
    "case": Graded(case, (0.02, 0.04, 0.07, 0.11, 0.16)),
    "whitespace": Graded(whitespace, (0.1, 0.2, 0.35, 0.55, 0.8)),
    "drop": Graded(drop, (0.02, 0.04, 0.07, 0.11, 0.16)),
    "swap": Graded(swap, (0.01, 0.02, 0.035, 0.055, 0.08)),
    "lookalikes": Graded(lookalikes, (0.05, 0.1, 0.17, 0.27, 0.4)),
}
"""Every corruption of texts; the amounts are what the functions' docstrings say."""
TEXT_DEFAULTS = tuple(TEXT_CORRUPTIONS)
"""All of them: none is slow."""
