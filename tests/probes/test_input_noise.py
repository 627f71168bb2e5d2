import numpy as np
import pytest
from scipy.special import log_expit
from scipy.stats import norm

from flataudit import plugins
from flataudit.contracts import Meter
from flataudit.corruptions import scale
from flataudit.data.examples import checked
from flataudit.evidence import Outcome
from flataudit.probes.input_noise import InputNoise
from flataudit.specs import Budget, InputField
from flataudit.testing import check_probe

GENERATOR = np.random.default_rng(2)
MU = np.array([0.5, 1.0, -0.25])
W = np.array([1.0, 0.3, -2.0])


class Hyperplane:
    """Class 1 where w·x > 0."""

    task, batch_size, dtype, device = "binary", 64, "float64", "cpu"

    def __init__(self):
        self.meter = Meter()

    def predict(self, inputs):
        self.meter.forward += len(inputs)
        margin = inputs.reshape(len(inputs), -1)[:, : len(W)] @ W
        return np.stack([log_expit(-margin), log_expit(margin)], axis=1)


def gaussian_classes(n):
    """Two classes N(±μ, I)."""
    labels = GENERATOR.integers(0, 2, n)
    return GENERATOR.normal(size=(n, 3)) + np.outer(2 * labels - 1, MU), labels


def load(inputs, labels):
    return checked("validation", "validation", inputs, labels, source="memory")


def measure(probe, data, *, model=None, seed=0, budget=None):
    return measured(probe, data, model=model, seed=seed, budget=budget)["noise_accuracy"]


def measured(probe, data, *, model=None, seed=0, budget=None):
    readings = probe.measure(model or Hyperplane(), data, seed, budget or Budget())
    return {reading.measurement.metric: reading for reading in readings}


@pytest.mark.parametrize("share", [0.1, 0.5, 1.5])
def test_gaussian_classes_have_the_accuracy_of_theory(share):
    """Φ(wᵀμ / √(wᵀ(I + T²)w)), with T the noise of each feature: share × √(1 + μ²)."""
    found = measure(InputNoise(scale=share, draws=3), load(*gaussian_classes(40_000))).measurement
    variances = 1 + share**2 * (1 + MU**2)
    expected = norm.cdf(W @ MU / np.sqrt(W**2 @ variances))
    assert found.estimate == pytest.approx(expected, abs=4 * found.standard_error) and found.standard_error < 0.003


def test_all_values_share_one_deviation_where_the_data_is_no_table():
    x, labels = gaussian_classes(20_000)
    found = measure(InputNoise(scale=1.0, draws=2), load(x[:, :, None], labels)).measurement
    variances = 1 + x.var()
    assert found.estimate == pytest.approx(norm.cdf(W @ MU / np.sqrt(W @ W * variances)), abs=4 * found.standard_error)


def test_samples_are_means_over_draws_and_the_error_is_theirs():
    reading = measure(InputNoise(scale=1.0, draws=4), load(*gaussian_classes(500)))
    right = np.array(reading.arrays["noise_accuracy"].values())
    found = reading.measurement
    assert set(right) <= {0, 0.25, 0.5, 0.75, 1} and found.samples == "noise_accuracy"
    assert found.estimate == pytest.approx(right.mean())
    assert found.standard_error == pytest.approx(right.std() / np.sqrt(500))


def test_seed_blocks_and_cost(monkeypatch):
    data, probe, model = load(*gaussian_classes(500)), plugins.make("probes", "input_noise"), Hyperplane()
    first = measure(probe, data, model=model)
    assert model.meter.cost(Meter(), 500).forward == 6
    measure(probe, data, model=model, seed=1)
    assert model.meter.cost(Meter(), 500).forward == 11 and model.meter.cost(Meter(), 500).reused == 0.5
    assert measure(probe, data) == first and measure(probe, data, seed=1).arrays != first.arrays
    monkeypatch.setattr(scale, "_BLOCK_VALUES", 100)
    assert measure(probe, data).arrays == first.arrays


def test_images_of_bytes_are_rounded_into_their_range():
    seen = []

    class Watcher(Hyperplane):
        def predict(self, inputs):
            seen.append(inputs)
            return super().predict(inputs.astype(float))

    images = GENERATOR.integers(5, 100, (50, 1, 8, 8)).astype(np.uint8)
    measure(InputNoise(scale=1.0, draws=1), load(images, np.zeros(50, int)), model=Watcher())
    clean, noisy = seen
    assert noisy.dtype == np.uint8 and noisy.min() >= images.min() and noisy.max() <= images.max()
    assert np.array_equal(clean, images) and not np.array_equal(noisy, images)


