import json

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import log_softmax

from flataudit import plugins
from flataudit.contracts import Meter, Predictor
from flataudit.corruptions import scale
from flataudit.corruptions.catalogue import DEFAULT_KINDS, KINDS, Suite
from flataudit.data.examples import checked
from flataudit.errors import ConfigurationError, ModelError
from flataudit.evidence import Outcome
from flataudit.probes.corruption import Corruption
from flataudit.specs import Budget
from flataudit.statistics.proportions import wilson_interval
from flataudit.testing.probes import check_probe

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, 400)
PATTERNS = GENERATOR.random((3, 1, 8, 8))
IMAGES = (PATTERNS[LABELS] + 0.4 * GENERATOR.normal(size=(400, 1, 8, 8))).clip(0, 1).astype(np.float32)


class Linear:
    """Nearest pattern, as a linear classifier."""

    task, batch_size, dtype, device = "multiclass", 64, "float64", "cpu"

    def __init__(self, patterns=PATTERNS):
        self.weights = patterns.reshape(len(patterns), -1)
        self.meter = Meter()

    def predict(self, inputs):
        self.meter.forward += len(inputs)
        flat = inputs.reshape(len(inputs), -1).astype(np.float64)
        return log_softmax(flat @ self.weights.T - (self.weights**2).sum(axis=1) / 2, axis=1)


def load(inputs=IMAGES, labels=LABELS):
    return checked("validation", "validation", inputs, labels, source="memory")


def measure(probe, data, *, model=None, seed=0, budget=None):
    (reading,) = probe.measure(model or Linear(), data, seed, budget or Budget())
    return reading


def test_is_the_mean_over_all_cells_written_out():
    data, model = load(), Linear()
    reading = measure(Corruption(kinds=("blur", "noise"), severities=(2, 5)), data, seed=3)
    suite = Suite.of(IMAGES, "image")
    right = np.array(
        [
            [model.predict(suite.corrupt(IMAGES, kind, severity, seed=3)).argmax(1) == LABELS for severity in (2, 5)]
            for kind in ("blur", "noise")
        ]
    )
    found = reading.measurement
    assert found.estimate == pytest.approx(right.mean()) and found.n == 400
    np.testing.assert_allclose(reading.arrays[found.samples].values(), right.mean(axis=(0, 1)))
    np.testing.assert_allclose(reading.arrays["corruption/accuracy"].values(), right.mean(axis=2))
    assert found.details["kinds"] == "blur,noise" and found.details["severities"] == "2,5"
    assert found.details["low"] == 0 and found.details["high"] == 1
    assert found.details["data_kind"] == "image (inferred)" and found.details["channels"] == "first (inferred)"
    assert found.details["accuracy/noise"] == pytest.approx(right[1].mean())
    effects = np.array(reading.arrays["corruption/effect"].values())
    changed = (suite.corrupt(IMAGES, "noise", 5, seed=3).astype(float) - IMAGES)[::2]
    assert effects.shape == (2, 2) and effects[1, 1] == pytest.approx(np.sqrt(np.mean(changed**2)) / IMAGES.std())


def test_error_is_over_examples_and_never_over_cells():
    """Thirty equal cells tell no more than one: the error must not shrink with the number of cells."""
    labels = GENERATOR.integers(0, 2, 500)
    data = load(GENERATOR.random((500, 1, 8, 8)), labels)

    class Deaf(Linear):
        def predict(self, inputs):
            guess = np.arange(len(inputs)) % 2
            return np.log(np.where(np.eye(2)[guess] == 1, 0.9, 0.1))

    found = measure(Corruption(severities=(1, 2, 3, 4, 5)), data, model=Deaf()).measurement
    p = float(np.mean(np.arange(500) % 2 == labels))
    assert found.estimate == pytest.approx(p)
    assert found.standard_error == pytest.approx(np.sqrt(p * (1 - p) / 500))


