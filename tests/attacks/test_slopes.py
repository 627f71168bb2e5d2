"""The steepest chords: spectral norms of linear maps, dense Jacobians, and constants that no chord may exceed."""

import numpy as np
import pytest
import torch
from networks import DEVICES, Network, relu_mlp, seeded, tanh_mlp
from torch import nn

from flataudit.attacks import slopes
from flataudit.attacks.region import Room
from flataudit.attacks.slope_ascent import ascended_slopes
from flataudit.attacks.slopes import Chords, Vanished, outputs_of, sampled_slopes
from flataudit.testing.subjects import LinearModel

GENERATOR = np.random.default_rng(8)
UNITS = np.array([1.0, 0.1, 5.0, 2.0])


def chords(scale=UNITS, share=0.05, shape=(4,)):
    return Chords.of(Room(np.asarray(scale, dtype=float), np.full((), -np.inf), np.full((), np.inf)), share, shape)


def climbed(model, inputs, ball, *, steps=60, seed=0, places=None):
    places = np.arange(len(inputs)) if places is None else places
    return ascended_slopes(model, inputs, places, ball, seed=seed, steps=steps, may_go_on=lambda: True)


def asked(model, inputs, ball, *, directions=8, seed=0, places=None):
    places = np.arange(len(inputs)) if places is None else places
    return sampled_slopes(model, inputs, places, ball, seed=seed, directions=directions, may_go_on=lambda: True)


def norm(matrix, units=UNITS, *, classes=True):
    """Spectral norm of (W less the mean of its rows) diag(s), by a decomposition of the whole matrix."""
    centred = matrix - matrix.mean(axis=0) if classes else matrix
    return np.linalg.norm(centred * units, 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("task", "outputs"), [("multiclass", 5), ("binary", 2), ("multilabel", 3), ("regression", 1)])
def test_a_linear_map_has_its_spectral_norm(task, outputs, device):
    module, inputs = seeded(nn.Linear(4, outputs)), GENERATOR.normal(size=(9, 4))
    matrix = module.weight.detach().double().cpu().numpy()
    expected = norm(matrix, classes=task in ("multiclass", "binary"))
    network = Network(module, task, device=device)
    assert climbed(network, inputs, chords()) == pytest.approx(np.full(9, expected), rel=1e-7)
    assert (climbed(network, inputs, chords(), steps=1) <= expected * (1 + 1e-9)).all()
    if outputs <= 2:
        assert climbed(network, inputs, chords(), steps=1) == pytest.approx(np.full(9, expected), rel=1e-7)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_so_has_one_that_only_answers_where_every_direction_is_asked(task):
    model, inputs = LinearModel(task, 4), GENERATOR.normal(size=(9, 4))
    matrix = np.asarray(model.weights()["weight"]).T
    expected = norm(matrix, classes=task == "multiclass")
    assert asked(model, inputs, chords()) == pytest.approx(np.full(9, expected), rel=1e-7)
    few = asked(model, inputs, chords(), directions=2)
    assert (few < expected).all() and (few > 0.1 * expected).any()


def test_few_directions_find_the_share_of_the_slope_that_lies_among_them():
    """E ‖P w‖² = ‖w‖² k / d for a projection to k random directions of d: far more than the best of k alone."""
    model = LinearModel("regression", 100)
    found = asked(model, GENERATOR.normal(size=(400, 100)), chords(np.ones(()), shape=(100,)))
    assert np.mean(found**2) == pytest.approx(np.sum(model.weights()["weight"] ** 2) * 8 / 100, rel=0.08)


def test_a_short_chord_is_the_norm_of_the_dense_jacobian():
    network, inputs = Network(tanh_mlp()), GENERATOR.normal(size=(12, 4))
    jacobians = [torch.autograd.functional.jacobian(network.module, one) for one in torch.as_tensor(inputs)]
    expected = [norm(np.asarray(jacobian)) for jacobian in jacobians]
    assert climbed(network, inputs, chords(share=1e-5), steps=80) == pytest.approx(np.array(expected), rel=1e-3)
    assert asked(network, inputs, chords(share=1e-5)) == pytest.approx(np.array(expected), rel=1e-3)


@pytest.mark.parametrize("share", [0.01, 0.3, 3.0])
def test_no_chord_is_steeper_than_the_layers_allow(share):
    """The product of the layers' norms bounds every chord of a ReLU network."""
    network, inputs = Network(relu_mlp()), GENERATOR.normal(size=(40, 4))
    first, second = (network.module[k].weight.detach().numpy() for k in (0, 2))
    most = norm(first, classes=False) * norm(second, np.ones(second.shape[1]))
    found = climbed(network, inputs, chords(share=share), steps=10)
    searched = asked(network, inputs, chords(share=share))
    assert (found <= most).all() and (searched <= most).all()
    assert found.mean() >= 0.99 * searched.mean() and found.min() > 0