def test_single_precision_stays():
    x, labels = gaussian_classes(50)

    class Strict(Hyperplane):
        def predict(self, inputs):
            assert inputs.dtype == np.float32
            return super().predict(inputs)

    assert measure(InputNoise(), load(x.astype(np.float32), labels), model=Strict()).measurement.estimate > 0


def test_codes_are_not_applicable_and_the_budget_holds():
    codes = load(GENERATOR.integers(0, 9, (50, 4)), np.zeros(50, int))
    assert measure(InputNoise(), codes).measurement.outcome is Outcome.NOT_APPLICABLE
    found = measure(InputNoise(), load(*gaussian_classes(50)), budget=Budget(passes=2)).measurement
    assert found.outcome is Outcome.OVER_BUDGET and found.advice


class Recording(Hyperplane):
    """Keeps what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def predict(self, inputs):
        self.asked.append(inputs)
        return super().predict(np.nan_to_num(inputs))


def test_only_the_numbers_among_named_fields_move():
    x, labels = gaussian_classes(200)
    x[:, 1] = np.rint(x[:, 1])
    fields = (InputField(name="a"), InputField(name="b", kind="integer"), InputField(name="c"))
    data = checked("validation", "validation", x, labels, source="memory", fields=fields)
    model = Recording()
    moved = measure(InputNoise(draws=2), data, model=model)
    for asked in model.asked[1:]:
        np.testing.assert_array_equal(asked[:, 1], x[:, 1])
        assert (asked[:, [0, 2]] != x[:, [0, 2]]).all()
    still = tuple(InputField(name=name, kind="category", categories=("x",)) for name in "abc")
    data = checked("validation", "validation", np.zeros((9, 3)), np.arange(9) % 2, source="memory", fields=still)
    assert measure(InputNoise(), data).measurement.outcome is Outcome.NOT_APPLICABLE
    assert moved.measurement.outcome is Outcome.MEASURED


def test_missing_values_stay_missing_and_the_others_move_by_their_own_deviation():
    x, labels = gaussian_classes(20_000)
    x[::4, 0] = np.nan
    data = checked("validation", "validation", x, labels, source="memory", gaps=True)
    model = Recording()
    measure(InputNoise(scale=0.5, draws=1), data, model=model)
    asked = np.concatenate(model.asked[1:])
    np.testing.assert_array_equal(np.isnan(asked), np.isnan(x))
    np.testing.assert_allclose(np.nanstd(asked - x, axis=0), 0.5 * np.nanstd(x, axis=0), rtol=0.03)


# ── Flips, and changes of values ──


class Plane(Hyperplane):
    """A regression, w·x."""

    task = "regression"

    def predict(self, inputs):
        self.meter.forward += len(inputs)
        return inputs @ W


class Marks(Hyperplane):
    """Two labels that may hold together: w·x > 0 and w·x > 1."""

    task = "multilabel"

    def predict(self, inputs):
        return log_expit(np.stack([inputs @ W, inputs @ W - 1], axis=1))


class Tagger(Hyperplane):
    """A class for each of the three values of an example: whether it is above 0, the last above 4."""

    task = "multiclass"

    def predict(self, inputs):
        margins = inputs - [0, 0, 4]
        return np.stack([log_expit(-margins), log_expit(margins)], axis=2)


def chance(margins, level):
    """Of an answer to change its side: Φ(−|m| / σ)."""
    return norm.cdf(-np.abs(margins) / level)


@pytest.mark.parametrize("share", [0.02, 0.1, 1.0])
def test_a_linear_classifier_flips_as_often_as_theory_says(share):
    x, labels = gaussian_classes(4000)
    found = measured(InputNoise(scale=share, draws=20), load(x, labels))["noise_flip_rate"]
    expected = chance(x @ W, share * np.linalg.norm(W * x.std(axis=0)))
    flips = np.array(found.arrays["noise_flip_rate"].values())
    error = np.sqrt(np.mean(expected * (1 - expected)) / 20 / 4000)
    assert found.measurement.estimate == pytest.approx(expected.mean(), abs=4 * error)
    assert found.measurement.estimate == pytest.approx(flips.mean()) and np.corrcoef(flips, expected)[0, 1] > 0.8
    assert found.measurement.better == "lower" and error < 0.002


def test_the_interval_holds_the_flip_rate_of_many_examples():
    """500 samples of 80 examples, three draws each, against the mean over 200,000 in closed form."""
    x, _ = gaussian_classes(200_000)
    truth = chance(x @ W, 0.3 * np.linalg.norm(W * x.std(axis=0))).mean()
    held = 0
    for seed in range(500):
        few = load(x[80 * seed : 80 * (seed + 1)], np.zeros(80, int))
        low, high = measured(InputNoise(scale=0.3, draws=3), few, seed=seed)["noise_flip_rate"].measurement.interval
        held += low <= truth <= high
    assert 0.93 <= held / 500 <= 0.99


def test_right_or_wrong_does_not_matter_to_a_flip():
    x, labels = gaussian_classes(300)
    one, other = (measured(InputNoise(), load(x, y))["noise_flip_rate"].measurement for y in (labels, 1 - labels))
    assert one.estimate == other.estimate > 0


def test_a_linear_regression_changes_by_the_mean_of_half_a_normal():
    x, _ = gaussian_classes(4000)
    targets = 7 + 3 * GENERATOR.normal(size=4000)
    found = measured(InputNoise(draws=20), load(x, targets), model=Plane())
    change = found["noise_change"].measurement
    expected = 0.1 * np.linalg.norm(W * x.std(axis=0)) * np.sqrt(2 / np.pi) / targets.std()
    assert change.estimate == pytest.approx(expected, abs=4 * change.standard_error)
    assert change.standard_error < 0.005 * expected and change.unit == "target deviation"
    flips = found["noise_flip_rate"].measurement
    assert flips.outcome is Outcome.NOT_APPLICABLE and "noise_change" in flips.reason


def test_labels_and_tokens_flip_by_their_share():
    x, _ = gaussian_classes(4000)
    level = np.linalg.norm(W * x.std(axis=0))
    marks = measured(InputNoise(scale=0.5, draws=10), load(x, np.ones((4000, 2), int)), model=Marks())
    expected = np.mean([chance(x @ W, 0.5 * level), chance(x @ W - 1, 0.5 * level)])
    assert marks["noise_flip_rate"].measurement.estimate == pytest.approx(expected, abs=0.005)
    tokens = np.where([True, True, False], 1, np.full((4000, 3), -100))
    found = measured(InputNoise(scale=0.5, draws=10), load(x, tokens), model=Tagger())["noise_flip_rate"].measurement
    expected = chance(x[:, :2], 0.5 * x.std(axis=0)[:2]).mean()
    assert found.estimate == pytest.approx(expected, abs=0.005)
    everywhere = chance(x - [0, 0, 4], 0.5 * x.std(axis=0)).mean()
    assert found.estimate != pytest.approx(everywhere, abs=0.03)


def test_without_a_flip_the_rate_is_not_known_to_be_nothing():
    found = measured(InputNoise(scale=1e-9), load(*gaussian_classes(50)))["noise_flip_rate"].measurement
    assert found.estimate == 0 and found.standard_error > 0 and found.interval[1] > 0.05


@pytest.mark.parametrize("inputs", [np.full((50, 3), 0.1), np.full((50, 1, 4, 4), 0.7, np.float32)])
def test_inputs_that_never_vary_take_no_noise(inputs):
    for one in measured(InputNoise(), load(inputs, np.arange(50) % 2)).values():
        assert one.measurement.outcome is Outcome.NOT_APPLICABLE and "all inputs are equal" in one.measurement.reason


def test_targets_that_never_vary_are_no_unit():
    found = measured(InputNoise(), load(gaussian_classes(50)[0], np.full(50, 0.1)), model=Plane())
    assert "targets are all equal" in found["noise_change"].measurement.reason
    assert found["noise_accuracy"].measurement.outcome is Outcome.MEASURED


def test_texts_and_an_ended_clock():
    texts = load(np.array(["some words"] * 20), np.arange(20) % 2)
    for one in measured(InputNoise(), texts).values():
        assert one.measurement.outcome is Outcome.NOT_APPLICABLE and "no meaning" in one.measurement.reason
    for one in measured(InputNoise(), load(*gaussian_classes(50)), budget=Budget(seconds=1e-9)).values():
        assert one.measurement.outcome is Outcome.OVER_BUDGET


def test_conforms():
    check_probe(InputNoise(draws=2))
