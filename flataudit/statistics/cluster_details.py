"""What grouped examples would make of a mean's interval, as details beside it: the probe cannot know which is meant.

Groups may be people whose examples err together, or only names by which results are told apart. The measurement's own
interval takes examples one by one, the details take whole groups, and the policy's ``clustered`` says which counts.
"""

from typing import TYPE_CHECKING

import numpy as np

from flataudit.statistics.clusters import clustered_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["cluster_details"]


def cluster_details(
    values: "NDArray[np.float64]", groups: "NDArray[np.generic] | None", *, seed: int
) -> dict[str, float | str | None]:
    """Ends of the 95 % interval of whole groups, and the design effect; nothing without groups.

    Args:
        values: ``(n,)``, one an example.
        groups: of the same examples, ``(n,)``; None: there are none.
        seed: of the resampling of groups.

    >>> found = cluster_details(np.repeat([1.0, 0.0, 1.0, 1.0], 5), np.repeat(np.arange(4), 5), seed=0)
    >>> found["clusters"], round(found["design_effect"], 2), found["clustered_method"]
    (4.0, 6.33, 'cluster-robust t of 4 groups')
    """
    if groups is None:
        return {}
    found = clustered_mean(values, groups, seed=seed)
    told: dict[str, float | str | None] = {"clusters": float(found.groups), "clustered_method": found.method}
    if found.interval is not None:
        told |= {"clustered_low": found.interval[0], "clustered_high": found.interval[1]}
    if found.design_effect is not None:
        told["design_effect"] = found.design_effect
    return told
