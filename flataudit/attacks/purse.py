"""What is left of a budget while an attack runs."""

import time
from copy import copy

from flataudit.contracts import Predictor
from flataudit.specs import Budget

__all__ = ["Purse"]


class Purse:
    """Told by the model's meter and the clock; attacks look into it between two batches.

    Args:
        model: whose meter counts.
        budget: what there is now.
        n: examples of a pass.
    """

    def __init__(self, model: Predictor, budget: Budget, n: int) -> None:
        self._model, self._budget, self._n = model, budget, n
        self._before, self._began = copy(model.meter), time.monotonic()

    def spent(self) -> float:
        """Forward-and-backward passes since it was made."""
        return self._model.meter.cost(self._before, self._n).passes

    def empty(self) -> bool:
        """Whether passes or seconds are used up."""
        return self.spent() >= self._budget.passes or time.monotonic() - self._began >= self._budget.seconds
