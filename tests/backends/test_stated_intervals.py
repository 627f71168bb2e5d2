"""Regressors that say how sure they are, alive: scikit-learn's own, and columns of torch and ONNX models."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import nn

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import BaseEstimator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import ARDRegression, BayesianRidge, LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flataudit.backends.answers import Answering
from flataudit.backends.intervals import Form, StatedModel, as_stated, carry_spread
from flataudit.backends.sklearn_inputs import inputs_of, unwrapped
from flataudit.backends.sklearn_model import sklearn_model
from flataudit.backends.torch_model import TorchModel
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Differentiable, Distribution, Predictor
from flataudit.data.examples import checked
from flataudit.errors import ConfigurationError, ModelError
from flataudit.evidence import Measurement
from flataudit.probes.intervals import Intervals
from flataudit.specs import Budget


def _line(n: int, seed: int = 0) -> AuditData:
    """Noise of standard deviation 0.5 about a line in three features."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(n, 3))
    values = inputs @ [1.0, -2.0, 0.5] + 0.5 * generator.standard_normal(n)
    return checked("validation", "validation", inputs, values, source="memory")


def _loaded(estimator: BaseEstimator, data: AuditData) -> tuple[Predictor, str | None]:
    model = sklearn_model(estimator, data, "regression").model
    inputs, (steps, final) = inputs_of(estimator, data, None), unwrapped(estimator)
    return model, carry_spread(model, final, inputs.transformed if steps else inputs.given, data.inputs[:16])


def _measured(model: Predictor, data: AuditData) -> dict[str, Measurement]:
    return {r.measurement.metric: r.measurement for r in Intervals().measure(model, data, 0, Budget())}


@pytest.mark.parametrize(
    "estimator",
    [
        BayesianRidge(),
        make_pipeline(StandardScaler(), ARDRegression()),
        make_pipeline(StandardScaler(), GaussianProcessRegressor(RBF(3.0) + WhiteKernel(0.3), optimizer=None)),
        GridSearchCV(BayesianRidge(), {"tol": [1e-3]}, cv=2),
    ],
    ids=lambda estimator: type(unwrapped(estimator)[1]).__name__,
)
def test_scikit_learn_regressors_state_their_own_spread(estimator: BaseEstimator) -> None:
    train, data = _line(150), _line(600, 1)
    estimator.fit(train.inputs, train.targets)
    model, note = _loaded(estimator, data)
    assert note is not None and note.startswith("it states a normal distribution")
    found = _measured(model, data)
    coverage = found["interval_coverage"]
    assert coverage.interval is not None and coverage.interval[0] - 0.03 < 0.9 < coverage.interval[1] + 0.03
    assert found["crps"].estimate == pytest.approx(0.5 / np.sqrt(np.pi), rel=0.15)
    steps, final = unwrapped(estimator)
    inputs = data.inputs if not steps else steps[0].transform(data.inputs)
    mean, deviation = final.predict(inputs, return_std=True)
    stated = model.distribution(data.inputs)  # type: ignore[attr-defined]
    assert stated == pytest.approx(np.stack([mean, deviation], axis=1))


def test_the_twin_keeps_its_derivatives() -> None:
    data = _line(150)
    model, _ = _loaded(BayesianRidge().fit(data.inputs, data.targets), data)
    assert isinstance(model, Differentiable) and isinstance(getattr(model, "distribution", None), Distribution)
    before = model.meter.forward
    model.distribution(data.inputs)  # type: ignore[attr-defined]
    assert model.meter.forward == before + len(data), "its passes are the model's"


def test_a_point_regressor_carries_nothing() -> None:
    data = _line(50)
    model, note = _loaded(LinearRegression().fit(data.inputs, data.targets), data)
    assert note is None and not hasattr(model, "distribution")


class _Shifted(BayesianRidge):
    """States another mean than it answers."""

    def predict(self, X, return_std=False):  # type: ignore[no-untyped-def]  # scikit-learn's signature
        found = super().predict(X, return_std=return_std)
        return (found[0] + 1, found[1]) if return_std else found


def test_a_mean_that_is_not_the_answer_is_not_believed() -> None:
    data = _line(50)
    model, note = _loaded(_Shifted().fit(data.inputs, data.targets), data)
    assert note is not None and note.startswith("no intervals") and not hasattr(model, "distribution")


class _Failing(BayesianRidge):
    """Answers, and has no spread to state."""

    def predict(self, X, return_std=False):  # type: ignore[no-untyped-def]  # scikit-learn's signature
        mean = super().predict(X)
        return (mean, np.full(len(X), np.nan)) if return_std else mean


def test_a_spread_that_cannot_be_had_costs_no_more_than_itself() -> None:
    data = _line(50)
    model, note = _loaded(_Failing().fit(data.inputs, data.targets), data)
    assert note is not None and "fails to state its spread" in note
    reason = _measured(model, data)["crps"].reason
    assert reason is not None and "_Failing fails to state its spread: ModelError" in reason