class Step(nn.Module):
    """Flat but for a wall at 0.02 of height 1 along the first value: only a chord of some length sees it."""

    def forward(self, x):
        return torch.sigmoid(200 * (x[:, :1] - 0.02))


def test_the_length_decides_what_is_near():
    network, inputs = Network(Step(), "regression"), np.zeros((3, 1))
    near, far = (chords(np.ones(1), share, (1,)) for share in (0.001, 0.04))
    assert asked(network, inputs, far).max() == pytest.approx(1 / 0.04, rel=0.05)
    assert asked(network, inputs, near).max() < 6


def test_what_has_no_unit_stays_and_counts_nothing():
    model, inputs = LinearModel("regression", 4), GENERATOR.normal(size=(5, 4))
    still = np.array([1.0, 0.0, 5.0, 0.0])
    seen = []
    answer = model.predict
    model.predict = lambda x: seen.append(x) or answer(x)
    expected = np.linalg.norm(np.asarray(model.weights()["weight"])[:, 0] * still)
    assert asked(model, inputs, chords(still)) == pytest.approx(np.full(5, expected), rel=1e-7)
    assert len(seen) == 4 and all((x[:, [1, 3]] == inputs[:, [1, 3]]).all() for x in seen)
    network = Network(seeded(nn.Linear(4, 1)), "regression")
    weight = network.module.weight.detach().numpy()[0]
    assert climbed(network, inputs, chords(still)) == pytest.approx(np.full(5, np.linalg.norm(weight * still)))


def test_an_examples_number_decides_and_no_batch_or_block_does(monkeypatch):
    network, inputs, order = Network(tanh_mlp()), GENERATOR.normal(size=(20, 4)), GENERATOR.permutation(20)
    first, other = climbed(network, inputs, chords(), steps=2), asked(network, inputs, chords(), directions=2)
    assert climbed(network, inputs, chords(), steps=2, seed=1) != pytest.approx(first, rel=1e-6)
    network.batch_size = 3
    monkeypatch.setattr(slopes, "_LARGEST_BLOCK", 30)
    mixed = climbed(network, inputs[order], chords(), steps=2, places=order)
    assert mixed == pytest.approx(first[order], rel=1e-10)
    mixed = asked(network, inputs[order], chords(), directions=2, places=order)
    assert mixed == pytest.approx(other[order], rel=1e-10)


class Flat(nn.Module):
    """Outputs that do not depend on the inputs."""

    def forward(self, x):
        return torch.ones(len(x), 3, dtype=x.dtype)


def test_outputs_that_ignore_the_inputs_have_slope_nothing():
    assert climbed(Network(Flat()), np.ones((3, 4)), chords()).tolist() == [0.0] * 3
    assert asked(Network(Flat()), np.ones((3, 4)), chords()).tolist() == [0.0] * 3


def test_single_precision_counts_the_distance_that_rounding_left():
    """At 1000 a float32 moves in steps of 6e-5, as large as the chord: the distance asked for would be a third off."""
    model = LinearModel("regression", 1)
    inputs = (1000 + GENERATOR.random(size=(50, 1))).astype(np.float32)
    ball = chords(np.ones(1), 1e-4, (1,))
    assert asked(model, inputs, ball) == pytest.approx(np.full(50, abs(float(model.weights()["weight"][0, 0]))))


def test_outputs_are_the_same_from_logits_and_from_logarithms():
    logits = GENERATOR.normal(size=(6, 3))
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(outputs_of("multiclass", logarithms), logits - logits.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(outputs_of("multilabel", -np.log1p(np.exp(-logits))), logits, rtol=1e-9)
    assert outputs_of("regression", np.array([1.0, 2.0])).tolist() == [[1.0], [2.0]]
    assert outputs_of("multiclass", np.log(np.full((2, 4, 3), 1 / 3))).shape == (2, 12)


@pytest.mark.parametrize("probabilities", [[1.0, 1e-30], [1.0, 0.0]])
def test_probabilities_of_nothing_have_no_logarithm_to_change(probabilities):
    with np.errstate(divide="ignore"), pytest.raises(Vanished):
        outputs_of("multiclass", np.log([probabilities]))


def test_an_empty_purse_ends_it():
    network, inputs = Network(tanh_mlp()), np.ones((3, 4))
    settings = {"seed": 0, "may_go_on": lambda: False}
    assert ascended_slopes(network, inputs, np.arange(3), chords(), steps=3, **settings) is None
    assert sampled_slopes(network, inputs, np.arange(3), chords(), directions=3, **settings) is None
    assert network.meter.backward == 0


def test_cost():
    network = Network(tanh_mlp())
    climbed(network, np.ones((5, 4)), chords(), steps=6)
    assert (network.meter.forward, network.meter.backward) == (5 * 8, 5 * 6)
    network.meter.forward = 0
    asked(network, np.ones((5, 4)), chords(), directions=3)
    assert network.meter.forward == 5 * 5
