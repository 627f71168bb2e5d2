"""Twins of scikit-learn's estimators: their answers are scikit-learn's, their curvature is the closed form's."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    ElasticNet,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC

from flataudit.backends.sklearn_model import SklearnModel, sklearn_model
from flataudit.backends.sklearn_twins import SklearnTwin
from flataudit.contracts import AuditData, Differentiable
from flataudit.data.examples import checked
from flataudit.evidence import Outcome
from flataudit.probes.adversarial import Adversarial
from flataudit.probes.geometric_complexity import GeometricComplexity
from flataudit.probes.hessian_trace import HessianTrace
from flataudit.probes.input_gradient import InputGradient
from flataudit.specs import Budget, Task

N, FEATURES = 90, 5


def examples(classes: int | None, seed: int = 0) -> AuditData:
    """Noisy linear classes, or values where there are none."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(N, FEATURES)) * np.array([1.0, 3.0, 0.2, 1.0, 2.0]) + np.array([0, 5, 1, -3, 0.0])
    scores = (inputs - inputs.mean(0)) @ rng.normal(size=(FEATURES, classes or 1)) + rng.normal(size=(N, classes or 1))
    targets: NDArray[np.generic] = scores[:, 0] if classes is None else scores.argmax(1)
    return checked("validation", "validation", inputs, targets, source="test")


def fitted(estimator: BaseEstimator, data: AuditData) -> BaseEstimator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return estimator.fit(data.inputs, data.targets)


def twin_of(estimator: BaseEstimator, data: AuditData, task: Task) -> SklearnTwin:
    loaded = sklearn_model(fitted(estimator, data), data, task)
    assert isinstance(loaded.model, SklearnTwin), loaded.notes
    assert isinstance(loaded.model, Differentiable)
    return loaded.model


def trace(model: Differentiable, data: AuditData) -> float:
    (reading,) = [
        r for r in HessianTrace().measure(model, data, 0, Budget()) if r.measurement.metric == "hessian_trace"
    ]
    measured = reading.measurement
    assert measured.outcome is Outcome.MEASURED and measured.estimate is not None
    return measured.estimate


def with_ones(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)


# ── Closed forms ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("estimator", [LinearRegression(), Ridge(), Lasso(0.01), ElasticNet(0.01), HuberRegressor()])
def test_the_trace_of_a_linear_regression_is_two_over_n_times_xx(estimator: BaseEstimator) -> None:
    data = examples(None)
    expected = 2 / N * np.trace(with_ones(data.inputs).T @ with_ones(data.inputs))
    assert trace(twin_of(estimator, data, "regression"), data) == pytest.approx(expected, rel=1e-8)


def test_without_an_intercept_there_is_no_parameter_for_it() -> None:
    data = examples(None)
    model = twin_of(LinearRegression(fit_intercept=False), data, "regression")
    assert sum(part.numel() for part in model.parameters.values()) == FEATURES
    assert trace(model, data) == pytest.approx(2 / N * np.square(data.inputs).sum(), rel=1e-8)


@pytest.mark.parametrize("estimator", [LogisticRegression(), SGDClassifier(loss="log_loss", random_state=0)])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_trace_of_a_logistic_regression_is_that_of_x_sigma_x(estimator: BaseEstimator, task: Task) -> None:
    data = examples(2)
    model = twin_of(make_pipeline(StandardScaler(), estimator), data, task)
    x = with_ones(StandardScaler().fit_transform(data.inputs))
    p = np.exp(model.predict(data.inputs)[:, 1])
    expected = (p * (1 - p) * np.square(x).sum(axis=1)).mean()
    assert trace(model, data) == pytest.approx(expected, rel=1e-8)


def test_the_trace_of_a_softmax_regression_is_that_of_its_kronecker_products() -> None:
    data = examples(4)
    model = twin_of(LogisticRegression(max_iter=500), data, "multiclass")
    p = np.exp(model.predict(data.inputs))
    expected = ((1 - np.square(p).sum(axis=1)) * np.square(with_ones(data.inputs)).sum(axis=1)).mean()
    assert trace(model, data) == pytest.approx(expected, rel=1e-8)