class _Heads(nn.Module):
    """The true line, and constant distances to it in columns."""

    def __init__(self, offsets: tuple[float, ...], *, plain: bool = False) -> None:
        super().__init__()
        self.plain = plain
        self.line = nn.Linear(3, 1)
        self.offsets = nn.Parameter(torch.tensor(offsets))
        with torch.no_grad():
            self.line.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
            self.line.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = self.line(x)
        return torch.cat([middle, self.offsets.expand(len(x), -1)], dim=1) if self.plain else middle + self.offsets


LEVELS = (0.05, 0.25, 0.75, 0.95)
QUANTILES = tuple(float(0.5 * q) for q in norm.ppf(LEVELS))


@pytest.mark.parametrize(
    ("module", "form", "levels"),
    [
        (_Heads(QUANTILES), "quantiles", LEVELS),
        (_Heads((0.5,), plain=True), "normal", ()),
        (_Heads((0.25,), plain=True), "normal_variance", ()),
    ],
)
def test_columns_of_a_torch_module(module: nn.Module, form: Form, levels: tuple[float, ...]) -> None:
    data = _line(1000)
    model = StatedModel(TorchModel(module.eval(), "regression", batch_size=64), form, levels)
    verify(model, data.head(16))
    assert model.predict(data.inputs) == pytest.approx(data.inputs @ [1.0, -2.0, 0.5], abs=1e-5), "the middle"
    before = model.meter.forward
    found = _measured(model, data)
    assert model.meter.forward == before + 1000
    assert found["interval_coverage"].estimate == pytest.approx(0.9, abs=0.03)
    assert found["crps"].estimate == pytest.approx(0.5 / np.sqrt(np.pi), rel=0.15)
    assert not isinstance(model, Differentiable) and isinstance(model, Predictor)


def test_columns_of_an_onnx_model() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from onnx_models import exported

    from flataudit.backends.onnx_admission import admit
    from flataudit.backends.onnx_answers import OnnxAnswers
    from flataudit.backends.onnx_scores import scores_of
    from flataudit.backends.onnx_session import Session, door

    made = _line(400)
    data = made.replace_inputs(made.inputs.astype(np.float32))
    graph = admit(exported(_Heads(QUANTILES).eval(), data, dynamo=False))
    session = Session(graph, device="cpu", one_by_one=False)
    scores = scores_of(graph, session.outputs, session.output_types, None)
    entrance = door(session.inputs, data.head(16), None)
    served = OnnxAnswers(session, entrance, scores, "regression", outputs=None, batch_size=64)
    model = StatedModel(served, "quantiles", LEVELS)
    verify(model, data.head(16))
    assert _measured(model, data)["interval_coverage"].estimate == pytest.approx(0.9, abs=0.05)


def _answering(answer: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Answering:
    return Answering(answer, "regression")


def test_the_answer_is_the_median_between_two_levels() -> None:
    model = StatedModel(_answering(lambda x: np.stack([x, x + 1.0], axis=1)), "quantiles", (0.4, 0.8))
    assert model.predict(np.array([0.0])).tolist() == pytest.approx([0.25])


@pytest.mark.parametrize(
    ("form", "levels"),
    [
        ("quantiles", ()),
        ("quantiles", (0.5, 0.1)),
        ("quantiles", (0.5, 0.5)),
        ("quantiles", (0.0, 0.5)),
        ("quantiles", (0.6, 0.9)),
        ("normal", (0.5,)),
    ],
)
def test_levels_that_fit_nothing_are_refused(form: Form, levels: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="levels"):
        StatedModel(_answering(lambda x: x), form, levels)


def test_levels_are_for_those_that_return_quantiles() -> None:
    """One policy has candidates of several forms, and one list of levels."""
    sample = checked("validation", "validation", np.arange(4.0)[:, None], np.arange(4.0), source="memory")

    def taken(columns: tuple[float, ...], outputs: str | None) -> tuple[StatedModel, str] | None:
        served = _answering(lambda x: x + np.array(columns))
        return as_stated(served, outputs, (0.1, 0.5, 0.9), sample=sample)

    assert taken((0.0,), "values") is None and taken((0.0,), None) is None
    normal, quantiles = taken((0.0, 1.0), "normal"), taken((-1.0, 0.0, 1.0), "quantiles")
    assert normal is not None and normal[0].distribution.levels == () and "mean and standard deviation" in normal[1]
    assert quantiles is not None and quantiles[1].endswith("quantiles 0.1, 0.5, 0.9")
    with pytest.raises(ModelError, match="declare each"):
        taken((0.0, 1.0), "quantiles")
    with pytest.raises(ModelError, match="fall in every row"):
        taken((1.0, 0.0, -1.0), "quantiles")


@pytest.mark.parametrize(
    ("columns", "form", "got"),
    [
        (np.zeros((2, 3)), "normal", r"shape \(2, 3\)"),
        (np.array([[0.0, -1.0], [0.0, 1.0]]), "normal", "-1"),
        (np.array([[0.0, -4.0], [0.0, 1.0]]), "normal_variance", "-4"),
        (np.array([[0.0, np.inf], [0.0, 1.0]]), "normal", "0.25 of the numbers NaN or infinite"),
    ],
)
def test_columns_that_state_nothing_are_refused(columns: NDArray[np.float64], form: Form, got: str) -> None:
    model = StatedModel(_answering(lambda x: columns), form)
    with pytest.raises(ModelError, match=got):
        model.distribution(np.zeros((2, 1)))
