"""Torch twins of fitted scikit-learn estimators: the same function of the same numbers, but one that has derivatives.

Predictions stay scikit-learn's own. A twin gives what scikit-learn cannot: the loss as a function of the parameters,
and, where the pipeline is affine, of the inputs. It is accepted only if it agrees with the estimator on the sample.
Regularisation is no part of the loss: all models are measured by the plain loss of their task.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from numpy import generic
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from flataudit.backends.answers import Answering
from flataudit.backends.sklearn_inputs import Affine
from flataudit.backends.torch_model import TorchModel
from flataudit.errors import NoInputGradientError
from flataudit.specs import LossSpec

__all__ = ["AffineMap", "SklearnTwin", "head_of"]

_VALUES = frozenset(
    "ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV LassoLars "
    "LassoLarsCV LassoLarsIC LinearRegression LinearSVR OrthogonalMatchingPursuit QuantileRegressor "
    "Ridge RidgeCV SGDRegressor TheilSenRegressor".split()
)
_EXPONENTIALS = frozenset({"GammaRegressor", "PoissonRegressor"})
_SOFTMAX = frozenset({"LinearDiscriminantAnalysis", "LogisticRegression", "LogisticRegressionCV", "SGDClassifier"})
_DECISIONS = frozenset(
    {"LinearSVC", "PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV"}
)
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}
_KNOWN_BYTES = 128 * 2**20
"""Of transformed batches that are kept."""


class AffineMap(nn.Module):
    """x ↦ x A + b of fixed numbers: a choice and scaling of columns where A has at most one entry a column."""

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        matrix = affine.matrix
        self.sparse = bool(((matrix != 0).sum(axis=0) <= 1).all())
        places = np.abs(matrix).argmax(axis=0)
        self.register_buffer("places", torch.from_numpy(places))
        entries = matrix[places, np.arange(matrix.shape[1])] if self.sparse else matrix
        self.register_buffer("entries", torch.from_numpy(np.ascontiguousarray(entries)))
        self.register_buffer("shift", torch.from_numpy(affine.shift.copy()))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs)`` to ``(n, columns)``."""
        places, entries, shift = (cast("Tensor", part) for part in (self.places, self.entries, self.shift))
        return (x[:, places] * entries if self.sparse else x @ entries) + shift


class _Two(nn.Module):
    """The log-odds ``(n, 1)`` of the second class as two logits."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), x], dim=1)


class _Exponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class _Columns(nn.Module):
    """Columns in another order."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, cast("Tensor", self.order)]


def head_of(estimator: BaseEstimator, order: tuple[int, ...] = ()) -> nn.Module | None:
    """A module in float64 that gives the estimator's logits ``(n, classes)``, or values; None: no twin is known.

    One against the rest (`SGDClassifier` of several classes) normalises p_k = σ(z_k) / Σ_j σ(z_j): its logits are
    log σ(z_k).

    Args:
        estimator: fitted, the last of its pipeline.
        order: for each of the data's classes, the estimator's column; none: a regressor.
    """
    if not type(estimator).__module__.startswith("sklearn."):
        return None
    name = type(estimator).__name__
    layers = _network(estimator) if name in ("MLPClassifier", "MLPRegressor") else _linear(estimator, name)
    if layers is None:
        return None
    if order:
        layers += [_Two()] if len(order) == 2 and _width(layers) == 1 else []
        layers += [_Columns(order)] if order != tuple(range(len(order))) else []
    return nn.Sequential(*layers).eval()


def _width(layers: list[nn.Module]) -> int:
    return next(layer.out_features for layer in reversed(layers) if isinstance(layer, nn.Linear))


def _linear(estimator: BaseEstimator, name: str) -> list[nn.Module] | None:
    kernel = name in ("SVC", "NuSVC", "SVR", "NuSVR") and estimator.kernel == "linear"
    several = name in ("SVC", "NuSVC") and len(estimator.classes_) > 2  # one against one: votes, no linear function
    if not (name in _VALUES | _EXPONENTIALS | _SOFTMAX | _DECISIONS or (kernel and not several)):
        return None
    weight = estimator.coef_
    dense = np.atleast_2d(np.asarray(weight.toarray() if hasattr(weight, "toarray") else weight, dtype=np.float64))
    bias = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64), len(dense))
    found: list[nn.Module] = [_layer(dense, bias if getattr(estimator, "fit_intercept", True) else None)]
    if name in _EXPONENTIALS:
        found.append(_Exponential())
    if name == "SGDClassifier" and estimator.loss == "log_loss" and len(dense) > 1:
        found.append(nn.LogSigmoid())
    return found