def test_the_interval_covers_the_accuracy_on_many_examples():
    """100 samples of 100 images, each asked for its 95 % interval of the accuracy on all 20,000.

    An interval that took the nine copies of an image for nine images would hold it far less often.
    """
    labels = GENERATOR.integers(0, 3, 20_000)
    images = (PATTERNS[labels] + 0.8 * GENERATOR.normal(size=(20_000, 1, 8, 8))).clip(0, 1).astype(np.float32)
    images.reshape(200, -1)[:, :2] = 0, 1
    probe = Corruption(kinds=("noise", "contrast", "occlusion"))
    truth = measure(probe, load(images, labels)).measurement.estimate
    parts = [measure(probe, load(images[k::200], labels[k::200])).measurement for k in range(0, 200, 2)]
    assert 0.89 <= np.mean([part.interval[0] <= truth <= part.interval[1] for part in parts]) <= 0.99
    cells = [wilson_interval(part.estimate, 900) for part in parts]
    assert np.mean([low <= truth <= high for low, high in cells]) < 0.75


def test_all_kinds_of_the_data_by_default_and_severity_hurts():
    faint = (IMAGES + 1.5 * GENERATOR.normal(size=IMAGES.shape)).clip(0, 1)
    images = measure(plugins.make("probes", "corruption"), load(faint))
    cells = np.array(images.arrays["corruption/accuracy"].values())
    assert cells.shape == (len(DEFAULT_KINDS["image"]), 3)
    assert cells[:, 0].mean() > cells[:, 2].mean() + 0.02
    rows = IMAGES.reshape(400, -1).astype(np.float64)
    table = measure(Corruption(), load(rows)).measurement
    assert table.details["kinds"] == ",".join(DEFAULT_KINDS["table"]) and "standard deviation" in table.details["unit"]


def test_seed_order_and_blocks(monkeypatch):
    probe, data = Corruption(kinds=("noise", "translate")), load()
    first = measure(probe, data)
    assert measure(probe, data) == first and measure(probe, data, seed=1).arrays != first.arrays
    for examples in (37, 1):
        monkeypatch.setattr(scale, "_BLOCK_VALUES", 64 * examples)
        assert measure(probe, data).arrays == first.arrays


def test_cost_is_one_forward_pass_a_cell():
    model = Linear()
    measure(Corruption(kinds=("noise", "blur"), severities=(1, 2, 3)), load(), model=model)
    assert model.meter.cost(Meter(), 400).forward == 6 and isinstance(model, Predictor)


def test_regression_uses_the_bounded_skill_of_the_whole_set(monkeypatch):
    rows = GENERATOR.normal(size=(300, 3))
    data = load(rows, rows @ [1.0, 2.0, 3.0])

    class Regressor(Linear):
        task = "regression"

        def predict(self, inputs):
            return inputs @ np.array([1.0, 2.0, 3.0])

    whole = measure(Corruption(), data, model=Regressor())
    assert 0.5 < whole.measurement.estimate < 1
    monkeypatch.setattr(scale, "_BLOCK_VALUES", 30)
    blockwise = measure(Corruption(), data, model=Regressor())
    np.testing.assert_allclose(
        blockwise.arrays["corruption_accuracy"].view(), whole.arrays["corruption_accuracy"].view(), atol=1e-9
    )


def test_other_data_is_not_applicable():
    found = measure(Corruption(), load(GENERATOR.integers(0, 9, (400, 5)))).measurement
    assert found.outcome is Outcome.NOT_APPLICABLE and "(5,)" in found.reason and found.estimate is None


def test_budget():
    for budget in (Budget(passes=10), Budget(seconds=1e-9)):
        found = measure(Corruption(), load(), budget=budget).measurement
        assert found.outcome is Outcome.OVER_BUDGET and found.estimate is None and found.advice


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"kinds": ["oclusion"]}, "did you mean occlusion"),
        ({"kinds": ["blur", "blur"]}, "each corruption once"),
        ({"kinds": []}, "at least 1"),
        ({"severities": [6]}, "Input should be 1, 2, 3, 4 or 5"),
        ({"severities": [3, 3]}, "each severity once"),
        ({"severity": 3}, "Extra inputs"),
    ],
)
def test_wrong_parameters_are_refused_when_the_probe_is_made(parameters, words):
    with pytest.raises(ValidationError, match=words):
        Corruption(**parameters)


