"""Curvature of EfficientNet-Lite0 and MiniLM: numbers, wall time, and memory beside that of one training step.

``python benchmarks/real_networks.py --data shared/data``; each measurement runs in a process of its own, since a
process's high-water mark never falls. ``--only minilm`` needs no data.
"""

import argparse
import json
from pathlib import Path

import torch
from clock import Peak, machine, peak_of, taken
from networks import Network, efficientnet, minilm
from ours import UNLIMITED, probe
from table import printed, spoken
from torch import nn

import flataudit
from flataudit.evidence import Measurement

__all__ = ["TASKS"]

HEAD = ["head.*", "encoder.encoder.layer.5.*"]
"""MiniLM's head and last encoder layer."""

TASKS = {
    "efficientnet": {
        "trace": probe("hessian_trace", relative_error=0.05),
        "λ_max": probe("spectrum", ends=["largest"]),
        "sharpness": probe("sharpness", rho=0.05, draws=2),
    },
    "minilm": {
        "trace, head and last layer": probe("hessian_trace", relative_error=0.02, parameters=HEAD),
        "λ_max, head and last layer": probe("spectrum", ends=["largest"], parameters=HEAD),
        "trace": probe("hessian_trace", relative_error=0.05),
        "λ_max": probe("spectrum", ends=["largest"]),
        "sharpness": probe("sharpness", rho=0.05, draws=2),
    },
}


def step(network: Network) -> None:
    """One step of AdamW, by which such networks are trained, on all the examples."""
    optimizer = torch.optim.AdamW(network.model.parameters(), lr=1e-6)
    nn.functional.cross_entropy(network.model(network.inputs), network.targets).backward()
    optimizer.step()


def child(name: str, task: str, data: Path) -> dict[str, object]:
    """In a process of its own: what was found, seconds, and by how much the resident set grew at its highest."""
    network = efficientnet(data) if name == "efficientnet" else minilm()
    peak = Peak()
    if task == "step":
        _, seconds = taken(lambda: step(network))
        return {"seconds": seconds, "bytes": peak.grown(), "notes": network.notes, "title": network.title}
    found, seconds = taken(
        lambda: flataudit.measure(
            network.model,
            network.inputs,
            network.targets,
            probes=[TASKS[name][task]],
            task="multiclass",
            batch_size=len(network.inputs),
            budget=UNLIMITED,
        )
    )
    told = [_told(one) for one in found.measurements]
    return {"seconds": seconds, "bytes": peak.grown(), "passes": found.measurements[0].cost.passes, "found": told}


def _told(found: Measurement) -> dict[str, object]:
    return {
        "metric": found.metric,
        "outcome": str(found.outcome),
        "estimate": found.estimate,
        "standard_error": found.standard_error,
        "interval": found.interval,
        "bound": found.bound,
        "reason": found.reason,
        "method": found.details.get("method"),
    }


def _table(name: str, data: Path) -> tuple[str, dict[str, object]]:
    base = peak_of("real_networks.py", "--child", name, "step", "--data", str(data))
    records: dict[str, object] = {"step": base}
    lines = []
    for task in TASKS[name]:
        try:
            done = peak_of("real_networks.py", "--child", name, task, "--data", str(data))
        except RuntimeError as error:
            lines.append((task, "", f"no answer: {str(error)[-120:]}", "", "", "", ""))
            continue
        records[task] = done
        for index, one in enumerate(done["found"]):
            cost = ("", "", "", "") if index else _cost(done, base)
            lines.append((task if not index else "", str(one["metric"]), _number(one), *cost))
    header = ("task", "metric", "found", "time", "passes", "peak memory", "of a training step's")
    step_cost = f"One training step: {spoken(base['seconds'])}, {_mib(base['bytes'])}."
    return f"### {base['title']}\n\n{base['notes']}. {step_cost}\n\n{printed(header, lines)}", records


def _cost(done: dict[str, object], base: dict[str, object]) -> tuple[str, str, str, str]:
    share = f"{done['bytes'] / base['bytes']:.2f}×"
    return spoken(done["seconds"]), f"{done['passes']:.1f}", _mib(done["bytes"]), share


def _number(one: dict[str, object]) -> str:
    if one["estimate"] is None:
        return f"{one['outcome']}: {one['reason']}"
    said = f"{one['estimate']:.4g}"
    if one["interval"]:
        low, high = one["interval"]
        said += f" [{low:.4g}, {high:.4g}]"
    elif one["standard_error"] is not None:
        said += " exact" if one["standard_error"] == 0 else f" ± {one['standard_error']:.2g}"
    elif one["bound"] == "lower":
        said = f"≥ {said}"
    return said


def _mib(count: object) -> str:
    return f"{float(count) / 2**20:.0f} MiB"


def main() -> None:
    """Print a table a network, and write it where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("shared/data"), help="folder with the photos and the ONNX file"
    )
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.child:
        print(json.dumps(child(*chosen.child, chosen.data)))
        return
    found: dict[str, object] = {}
    if chosen.json is not None and chosen.json.exists():
        found = json.loads(chosen.json.read_text(encoding="utf-8"))
    for name in chosen.only:
        text, records = _table(name, chosen.data)
        print(f"\n{text}", flush=True)
        found[name] = {"machine": machine(), **records}
        if chosen.json is not None:
            chosen.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