def _network(estimator: BaseEstimator) -> list[nn.Module] | None:
    """A multi-layer perceptron; its last activation belongs to the loss, but for an exponential."""
    if estimator.activation not in _ACTIVATIONS:
        return None
    found: list[nn.Module] = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        found += [_layer(np.asarray(weight).T, np.asarray(bias)), _ACTIVATIONS[estimator.activation]()]
    found.pop()
    return [*found, _Exponential()] if estimator.out_activation_ == "exp" else found


def _layer(weight: NDArray[generic], bias: NDArray[generic] | None) -> nn.Linear:
    """A linear layer of these numbers; its initial ones are never drawn."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64, device="meta")
    layer.weight = nn.Parameter(torch.tensor(np.ascontiguousarray(weight), dtype=torch.float64))
    if bias is not None:
        layer.bias = nn.Parameter(torch.tensor(np.array(bias), dtype=torch.float64))
    return layer


class SklearnTwin(TorchModel):
    """A `Differentiable` whose predictions are scikit-learn's and whose derivatives are its twin's.

    Args:
        module: the twin: of the inputs, or of what `transform` makes of them.
        served: the estimator itself.
        transform: the steps before the last, of packed inputs; None: they are in the module.
        no_input_gradients_because: why there are none, where there are none.
        loss: what it was trained with; None: cross-entropy or squared error.
    """

    def __init__(
        self,
        module: nn.Module,
        served: Answering,
        *,
        transform: Callable[[NDArray[generic]], NDArray[np.float64]] | None = None,
        no_input_gradients_because: str | None = None,
        loss: LossSpec | None = None,
    ) -> None:
        super().__init__(module, served.task, loss=loss, batch_size=served.batch_size)
        served.meter = self.meter
        self._sklearn, self._transform = served, transform
        self._known: dict[tuple[str, tuple[int, ...], bytes], NDArray[np.float64]] = {}
        self.no_input_gradients_because = no_input_gradients_because

    def tensors(self, inputs: NDArray[generic], targets: NDArray[generic] | None) -> tuple[Tensor, Tensor | None]:
        """What the twin takes, in its dtype: the inputs, or what the pipeline's other steps make of them."""
        values = inputs.astype(np.float64) if self._transform is None else self._transformed(inputs)
        return super().tensors(values, targets)

    def _transformed(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """The same batch goes through the encoders once, however many passes a probe makes over it."""
        assert self._transform is not None
        bare = np.ascontiguousarray(inputs)
        key = (bare.dtype.str, bare.shape, hashlib.blake2b(bare.view(np.uint8).data).digest())
        if key not in self._known:
            found = self._transform(inputs)
            if sum(part.nbytes for part in self._known.values()) + found.nbytes > _KNOWN_BYTES:
                self._known.clear()
            self._known[key] = found
        return self._known[key]

    def raw_outputs(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Logits ``(n, classes)`` or values ``(n,)`` at these parameters; counts a forward pass.

        Raises:
            NoInputGradientError: the inputs ask for a gradient, which would be that of the transformed ones.
        """
        if self.no_input_gradients_because is not None and inputs.requires_grad:
            remedy = "compare models by what they share"
            raise NoInputGradientError("a pipeline of affine steps", got=self.no_input_gradients_because, remedy=remedy)
        return super().raw_outputs(parameters, inputs)

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)`` or values ``(n,)``, scikit-learn's own."""
        return self._sklearn.predict(inputs)

    def raw(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """What scikit-learn returns, ``(n, …)``."""
        return self._sklearn.raw(inputs)

    def disagreement(self, inputs: NDArray[generic]) -> float:
        """The largest difference of the twin's answers from scikit-learn's: of probabilities, logits or values.

        Values are in units of the largest, where that is above 1.
        """
        ours, theirs = self._predicted(self._served.parameters, inputs), self._sklearn.predict(inputs)
        if self._sklearn.outputs == "probabilities":
            ours, theirs = np.exp(ours), np.exp(theirs)
        return float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))