def hand_written_loss(
    estimator: MLPClassifier | MLPRegressor, flat: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """The mean loss of a multi-layer perceptron of these weights, layer after layer, from scikit-learn's formulas."""
    sizes, start = [x.shape[1], *estimator.get_params()["hidden_layer_sizes"], estimator.n_outputs_], 0
    squash = {"tanh": torch.tanh, "relu": torch.relu, "logistic": torch.sigmoid, "identity": lambda h: h}
    h = x
    for place, (wide, narrow) in enumerate(pairwise(sizes)):
        weight = flat[start : start + wide * narrow].reshape(wide, narrow)
        start += wide * narrow
        h = h @ weight + flat[start : start + narrow]
        start += narrow
        h = squash[estimator.activation](h) if place < len(sizes) - 2 else h
    if isinstance(estimator, MLPRegressor):
        return ((h[:, 0] - y) ** 2).mean()
    if estimator.n_outputs_ == 1:
        return (torch.nn.functional.softplus(h[:, 0]) - y * h[:, 0]).mean()
    return (h.logsumexp(1) - h.gather(1, y[:, None])[:, 0]).mean()


@pytest.mark.parametrize("activation", ["tanh", "logistic", "relu", "identity"])
@pytest.mark.parametrize("classes", [3, 2, None])
def test_the_trace_of_a_perceptron_is_that_of_the_dense_hessian(activation: str, classes: int | None) -> None:
    data, kind = examples(classes), MLPRegressor if classes is None else MLPClassifier
    estimator = fitted(kind(hidden_layer_sizes=(6, 4), activation=activation, max_iter=30, random_state=0), data)
    model = twin_of_fitted(estimator, data, "regression" if classes is None else "multiclass")
    parts = [part for pair in zip(estimator.coefs_, estimator.intercepts_, strict=True) for part in pair]
    flat = torch.tensor(np.concatenate([part.ravel() for part in parts]))
    x = torch.tensor(data.inputs)
    y = torch.tensor(data.targets, dtype=torch.int64 if classes == 3 else torch.float64)
    dense = torch.autograd.functional.hessian(lambda vector: hand_written_loss(estimator, vector, x, y), flat)
    found = HessianTrace(relative_error=0.01).measure(model, data, 0, Budget(passes=5000))
    measured = next(r.measurement for r in found if r.measurement.metric == "hessian_trace")
    assert measured.estimate is not None and measured.standard_error is not None
    expected = float(torch.trace(dense))
    assert abs(measured.estimate - expected) <= 5 * measured.standard_error + 1e-8 * abs(expected)


def twin_of_fitted(estimator: BaseEstimator, data: AuditData, task: Task) -> SklearnTwin:
    model = sklearn_model(estimator, data, task).model
    assert isinstance(model, SklearnTwin)
    return model


# ── Agreement ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        LogisticRegression(fit_intercept=False),
        SGDClassifier(loss="log_loss", random_state=0),
        LinearDiscriminantAnalysis(),
        MLPClassifier((7,), max_iter=20, random_state=0),
    ],
)
def test_probabilities_agree_within_a_millionth_on_all_examples(estimator: BaseEstimator, classes: int) -> None:
    data = examples(classes)
    model = twin_of(estimator, data, "multiclass")
    theirs = estimator.predict_proba(data.inputs)
    np.testing.assert_array_equal(np.exp(model.predict(data.inputs)).round(12), theirs.round(12))
    np.testing.assert_allclose(np.exp(model.predict_at(model.weights(), data.inputs)), theirs, atol=1e-6)
    logits = model.raw_outputs(model.parameters, model.tensors(data.inputs, None)[0])
    np.testing.assert_allclose(logits.softmax(1).numpy(), theirs, atol=1e-6)
    assert model.disagreement(data.inputs) <= 1e-12 and model.dtype == "float64"


@pytest.mark.parametrize(
    "estimator", [PoissonRegressor(), MLPRegressor(hidden_layer_sizes=(6,), loss="poisson", random_state=0)]
)
def test_a_logarithmic_link_is_an_exponential_at_the_end(estimator: BaseEstimator) -> None:
    data = examples(None)
    data = checked("validation", "validation", data.inputs, np.exp(np.asarray(data.targets) / 9), source="test")
    model = twin_of(make_pipeline(StandardScaler(), estimator), data, "regression")
    assert model.disagreement(data.inputs) < 1e-9


def test_a_twin_that_disagrees_is_refused_and_said() -> None:
    data = examples(3)
    estimator = fitted(LogisticRegression(), data)
    estimator.predict_proba = lambda inputs: np.full((len(inputs), 3), 1 / 3) + 0 * estimator.decision_function(inputs)
    loaded = sklearn_model(estimator, data, "multiclass")
    assert type(loaded.model) is SklearnModel
    assert "a torch twin of it differs by" in str(loaded.model.no_curvature_because)
    assert any("no curvature" in note for note in loaded.notes)


def test_decision_values_are_no_log_odds_unless_the_policy_says_so() -> None:
    data = examples(3)
    estimator = fitted(LinearSVC(), data)
    plain = sklearn_model(estimator, data, "multiclass").model
    assert type(plain) is SklearnModel and not isinstance(plain, Differentiable)
    assert "are no log-odds" in str(plain.no_probabilities_because) == str(plain.no_curvature_because)
    declared = sklearn_model(estimator, data, "multiclass", outputs="logits").model
    assert isinstance(declared, SklearnTwin)
    np.testing.assert_array_equal(plain.predict(data.inputs), declared.predict(data.inputs))
    np.testing.assert_array_equal(declared.raw(data.inputs), estimator.decision_function(data.inputs))


