"""What has been computed about one model's loss on one data set, so that no probe computes it again.

A value is remembered under all that it depends on (what, seed, parameters), never under who asked: a probe gets the
same number whether or not another ran before it. Its price is booked where it was spent; who finds it ready books the
same amount as ``reused``.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar, cast

from torch import Tensor

from flataudit.contracts import AuditData, Differentiable, Meter
from flataudit.curvature.objective import Objective
from flataudit.curvature.selfcheck import SelfCheck, self_check

__all__ = ["Surface"]

_T = TypeVar("_T")


class Surface(Objective):
    """An objective with a memory; `Surface.of` gives every probe of one model and data set the same one."""

    def __init__(self, model: Differentiable, data: AuditData, *, parameters: Sequence[str] = ("*",)) -> None:
        super().__init__(model, data, parameters=parameters)
        self._known: dict[Hashable, tuple[object, float]] = {}

    @classmethod
    def of(cls, model: Differentiable, data: AuditData, parameters: Sequence[str] = ("*",)) -> "Surface":
        """The surface of this model on this data, as a function of these parameters; it lives as long as the model."""
        key = ("surface", data.name, data.digest, tuple(parameters))
        shared = model.meter.shared
        if key not in shared:
            shared[key] = cls(model, data, parameters=parameters)
        return cast("Surface", shared[key])

    def knows(self, key: Hashable) -> bool:
        """Whether a value is remembered under this key."""
        return key in self._known

    def remember(self, key: Hashable, compute: Callable[[], _T]) -> _T:
        """``compute()``, once for each key; the key must name all that the value depends on."""
        meter = self.model.meter
        if key not in self._known:
            before = _spent(meter)
            value = compute()
            self._known[key] = (value, _spent(meter) - before)
            return value
        value, price = cast("tuple[_T, float]", self._known[key])
        meter.reused += price
        return value

    def before_products(self) -> None:
        """No second derivative of a model before they were checked (`flataudit.curvature.selfcheck`)."""
        if not self.knows("self-check"):  # later products ride on the first, and book nothing for it
            self.self_check()

    def self_check(self) -> SelfCheck:
        """What came of the check, done once.

        Raises:
            ModelError: the second derivatives are wrong.
        """
        return self.remember(
            "self-check", lambda: self_check(self.model, self.data, self.names, deadline=self.deadline)
        )

    @property
    def second_derivatives(self) -> str:
        """What is known of them, in words: none were taken, they agree with the loss, or could not be checked."""
        known = self._known.get("self-check")
        return "none taken" if known is None else cast("SelfCheck", known[0]).told

    def loss_here(self) -> float:
        """L at the model's own parameters."""
        return self.slope_here()[0]

    def slope_here(self, compute: Callable[[], tuple[float, Tensor]] | None = None) -> tuple[float, Tensor]:
        """L and ∇L at the model's own parameters; the gradient must not be written to.

        Args:
            compute: a way to them for one who needs what it leaves behind.
        """
        return self.remember("gradient", compute or (lambda: self.gradient(self.origin)))


def _spent(meter: Meter) -> float:
    """In passes of one example."""
    return (meter.forward + meter.backward) / 2 + 2 * meter.matvecs
