"""Gradients that mislead are seen, plain ones are not accused."""

import numpy as np
import pytest
import torch
from linear_models import AMPLE, room, two_classes
from networks import Network, relu_mlp
from torch import nn

from flataudit.attacks.curve import robustness_curve
from flataudit.attacks.masking import masking
from flataudit.attacks.methods import Attack, Settings
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region
from flataudit.attacks.schedule import Schedule
from flataudit.attacks.victims import Victims
from flataudit.specs import Budget

GENERATOR = np.random.default_rng(0)
ROWS = np.round(GENERATOR.standard_normal((120, 4)) * 8) / 8
W = GENERATOR.standard_normal(4)
SETTINGS = Settings(seed=0, schedule=Schedule(5, 0.5, 2), queries=40)


class Rounded(nn.Module):
    """A linear model behind a fine rounding of its inputs: its gradient is 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x * 50).round() / 50) @ torch.as_tensor(two_classes(W))


class Crooked(nn.Module):
    """Its gradient is true on a grid of eighths, on which the inputs lie, and points back everywhere else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near = ((x * 8).round() == x * 8).all(dim=1, keepdim=True)
        return torch.where(near, x, 2 * x.detach() - x) @ torch.as_tensor(two_classes(W))


def curve(model: Network, *, check: int = 64, radii: tuple[float, ...] = (0.4,), budget: Budget = AMPLE):
    answers = model.predict(ROWS)
    victims = Victims(ROWS, (ROWS @ W > 0).astype(np.int64), np.arange(120), answers)
    return robustness_curve(
        model,
        victims,
        room(4),
        norm="linf",
        radii=radii,
        attack=Attack("gradient", SETTINGS),
        other=Attack("coordinate", SETTINGS) if check else None,
        check=check,
        purse=Purse(model, budget, 120),
    )


def test_rounding_is_seen_and_what_the_search_finds_counts():
    found, bare = curve(Network(Rounded())), curve(Network(Rounded()), check=0)
    assert bare.robust[0.4].mean() > 0.9 and bare.masking is None
    assert found.masking is not None and found.masking.suspects == ("coordinate",)
    few = found.robust[0.4][:64]
    exact = np.abs(ROWS @ W) > 0.4 * np.abs(W).sum()
    assert few.mean() == pytest.approx(exact[:64].mean(), abs=0.05)
    assert found.masking.found["only_coordinate"] == (bare.robust[0.4][:64] & ~few).sum()


def test_a_gradient_that_turns_back_is_beaten_by_its_own_first_step():
    """Steps of half a radius go to and fro; one whole step arrives."""
    found = curve(Network(Crooked()), check=120)
    assert found.masking is not None and "fgsm" in found.masking.suspects
    exact = np.abs(ROWS @ W) > 0.4 * np.abs(W).sum()
    half = np.abs(ROWS @ W) > 0.2 * np.abs(W).sum()
    assert found.masking.found["checked_fgsm"] == pytest.approx(exact.mean())
    assert found.masking.found["checked_gradient"] == pytest.approx(half.mean())
    assert np.array_equal(found.robust[0.4], exact)


def test_plain_networks_are_not_accused():
    model = Network(relu_mlp())
    for radius in (0.05, 0.2, 0.6):
        answers = model.predict(ROWS)
        victims = Victims(ROWS, answers.argmax(axis=1), np.arange(120), answers)
        found = robustness_curve(
            model,
            victims,
            room(4),
            norm="l2",
            radii=(radius,),
            attack=Attack("gradient", SETTINGS),
            other=Attack("coordinate", SETTINGS),
            check=120,
            purse=Purse(model, AMPLE, 120),
        )
        assert found.masking is not None and found.masking.suspects == ()


def test_radii_nest_and_the_check_is_at_the_first():
    found = curve(Network(Rounded()), radii=(0.4, 0.1, 0.8))
    assert list(found.robust) == [0.1, 0.4, 0.8]
    assert (found.robust[0.1] >= found.robust[0.4]).all() and (found.robust[0.4] >= found.robust[0.8]).all()
    assert found.robust[0.1].mean() > 0.9 and np.array_equal(found.left, found.robust[0.8])


def test_what_the_budget_has_no_room_for_is_left_out():
    found = curve(Network(relu_mlp()), budget=Budget(passes=0.5))
    assert found.robust == {} and found.masking is None and found.left.shape == (120,)
    barely = curve(Network(Rounded()), budget=Budget(passes=5))
    assert list(barely.robust) == [0.4] and barely.masking is None


def test_what_an_unfinished_check_found_counts_all_the_same():
    """Right is at most the least that any attack which ran has left, complete or not."""
    model = Network(Rounded())
    answers = model.predict(ROWS)
    few = Victims(ROWS, (ROWS @ W > 0).astype(np.int64), np.arange(120), answers)
    attack, other = Attack("gradient", SETTINGS), Attack("coordinate", SETTINGS)
    region, none = Region(room(4), "linf", 0.4), np.zeros(120, dtype=bool)
    found = masking(
        model, few, region, fooled=none, attack=attack, other=other, purse=Purse(model, Budget(passes=8), 120)
    )
    assert not found.complete and found.suspects == () and found.fooled.any()
    bare = curve(model, check=0)
    ended = [curve(model, budget=Budget(passes=passes)) for passes in range(4, 16, 2)]
    ended = [one for one in ended if 0.4 in one.robust and one.masking is None]
    assert min(one.robust[0.4].sum() for one in ended) < bare.robust[0.4].sum()