def test_a_support_vector_machine_has_a_twin_for_two_classes_alone() -> None:
    """With more, its decision values are votes of the machines of all pairs."""
    two, three = examples(2), examples(3)
    kinds = [
        type(sklearn_model(fitted(SVC(kernel=kernel), data), data, "multiclass", outputs="logits").model)
        for kernel, data in (("linear", two), ("linear", three), ("rbf", two))
    ]
    assert kinds == [SklearnTwin, SklearnModel, SklearnModel]


def test_columns_follow_the_order_of_the_datas_classes() -> None:
    """The model calls the first class "no"; the data number "yes" before it."""
    data = examples(2)
    names = np.array(["yes", "no"])
    for task in ("binary", "multiclass"):
        estimator = fitted(LogisticRegression(), data).fit(data.inputs, names[data.targets])
        named = AuditData(**{**vars(data), "class_names": ("yes", "no")})
        model = sklearn_model(estimator, named, task).model  # type: ignore[arg-type]
        assert isinstance(model, SklearnTwin) and list(estimator.classes_) == ["no", "yes"]
        theirs = estimator.predict_proba(data.inputs)[:, ::-1]
        np.testing.assert_allclose(np.exp(model.predict(data.inputs)), theirs, atol=1e-12)
        np.testing.assert_allclose(np.exp(model.predict_at({}, data.inputs)), theirs, atol=1e-12)


# ── Pipelines ─────────────────────────────────────────────────────────────────────────────────────


def numeric_gradient(estimator: BaseEstimator, x: NDArray[np.float64], y: int) -> NDArray[np.float64]:
    """Central differences of scikit-learn's own log-loss."""
    step = 1e-5 * np.eye(len(x))
    up, down = (np.log(estimator.predict_proba(x + sign * step)[:, y]) for sign in (1, -1))
    return -(up - down) / 2e-5


@pytest.mark.parametrize(
    "steps",
    [[], [StandardScaler()], [MinMaxScaler()], [StandardScaler(), PCA(3)], [MinMaxScaler(), PCA(2, whiten=True)]],
)
def test_gradients_pass_through_affine_steps_to_the_raw_inputs(steps: list[BaseEstimator]) -> None:
    data = examples(3)
    estimator = fitted(make_pipeline(*steps, LogisticRegression()), data)
    model = twin_of_fitted(estimator, data, "multiclass")
    assert model.no_input_gradients_because is None
    (reading,) = InputGradient().measure(model, data, 0, Budget())
    norms = np.asarray(reading.arrays["input_gradient_norm"].values())
    for row in (0, 7, N - 1):
        expected = np.linalg.norm(numeric_gradient(estimator, data.inputs[row], int(data.targets[row])))
        assert norms[row] == pytest.approx(expected, rel=1e-5)


def test_a_step_without_a_derivative_leaves_parameters_and_no_input_gradient() -> None:
    data = examples(2)
    estimator = fitted(make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression()), data)
    model = twin_of_fitted(estimator, data, "binary")
    x = with_ones(estimator[:-1].transform(data.inputs))
    p = estimator.predict_proba(data.inputs)[:, 1]
    assert trace(model, data) == pytest.approx((p * (1 - p) * np.square(x).sum(axis=1)).mean(), rel=1e-8)
    for probe in (InputGradient(), GeometricComplexity()):
        (reading,) = probe.measure(model, data, 0, Budget())
        assert reading.measurement.outcome is Outcome.NOT_APPLICABLE
    (reading,) = InputGradient().measure(model, data, 0, Budget())
    assert "PolynomialFeatures" in str(reading.measurement.reason)
    with pytest.raises(RuntimeError, match="PolynomialFeatures"):
        model.raw_outputs(model.parameters, model.tensors(data.inputs, None)[0].requires_grad_())


def test_attacks_search_where_there_is_no_gradient_and_move_the_raw_inputs() -> None:
    data = examples(2)
    bent = twin_of(make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression()), data, "binary")
    straight = twin_of(make_pipeline(StandardScaler(), LogisticRegression()), data, "binary")
    methods = []
    for model in (bent, straight):
        readings = Adversarial().measure(model, data, 0, Budget())
        measured = [r.measurement for r in readings if r.measurement.outcome is Outcome.MEASURED]
        assert measured, [r.measurement.reason for r in readings]
        methods.append({str(m.details.get("method")) for m in measured})
    assert methods[0] != methods[1], methods


def test_a_clipping_scaler_is_not_affine() -> None:
    data = examples(2)
    model = twin_of(make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), data, "binary")
    assert "MinMaxScaler" in str(model.no_input_gradients_because)


def test_float32_is_honoured_in_the_twin_alone() -> None:
    data = examples(3)
    estimator = fitted(LogisticRegression(), data)
    model = sklearn_model(estimator, data, "multiclass", dtype="float32").model
    assert isinstance(model, SklearnTwin) and model.dtype == "float32"
    np.testing.assert_allclose(np.exp(model.predict(data.inputs)), estimator.predict_proba(data.inputs), atol=1e-12)
    precise = model.precise()
    assert precise is not None and precise.dtype == "float64"
