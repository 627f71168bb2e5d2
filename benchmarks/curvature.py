"""flataudit against PyHessian, curvlinops and hessian-eigenthings, in one process, on one thread.

``python benchmarks/curvature.py`` prints every table; ``--only trace`` some; ``--json`` also writes the records.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from audit_rows import audit_table
from clock import machine, taken
from cost_curves import cost_curves, drawn
from density_rows import density_table
from eigenvalue_rows import eigenvalue_rows
from table import Row, rows_table
from trace_rows import trace_rows

__all__ = ["PARTS"]


def _rows(rows: list[Row]) -> tuple[str, object]:
    records = [asdict(row) | {"ratio": row.ratio, "reached": row.reached} for row in rows]
    return rows_table(rows), records


def _curves(figure: Path | None) -> tuple[str, object]:
    text, curves = cost_curves()
    if figure is not None and drawn(curves, figure):
        text += f"\n\nDrawn in {figure.name}."
    return text, curves


def main() -> None:
    """Print the chosen parts, and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path, help="write the records here, part by part (other parts are kept)")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    if chosen.json is not None and chosen.json.exists():
        found = json.loads(chosen.json.read_text(encoding="utf-8"))
    for name in chosen.only:
        (text, records), seconds = taken(lambda name=name: PARTS[name](chosen))
        print(f"\n## {TITLES[name]}\n\n{text}\n\n({seconds:.0f} s)", flush=True)
        found[name] = {"machine": machine(), "seconds": seconds, "rows": records}
        if chosen.json is not None:
            chosen.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


TITLES = {
    "trace": "Trace at 1 % standard error",
    "lambda": "λ_max to 1 %",
    "density": "Stochastic Lanczos quadrature, 10 vectors × 30 steps",
    "audit": "The whole audit",
    "curves": "How the cost grows",
}
PARTS: dict[str, Callable[[argparse.Namespace], tuple[str, object]]] = {
    "trace": lambda chosen: _rows(trace_rows(chosen.repeats)),
    "lambda": lambda chosen: _rows(eigenvalue_rows(chosen.repeats)),
    "density": lambda chosen: density_table(chosen.repeats),
    "audit": lambda chosen: audit_table(min(3, chosen.repeats)),
    "curves": lambda chosen: _curves(chosen.json and chosen.json.with_name("cost_curves.png")),
}

if __name__ == "__main__":
    main()
