import numpy as np
import pytest
import torch
from torch import nn

from flataudit.demo.recipes import RECIPES, Recipe, _noisy, _optimizer, _step, train

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.rand(96, 1, 8, 8, generator=GENERATOR)
TARGETS = torch.randint(10, (96,), generator=GENERATOR)


def recipe(**changes):
    settings = {"name": "quick", "optimizer": "sgd", "learning_rate": 0.05, "batch_size": 32, "epochs": 2}
    return Recipe(**settings | changes)


def weights(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "sam"}, {"dropout": 0.5, "batch_norm": True}, {"label_noise": 0.5}]
)
def test_the_seed_decides_everything_and_nothing_is_left_behind(changes):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = weights(train(recipe(**changes), INPUTS, TARGETS, seed=1))
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    torch.rand(5)
    again, other = (weights(train(recipe(**changes), INPUTS, TARGETS, seed=seed)) for seed in (1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_state_is_restored_after_an_interruption():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(IndexError):
        train(recipe(), INPUTS, TARGETS + 10, seed=0)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


def test_a_step_of_sam_is_the_gradient_from_the_worst_neighbour():
    """w − lr · ∇L(w + ρ ∇L(w) / ‖∇L(w)‖), written out for a linear model."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    start = [value.detach().clone() for value in net.parameters()]

    def gradients(values):
        moved = [value.clone().requires_grad_() for value in values]
        logits = INPUTS.flatten(1) @ moved[0].T + moved[1]
        return torch.autograd.grad(nn.functional.cross_entropy(logits, TARGETS), moved)

    first = gradients(start)
    norm = torch.sqrt(sum((g**2).sum() for g in first))
    worst = gradients([value + 0.2 * g / norm for value, g in zip(start, first, strict=True)])
    expected = [value - 0.05 * g for value, g in zip(start, worst, strict=True)]
    _step(net, _optimizer(recipe(optimizer="sam", rho=0.2), net), INPUTS, TARGETS)
    for found, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), value, rtol=1e-4, atol=1e-6)


def test_label_noise_replaces_its_share():
    targets = torch.zeros(50_000, dtype=torch.int64)
    with torch.random.fork_rng(devices=[]):
        changed = _noisy(targets, 0.4)
    assert float((changed != targets).double().mean()) == pytest.approx(0.4 * 0.9, abs=0.01)
    assert _noisy(targets, 0.0) is targets


def test_recipes_are_seven_different_ones_and_nets_are_in_evaluation_mode():
    assert len({r.name for r in RECIPES}) == len(RECIPES) >= 7
    net = train(recipe(dropout=0.9, batch_norm=True, examples=50), INPUTS, TARGETS, seed=0)
    assert not net.training and torch.equal(net(INPUTS), net(INPUTS))