def test_a_kind_that_does_not_fit_the_data():
    with pytest.raises(ConfigurationError, match=r"kind image.*'dropout'.*noise, shot"):
        measure(Corruption(kinds=("dropout",)), load())


def test_every_kind_can_be_asked_for():
    found = measure(Corruption(kinds=[k for k in KINDS["image"] if k != "saturate"], severities=(3,)), load())
    accuracies = [found.measurement.details[f"accuracy/{k}"] for k in KINDS["image"] if k != "saturate"]
    assert found.measurement.estimate == pytest.approx(np.mean(accuracies)) and min(accuracies) > 0.5
    assert np.shape(found.arrays["corruption/effect"].values()) == (19, 1)


def test_channels_last_are_found_and_give_the_same_numbers():
    class Last(Linear):
        def predict(self, inputs):
            assert inputs.shape[1:] == (8, 8, 1)
            return super().predict(np.moveaxis(inputs, 3, 1))

    last = load(np.moveaxis(IMAGES, 1, 3))
    assert last.kind == "other"
    found, known = measure(Corruption(), last, model=Last()), measure(Corruption(), load())
    assert found.arrays == known.arrays and found.measurement.details["channels"] == "last (inferred)"
    declared = measure(Corruption(data_kind="image", channels="last"), last, model=Last()).measurement
    assert declared.details["channels"] == "last" and declared.details["data_kind"] == "image"


def test_declared_series():
    inputs = np.repeat(IMAGES.reshape(400, 1, 64), 2, axis=1)

    class Pair(Linear):
        def predict(self, inputs):
            return super().predict(inputs.mean(axis=1))

    assert measure(Corruption(), load(inputs), model=Pair()).measurement.outcome is Outcome.NOT_APPLICABLE
    found = measure(Corruption(data_kind="series", kinds=("jitter", "channel_loss")), load(inputs), model=Pair())
    assert found.measurement.estimate > 0.5 and "each channel" in found.measurement.details["unit"]
    with pytest.raises(ConfigurationError, match=r"series of numbers"):
        measure(Corruption(data_kind="series"), load())


def test_declared_characters():
    alphabet = "_?abcdefgh "
    ids = np.where(LABELS[:, None] == np.arange(1, 3), 2, 5).repeat(12, axis=1)
    ids[:, 7] = 10

    class Counts(Linear):
        def predict(self, inputs):
            assert inputs.shape == (len(inputs), 24) and 0 <= inputs.min() and inputs.max() < len(alphabet)
            halves = (inputs == 2).reshape(-1, 2, 12).mean(axis=2)
            return log_softmax(10 * np.column_stack([np.full(len(inputs), 0.5), halves]), axis=1)

    probe = Corruption(data_kind="text", alphabet=alphabet, unknown=1)
    found = measure(probe, load(ids), model=Counts())
    assert found.measurement.details["tokenizer"] == "Characters" and 0.8 < found.measurement.estimate <= 1
    assert 0 < np.min(found.arrays["corruption/effect"].values())
    with pytest.raises(ConfigurationError, match="no tokenizer"):
        measure(Corruption(data_kind="text"), load(ids), model=Counts())


def test_missing_values_as_the_model_takes_them():
    rows = GENERATOR.normal(size=(400, 4)) + LABELS[:, None]

    class Imputes(Linear):
        seen = False

        def predict(self, inputs):
            Imputes.seen = Imputes.seen or bool(np.isnan(inputs).any())
            mean = np.nanmean(np.column_stack([inputs, np.ones(len(inputs))]), axis=1)
            return log_softmax(-((mean[:, None] - np.arange(3)) ** 2), axis=1)

    found = measure(Corruption(kinds=("missing",)), load(rows), model=Imputes()).measurement
    assert found.details["missing"] == "filled with each column's median" and not Imputes.seen
    other = measure(Corruption(kinds=("missing",), missing="nan"), load(rows), model=Imputes()).measurement
    assert other.details["missing"] == "given to the model as NaN" and Imputes.seen
    assert other.outcome is Outcome.MEASURED


