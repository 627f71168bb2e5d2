"""scikit-learn candidates from folders and live: what runs, what is refused unread, and what is said of each kind."""

import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from programs import folder, job

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("pandas", reason="pandas is not installed")
pytest.importorskip("skops", reason="skops is not installed")

import pandas
import skops.io
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from flataudit.backends.sklearn import SklearnBackend, read_estimator
from flataudit.backends.sklearn_model import SklearnModel, sklearn_model
from flataudit.contracts import AuditData, Differentiable, Loaded, Predictor
from flataudit.data.examples import checked
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Outcome
from flataudit.mlmodel import Signature, SignatureField, read_mlmodel
from flataudit.probes.input_gradient import InputGradient
from flataudit.probes.input_noise import InputNoise
from flataudit.specs import Budget, InputField
from flataudit.vocabulary import aligned

N = 96
MLMODEL = "flavors:\n  sklearn: {pickled_model: %s, sklearn_version: 1.9.1, skops_trusted_types: [posix.system]}\n"


def examples(classes: int = 3) -> AuditData:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N, 4))
    return checked("val", "validation", inputs, (inputs @ rng.normal(size=(4, classes))).argmax(1), source="test")


def stored(path: Path, estimator: object) -> Path:
    (folder(path, MLMODEL % "model.skops") / "model.skops").write_bytes(skops.io.dumps(estimator))
    return path


def load(path: Path, data: AuditData, **fields: object) -> Loaded:
    return SklearnBackend().load(job(path, **fields), data)


KINDS = [
    LogisticRegression(),
    make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=5, random_state=0)),
    make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    DecisionTreeClassifier(),
    RandomForestClassifier(5, random_state=0),
    GradientBoostingClassifier(n_estimators=3),
    HistGradientBoostingClassifier(max_iter=3),
    KNeighborsClassifier(3),
    GaussianNB(),
    SVC(),
    CalibratedClassifierCV(LogisticRegression(), cv=2),
    VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())], voting="soft"),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", KINDS, ids=lambda estimator: type(estimator).__name__)
def test_a_skops_file_answers_as_the_estimator_and_ran_none_of_its_code(
    tmp_path: Path, estimator: BaseEstimator
) -> None:
    data = examples()
    estimator.fit(data.inputs, data.targets)
    loaded = load(stored(tmp_path / "m", estimator), data)
    assert loaded.trust == "data_only" and isinstance(loaded.model, Predictor)
    scores = estimator.predict_proba(data.inputs) if hasattr(estimator, "predict_proba") else None
    if scores is None:
        assert loaded.model.predict(data.inputs).argmax(1).tolist() == estimator.predict(data.inputs).tolist()
    else:
        np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), np.maximum(scores, 1e-30), rtol=1e-12)
    if not isinstance(loaded.model, Differentiable):
        assert loaded.model.no_curvature_because  # type: ignore[attr-defined]


def test_a_forests_zeros_cost_much_and_not_everything() -> None:
    data = examples()
    forest = RandomForestClassifier(3, random_state=0).fit(data.inputs, data.targets)
    model = sklearn_model(forest, data, "multiclass").model
    assert (forest.predict_proba(data.inputs) == 0).any()
    assert model.predict(data.inputs).min() == pytest.approx(np.log(1e-30))
    assert "no parameters to differentiate" in str(model.no_curvature_because)  # type: ignore[attr-defined]


# ── What is not to be trusted ─────────────────────────────────────────────────────────────────────


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path(self.marker).touch, ()


def test_a_pickle_is_refused_unopened_and_loads_when_trusted(tmp_path: Path) -> None:
    data, marker = examples(), tmp_path / "exploded"
    path = folder(tmp_path / "bomb", MLMODEL % "model.pkl")
    joblib.dump(Bomb(marker), path / "model.pkl")
    with pytest.raises(UntrustedError, match=r"serialization_format='skops', or pass --trust"):
        load(path, data)
    assert not marker.exists()
    honest = folder(tmp_path / "m", MLMODEL % "model.pkl")
    joblib.dump(LogisticRegression().fit(data.inputs, data.targets), honest / "model.pkl")
    loaded = load(honest, data, trust=True)
    assert loaded.trust == "code_bearing" and isinstance(loaded.model, Differentiable)
    joblib.dump({"no": "model"}, honest / "model.pkl")
    with pytest.raises(ModelError, match=r"an estimator with predict, got a dict"):
        load(honest, data, trust=True)


