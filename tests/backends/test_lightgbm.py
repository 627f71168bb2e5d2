"""LightGBM candidates answer as LightGBM does; texts are data, skops files too, and pickles are code."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from programs import folder, job

pytest.importorskip("lightgbm", reason="lightgbm is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("pandas", reason="pandas is not installed")

import lightgbm
import pandas
import skops.io
from sklearn.pipeline import make_pipeline

from flataudit.backends.lightgbm import LightgbmBackend
from flataudit.backends.sklearn_model import sklearn_model
from flataudit.contracts import AuditData, Differentiable, Loaded
from flataudit.data.examples import checked
from flataudit.data.labels import numbered
from flataudit.errors import ModelError, UntrustedError
from flataudit.specs import InputField
from flataudit.vocabulary import aligned

N = 120
QUIET = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}


def examples(classes: int | None) -> AuditData:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N, 3))
    scores = inputs @ rng.normal(size=(3, classes or 1))
    return checked("val", "validation", inputs, scores[:, 0] if classes is None else scores.argmax(1), source="test")


def stored(path: Path, model: object, suffix: str = "lgb") -> Path:
    folder(path, f"flavors:\n  lightgbm: {{data: model.{suffix}, skops_trusted_types: [posix.system]}}\n")
    if suffix == "lgb":
        model.save_model(path / "model.lgb")  # type: ignore[attr-defined]
    elif suffix == "skops":
        (path / "model.skops").write_bytes(skops.io.dumps(model))
    else:
        joblib.dump(model, path / "model.pkl")
    return path


def load(path: Path, data: AuditData, **fields: object) -> Loaded:
    return LightgbmBackend().load(job(path, **fields), data)


def trained(data: AuditData, objective: str, classes: int | None) -> "lightgbm.Booster":
    count = {"num_class": classes} if objective.startswith("multi") else {}
    return lightgbm.train({"objective": objective, **QUIET, **count}, lightgbm.Dataset(data.inputs, data.targets), 4)


@pytest.mark.parametrize(
    ("objective", "classes"), [("binary", 2), ("cross_entropy", 2), ("multiclass", 3), ("multiclassova", 3)]
)
def test_a_booster_answers_by_its_objective(tmp_path: Path, objective: str, classes: int) -> None:
    data = examples(classes)
    booster = trained(data, objective, classes)
    loaded = load(stored(tmp_path / "m", booster), data)
    assert loaded.trust == "data_only" and not isinstance(loaded.model, Differentiable)
    margins = booster.predict(data.inputs, raw_score=True)
    if classes == 2:
        margins = np.stack([np.zeros(N), margins], axis=1)
    weights = 1 / (1 + np.exp(-margins)) if objective == "multiclassova" else np.exp(margins)
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), expected, rtol=1e-9)


@pytest.mark.parametrize("objective", ["regression", "regression_l1", "quantile"])
def test_a_regression_answers_values(tmp_path: Path, objective: str) -> None:
    data = examples(None)
    booster = trained(data, objective, None)
    loaded = load(stored(tmp_path / "m", booster), data, task="regression")
    np.testing.assert_array_equal(loaded.model.predict(data.inputs), booster.predict(data.inputs))


@pytest.mark.parametrize("suffix", ["skops", "pkl"])
def test_a_wrapper_answers_by_predict_proba(tmp_path: Path, suffix: str) -> None:
    data = examples(3)
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1).fit(data.inputs, data.targets)
    path = stored(tmp_path / "m", model, suffix)
    if suffix == "pkl":
        with pytest.raises(UntrustedError, match="pickled"):
            load(path, data)
    loaded = load(path, data, trust=suffix == "pkl")
    assert loaded.trust == ("data_only" if suffix == "skops" else "code_bearing")
    expected = model.booster_.predict(data.inputs)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), expected, rtol=1e-9)


def test_other_tasks_objectives_and_damaged_texts_are_refused(tmp_path: Path) -> None:
    data, values = examples(2), examples(None)
    with pytest.raises(ModelError, match=r"a classifier .*'regression'"):
        load(stored(tmp_path / "r", trained(values, "regression", None)), data)
    ranker = lightgbm.train(
        {"objective": "lambdarank", **QUIET}, lightgbm.Dataset(data.inputs, data.targets, group=[N]), 2
    )
    with pytest.raises(ModelError, match="'lambdarank'"):
        load(stored(tmp_path / "l", ranker), values, task="regression")
    path = stored(tmp_path / "d", trained(data, "binary", 2))
    (path / "model.lgb").write_text("tree\nversion=v4\n")
    with pytest.raises(ModelError, match="a model text of LightGBM"):
        load(path, data)


def test_columns_go_by_name_and_categories_by_theirs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    colours = np.array(["red", "blue", "green"])[rng.integers(3, size=N)]
    frame = pandas.DataFrame({"area": rng.normal(size=N), "colour": pandas.Categorical(colours)})
    targets = ((colours == "red") ^ (frame["area"] > 0)).astype(int).to_numpy()
    booster = lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(frame, targets), 6)

    def audited(names: np.ndarray, role: str) -> AuditData:
        fields = (
            InputField(name="colour", kind="category", categories=tuple(sorted(set(names)))),
            InputField(name="area"),
        )
        codes = np.unique(names, return_inverse=True)[1]
        packed = np.stack([codes, frame["area"].to_numpy()[: len(names)]], axis=1)
        return checked(role, role, packed, targets[: len(names)], source="test", fields=fields)  # type: ignore[arg-type]

    few = np.array(["red", "green"] * 8)
    ours, moved = aligned([audited(colours, "validation"), audited(few, "shifted")])
    model = load(stored(tmp_path / "m", booster), ours).model
    np.testing.assert_allclose(np.exp(model.predict(ours.inputs))[:, 1], booster.predict(frame), rtol=1e-9)
    other = pandas.DataFrame(
        {"area": frame["area"][:16], "colour": pandas.Categorical(few, categories=sorted(set(colours)))}
    )
    np.testing.assert_allclose(np.exp(model.predict(moved.inputs))[:, 1], booster.predict(other), rtol=1e-9)


@pytest.mark.parametrize("form", ["lgb", "skops", "pipeline"])
def test_spaces_in_names_are_matched_by_its_own_rule(tmp_path: Path, form: str) -> None:
    """LightGBM keeps the names that it was trained on with an underscore for every space."""
    rng = np.random.default_rng(2)
    frame = pandas.DataFrame(rng.normal(size=(N, 3)), columns=["living area", "rooms", "year  built"])
    targets = (frame["living area"] > frame["year  built"]).astype(int).to_numpy()
    fitted = lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1).fit(frame, targets)
    fields = tuple(InputField(name=name) for name in frame.columns[::-1])
    data = checked("v", "validation", frame.to_numpy()[:, ::-1], targets, source="test", fields=fields)
    if form == "pipeline":
        loaded = sklearn_model(make_pipeline(fitted), data, "multiclass")
    else:
        path = stored(tmp_path / "m", fitted.booster_ if form == "lgb" else fitted, form)
        loaded = load(path, data)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), fitted.predict_proba(frame), rtol=1e-6)
    assert "names with spaces were matched with LightGBM's underscores: living area, year  built" in loaded.notes
    other = checked("v", "validation", frame.to_numpy()[:, 1:], targets, source="test", fields=fields[:2])
    with pytest.raises(ModelError, match="living_area"):
        load(stored(tmp_path / "o", fitted.booster_), other)


def test_listed_classes_are_its_columns_by_place(tmp_path: Path) -> None:
    """It numbers its classes from 0; the data may call them 1, 2 and 3."""
    data = examples(3)
    assert data.targets is not None
    booster = trained(data, "multiclass", 3)
    codes, names = numbered(data.targets + 1, [1, 2, 3], "test")
    listed = checked("val", "validation", data.inputs, codes, source="test", class_names=names)
    found = load(stored(tmp_path / "m", booster), listed).model.predict(data.inputs)
    np.testing.assert_allclose(np.exp(found), booster.predict(data.inputs), rtol=1e-6)
    wrapper = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(data.inputs, data.targets + 1)
    with pytest.raises(ModelError, match=r"got a model of the classes 1, 2, 3; list .*`classes: \[1, 2, 3\]`"):
        load(stored(tmp_path / "w", wrapper, "skops"), checked("v", "validation", data.inputs, codes + 1, source="t"))
    loaded = load(stored(tmp_path / "x", wrapper, "skops"), listed)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), wrapper.predict_proba(data.inputs))
