"""What one example contributes: how right an answer is (0 to 1) and what it costs (the loss).

Every metric that pairs candidates example by example, and every part of the score, is a mean of these.
"""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.errors import ModelError
from flataudit.specs import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["correctness", "losses"]


def correctness(
    task: Task, predictions: "NDArray[np.generic]", targets: "NDArray[np.generic]"
) -> "NDArray[np.float64]":
    """How right each answer is, ``(n,)`` in [0, 1]; exact.

    Args:
        task: classification gives 1 where the most probable class is the target (the first of equals), else 0;
            regression gives the bounded skill clip(1 − (prediction − target)² / var(targets), 0, 1), which is 0 for
            an answer that misses by a standard deviation of the targets or more.
        predictions: log-probabilities ``(n, classes)``, ``(n, tokens, classes)``, ``(n, labels)``, or values ``(n,)``.
        targets: ``(n,)`` class numbers or values, of the *whole* set (their variance is the skill's unit), or class
            numbers ``(n, tokens)``, −100 where none counts, or 0 and 1 ``(n, labels)``.

    Raises:
        ModelError: a label lies outside the model's classes, shapes differ, or an answer is not a number.

    >>> correctness("multiclass", np.log([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1])).tolist()
    [1.0, 0.0]
    >>> correctness("regression", np.array([1.0, 3.5, 9.0]), np.array([1.0, 3.0, 5.0])).round(5).tolist()
    [1.0, 0.90625, 0.0]
    """
    if task == "multilabel":
        return _row_means((predictions > np.log(0.5)) == _marks(predictions, targets))
    if task != "regression":
        labels = _labels(predictions, targets)
        right = np.asarray(np.argmax(predictions, axis=-1) == labels, dtype=np.float64)
        return right if right.ndim == 1 else _over_tokens(right, labels)
    values, truth = _values(predictions, targets)
    floor = np.finfo(np.float64).eps * max(1.0, float(np.mean(truth**2)))
    return np.clip(1.0 - (values - truth) ** 2 / max(float(np.var(truth)), floor), 0.0, 1.0)


def losses(task: Task, predictions: "NDArray[np.generic]", targets: "NDArray[np.generic]") -> "NDArray[np.float64]":
    """Loss of each example, ``(n,)``: −log p(target) in nats, or the squared error; exact.

    The arguments and errors are those of `correctness`. A class of probability 0 costs infinity.

    >>> losses("binary", np.log([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 1])).round(4).tolist()
    [0.6931, 1.3863]
    >>> losses("regression", np.array([1.0, 2.0]), np.array([1.0, 5.0])).tolist()
    [0.0, 9.0]
    """
    if task == "multilabel":
        marks, log_p = _marks(predictions, targets), predictions.astype(np.float64, copy=False)
        log_q = np.log1p(-np.exp(np.minimum(log_p, -1e-16)))
        return _row_means(-np.where(marks, log_p, log_q))
    if task != "regression":
        labels = _labels(predictions, targets)
        kept = np.maximum(labels, 0)[..., None]
        nats = -np.take_along_axis(np.asarray(predictions, dtype=np.float64), kept, axis=-1)[..., 0]
        return nats if nats.ndim == 1 else _over_tokens(nats, labels)
    values, truth = _values(predictions, targets)
    return np.square(values - truth)


def _marks(predictions: "NDArray[np.generic]", targets: "NDArray[np.generic]") -> "NDArray[np.bool_]":
    """Which labels hold."""
    marks = np.asarray(targets)
    if marks.shape != predictions.shape or not np.isin(marks, (0, 1)).all():
        raise ModelError(
            f"targets of 0 and 1 in the shape {predictions.shape} of the labels",
            got=f"shape {marks.shape}",
            remedy="check `task` and the targets",
        )
    return marks.astype(bool)


def _row_means(values: "NDArray[np.bool_ | np.float64]") -> "NDArray[np.float64]":
    return np.asarray(np.mean(values, axis=1, dtype=np.float64), dtype=np.float64)


def _over_tokens(values: "NDArray[np.float64]", labels: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """Mean over an example's tokens that count; 0 for an example that has none."""
    kept = labels >= 0
    return np.asarray((values * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1))


def _labels(predictions: "NDArray[np.generic]", targets: "NDArray[np.generic]") -> "NDArray[np.int64]":
    if predictions.ndim < 2 or predictions.shape[:-1] != np.shape(targets):
        raise ModelError(
            f"log-probabilities of shape ({', '.join(map(str, np.shape(targets)))}, classes)",
            got=f"shape {predictions.shape}",
            remedy="check `task` and what the model returns",
        )
    if np.isnan(predictions.astype(np.float64, copy=False)).any():
        raise ModelError("log-probabilities", got="NaN", remedy="the model answers NaN on these inputs: exclude it")
    labels = np.asarray(targets).astype(np.int64, copy=False)
    classes = predictions.shape[-1]
    counted = labels if labels.ndim == 1 else labels[labels != -100]
    if counted.size and not 0 <= counted.min() <= counted.max() < classes:
        wrong = int(counted.max()) if counted.max() >= classes else int(counted.min())
        raise ModelError(
            f"labels from 0 to {classes - 1}, as the model has {classes} classes",
            got=f"label {wrong}",
            remedy="compare models of the same classes, or encode the labels as in training",
        )
    return labels


def _values(
    predictions: "NDArray[np.generic]", targets: "NDArray[np.generic]"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    values, truth = predictions.astype(np.float64, copy=False), np.asarray(targets).astype(np.float64, copy=False)
    if values.shape != truth.shape:
        raise ModelError(
            f"values of shape {truth.shape}", got=f"shape {values.shape}", remedy="check `task` and the model's outputs"
        )
    if not np.isfinite(values).all():
        raise ModelError("finite values", got="NaN or infinity", remedy="the model overflows on these inputs")
    return values, truth
