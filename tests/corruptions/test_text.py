"""Corruptions of texts, as strings and through a tokenizer, and the distance by which they are measured."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flataudit.corruptions.catalogue import KINDS, Suite
from flataudit.corruptions.draws import Draws
from flataudit.corruptions.effects import edit_shares
from flataudit.corruptions.scale import blocks
from flataudit.corruptions.text import case, drop, lookalikes, swap, typos, whitespace
from flataudit.corruptions.tokens import Characters, code_points, texts
from flataudit.errors import ConfigurationError

TEXTS = np.array(
    ["The quick brown fox", "jumps", "", "over 13 lazy dogs", "ÄÖÜ straße", "the same old line of words"] * 40
)
CODES = code_points(TEXTS)
DRAWS = Draws(0, "s/1", np.arange(len(TEXTS)))
ALPHABET = "_?abcdefghijklmnopqrstuvwxyz "


def _distance(one, other):
    """Levenshtein's, cell by cell."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
    return row[-1]


@given(pairs=st.lists(st.tuples(st.text("abc ", max_size=9), st.text("abc ", max_size=12)), min_size=1, max_size=5))
def test_edits_are_levenshteins(pairs):
    one, other = ([pair[k].rstrip("\0") for pair in pairs] for k in (0, 1))
    found = edit_shares(code_points(np.array(one)), code_points(np.array(other)))
    expected = [_distance(a, b) / max(1, len(a)) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_strings_survive_as_code_points():
    assert np.array_equal(texts(CODES), TEXTS)
    assert np.array_equal(texts(code_points(TEXTS.astype(object))), TEXTS)
    assert np.array_equal(texts(code_points(TEXTS.astype(">U30"))), TEXTS)


def test_certain_faults_in_closed_form():
    assert texts(case(None, CODES, DRAWS, 1.0)).tolist()[:5] == [
        "tHE QUICK BROWN FOX", "JUMPS", "", "OVER 13 LAZY DOGS", "äöü STRAßE",
    ]  # fmt: skip
    assert set(texts(drop(None, CODES, DRAWS, 1.0))) == {""}
    seen = texts(lookalikes(None, CODES, DRAWS, 1.0))[0]
    assert seen == "Тhе quісk brоwn fох" and seen.isascii() is False
    spaced = texts(whitespace(None, CODES, DRAWS, 1.0))
    assert all(a.replace(" ", "") == b.replace(" ", "") for a, b in zip(spaced, TEXTS, strict=True))
    assert {"over 13 lazy dogs".count(" ")} == {3} and all(
        text.count(" ") in {0, 2, 4, 6} for text in spaced[3::6].tolist()
    )
    hit = texts(typos(None, CODES, DRAWS, 1.0))
    assert all(a != b for a, b in zip(hit[1], "jumps", strict=True)) and hit[1][0] in "hkunm"
    assert all(len(a) == len(b) for a, b in zip(hit, TEXTS, strict=True)) and hit[4].startswith("ÄÖÜ ")


def test_swaps_move_neighbours_once():
    found = texts(swap(None, CODES, DRAWS, 0.3))
    assert (found != TEXTS).mean() > 0.5
    for after, before in zip(found.tolist(), TEXTS.tolist(), strict=True):
        assert Counter(after) == Counter(before)
        place = 0
        while place < len(before):
            if after[place] == before[place]:
                place += 1
            else:
                assert after[place : place + 2] == before[place : place + 2][::-1]
                place += 2


def test_faults_are_as_frequent_as_declared():
    long = np.array(["abcdefgh" * 10] * 200)
    codes, draws = code_points(long), Draws(0, "s/1", np.arange(200))
    for change in (typos, case):
        assert (change(None, codes, draws, 0.2) != codes).mean() == pytest.approx(0.2, abs=0.02)
    assert (drop(None, codes, draws, 0.2) > 0).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("kind", KINDS["text"])
def test_a_text_is_corrupted_the_same_in_a_narrower_array(kind):
    suite = Suite.of(TEXTS, "text")
    whole = suite.corrupt(TEXTS, kind, 4, seed=2)
    part = suite.corrupt(np.array(["jumps", ""]), kind, 4, seed=2, indices=np.array([7, 8]))
    assert part.tolist() == whole[[7, 8]].tolist()


@pytest.mark.parametrize("kind", KINDS["text"])
def test_token_ids_through_a_declared_tokenizer(kind):
    tokenizer = Characters(ALPHABET, padding=0, unknown=1)
    lines = ["the quick brown fox", "jumps over the lazy dog and more", "a"] * 20
    ids = np.zeros((60, 32), dtype=np.int32)
    for row, line in zip(ids, lines, strict=True):
        row[: len(line)] = tokenizer.encode(line)
    suite = Suite.of(ids, "text", tokenizer=tokenizer)
    changed = suite.corrupt(ids, kind, 5, seed=0)
    assert changed.shape == ids.shape and changed.dtype == np.int32 and (changed != ids).any()
    assert changed.min() >= 0 and changed.max() < len(ALPHABET)
    by_text = Suite.of(np.array(lines), "text").corrupt(np.array(lines), kind, 5, seed=0)
    assert tokenizer.decode(changed[0].tolist()).replace("\ufffd", "?") == "".join(
        c if c in ALPHABET else "?" for c in by_text[0]
    )


def test_wrong_tokenizers_are_refused():
    ids = np.array([[2, 3, 0, 4], [2, 2, 2, 0]])
    with pytest.raises(ConfigurationError, match="gives an example's ids back"):
        Suite.of(ids, "text", tokenizer=Characters(ALPHABET))
    with pytest.raises(ConfigurationError, match=r"ids from 0 to 2.*got 3"):
        Suite.of(ids, "text", tokenizer=Characters("_ab"))


def test_edit_distances_of_texts_of_every_length_against_the_plain_recurrence():
    def distance(one, other):
        row = list(range(len(other) + 1))
        for i, a in enumerate(one, 1):
            last, row = row, [i]
            for j, b in enumerate(other, 1):
                row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
        return row[-1]

    clean = np.array(["", "a", "abcab", "kitten", "", "flaw", "abc"])
    other = np.array(["", "", "cabab", "sitting", "xy", "lawn", "abc"])
    expected = [distance(a, b) / max(len(a), 1) for a, b in zip(clean.tolist(), other.tolist(), strict=True)]
    np.testing.assert_allclose(edit_shares(code_points(clean), code_points(other)), expected)


def test_blocks_of_texts_are_counted_in_characters():
    texts = np.array(["a" * 100, "b", "c", "d"])
    assert [(part.start, part.stop) for part in blocks(texts, 250)] == [(0, 2), (2, 4)]
