"""How much a corruption changed the inputs, in units of their own scale: what makes severities of kinds comparable."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["changes", "edit_shares", "effect"]


def changes(
    clean: "NDArray[np.float64]", changed: "NDArray[np.float64]", spread: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Root mean square change of each example over the inputs' standard deviation, ``(n,)``.

    Args:
        clean: examples ``(n, …)``.
        changed: the same, corrupted; a value that became missing (NaN), or was and is no more, counts as a change by
            one standard deviation.
        spread: standard deviations that broadcast to the examples; where one is 0, no change counts.

    >>> rows = np.array([[0.0, 5.0], [2.0, 5.0]])
    >>> changes(rows, rows + [[1.0, 0.0], [0.0, 0.0]], rows.std(axis=0)).tolist()
    [1.0, 0.0]
    """
    counted = np.broadcast_to(spread > 0, clean.shape[1:])
    if not counted.any():
        return np.zeros(len(clean))
    relative = np.nan_to_num((changed - clean) / np.where(spread > 0, spread, np.inf), nan=1.0)
    relative[np.isnan(changed) & np.isnan(clean)] = 0.0
    return np.asarray(np.sqrt(np.square(relative).reshape(len(clean), -1).sum(axis=1) / counted.sum()))


def edit_shares(clean: "NDArray[np.float64]", changed: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Levenshtein's distance of each pair of texts over the length of the first, ``(n,)``.

    Args:
        clean: code points ``(n, characters)``, 0 after a text's end.
        changed: the same, corrupted; may be wider.

    >>> edit_shares(np.array([[97.0, 98.0, 99.0, 100.0]]), np.array([[97.0, 99.0, 100.0, 0.0]])).tolist()
    [0.25]
    """
    lengths, ends = (clean > 0).sum(axis=1), (changed > 0).sum(axis=1)
    steps = np.arange(changed.shape[1] + 1)
    last = np.tile(steps, (len(clean), 1))
    distances = ends.copy()
    for place in range(int(lengths.max(initial=0))):
        replaced = last[:, :-1] + (changed != clean[:, place : place + 1])
        best = np.concatenate([last[:, :1] + 1, np.minimum(replaced, last[:, 1:] + 1)], axis=1)
        # An insertion costs one a step: the running minimum of (cost − step) is the recurrence along the row.
        last = np.minimum.accumulate(best - steps, axis=1) + steps
        done = lengths == place + 1
        distances[done] = last[done, ends[done]]
    return np.asarray(distances / np.maximum(lengths, 1))


def effect(examples: "NDArray[np.float64]") -> float:
    """One number for a data set, the root mean square of `changes` or `edit_shares`."""
    return float(np.sqrt(np.mean(np.square(examples)))) if len(examples) else 0.0