def test_the_types_that_the_candidates_own_file_trusts_count_for_nothing(tmp_path: Path) -> None:
    """The MLmodel file above lists ``posix.system`` as trusted; a step of the pipeline would call it."""
    data = examples()
    bomb = make_pipeline(FunctionTransformer(), LogisticRegression()).fit(data.inputs, data.targets)
    content = io.BytesIO(skops.io.dumps(bomb))
    hostile = io.BytesIO()
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(hostile, "w") as made:
        for name in source.namelist():
            text = source.read(name)
            if name == "schema.json":
                text = text.replace(b'"FunctionTransformer"', b'"system"').replace(
                    b'"sklearn.preprocessing._function_transformer"', b'"posix"'
                )
            made.writestr(name, text)
    path = folder(tmp_path / "m", MLMODEL % "model.skops")
    (path / "model.skops").write_bytes(hostile.getvalue())
    with pytest.raises(UntrustedError, match=r"also holds posix\.system.*--trust"):
        load(path, data)


def test_a_function_of_the_candidates_own_is_named(tmp_path: Path) -> None:
    data = examples()
    path = stored(
        tmp_path / "m", make_pipeline(FunctionTransformer(squared), GaussianNB()).fit(data.inputs, data.targets)
    )
    with pytest.raises(UntrustedError, match="squared"):
        load(path, data)
    loaded = load(path, data, trust=True)
    assert loaded.trust == "code_bearing"


def squared(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x**2


@pytest.mark.parametrize("cut", [0, 40, 400])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, cut: int) -> None:
    data = examples()
    path = stored(tmp_path / "m", GaussianNB().fit(data.inputs, data.targets))
    content = (path / "model.skops").read_bytes()
    (path / "model.skops").write_bytes(content[:cut])
    with pytest.raises(ModelError, match="skops file"):
        load(path, data)


