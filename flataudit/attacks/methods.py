"""Which attack fits a model, and how it is run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region
from flataudit.attacks.schedule import Schedule
from flataudit.attacks.search import farthest, search
from flataudit.attacks.victims import Cases, Victims
from flataudit.contracts import AuditData, Differentiable, Predictor
from flataudit.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Attack", "Choice", "Method", "Settings", "fitting", "searching"]

Choice = Literal["auto", "gradient", "search"]
Method = Literal["gradient", "square", "coordinate"]


@dataclass(frozen=True)
class Settings:
    """What the methods depend on beside model and data."""

    seed: int
    schedule: Schedule
    """Of the gradient's steps."""
    queries: int
    """Answers an example that a search may ask for."""


@dataclass(frozen=True)
class Attack:
    """One method; the same seed gives the same answer, whatever ran before."""

    method: Method
    settings: Settings

    def run(self, model: Predictor, victims: Victims, region: Region, purse: Purse) -> "NDArray[np.bool_]":
        """Which examples it fools, ``(n,)``."""
        seed = self.settings.seed
        if self.method != "gradient":
            return search(
                model, victims, region, seed=seed, proposals=self.method, queries=self.settings.queries, purse=purse
            )
        # Here, so that models which only answer are attacked where torch is not installed.
        from flataudit.attacks.gradient import pgd

        assert isinstance(model, Differentiable)
        return pgd(model, victims, region, seed=seed, schedule=self.settings.schedule, purse=purse)

    def farthest(self, model: Predictor, cases: Cases, region: Region, purse: Purse) -> "NDArray[np.float64]":
        """The largest |answer − target| that it finds for each case of a regression, ``(n,)``."""
        seed = self.settings.seed
        if self.method != "gradient":
            return farthest(
                model, cases, region, seed=seed, proposals=self.method, queries=self.settings.queries, purse=purse
            )
        from flataudit.attacks.values import ascent

        assert isinstance(model, Differentiable)
        return ascent(model, cases, region, seed=seed, schedule=self.settings.schedule, purse=purse)


def fitting(model: Predictor, data: AuditData, choice: Choice, settings: Settings) -> Attack:
    """Along the gradient where the model has one in its inputs, else a search of the data's kind.

    Raises:
        ModelError: the gradient is asked for, and there is none.
    """
    if choice != "search" and _has_gradients(model, data):
        return Attack("gradient", settings)
    if choice == "gradient":
        got, remedy = "one that only answers", "leave `method` out: a search is used"
        raise ModelError("a model with a gradient in its inputs", got=got, remedy=remedy)
    return searching(data, settings)


def searching(data: AuditData, settings: Settings) -> Attack:
    """The gradient-free attack for this kind of data."""
    return Attack("square" if data.kind == "image" else "coordinate", settings)


def _has_gradients(model: Predictor, data: AuditData) -> bool:
    if not isinstance(model, Differentiable):
        return False
    from flataudit.attacks.gradient import has_gradients

    return has_gradients(model, data.inputs)
