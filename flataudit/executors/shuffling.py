"""In which order a process that may not know the labels is asked: many data sets are sorted by them.

Asked in the data's own order, a model could count the examples and answer by their places. The order is drawn from the
digest of the data, labels included, which such a process is not told: it is the same in every audit of the same data.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flataudit.contracts import AuditData

__all__ = ["Order", "few_of"]


@dataclass(frozen=True)
class Order:
    """Orders of any number of examples, from one secret."""

    secret: str = ""

    @classmethod
    def of(cls, data: Sequence[AuditData]) -> "Order":
        """That of some data sets."""
        return cls("\n".join(one.digest for one in data))

    def __call__(self, n: int) -> NDArray[np.int64]:
        """The places of ``n`` examples ``(n,)``, the first to be asked first.

        >>> sorted(Order("labels")(4).tolist()), (Order("labels")(50) == Order("others")(50)).all()
        ([0, 1, 2, 3], np.False_)
        """
        seed = hashlib.sha256(f"{n}\n{self.secret}".encode()).digest()
        return np.random.default_rng(int.from_bytes(seed, "big")).permutation(n)


def few_of(data: AuditData, most: int, order: Order) -> AuditData:
    """A few examples from everywhere in a set; the first ones may be of one class."""
    rows = order(len(data))[:most]
    targets = None if data.targets is None else data.targets[rows]
    groups = None if data.groups is None else data.groups[rows]
    return replace(data, inputs=data.inputs[rows], targets=targets, groups=groups)
