"""The whole audit in forward-and-backward passes: trace 1 %, λ_max 1 %, sharpness, input gradient, PGD-10, calibration.

Two accounts: the clock (seconds over those of one pass) and the measurements' own ``cost.passes``. Beside it what the
same numbers take PyHessian and plain loops, probe by probe, where it has them.
"""

import math
from collections.abc import Callable

from clock import fb, turns
from ours import AUDIT, installed, measured, passes, probe
from peers import PyHessian, fastest, seeded
from pilots import hutchinson_vectors
from subjects import RECIPES, Subject, subject
from table import printed, spoken

__all__ = ["audit_table"]

TARGETS = {"relu_mlp": 75.0, "resnet": 75.0, "tanh_mlp": 140.0, "transformer": 140.0}


def audit_table(repeats: int = 3) -> tuple[str, list[dict[str, object]]]:
    """As text, and as records."""
    lines, records = [], []
    for name in RECIPES:
        record = _audited(subject(name), repeats if name != "resnet" else 1)
        records.append(record)
        lines.append(
            [str(record[key]) for key in ("network", "fb", "audit", "by clock", "by cost", "target", "reached")]
        )
        lines[-1] += [str(record["PyHessian"]), str(record["missing"])]
    header = (
        "network",
        "one fb",
        "audit",
        "fb by clock",
        "fb by cost",
        "target",
        "reached",
        "PyHessian-style fb",
        "missing",
    )
    parts = [printed(header, lines)]
    for record in records:
        parts.append(
            f"\n{record['network']}:\n" + printed(("metric", "found", "passes of its probe"), record["metrics"])
        )
    return "\n".join(parts), records


def _audited(net: Subject, repeats: int) -> dict[str, object]:
    wanted = [probe(use, **given) for use, given in AUDIT if installed(use)]
    missing = [use for use, _ in AUDIT if not installed(use)]
    calls: dict[str, Callable[[], object]] = {"fb": fb(net), "audit": lambda: measured(net, *wanted)}
    timed = turns(calls, repeats)
    found = timed["audit"].answer.measurements
    by_clock = timed["audit"].median / timed["fb"].median
    counted = passes(found)
    target = TARGETS[net.name]
    return {
        "network": net.title,
        "fb": spoken(timed["fb"].median),
        "audit": spoken(timed["audit"].median),
        "by clock": f"{by_clock:.1f}",
        "by cost": f"{counted:.1f}",
        "target": f"≤ {target:g}",
        "reached": "yes" if by_clock <= target else "NO",
        "PyHessian": f"{_peer_passes(net, timed['fb'].median):.0f}",
        "missing": ", ".join(missing) or "nothing",
        "metrics": [(m.metric, _spoken(m.estimate, m.standard_error), f"{m.cost.passes:.1f}") for m in found],
    }


def _peer_passes(net: Subject, unit: float) -> float:
    """PyHessian's trace and λ_max at 1 %, and 41 passes for sharpness (2 × 20), gradient and PGD by plain loops."""
    with seeded(0):
        peer = PyHessian(net, fastest(PyHessian, net))
        timed = turns({"trace": lambda: peer.trace(4), "λ": lambda: peer.largest(1e-3)}, 1)
        peer.close()
    curvature = hutchinson_vectors(net) * timed["trace"].median / 4 + timed["λ"].median
    return curvature / unit + 2 * 20 + 1 + 10


def _spoken(estimate: float | None, error: float | None) -> str:
    if estimate is None:
        return "no number"
    return f"{estimate:.4g}" + ("" if error is None or math.isnan(error) else f" ± {error:.2g}")
