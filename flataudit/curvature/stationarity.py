"""Whether the parameters are at a minimum of the loss at all, so that curvature is what it is taken for."""

from collections.abc import Mapping
from dataclasses import dataclass

from flataudit.curvature.surface import Surface

__all__ = ["Stationarity", "stationarity"]

TOLERABLE = 0.1
"""A gradient step may be expected to take this share off the loss; more of it, and the parameters are on a slope."""
BENDING = 0.01
"""A smallest eigenvalue below minus this share of the largest bends down."""


@dataclass(frozen=True)
class Stationarity:
    """The gradient, and what it promises."""

    gradient_norm: float
    """‖∇L‖."""
    predicted_decrease: float | None
    """‖∇L‖² / 2λ_max as a share of the loss: what one step of length 1/λ_max takes off it, at least, if the loss is
    quadratic (Nesterov 2004); None where λ_max or the loss is not positive."""

    @property
    def at_minimum(self) -> bool:
        """No gradient step is expected to take a tenth off the loss."""
        return self.gradient_norm == 0 or (self.predicted_decrease is not None and self.predicted_decrease <= TOLERABLE)

    def details(self, lambda_min: float | None = None, scale: float = 0.0) -> Mapping[str, float | str | None]:
        """For a measurement; a Ritz value ``lambda_min`` is an upper bound, so that a negative one is certain.

        ``scale`` is the largest eigenvalue in magnitude.
        """
        told: dict[str, float | str | None] = {
            "gradient_norm": self.gradient_norm,
            "predicted_decrease": self.predicted_decrease,
        }
        if not self.at_minimum:
            told["slope"] = "no minimum: a gradient step should take more than a tenth off the loss"
        if lambda_min is not None and lambda_min < -BENDING * scale:
            told["negative_curvature"] = f"no minimum: the loss bends down along a direction ({lambda_min:.3g})"
        return told


def stationarity(surface: Surface, lambda_max: float) -> Stationarity:
    """At the surface's own parameters; one gradient, shared with all probes."""
    loss, gradient = surface.slope_here()
    norm = float(gradient.norm())
    known = lambda_max > 0 and loss > 0
    return Stationarity(norm, norm**2 / (2 * lambda_max) / loss if known else None)
