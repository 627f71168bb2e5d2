"""Which answers are wrong, and by how much."""

import numpy as np

from flataudit.attacks.victims import Victims, margins, wrong


def test_the_first_of_equals_answers_and_no_number_is_wrong():
    answers = np.log([[0.5, 0.5], [0.5, 0.5], [np.nan, 0.5]])
    assert wrong(answers, np.array([0, 1, 0])).tolist() == [False, True, True]


def test_margins_of_impossible_classes_are_numbers():
    answers = np.array([[0.0, -np.inf, -np.inf], [-np.inf, 0.0, -np.inf]])
    found = margins(answers, np.array([0, 0]))
    assert np.isfinite(found).all() and found[0] < 0 < found[1]
    assert np.isinf(answers).sum() == 4


def test_rivals_leave_out_the_label_even_where_it_is_not_the_best():
    answers = np.random.default_rng(0).standard_normal((30, 5))
    labels = np.random.default_rng(1).integers(5, size=30)
    found = Victims(np.zeros((30, 1)), labels, np.arange(30), answers).rivals()
    for row, label, ranked in zip(answers, labels, found, strict=True):
        assert sorted([*ranked, label]) == list(range(5)) and (np.diff(row[ranked]) <= 0).all()
