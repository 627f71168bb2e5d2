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
    (reading,) = probe.measure(model or Hyperplane(), data, seed, budget or Budget())
    return reading


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
    assert model.meter.cost(Meter(), 500).forward == 5
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
    assert seen[0].dtype == np.uint8 and seen[0].min() >= images.min() and seen[0].max() <= images.max()
    assert not np.array_equal(seen[0], images)


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
    for asked in model.asked:
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
    asked = np.concatenate(model.asked)
    np.testing.assert_array_equal(np.isnan(asked), np.isnan(x))
    np.testing.assert_allclose(np.nanstd(asked - x, axis=0), 0.5 * np.nanstd(x, axis=0), rtol=0.03)
