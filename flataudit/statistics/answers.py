"""What a model answers on a whole set: predicted once for all probes, kept as long as the model."""

from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flataudit.contracts import AuditData, Predictor

__all__ = ["answers", "said"]

_MOST_BYTES = 64 * 2**20
"""Larger answers are predicted anew: memory is the worker's scarcest good."""


def answers(model: "Predictor", data: "AuditData") -> "NDArray[np.float64]":
    """``model.predict(data.inputs)`` in float64, read-only; what is not predicted again counts as `Meter.reused`.

    Args:
        model: as it was loaded; a changed one would need a meter of its own.
        data: known by its digest, so that corrupted inputs, which keep the digest of the clean ones, must not come.
    """
    key = ("answers", data.name, data.digest)
    kept = model.meter.shared.get(key)
    if kept is not None:
        model.meter.reused += len(data) / 2
        return cast("NDArray[np.float64]", kept)
    found = np.array(model.predict(data.inputs), dtype=np.float64)
    found.flags.writeable = False
    if found.nbytes <= _MOST_BYTES:
        model.meter.shared[key] = found
    return found


def said(predictions: "NDArray[np.generic]") -> "NDArray[np.generic]":
    """The most probable class of each example, or its value: what two candidates agree or disagree in.

    Args:
        predictions: log-probabilities ``(n, classes)``, or values ``(n,)``.

    Returns:
        ``(n,)`` in uint8 (up to 256 classes) or int32; float64 for values. Small, since it is kept by the copy.

    >>> said(np.log([[0.2, 0.8], [0.7, 0.3]])).tolist()
    [1, 0]
    """
    if predictions.ndim == 1:
        return np.ascontiguousarray(predictions, dtype=np.float64)
    small = np.uint8 if predictions.shape[1] <= 256 else np.int32
    return np.asarray(np.argmax(predictions, axis=1), dtype=small)