def test_a_kind_without_a_meaning_here_is_not_applicable():
    found = measure(Corruption(kinds=("saturate", "noise")), load()).measurement
    assert found.outcome is Outcome.NOT_APPLICABLE and "saturate: it needs colours" in found.reason


def test_calibrated_strengths_have_equal_effects():
    kinds = ("noise", "blur", "rotate")
    found = measure(Corruption(kinds=kinds, severities=(1, 2, 3), calibrate=True), load())
    np.testing.assert_allclose(found.arrays["corruption/effect"].values(), np.tile([0.1, 0.2, 0.3], (3, 1)), rtol=0.15)
    assert Corruption(**json.loads(Corruption(calibrate=True, alphabet="ab").model_dump_json())).calibrate


def test_conforms():
    check_probe(Corruption(severities=(1, 5)))


# ── The kind of the data, declared or inferred ──


class Mean(Linear):
    """Which third of the range the mean of an example lies in."""

    def predict(self, inputs):
        mean = inputs.reshape(len(inputs), -1).mean(axis=1)
        return log_softmax(-30 * (mean[:, None] - [0.25, 0.5, 0.75]) ** 2, axis=1)


class Vowels(Linear):
    def predict(self, inputs):
        assert inputs.dtype.kind == "U" and inputs.ndim == 1
        share = np.array([sum(c in "aeiou" for c in text) / max(len(text), 1) for text in inputs.tolist()])
        return log_softmax(-30 * (share[:, None] - [0.0, 0.5, 1.0]) ** 2, axis=1)


def series():
    return checked("v", "validation", IMAGES.reshape(400, 2, 32), LABELS, source="memory", kind="series")


def texts(n=300):
    words = np.array(["rhythm myth", "banana beet", "aeiou oui"])
    return checked("v", "validation", words[LABELS[:n]], LABELS[:n], source="memory")


def test_the_kinds_come_from_the_data_and_the_probe_overrides_them():
    found = measure(Corruption(severities=(5,)), series(), model=Mean()).measurement
    assert found.details["kinds"] == ",".join(DEFAULT_KINDS["series"]) and found.details["data_kind"] == "series"
    table = checked("v", "validation", IMAGES.reshape(400, 64), LABELS, source="memory", kind="table")
    assert measure(Corruption(severities=(5,)), table, model=Mean()).measurement.details["data_kind"] == "table"
    flat = checked("v", "validation", IMAGES[:, 0], LABELS, source="memory", kind="series")
    over = measure(Corruption(data_kind="image", severities=(5,)), flat, model=Mean()).measurement
    assert over.details["data_kind"] == "image" and over.details["channels"] == "none (inferred)"
    other = checked("v", "validation", IMAGES, LABELS, source="memory", kind="other")
    assert measure(Corruption(), other).measurement.outcome is Outcome.NOT_APPLICABLE


def test_texts_are_corrupted_as_texts(monkeypatch):
    reading = measure(Corruption(severities=(1, 5)), texts(), model=Vowels())
    found = reading.measurement
    assert found.details["data_kind"] == "text (inferred)" and found.details["kinds"] == ",".join(DEFAULT_KINDS["text"])
    effects = np.array(reading.arrays["corruption/effect"].values())
    assert (effects[:, 1] > effects[:, 0]).all() and 0.5 < found.estimate < 1
    for characters in (110, 7):
        monkeypatch.setattr(scale, "_BLOCK_VALUES", characters)
        assert measure(Corruption(severities=(1, 5)), texts(), model=Vowels()).arrays == reading.arrays


def test_long_texts_are_measured_on_fewer(monkeypatch):
    asked = []
    monkeypatch.setattr(Suite, "changes", lambda self, clean, changed: asked.append(len(clean)) or np.zeros(len(clean)))
    monkeypatch.setattr("flataudit.probes.corruption._MOST_EDITS", 20 * (11**2 + 1))
    measure(Corruption(severities=(1,), kinds=("case",)), texts(), model=Vowels())
    assert sum(asked) == 20


