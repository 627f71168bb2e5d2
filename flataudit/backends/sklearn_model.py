"""A fitted scikit-learn estimator as the probes see it: its own predictions, and a torch twin where one is known.

What an estimator answers decides what can be said of it. Those with `predict_proba` state probabilities. Those with a
`decision_function` alone (support vector machines, ridge classifiers) rank the classes and state no probabilities:
their answers are taken for logits, so that accuracy and attacks are right, but neither the calibration nor the
curvature of a cross-entropy that they were never trained with is claimed, unless the policy declares
``outputs: logits``. Those that only `predict` are taken as sure of their answer.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from flataudit.backends.answers import Answering
from flataudit.backends.class_order import column_of_each_class, places_of_classes
from flataudit.backends.intervals import carry_spread
from flataudit.backends.sklearn_inputs import Inputs, inputs_of, unwrapped
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Loaded
from flataudit.errors import ModelError
from flataudit.mlmodel import Signature
from flataudit.specs import LossSpec, OutputKind, Task

__all__ = ["SklearnModel", "sklearn_model"]

_TOLERANCE = 1e-6
_STORED = {
    "sklearn.dummy": "has no parameters to differentiate",
    "sklearn.ensemble": "is made of trees, which have no parameters to differentiate",
    "sklearn.neighbors": "answers from stored examples and has no parameters to differentiate",
    "sklearn.tree": "has no parameters to differentiate",
    "lightgbm": "is made of trees, which have no parameters to differentiate",
    "xgboost": "is made of trees, which have no parameters to differentiate",
}
_OF_ANY_KIND = ("AdaBoost", "Bagging", "Stacking", "Voting")
"""Ensembles that need not be of trees."""


class SklearnModel(Answering):
    """A `Predictor` that says why it is no more than that."""

    no_curvature_because: str | None = None
    """Why its parameters have no derivatives."""
    no_probabilities_because: str | None = None
    """Why its confidences mean nothing; None: they are its own."""


def sklearn_model(
    estimator: BaseEstimator,
    data: AuditData,
    task: Task,
    *,
    outputs: OutputKind | None = None,
    loss: LossSpec | None = None,
    signature: Signature | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    trust: Literal["data_only", "code_bearing"] = "code_bearing",
) -> Loaded:
    """A fitted estimator or pipeline, checked on a sample; nothing of it is changed.

    Args:
        estimator: anything with scikit-learn's `predict`, and `predict_proba` or `decision_function` if it has one.
        data: a few examples.
        task: what its answers must mean.
        outputs: ``logits`` takes decision values for log-odds; else the estimator's own methods tell.
        loss: what it was trained with; None: cross-entropy or squared error, without regularisation.
        signature: the columns that it was logged with.
        batch_size: most examples a call.
        dtype: of the twin, by NumPy's name; None: float64.
        device: of the twin.
        trust: of what loaded it.

    Returns:
        A `SklearnModel`, or a `SklearnTwin` that agrees with it within 1e-6 on the sample; the notes say which.

    Raises:
        ModelError: of another task, of several outputs, not fitted on these columns or classes, or answering wrongly.
    """
    _refuse_other_task(estimator, task)
    steps, final = unwrapped(estimator)
    boosted = final is estimator and type(final).__module__.startswith(("lightgbm.", "xgboost."))
    respelled = not steps and type(final).__module__.startswith("lightgbm.")
    inputs = inputs_of(estimator, data, signature, typed_categories=boosted, spaces_as_underscores=respelled)
    order = () if task == "regression" else _order(estimator, final, data)
    answer, kind = _answer(estimator, final, inputs, order)
    served = SklearnModel(
        answer,
        task,
        outputs=kind,
        batch_size=batch_size,
        example_bytes=max(64 * int(data.inputs[:1].nbytes), 32 * inputs.columns(data)),
        dtype=dtype or "float64",
        device=device,
    )
    served.no_probabilities_because = _no_probabilities(estimator, final, kind, outputs)
    verify(served, data)
    notes = (*inputs.feed.notes, f"answers by {_method(estimator, final, task)} of {_name(estimator, final)}")
    if served.no_probabilities_because is not None:
        served.no_curvature_because = served.no_probabilities_because
        return Loaded(served, trust, (*notes, f"no curvature, no calibration: {served.no_probabilities_because}"))
    loaded = _with_twin(served, final, inputs, order, data, loss=loss, dtype=dtype, trust=trust, notes=notes)
    told = carry_spread(loaded.model, final, inputs.transformed if inputs.steps else inputs.given, data.inputs)
    return loaded if told is None else replace(loaded, notes=(*loaded.notes, told))


def _with_twin(
    served: SklearnModel,
    final: BaseEstimator,
    inputs: Inputs,
    order: tuple[int, ...],
    data: AuditData,
    *,
    loss: LossSpec | None,
    dtype: str | None,
    trust: Literal["data_only", "code_bearing"],
    notes: tuple[str, ...],
) -> Loaded:
    """The same model with derivatives, where its twin is known and agrees."""
    try:
        import torch  # estimators without a twin need none

        from flataudit.backends.sklearn_twins import AffineMap, SklearnTwin, head_of
    except ModuleNotFoundError:
        served.no_curvature_because = "torch is not installed (pip install 'flataudit[torch]')"
        return Loaded(served, trust, notes)
    head = head_of(final, order)
    if head is None:
        served.no_curvature_because = _why_no_twin(final)
        return Loaded(served, trust, (*notes, f"no curvature: {served.no_curvature_because}"))
    affine = inputs.affine(data)
    because = affine if isinstance(affine, str) else None
    module = head if isinstance(affine, str) else torch.nn.Sequential(AffineMap(affine), head).eval()
    transform = None if because is None else inputs.transformed
    twin = SklearnTwin(
        module.to(served.device), served, transform=transform, no_input_gradients_because=because, loss=loss
    )
    apart = twin.disagreement(data.inputs)
    if not apart <= _TOLERANCE:
        told = f"a torch twin of it differs by {apart:.2g}, more than {_TOLERANCE:g}"
        served.no_curvature_because = told
        return Loaded(served, trust, (*notes, f"no curvature: {told}"))
    if dtype is not None:
        twin = SklearnTwin(
            module.to(getattr(torch, dtype)),
            served,
            transform=transform,
            no_input_gradients_because=because,
            loss=loss,
        )
    told = f"derivatives by a torch twin of its last step, which differs by at most {apart:.1g} on the sample"
    return Loaded(twin, trust, (*notes, told, *([] if because is None else [f"no gradients in the inputs: {because}"])))


def _refuse_other_task(estimator: BaseEstimator, task: Task) -> None:
    regression, name = task == "regression", _name(estimator, unwrapped(estimator)[1])
    if task == "multilabel":
        remedy = "audit its labels one by one, as binary classifiers"
        raise ModelError("a model of one answer an example", got=f"task multilabel for {name}", remedy=remedy)
    if is_regressor(estimator) if regression else is_classifier(estimator):
        return
    expected = f"a {'regressor' if regression else 'classifier'} (task: {task})"
    remedy = "select models of one task, or correct `task`"
    raise ModelError(expected, got=name, remedy=remedy)


def _order(estimator: BaseEstimator, final: BaseEstimator, data: AuditData) -> tuple[int, ...]:
    """For each of the data's classes the estimator's column, by its own labels."""
    labels = list(_classes(estimator))
    if type(final).__module__.startswith("xgboost."):  # it takes no other labels than the numbers from 0
        return places_of_classes(len(labels), data)
    return column_of_each_class(labels, data)


def _classes(estimator: BaseEstimator) -> NDArray[generic]:
    """The labels of its columns."""
    found = getattr(estimator, "classes_", None)
    labels = None if isinstance(found, list) else found
    if labels is None or np.ndim(labels) != 1:
        got = "several outputs" if found is not None else "none: it was not fitted"
        remedy = "log a fitted model of one output"
        raise ModelError("the labels of its classes", got=got, remedy=remedy)
    return np.asarray(labels)


def _name(estimator: BaseEstimator, final: BaseEstimator) -> str:
    own = type(final).__name__
    return own if final is estimator else f"{own} in a {type(estimator).__name__}"


def _method(estimator: BaseEstimator, final: BaseEstimator, task: Task) -> str:
    if task == "regression":
        return "predict"
    if hasattr(estimator, "predict_proba"):
        return "predict_proba"
    votes = getattr(final, "decision_function_shape", "ovr") == "ovo" and len(_classes(estimator)) > 2
    return "decision_function" if hasattr(estimator, "decision_function") and not votes else "predict"


def _answer(
    estimator: BaseEstimator, final: BaseEstimator, inputs: Inputs, order: tuple[int, ...]
) -> tuple[Callable[[NDArray[generic]], NDArray[generic]], OutputKind]:
    """A function of packed inputs, its columns in the order of the data's classes, and what it returns."""
    method = _method(estimator, final, "multiclass" if order else "regression")
    call = getattr(estimator, method)

    def asked(values: NDArray[generic]) -> NDArray[generic]:
        try:
            return np.asarray(call(inputs.given(values)))
        except ValueError as error:
            if values.dtype.kind == "f" and np.isnan(values).any() and "NaN" in str(error):
                remedy = "put an imputer into its pipeline, or fill the gaps of the data"
                raise ModelError(
                    "a model that takes missing values", got=_name(estimator, final), remedy=remedy
                ) from error
            raise

    if not order:
        return asked, "values"
    if method == "predict":
        labels = _classes(estimator)[list(order)]
        return lambda values: (asked(values)[:, None] == labels).astype(np.float64), "probabilities"
    columns = list(order)
    if method == "predict_proba":
        return lambda values: asked(values)[:, columns], "probabilities"
    return lambda values: _as_columns(asked(values))[:, columns], "logits"


def _as_columns(decisions: NDArray[generic]) -> NDArray[generic]:
    """Decision values of two classes ``(n,)`` as two columns."""
    return np.stack([np.zeros_like(decisions), decisions], axis=1) if decisions.ndim == 1 else decisions


def _no_probabilities(
    estimator: BaseEstimator, final: BaseEstimator, kind: OutputKind, declared: OutputKind | None
) -> str | None:
    name = _name(estimator, final)
    if kind == "logits" and declared != "logits":
        return f"the decision values of {name} are no log-odds (`outputs: logits` would take them for such)"
    if kind == "probabilities" and not hasattr(estimator, "predict_proba"):
        return f"{name} answers with a class alone"
    return None


def _why_no_twin(final: BaseEstimator) -> str:
    name, module = type(final).__name__, type(final).__module__
    family = next((place for place in _STORED if module.startswith(place)), None)
    if family is None or name.startswith(_OF_ANY_KIND):
        return f"no differentiable twin of {name} is known"
    return f"{name} {_STORED[family]}"