def test_another_version_is_a_note(tmp_path: Path) -> None:
    data = examples()
    path = stored(tmp_path / "m", GaussianNB().fit(data.inputs, data.targets))
    content = (path / "model.skops").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        files = {name: source.read(name) for name in source.namelist()}
    import sklearn

    files["schema.json"] = files["schema.json"].replace(sklearn.__version__.encode(), b"1.2.0")
    with zipfile.ZipFile(path / "model.skops", "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    assert any("1.2.0" in note for note in load(path, data).notes)


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = examples()
    path = stored(tmp_path / "m", GaussianNB().fit(data.inputs, data.targets))
    for package in ("skops", "skops.io"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r"the package skops.*, got not installed; pip install 'flataudit\[sklearn\]'"):
        load(path, data)


def test_a_loaded_model_starts_no_processes(tmp_path: Path) -> None:
    data = examples()
    columns = ColumnTransformer([("a", StandardScaler(), [0, 1])], n_jobs=2)
    forest = make_pipeline(columns, RandomForestClassifier(3, n_jobs=2)).set_params(columntransformer__n_jobs=None)
    forest.fit(data.inputs, data.targets)
    forest[0].n_jobs = -1
    path = stored(tmp_path / "m", forest)
    described = read_mlmodel(path)
    estimator, _, _ = read_estimator(described, "sklearn", "pickled_model", trusted=False)
    assert estimator[0].n_jobs is None and estimator[1].n_jobs is None


# ── What does not fit ─────────────────────────────────────────────────────────────────────────────


def test_other_tasks_are_refused_by_name() -> None:
    data = examples()
    forest = RandomForestRegressor(2).fit(data.inputs, data.targets)
    with pytest.raises(ModelError, match=r"expected a classifier \(task: multiclass\), got RandomForestRegressor"):
        sklearn_model(forest, data, "multiclass")
    pipeline = make_pipeline(StandardScaler(), GaussianNB()).fit(data.inputs, data.targets)
    with pytest.raises(ModelError, match=r"a regressor \(task: regression\), got GaussianNB in a Pipeline"):
        sklearn_model(pipeline, data, "regression")
    with pytest.raises(ModelError, match=r"a classifier .*, got KMeans"):
        sklearn_model(KMeans(2).fit(data.inputs), data, "multiclass")


def test_several_outputs_are_refused() -> None:
    data = examples()
    both = np.stack([data.targets, data.targets], axis=1)  # type: ignore[arg-type]
    for estimator in (RandomForestClassifier(2), MultiOutputClassifier(GaussianNB())):
        with pytest.raises(ModelError, match="several outputs"):
            sklearn_model(estimator.fit(data.inputs, both), data, "multiclass")
    with pytest.raises(ModelError, match=r"values \(96,\)|of shape"):
        values = replace(data, targets=data.inputs[:, 0])
        sklearn_model(LinearRegression().fit(data.inputs, both), values, "regression")


def test_classes_that_the_model_never_saw_are_named() -> None:
    data = examples()
    assert data.targets is not None
    known = data.targets != 1
    model = GaussianNB().fit(data.inputs[known], data.targets[known])
    with pytest.raises(ModelError, match=r"expected the classes 0, 1, 2, got a model of the classes 0, 2"):
        sklearn_model(model, data, "multiclass")
    named = replace(data, class_names=("ant", "bee", "cow"))
    words = np.array(["cow", "ant"])[(data.targets[known] == 0).astype(int)]
    with pytest.raises(ModelError, match=r"classes ant, bee, cow, got a model of the classes ant, cow"):
        sklearn_model(GaussianNB().fit(data.inputs[known], words), named, "multiclass")


def test_a_class_that_only_the_model_knows_comes_last() -> None:
    data = examples()
    assert data.targets is not None
    words = np.array(["bee", "ant", "cow"])[data.targets]
    model = GaussianNB().fit(data.inputs, words)
    two = np.flatnonzero(data.targets != 1)
    few = replace(data.replace_inputs(data.inputs[two]), targets=(data.targets[two] == 2).astype(int))
    loaded = sklearn_model(model, replace(few, class_names=("bee", "cow")), "multiclass")
    expected = model.predict_proba(few.inputs)[:, [1, 2, 0]]
    np.testing.assert_allclose(np.exp(loaded.model.predict(few.inputs)), expected, atol=1e-12)


def test_another_number_of_columns_is_said() -> None:
    data = examples()
    with pytest.raises(ModelError, match=r"the 2 columns that the model was trained on, got 4"):
        sklearn_model(GaussianNB().fit(data.inputs[:, :2], data.targets), data, "multiclass")


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────


def table(name: str, seed: int, colours: tuple[str, ...]) -> tuple[pandas.DataFrame, AuditData]:
    """Rows as a data frame and as an audit holds them, in another order of columns."""
    rng = np.random.default_rng(seed)
    colour, rooms, area = rng.integers(len(colours), size=N), rng.integers(1, 5, size=N), rng.normal(40, 9, size=N)
    places = sorted(colours)
    frame = pandas.DataFrame({"area": area, "colour": [colours[k] for k in colour], "rooms": rooms})
    codes = np.array([places.index(colours[k]) for k in colour], dtype=np.float64)
    fields = (
        InputField(name="rooms", kind="integer"),
        InputField(name="spare"),
        InputField(name="colour", kind="category", categories=tuple(places)),
        InputField(name="area"),
    )
    packed = np.stack([rooms.astype(np.float64), rng.normal(size=N), codes, area], axis=1)
    targets = (area + 5 * rooms + 9 * (frame["colour"] == "red") > 55).astype(int)
    role = "validation" if name == "val" else "shifted"
    return frame, checked(name, role, packed, targets.to_numpy(), source="test", fields=fields)  # type: ignore[arg-type]


def house_model(last: BaseEstimator) -> BaseEstimator:
    columns = ColumnTransformer(
        [("a", StandardScaler(), ["area", "rooms"]), ("b", OneHotEncoder(handle_unknown="ignore"), ["colour"])]
    )
    return make_pipeline(columns, last)


def test_a_data_frame_is_fed_by_name_and_its_parameters_have_curvature(tmp_path: Path) -> None:
    frame, data = table("val", 0, ("red", "blue", "green"))
    model = house_model(LogisticRegression()).fit(frame, data.targets)
    loaded = load(stored(tmp_path / "m", model), data, task="binary")
    theirs = model.predict_proba(frame)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), theirs, atol=1e-12)
    twin = loaded.model
    assert isinstance(twin, Differentiable)
    np.testing.assert_allclose(
        twin.raw_outputs(twin.parameters, twin.tensors(data.inputs, None)[0]).softmax(1).numpy(), theirs, atol=1e-6
    )
    reading, *_ = InputGradient().measure(twin, data, 0, Budget())
    assert reading.measurement.outcome is Outcome.NOT_APPLICABLE and "OneHotEncoder" in str(reading.measurement.reason)
    assert any("spare" in note for note in loaded.notes)