def test_the_answers_are_kept_small_for_disagreement():
    probe = Corruption(kinds=("blur", "noise"), severities=(2, 5))
    kept = measure(probe, load()).arrays["corruption_predictions"]
    assert (kept.format, kept.shape) == ("B", (4, 400))
    suite = Suite.of(IMAGES, "image")
    expected = Linear().predict(suite.corrupt(IMAGES, "blur", 5, seed=0)).argmax(axis=1)
    np.testing.assert_array_equal(np.asarray(kept.view())[1], expected)

    class Regressor(Linear):
        task = "regression"

        def predict(self, inputs):
            return inputs.sum(axis=1)

    rows = GENERATOR.normal(size=(60, 3))
    assert "corruption_predictions" not in measure(Corruption(), load(rows, rows.sum(axis=1)), model=Regressor()).arrays


# ── Bad input ──


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (np.full((400, 1, 8, 8), 0.5), None),
        (np.full((400, 3, 8, 8), 7, np.uint8), None),
        (np.ones((400, 4)), None),
        (np.ones((400, 2, 1)), "series"),
    ],
)
def test_constant_data_are_not_applicable(inputs, kind):
    data = checked("v", "validation", inputs, LABELS, source="memory", kind=kind)
    found = measure(Corruption(), data, model=Mean()).measurement
    assert found.outcome is Outcome.NOT_APPLICABLE and "all inputs are equal" in found.reason


def test_some_constant_images_are_no_trouble():
    images = IMAGES.copy()
    images[:200] = 0.5
    found = measure(Corruption(kinds=[k for k in KINDS["image"] if k != "saturate"], severities=(5,)), load(images))
    assert np.isfinite(found.measurement.estimate) and np.isfinite(found.arrays["corruption/effect"].values()).all()


def test_series_of_one_point_of_time_and_texts_of_no_character():
    points = checked("v", "validation", IMAGES[:, 0, 0, :, None], LABELS, source="memory", kind="series")
    assert measure(Corruption(), points, model=Mean()).measurement.outcome is Outcome.MEASURED
    empty = checked("v", "validation", np.where(LABELS == 0, "", "aeiou"), LABELS, source="memory")
    some = measure(Corruption(), empty, model=Vowels())
    assert some.measurement.outcome is Outcome.MEASURED
    nothing = checked("v", "validation", np.array([""] * 400), LABELS, source="memory")
    found = measure(Corruption(), nothing, model=Vowels())
    assert not np.any(found.arrays["corruption/effect"].values()) and found.measurement.estimate == np.mean(LABELS == 0)


def test_missing_values_that_the_model_cannot_take_are_its_failure_and_said():
    rows = GENERATOR.normal(size=(400, 4)) + LABELS[:, None]
    with pytest.raises(ModelError, match=r"missing values, got NaN; leave `missing` at median"):
        measure(Corruption(kinds=("missing",), missing="nan"), load(rows), model=Mean())


def test_rows_with_gaps_are_corrupted_by_the_scale_of_what_is_known():
    """A column of which a third is missing: what is known of it moves by its own deviation, and does not go missing."""
    rows = IMAGES.reshape(400, -1).astype(np.float64)
    gapped = np.column_stack([rows, np.where(np.arange(400) % 3, GENERATOR.normal(size=400), np.nan)])

    class Filling(Linear):
        def predict(self, inputs):
            assert not np.isnan(inputs[:, :-1]).any() and np.isnan(inputs[:, -1]).mean() < 0.4
            return super().predict(inputs[:, :-1])

    data = checked("v", "validation", gapped, LABELS, source="memory", gaps=True)
    probe = Corruption(kinds=("noise", "offset", "dropout", "quantise", "missing"), severities=(2,))
    found = measure(probe, data, model=Filling())
    assert found.measurement.estimate > 0.9 and np.isfinite(found.arrays["corruption/effect"].values()).all()
