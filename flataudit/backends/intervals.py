"""Regression models that say how sure they are: where they say it, as the `Distribution` that a probe asks for.

Two ways are known. A scikit-learn regressor whose `predict` takes ``return_std`` states a normal distribution, and
keeps every capability that it has besides (`carry_spread`). A model of several output columns, declared as quantiles or
as mean and spread, answers with its middle and states the rest (`StatedModel`); it was trained with another loss than
the squared error of its middle, so that it is a `Predictor` and no more.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Meter, Predictor
from flataudit.errors import ConfigurationError, ModelError
from flataudit.specs import OutputKind, Task

if TYPE_CHECKING:
    from flataudit.backends.outputs import Answers

__all__ = ["Form", "Spread", "StatedModel", "as_stated", "carry_spread", "takes_return_std"]

Form = Literal["quantiles", "normal", "normal_variance"]
"""Columns: quantiles of declared levels; mean and standard deviation; mean and variance."""

_NAMES = {"normal": "mean and standard deviation", "normal_variance": "mean and variance"}
_TOLERANCE = 1e-6
"""How far, relative to the answers' own scale, the mean may be from the answer."""


class Spread:
    """A normal `Distribution` of a function that returns means and standard deviations.

    Args:
        ask: takes inputs ``(n, …)``; returns means ``(n,)`` and standard deviations ``(n,)``.
        origin: how it comes to be stated, in a sentence's part.
        meter: the model's own, on which the passes are counted.
        batch_size: most examples a call.
    """

    levels: tuple[float, ...] = ()

    def __init__(
        self,
        ask: Callable[[NDArray[generic]], tuple[NDArray[generic], NDArray[generic]]],
        origin: str,
        *,
        meter: Meter,
        batch_size: int,
    ) -> None:
        self.origin, self._ask, self._meter, self._batch_size = origin, ask, meter, batch_size

    def __call__(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """``(n, 2)``: mean and standard deviation.

        Raises:
            ModelError: not finite, or a standard deviation below 0.
        """
        parts = []
        for start in range(0, len(inputs), self._batch_size):
            part = inputs[start : start + self._batch_size]
            self._meter.forward += len(part)
            mean, deviation = self._ask(part)
            parts.append(np.stack([np.ravel(mean), np.ravel(deviation)], axis=1).astype(np.float64))
        found = np.concatenate(parts)
        _refuse_bad_spread(found)
        return found


def takes_return_std(final: object) -> bool:
    """Whether a regressor states a standard deviation beside its answer.

    >>> from sklearn.linear_model import BayesianRidge, Ridge
    >>> takes_return_std(BayesianRidge()), takes_return_std(Ridge())
    (True, False)
    """
    predict = getattr(type(final), "predict", None)
    try:
        return predict is not None and "return_std" in inspect.signature(predict).parameters
    except ValueError:  # compiled functions may have no signature
        return False


def carry_spread(
    model: Predictor,
    final: object,
    given: Callable[[NDArray[generic]], object],
    sample: NDArray[generic],
) -> str | None:
    """Make a loaded regressor carry its own distribution, if its last step states one.

    Args:
        model: as it was loaded; a twin of it may carry the distribution too.
        final: the estimator, or the last step of its pipeline.
        given: from packed inputs to what ``final`` takes.
        sample: a few inputs, on which the stated mean must be the model's answer.

    Returns:
        A sentence for the evidence: that it states one, or why it is not taken; None where it states none. A regressor
        whose spread cannot be had still answers, and is measured by its answers.
    """
    if model.task != "regression" or not takes_return_std(final):
        return None
    name = type(final).__name__
    predict = cast("Callable[..., tuple[NDArray[generic], NDArray[generic]]]", final.predict)  # type: ignore[attr-defined]
    found = Spread(
        lambda inputs: predict(given(inputs), return_std=True),
        f"mean and standard deviation by {name}",
        meter=model.meter,
        batch_size=model.batch_size,
    )
    answers = np.asarray(model.predict(sample), dtype=np.float64)
    try:
        stated = found(sample)
    except Exception as error:  # noqa: BLE001  # an estimator may raise anything; its answers are not concerned
        return _without(model, f"{name} fails to state its spread: {_told(error)}")
    apart = float(np.abs(stated[:, 0] - answers).max())
    if apart > _TOLERANCE * max(1.0, float(np.abs(answers).max())):
        return _without(model, f"the mean that {name} states is {apart:.2g} from what the model answers")
    model.distribution = found  # type: ignore[attr-defined]  # carried, as the contract says, by any predictor
    return f"it states a normal distribution: {found.origin}"


def _without(model: Predictor, because: str) -> str:
    """The reason, also where the probe finds it."""
    model.no_distribution_because = because  # type: ignore[attr-defined]  # carried, as the contract says
    return f"no intervals: {because}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


class StatedModel:
    """A regression of several output columns, as a `Predictor` that carries what they state.

    It answers with the mean, or with its median: the quantile of level 0.5, or the middle between the two around it.

    Args:
        served: what shows the columns by `raw`, ``(n, columns)``.
        form: what the columns are.
        levels: of the quantiles, in the columns' order, rising; none for a normal distribution.

    Raises:
        ConfigurationError: levels that do not fit the form, do not rise, or have none on either side of 0.5.
    """

    outputs: OutputKind = "values"
    no_curvature_because = "it states a distribution, and was not trained with the squared error of its middle"

    def __init__(self, served: "Answers", form: Form, levels: tuple[float, ...] = ()) -> None:
        _refuse_bad_levels(form, levels)
        self.task: Task = "regression"
        self.declared: OutputKind | None = None
        self.meter, self.batch_size, self.dtype, self.device = (
            served.meter,
            served.batch_size,
            served.dtype,
            served.device,
        )
        self._served, self._form = served, form
        self.distribution = _Columns(self, form, levels)

    def raw(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """The columns as the model returns them ``(n, columns)``, in batches; the served model counts the passes.

        Raises:
            ModelError: another number of columns than declared, or a number that is not finite.
        """
        size = self.batch_size
        parts = [self._served.raw(inputs[start : start + size]) for start in range(0, len(inputs), size)]
        found = np.concatenate(parts)
        columns = len(self.distribution.levels) or 2
        if found.shape != (len(inputs), columns):
            expected = f"outputs ({len(inputs)}, {columns}), as declared"
            remedy = (
                "correct `outputs` and `quantiles`; where candidates differ, declare each (`outputs: {v8: values}`)"
            )
            raise ModelError(expected, got=f"shape {found.shape}", remedy=remedy)
        if not np.isfinite(found).all():
            share = f"{np.mean(~np.isfinite(found)):.2g} of the numbers NaN or infinite"
            raise ModelError("finite outputs", got=share, remedy="check the model and the scale of its inputs")
        return np.asarray(found, dtype=np.float64)

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """The middle of each distribution, ``(n,)``."""
        found, levels = self.raw(inputs), np.array(self.distribution.levels)
        if not len(levels):
            return found[:, 0]
        above = int(np.searchsorted(levels, 0.5))
        if abs(levels[above] - 0.5) < _TOLERANCE:
            return found[:, above]
        share = (0.5 - levels[above - 1]) / (levels[above] - levels[above - 1])
        return np.asarray((1 - share) * found[:, above - 1] + share * found[:, above])

    def stated(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Quantiles as they are, or mean and standard deviation ``(n, 2)``.

        Raises:
            ModelError: as `raw`, and for a standard deviation below 0.
        """
        found = self.raw(inputs)
        if self._form == "quantiles":
            return found
        if self._form == "normal_variance":
            _refuse_bad_spread(found)
            found = np.stack([found[:, 0], np.sqrt(found[:, 1])], axis=1)
        _refuse_bad_spread(found)
        return found


def as_stated(
    served: "Answers",
    outputs: str | None,
    levels: tuple[float, ...],
    *,
    sample: AuditData,
    calls: int | None = None,
) -> tuple[StatedModel, str] | None:
    """The model that states what is declared, and a sentence for the evidence; None where no distribution is declared.

    Args:
        served: what shows the columns by `raw`.
        outputs: as declared; one of `Form` declares a distribution.
        levels: of the quantiles, for whichever candidates of the audit return some.
        sample: a few examples, on which it is checked.
        calls: as `flataudit.backends.verification.verify` takes them.

    Raises:
        ConfigurationError: levels that do not fit.
        ModelError: it answers wrongly, or its columns are not what is declared.
    """
    if outputs not in get_args(Form):
        return None
    form = cast("Form", outputs)
    model = StatedModel(served, form, levels if form == "quantiles" else ())
    if calls is None:
        verify(model, sample)
    else:
        verify(model, sample, calls=calls)
    _refuse_falling(model.stated(sample.inputs), model.distribution.levels)
    return model, f"it states a distribution: {model.distribution.origin}"


class _Columns:
    """The `Distribution` of a `StatedModel`."""

    def __init__(self, model: StatedModel, form: Form, levels: tuple[float, ...]) -> None:
        self.levels, self._model = levels, model
        listed = ", ".join(f"{level:g}" for level in levels)
        self.origin = f"output columns of the quantiles {listed}" if levels else f"output columns of {_NAMES[form]}"

    def __call__(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        return self._model.stated(inputs)


def _refuse_bad_levels(form: Form, levels: tuple[float, ...]) -> None:
    if form != "quantiles":
        if levels:
            remedy = "remove `quantiles`, or declare `outputs: quantiles`"
            raise ConfigurationError(f"no levels of a {form} distribution", got=str(levels), remedy=remedy)
        return
    rising = all(a < b for a, b in zip((0.0, *levels), (*levels, 1.0), strict=True))
    if not (rising and levels and levels[0] <= 0.5 <= levels[-1]):
        remedy = "declare them in the columns' order, for example `quantiles: [0.05, 0.5, 0.95]`"
        raise ConfigurationError("rising levels in (0, 1) on both sides of 0.5", got=str(levels), remedy=remedy)


def _refuse_falling(found: NDArray[np.float64], levels: tuple[float, ...]) -> None:
    """Quantiles may cross; columns of which the last lies below the first in every row stand in another order."""
    if len(levels) > 1 and (found[:, -1] < found[:, 0]).all():
        got, remedy = "columns that fall in every row", "declare the levels in the order of the model's columns"
        raise ModelError("quantiles that rise with their levels", got=got, remedy=remedy)


def _refuse_bad_spread(found: NDArray[np.float64]) -> None:
    if np.isfinite(found).all() and (found[:, 1] >= 0).all():
        return
    got = "NaN or infinity" if not np.isfinite(found).all() else f"{found[:, 1].min():.3g}"
    remedy = "return it before or after the exponential as declared (`outputs`)"
    raise ModelError("finite means and spreads of 0 or more", got=got, remedy=remedy)
