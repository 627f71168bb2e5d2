"""FGSM and PGD against the exact robustness of linear models."""

import numpy as np
import pytest
import torch
from linear_models import AMPLE, Answers, network, robust, room, two_classes, victims
from networks import Network, relu_mlp, seeded
from torch import nn

from flataudit.attacks.gradient import gradients, has_gradients, pgd
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region, Room
from flataudit.attacks.schedule import FGSM, Schedule
from flataudit.attacks.victims import Victims
from flataudit.specs import Budget

GENERATOR = np.random.default_rng(0)
INPUTS = GENERATOR.standard_normal((400, 6))
W = GENERATOR.standard_normal(6)
LABELS = (INPUTS @ W + GENERATOR.standard_normal(400) > 0).astype(np.int64)
PGD = Schedule(10, 0.25, 2)
NORMS = ("linf", "l2")


def attack(model: Network, few: Victims, region: Region, schedule: Schedule = PGD, seed: int = 0) -> np.ndarray:
    return pgd(model, few, region, seed=seed, schedule=schedule, purse=Purse(model, AMPLE, len(few)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.5])
def test_two_classes_exactly_and_fgsm_is_pgd(norm: str, epsilon: float):
    weights = two_classes(W)
    few, region = victims(weights, INPUTS, LABELS), Region(room(6), norm, epsilon)  # type: ignore[arg-type]
    exact = robust(weights, few, region)
    assert 0.05 < exact.mean() < 0.98
    assert np.array_equal(~attack(network(weights), few, region, FGSM), exact)
    assert np.array_equal(~attack(network(weights), few, region), exact)


def test_many_classes_exactly_with_a_start_towards_each():
    """The class that is next is not always the one that gives way: the last two react ten times as strongly."""
    weights = GENERATOR.standard_normal((6, 4)) * np.array([0.3, 0.3, 3.0, 3.0])
    few = victims(weights, INPUTS, (INPUTS @ weights).argmax(axis=1))
    region = Region(room(6), "linf", 0.2)
    exact = robust(weights, few, region)
    found = {starts: ~attack(network(weights), few, region, Schedule(10, 0.25, starts)) for starts in (1, 2, 4)}
    assert np.array_equal(found[4], exact) and 0.1 < exact.mean() < 0.9
    assert found[1].sum() >= found[2].sum() > found[4].sum()


def test_units_of_each_feature_in_the_euclidean_ball():
    weights, scale = two_classes(W), np.array([0.1, 1.0, 0.3, 0.0, 0.5, 2.0])
    few, wide = victims(weights, INPUTS, LABELS), np.full(6, np.inf)
    region = Region(Room(scale, -wide, wide), "l2", 0.5)
    exact = robust(weights, few, region)
    assert np.array_equal(~attack(network(weights), few, region, FGSM), exact) and 0.1 < exact.mean() < 0.9


def test_units_of_each_feature_and_the_range_of_the_data():
    """Cut to the range, robust iff w·x > Σ |w_j| min(ε s_j, room of x_j towards the other side)."""
    weights = two_classes(W)
    few = victims(weights, INPUTS, LABELS)
    low, high, scale = np.full(6, -1.0), np.full(6, 1.5), np.array([0.1, 1.0, 0.3, 0.0, 0.5, 0.2])
    few = few.only(((few.inputs > low) & (few.inputs < high)).all(axis=1))
    region = Region(Room(scale, low, high), "linf", 0.6)
    towards = np.where(2 * few.labels[:, None] - 1 > 0, -np.sign(W), np.sign(W))
    reach = np.minimum(0.6 * scale, np.where(towards > 0, high - few.inputs, few.inputs - low))
    exact = np.abs(few.inputs @ W) > (np.abs(W) * reach).sum(axis=1)
    assert np.array_equal(~attack(network(weights), few, region), exact) and 0.1 < exact.mean() < 0.95