@pytest.mark.parametrize("encoder", [OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()])
def test_a_shifted_set_with_other_categories_is_answered_as_its_own_frame_is(encoder: BaseEstimator) -> None:
    frame, data = table("val", 0, ("red", "blue", "green"))
    theirs, shifted = table("autumn", 1, ("red", "green"))
    model = make_pipeline(ColumnTransformer([("b", encoder, ["colour"])], remainder="passthrough"), GaussianNB())
    model.fit(frame, data.targets)
    ours, moved = aligned([data, shifted])
    assert shifted.inputs[:, 2].max() == 1 and moved.inputs[:, 2].max() == 2
    found = sklearn_model(model, ours, "binary").model.predict(moved.inputs)
    np.testing.assert_allclose(np.exp(found), model.predict_proba(theirs), atol=1e-12)


def test_a_category_that_the_model_never_saw_goes_its_encoders_way() -> None:
    frame, data = table("val", 0, ("red", "blue"))
    theirs, shifted = table("autumn", 1, ("red", "violet"))
    model = house_model(GaussianNB()).fit(frame, data.targets)
    ours, moved = aligned([data, shifted])
    found = sklearn_model(model, ours, "binary").model.predict(moved.inputs)
    np.testing.assert_allclose(np.exp(found), model.predict_proba(theirs), atol=1e-12)


def test_a_column_that_the_data_lack_is_named() -> None:
    frame, data = table("val", 0, ("red", "blue"))
    model = house_model(GaussianNB()).fit(
        frame.rename(columns={"area": "aera"}).assign(area=1.0)[["aera", "colour", "rooms", "area"]], data.targets
    )
    with pytest.raises(ModelError, match=r"the columns 'aera', which the model takes.*did you mean 'area'"):
        sklearn_model(model, data, "binary")


def test_categories_for_a_model_without_names_are_refused() -> None:
    _, data = table("val", 0, ("red", "blue"))
    with pytest.raises(ModelError, match="fitted on named columns"):
        sklearn_model(GaussianNB().fit(data.inputs, data.targets), data, "binary")


def test_noise_moves_numbers_alone() -> None:
    """The model answers by category and whole number only: no noise changes it; of the number, any does."""
    frame, data = table("val", 0, ("red", "blue"))
    still = ColumnTransformer([("b", OrdinalEncoder(), ["colour"])], remainder="drop")
    code = make_pipeline(still, DecisionTreeClassifier()).fit(frame, (frame["colour"] == "red").astype(int))
    audited = replace(data, targets=(frame["colour"] == "red").astype(int).to_numpy())
    reading, *_ = InputNoise(scale=50.0).measure(sklearn_model(code, audited, "binary").model, audited, 0, Budget())
    assert reading.measurement.estimate == 1.0
    moved = InputNoise(scale=5.0).measure(
        sklearn_model(house_model(GaussianNB()).fit(frame, data.targets), data, "binary").model, data, 0, Budget()
    )
    assert moved[0].measurement.estimate is not None and moved[0].measurement.estimate < 0.95


def test_the_signature_says_what_an_estimator_without_names_takes() -> None:
    data = examples()
    fields = tuple(InputField(name=name) for name in "dcba")
    named = replace(data, fields=fields)
    model = GaussianNB().fit(data.inputs[:, ::-1], data.targets)
    signature = Signature(inputs=tuple(SignatureField(name=name, dtype="double") for name in "abcd"))
    found = sklearn_model(model, named, "multiclass", signature=signature).model.predict(data.inputs)
    np.testing.assert_allclose(np.exp(found), model.predict_proba(data.inputs[:, ::-1]), atol=1e-12)


def test_whole_number_columns_have_no_gradient_and_the_others_do() -> None:
    frame, data = table("val", 0, ("red", "blue"))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[["rooms", "area"]], data.targets)
    loaded = sklearn_model(model, data, "binary")
    reading, *_ = InputGradient().measure(loaded.model, data, 0, Budget())  # type: ignore[arg-type]
    weight, scale = model[-1].coef_[0, 1], model[0].scale_[1]
    p = model.predict_proba(frame[["rooms", "area"]])[np.arange(N), data.targets]
    np.testing.assert_allclose(reading.arrays["input_gradient_norm"].values(), (1 - p) * abs(weight / scale), rtol=1e-8)


