"""Who is tied with the most accurate, and who of the tied comes first."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from flataudit.case import Case
from flataudit.evidence import Better

__all__ = ["band", "left_out"]


def band(case: Case, pool: Sequence[str]) -> list[str]:
    """The pool's members tied with its most accurate, first by tie-break first."""
    metric = case.policy.non_inferiority.metric
    if not pool:
        return []
    better: Better = next((m.better for label in pool if (m := case.measurement(label, metric))), "higher")
    best = min(pool, key=lambda label: (_oriented(case.estimate(label, metric), better), label))
    tied = [label for label in pool if label == best or _tied(case, metric, best, label)]
    return sorted(tied, key=_tie_break(case, tied))


def left_out(case: Case, pool: Sequence[str]) -> dict[str, str]:
    """Metrics of the tie-break that do not compare between all of the pool, with the reason; they break no tie."""
    rule = case.policy.tie_break
    found: dict[str, str] = {}
    for metric in () if rule == "default" else rule:
        for one, other in combinations(sorted(pool), 2):
            pair = case.pair(metric, one, other)
            measured = case.estimate(one, metric) is not None and case.estimate(other, metric) is not None
            if measured and pair is not None and (not pair.matched or pair.difference is None):
                found.setdefault(metric, f"{one} and {other}: {pair.reason}")
    return found


def _tied(case: Case, metric: str, best: str, label: str) -> bool:
    pair = case.pair(metric, best, label)
    if pair is None or pair.difference is None or pair.standard_error is None:
        return False
    return abs(pair.difference) <= case.policy.band_width * pair.standard_error


def _tie_break(case: Case, pool: Sequence[str]) -> Callable[[str], tuple[object, ...]]:
    rule, unfit = case.policy.tie_break, left_out(case, pool)
    if isinstance(rule, Mapping):
        ranks = {metric: _ranks(case, metric, pool) for metric in rule if metric not in unfit}
        return lambda label: (sum(rule[m] * ranks[m][label] for m in ranks), label)
    metrics = ("score",) if rule == "default" else tuple(m for m in rule if m not in unfit)
    return lambda label: (*(_key(case, label, metric) for metric in metrics), label)


def _key(case: Case, label: str, metric: str) -> float:
    found = case.measurement(label, metric)
    return _oriented(case.estimate(label, metric), found.better if found else "higher")


def _ranks(case: Case, metric: str, pool: Sequence[str]) -> dict[str, float]:
    keys = {label: _key(case, label, metric) for label in pool}
    return {a: sum(keys[b] < keys[a] for b in pool) + sum(keys[b] == keys[a] for b in pool) / 2 for a in pool}


def _oriented(estimate: float | None, better: Better) -> float:
    """A key that sorts the better first and the unmeasured last."""
    if estimate is None:
        return float("inf")
    return -estimate if better == "higher" else estimate