def test_the_gradient_has_the_direction_of_the_cross_entropy_and_outlives_its_underflow():
    model, few = Network(relu_mlp()), INPUTS[:30, :4]
    labels = GENERATOR.integers(3, size=30)
    wrong, found = gradients(model, few, labels)
    x, y = model.tensors(few, labels)
    leaf = x.requires_grad_()
    (plain,) = torch.autograd.grad(nn.functional.cross_entropy(model.module(leaf), y, reduction="sum"), leaf)
    lengths = np.linalg.norm(plain, axis=1)
    cosines = (found * plain.numpy()).sum(axis=1) / np.linalg.norm(found, axis=1) / lengths
    assert cosines == pytest.approx(1, abs=1e-9)
    assert np.array_equal(wrong, model.predict(few).argmax(axis=1) != labels)
    sure = Network(seeded(nn.Linear(4, 3), scale=1e4))
    sides = sure.predict(few).argmax(axis=1)
    leaf = sure.tensors(few, None)[0].requires_grad_()
    (plain,) = torch.autograd.grad(nn.functional.cross_entropy(sure.module(leaf), torch.tensor(sides)), leaf)
    assert (plain == 0).all(dim=1).any() and np.abs(gradients(sure, few, sides)[1]).min() > 0


def test_rivals_ahead():
    model, few, labels, rivals = Network(relu_mlp()), INPUTS[:9, :4], np.zeros(9, np.int64), np.full(9, 2)
    found = gradients(model, few, labels, rivals=rivals)[1]
    leaf = model.tensors(few, None)[0].requires_grad_()
    outputs = model.module(leaf)
    (plain,) = torch.autograd.grad((outputs[:, 2] - outputs[:, 0]).sum(), leaf)
    assert found == pytest.approx(plain.numpy())


def test_a_fooled_example_takes_no_further_pass():
    weights = two_classes(W)
    few = victims(weights, INPUTS, LABELS)
    model, region = network(weights), Region(room(6), "linf", 0.2)
    left = attack(model, few, region, Schedule(10, 0.25, 1))
    fooled = int(left.sum())
    # A corner is reached after four steps; a fifth changes nothing, and who does not move is out as well.
    survivors = len(few) - fooled
    assert 5 * survivors < model.meter.backward < 5 * survivors + 4.5 * fooled
    assert model.meter.forward == model.meter.backward + fooled


def test_seeds_and_batches():
    model = Network(relu_mlp())
    few = INPUTS[:200, :4]
    answers = model.predict(few)
    found = []
    for seed, size in ((0, 64), (0, 7), (1, 64)):
        model.batch_size = size
        whole = Victims(few, answers.argmax(axis=1), np.arange(200), answers)
        found.append(attack(model, whole, Region(room(4), "l2", 0.3), Schedule(4, 0.6, 3), seed))
    assert np.array_equal(found[0], found[1])
    assert 0 < found[0].sum() < 200
    part = whole.only(np.arange(150, 200))
    again = attack(model, part, Region(room(4), "l2", 0.3), Schedule(4, 0.6, 3), 1)
    assert np.array_equal(again, found[2][150:])


class Served(Network):
    """Served otherwise than it is differentiated: right whatever happens."""

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.asarray(Answers(two_classes(W)).predict(np.sign(inputs @ W)[:, None] * W))


def test_only_what_the_served_model_gets_wrong_counts():
    weights = two_classes(W)
    few, region = victims(weights, INPUTS, LABELS), Region(room(6), "linf", 0.3)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False)).double()
    with torch.no_grad():
        linear[1].weight.copy_(torch.as_tensor(-weights.T))  # the gradient of another model
    assert not attack(Served(linear), few, region).any()
    assert attack(network(weights), few, region).any()


class Rounded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.detach().sum(dim=1), x.round().sum(dim=1)], dim=1)


def test_models_without_derivatives():
    class Detached(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach()[:, :2]

    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("derivative not implemented")

    assert has_gradients(Network(relu_mlp()), INPUTS[:, :4])
    assert has_gradients(Network(Rounded()), INPUTS)  # it has one, which is 0
    assert not has_gradients(Network(Detached()), INPUTS) and not has_gradients(Network(Failing()), INPUTS)
    model, answers = Network(Rounded()), np.tile(np.log([0.6, 0.4]), (5, 1))
    few = Victims(INPUTS[:5], np.zeros(5, np.int64), np.arange(5), answers)
    assert not gradients(model, few.inputs, few.labels)[1].any()


def test_an_empty_purse_ends_it():
    weights = two_classes(W)
    few, model = victims(weights, INPUTS, LABELS), network(weights)
    purse = Purse(model, Budget(passes=0.5), len(few))
    found = pgd(model, few, Region(room(6), "linf", 0.3), seed=0, schedule=PGD, purse=purse)
    assert purse.empty() and purse.spent() < 1.2 and found.shape == (len(few),)
    assert not (found & robust(weights, few, Region(room(6), "linf", 0.3))).any()
