"""What a loss must be for its curvature to be a number: finite, and a function of the parameters."""

import math

from torch import Tensor

from flataudit.errors import ModelError

__all__ = ["depends", "finite"]


def depends(loss: Tensor) -> Tensor:
    """The same loss or outputs.

    Raises:
        ModelError: no parameter has a part in them.
    """
    if not loss.requires_grad:
        raise ModelError(
            "outputs that depend on the parameters",
            got="outputs that do not",
            remedy="the path from parameters to outputs is constant or not differentiable (argmax, rounding, detach)",
        )
    return loss


def finite(value: float, what: str) -> float:
    """The same number.

    Raises:
        ModelError: it is none.
    """
    if not math.isfinite(value):
        raise ModelError(f"a finite {what}", got=str(value), remedy="the model overflows: try dtype float64")
    return value
