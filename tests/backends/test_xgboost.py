"""XGBoost candidates answer as XGBoost does, by whatever objective and class, and hold nothing but data."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from programs import folder, job

pytest.importorskip("xgboost", reason="xgboost is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("pandas", reason="pandas is not installed")

import pandas
import xgboost

from flataudit.backends.xgboost import XgboostBackend
from flataudit.contracts import AuditData, Differentiable, Loaded
from flataudit.data.examples import checked
from flataudit.errors import ModelError
from flataudit.specs import InputField
from flataudit.vocabulary import aligned

N = 96


def examples(classes: int | None) -> AuditData:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N, 3))
    scores = inputs @ rng.normal(size=(3, classes or 1))
    return checked("val", "validation", inputs, scores[:, 0] if classes is None else scores.argmax(1), source="test")


def stored(path: Path, model: object, *, kind: str | None = None, suffix: str = "ubj") -> Path:
    named = kind or f"{type(model).__module__}.{type(model).__name__}"
    folder(path, f"flavors:\n  xgboost: {{data: model.{suffix}, model_class: {named}}}\n")
    model.save_model(path / f"model.{suffix}")  # type: ignore[attr-defined]
    return path


def load(path: Path, data: AuditData, **fields: object) -> Loaded:
    return XgboostBackend().load(job(path, **fields), data)


def trained(data: AuditData, objective: str, classes: int | None) -> "xgboost.Booster":
    count = {"num_class": classes} if objective.startswith("multi") else {}
    matrix = xgboost.DMatrix(data.inputs, data.targets)
    return xgboost.train({"objective": objective, "max_depth": 2, "seed": 0, **count}, matrix, 4)


@pytest.mark.parametrize("suffix", ["ubj", "json"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_wrapper_answers_by_predict_proba(tmp_path: Path, classes: int, suffix: str) -> None:
    data = examples(classes)
    model = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(data.inputs, data.targets)
    loaded = load(stored(tmp_path / "m", model, suffix=suffix), data)
    assert loaded.trust == "data_only" and not isinstance(loaded.model, Differentiable)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), model.predict_proba(data.inputs), rtol=1e-6)
    assert "XGBClassifier is made of trees" in str(loaded.model.no_curvature_because)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("objective", "classes"),
    [("binary:logistic", 2), ("binary:logitraw", 2), ("multi:softprob", 3), ("multi:softmax", 3)],
)
def test_a_booster_answers_by_its_objective(tmp_path: Path, objective: str, classes: int) -> None:
    """The probabilities are made here of the margins."""
    data = examples(classes)
    booster = trained(data, objective, classes)
    loaded = load(stored(tmp_path / "m", booster), data)
    margins = booster.predict(xgboost.DMatrix(data.inputs), output_margin=True)
    margins = np.stack([np.zeros(N), margins], axis=1) if classes == 2 else margins
    expected = np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(loaded.model.predict(data.inputs)), expected, rtol=1e-4)
    assert any(objective in note for note in loaded.notes)


@pytest.mark.parametrize("objective", ["reg:squarederror", "reg:absoluteerror", "count:poisson"])
def test_a_regression_answers_values(tmp_path: Path, objective: str) -> None:
    data = examples(None)
    data = checked("val", "validation", data.inputs, np.exp(np.asarray(data.targets)), source="test")
    booster = trained(data, objective, None)
    loaded = load(stored(tmp_path / "m", booster), data, task="regression")
    np.testing.assert_allclose(loaded.model.predict(data.inputs), booster.predict(xgboost.DMatrix(data.inputs)))
    wrapper = xgboost.XGBRegressor(n_estimators=3, objective=objective).fit(data.inputs, data.targets)
    loaded = load(stored(tmp_path / "w", wrapper), data, task="regression")
    np.testing.assert_allclose(loaded.model.predict(data.inputs), wrapper.predict(data.inputs))


def test_other_tasks_and_objectives_are_refused_by_name(tmp_path: Path) -> None:
    data, values = examples(2), examples(None)
    booster = stored(tmp_path / "r", trained(values, "reg:squarederror", None))
    with pytest.raises(ModelError, match=r"a classifier .*, got a xgboost booster of objective 'reg:squarederror'"):
        load(booster, data)
    with pytest.raises(ModelError, match=r"a regressor .*, got a xgboost booster of objective 'binary:logistic'"):
        load(stored(tmp_path / "c", trained(data, "binary:logistic", 2)), values, task="regression")
    with pytest.raises(ModelError, match="'binary:hinge'"):
        load(stored(tmp_path / "h", trained(data, "binary:hinge", 2)), data)
    wrapper = xgboost.XGBRegressor(n_estimators=2).fit(values.inputs, values.targets)
    with pytest.raises(ModelError, match="got XGBRegressor"):
        load(stored(tmp_path / "w", wrapper), data)


@pytest.mark.parametrize(
    "kind", ["os.system", "xgboost.sklearn.XGBRanker", "candidate.XGBClassifier", "subprocess.Popen"]
)
def test_only_the_librarys_own_classes_are_made(tmp_path: Path, kind: str) -> None:
    data = examples(2)
    path = stored(tmp_path / "m", trained(data, "binary:logistic", 2), kind=kind)
    with pytest.raises(ModelError, match=f"got {kind}"):
        load(path, data)


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    data = examples(2)
    path = stored(tmp_path / "m", trained(data, "binary:logistic", 2), suffix="json")
    (path / "model.json").write_text((path / "model.json").read_text()[:200])
    with pytest.raises(ModelError, match="a model file of XGBoost"):
        load(path, data)


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = examples(2)
    path = stored(tmp_path / "m", trained(data, "binary:logistic", 2))
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ModelError, match=r"the package xgboost.*pip install 'flataudit\[xgboost\]'"):
        load(path, data)


def test_columns_go_by_name_and_categories_by_theirs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    colours = np.array(["red", "blue", "green"])[rng.integers(3, size=N)]
    frame = pandas.DataFrame({"area": rng.normal(size=N), "colour": pandas.Categorical(colours)})
    targets = ((colours == "red") ^ (frame["area"] > 0)).astype(int).to_numpy()
    model = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True).fit(frame, targets)

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
    path = stored(tmp_path / "m", model)
    for loaded in (load(path, ours), load(stored(tmp_path / "b", model.get_booster()), ours)):
        np.testing.assert_allclose(np.exp(loaded.model.predict(ours.inputs)), model.predict_proba(frame), rtol=1e-5)
        other = pandas.DataFrame(
            {"area": frame["area"][:16], "colour": pandas.Categorical(few, categories=sorted(set(colours)))}
        )
        np.testing.assert_allclose(np.exp(loaded.model.predict(moved.inputs)), model.predict_proba(other), rtol=1e-5)
    lacking = replace(ours, fields=(ours.fields[0], InputField(name="aera")))
    with pytest.raises(ModelError, match=r"the columns 'area', which the model takes.*did you mean 'aera'"):
        load(path, lacking)