def test_a_number_is_not_rounded_where_whole_numbers_were_logged() -> None:
    frame, data = table("val", 0, ("red", "blue"))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[["rooms", "area"]], data.targets)
    fields = (InputField(name="rooms"), *data.fields[1:])
    signature = Signature(
        inputs=tuple(SignatureField(name=n, dtype=d) for n, d in (("rooms", "long"), ("area", "double")))
    )
    found = sklearn_model(model, replace(data, fields=fields), "binary", signature=signature).model
    moved = data.inputs + 0.25
    theirs = model.predict_proba(pandas.DataFrame({"rooms": moved[:, 0], "area": moved[:, 3]}))
    np.testing.assert_allclose(np.exp(found.predict(moved)), theirs, atol=1e-12)


def test_a_column_that_the_pipeline_drops_is_no_obstacle_to_gradients() -> None:
    frame, data = table("val", 0, ("red", "blue"))
    kept = ColumnTransformer([("a", StandardScaler(), ["area", "rooms"])])
    dropped = make_pipeline(kept, LogisticRegression()).fit(frame, data.targets)
    reading, *_ = InputGradient().measure(sklearn_model(dropped, data, "binary").model, data, 0, Budget())  # type: ignore[arg-type]
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[["area", "rooms"]], data.targets)
    (other,) = InputGradient().measure(sklearn_model(plain, data, "binary").model, data, 0, Budget())  # type: ignore[arg-type]
    assert reading.measurement.outcome is other.measurement.outcome is Outcome.MEASURED
    assert reading.measurement.estimate == pytest.approx(other.measurement.estimate, rel=1e-9)


def test_a_batch_goes_through_the_encoders_once() -> None:
    frame, data = table("val", 0, ("red", "blue"))
    model = house_model(LogisticRegression()).fit(frame, data.targets)
    twin = sklearn_model(model, data, "binary").model
    assert isinstance(twin, Differentiable)
    first, _ = twin.tensors(data.inputs, None)
    model[0].transformers_.clear()
    again, _ = twin.tensors(data.inputs.copy(), None)
    assert first.equal(again) and first is not again


def test_missing_values_go_to_models_that_take_them() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N, 3))
    targets = (inputs[:, 0] > 0).astype(int)
    inputs[::5, 1] = np.nan
    data = checked("val", "validation", inputs, targets, source="test", gaps=True)
    for takes in (HistGradientBoostingClassifier(max_iter=5), make_pipeline(SimpleImputer(), LogisticRegression())):
        model = takes.fit(inputs, targets)
        found = sklearn_model(model, data, "binary").model
        np.testing.assert_allclose(np.exp(found.predict(inputs)), model.predict_proba(inputs), atol=1e-12)
        reading, *_ = InputNoise().measure(found, data, 0, Budget())
        assert reading.measurement.outcome is Outcome.MEASURED
    with pytest.raises(ModelError, match=r"a model that takes missing values, got GaussianNB"):
        sklearn_model(GaussianNB().fit(np.nan_to_num(inputs), targets), data, "binary")


def test_texts_pass_through_a_vectoriser() -> None:
    words = np.array(["red sky", "blue sea", "red sea", "blue sky"] * 8)
    data = checked("val", "validation", words, [0, 1, 1, 0] * 8, source="test")
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, data.targets)
    loaded = sklearn_model(model, data, "binary")
    assert isinstance(loaded.model, Differentiable)
    np.testing.assert_allclose(np.exp(loaded.model.predict(words)), model.predict_proba(words), atol=1e-12)


def test_a_hard_vote_has_no_probabilities() -> None:
    data = examples()
    vote = VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())]).fit(data.inputs, data.targets)
    model = sklearn_model(vote, data, "multiclass").model
    assert isinstance(model, SklearnModel) and "a class alone" in str(model.no_probabilities_because)
    assert model.predict(data.inputs).argmax(1).tolist() == vote.predict(data.inputs).tolist()


def test_a_live_estimator_is_left_as_it_was() -> None:
    frame, data = table("val", 0, ("red", "blue"))
    model = house_model(LogisticRegression()).fit(frame, data.targets)
    before = joblib.hash(model)
    twin = sklearn_model(model, data, "binary").model
    assert isinstance(twin, Differentiable)
    moved = {name: value + 1 for name, value in twin.weights().items()}
    assert np.abs(twin.predict_at(moved, data.inputs) - twin.predict(data.inputs)).max() > 0.1
    assert joblib.hash(model) == before
