"""Certificates against linear models, whose smoothed radius is the distance to the border."""

import numpy as np
import pytest
from linear_models import Answers, two_classes
from scipy.special import ndtri
from scipy.stats import binom, binomtest

from flataudit.attacks.smoothing import Certificates, certify, clopper_pearson_lower, largest_radius

GENERATOR = np.random.default_rng(0)
W = np.array([1.0, -2.0, 0.5])


def certificates(
    rows: np.ndarray, *, seed: int = 0, draws: int = 100, alpha: float = 0.05, sigma: float = 0.5, scale: float = 1.0
) -> Certificates:
    found = certify(
        Answers(two_classes(W)),
        rows,
        np.arange(len(rows)),
        level=np.full(3, sigma * scale),
        sigma=sigma,
        seed=seed,
        choosing=10,
        draws=draws,
        alpha=alpha,
        may_go_on=lambda: True,
    )
    assert found is not None
    return found


def test_the_limit_of_a_probability_is_scipys():
    for n in (1, 7, 100):
        counts = np.arange(n + 1)
        expected = [binomtest(int(k), n).proportion_ci(0.9, method="exact").low for k in counts]
        assert clopper_pearson_lower(counts, n, alpha=0.05) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("p", [0.3, 0.51, 0.8, 0.99])
def test_the_limit_lies_above_the_truth_with_a_chance_of_at_most_alpha(p: float):
    """Summed exactly over all counts."""
    counts = np.arange(101)
    above = clopper_pearson_lower(counts, 100, alpha=0.05) > p
    chance = binom.pmf(counts, 100, p)[above].sum()
    assert 0.0 < chance <= 0.05 or (p == 0.99 and chance == 0)


def test_the_radius_of_a_linear_model_is_its_distance_to_the_border_from_below():
    rows = GENERATOR.standard_normal((200, 3))
    true = np.abs(rows @ W) / np.linalg.norm(W)
    found = certificates(rows, draws=4000)
    sure = found.classes >= 0
    assert np.array_equal(found.classes[sure], (rows @ W > 0)[sure].astype(int)) and sure.mean() > 0.85
    near = sure & (true < 1)  # where votes still differ
    assert found.radii[near] == pytest.approx(true[near], abs=0.1) and near.sum() > 50
    assert (found.radii <= true).mean() > 0.93
    assert found.radii.max() == pytest.approx(largest_radius(4000, alpha=0.05, sigma=0.5))


def test_certificates_are_false_as_seldom_as_promised():
    """Share of radii beyond the true distance, over 100 seeds of 40 rows; a wrong class is beyond it too."""
    rows = 0.3 * GENERATOR.standard_normal((40, 3))
    true = np.abs(rows @ W) / np.linalg.norm(W)
    side, false = (rows @ W > 0).astype(int), 0
    for seed in range(100):
        found = certificates(rows, seed=seed)
        false += int(np.sum((found.classes >= 0) & ((found.radii > true) | (found.classes != side))))
    share = false / 4000
    assert 0.01 < share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_units_scale_the_noise_and_not_the_radius():
    rows = 0.3 * GENERATOR.standard_normal((50, 3))
    one, ten = certificates(rows, draws=500), certificates(10 * rows, draws=500, scale=10.0)
    assert np.array_equal(one.classes, ten.classes) and one.radii == pytest.approx(ten.radii)


def test_where_votes_are_divided_it_abstains():
    found = certificates(np.zeros((50, 3)))
    assert (found.classes == -1).mean() > 0.8 and (found.radii[found.classes == -1] == 0).all()


def test_the_class_is_chosen_on_draws_of_its_own():
    """On the border every certificate is false; chosen on the draws that are counted, twice as many would be given."""
    found = certify(
        Answers(two_classes(W)),
        np.zeros((2000, 3)),
        np.arange(2000),
        level=np.ones(3),
        sigma=1.0,
        seed=0,
        choosing=100,
        draws=100,
        alpha=0.2,
        may_go_on=lambda: True,
    )
    assert found is not None and 0.1 < (found.classes >= 0).mean() < 0.2 + 3 * np.sqrt(0.16 / 2000)


def test_noise_belongs_to_the_example():
    rows = 0.3 * GENERATOR.standard_normal((50, 3))
    whole = certificates(rows)
    again = certify(
        Answers(two_classes(W), batch_size=7),
        rows[[5, 3]],
        np.array([5, 3]),
        level=np.full(3, 0.5),
        sigma=0.5,
        seed=0,
        choosing=10,
        draws=100,
        alpha=0.05,
        may_go_on=lambda: True,
    )
    assert again is not None and np.array_equal(again.radii, whole.radii[[5, 3]])
    assert not np.array_equal(certificates(rows, seed=1).radii, whole.radii)


def test_the_end_of_the_time_is_no_certificate():
    answers, left = Answers(two_classes(W)), iter([True, True, False])
    options = {"level": np.ones(3), "sigma": 1.0, "seed": 0, "choosing": 2, "draws": 9, "alpha": 0.05}
    found = certify(answers, np.zeros((4, 3)), np.arange(4), **options, may_go_on=lambda: next(left))  # type: ignore[arg-type]
    assert found is None and answers.meter.forward == 8


def test_the_largest_radius():
    assert largest_radius(256, alpha=0.001, sigma=0.25) == pytest.approx(0.25 * ndtri(0.001 ** (1 / 256)))
    assert largest_radius(3, alpha=0.001, sigma=0.25) == 0
