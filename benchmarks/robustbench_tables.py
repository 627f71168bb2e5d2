"""RobustBench's published corruption tables, recomputed by the `corruption` probe to the last printed digit.

``python benchmarks/robustbench_tables.py --data FOLDER`` with ``cifar10.csv``, ``cifar100.csv`` and ``imagenet.csv``,
RobustBench's ``model_info/<data set>/corruptions/unaggregated_results.csv`` (MIT licence; Croce et al. 2021): accuracy
of each model on 15 corruptions at 5 severities. A scripted model that is right on exactly so many images of each cell
goes through the probe itself; mCE (Hendrycks and Dietterich 2019) is made of the cells that the probe reports, with
AlexNet as the baseline.
"""

import argparse
import csv
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Meter
from flataudit.corruptions.catalogue import KINDS
from flataudit.data.examples import checked
from flataudit.probes.corruption import Corruption
from flataudit.specs import Budget

__all__ = ["cells", "mean_corruption_error", "replayed"]

Cells = NDArray[np.float64]
"""``(15, 5)`` accuracies, by corruption and severity."""

IMAGES: Mapping[str, int] = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""Images of a cell, of which every published accuracy is a whole number."""

PROBE = Corruption(
    kinds=tuple(kind for kind in KINDS["image"] if kind != "saturate")[:15],
    severities=(1, 2, 3, 4, 5),
    data_kind="image",
)
"""Its corruptions stand for the published ones, whatever they are called: a scripted model looks at none."""

PRINTED: Mapping[str, Mapping[str, tuple[str, str | None]]] = {
    "imagenet": {
        "Standard_R50": ("39.48", "76.38"),
        "Salman2020Do_50_2_Linf": ("36.09", "80.00"),
        "Geirhos2018_SIN": ("39.92", "76.67"),
        "Geirhos2018_SIN_IN_IN": ("42.00", "73.19"),
        "Erichson2022NoisyMix_new": ("53.28", "59.43"),
        "Tian2022Deeper_DeiT-S": ("62.91", "47.61"),
        "Tian2022Deeper_DeiT-B": ("67.55", "41.70"),
    },
    "cifar10": {
        "Standard": ("73.46", None),
        "Calian2021Defending": ("92.17", None),
        "Addepalli2022Efficient_WRN_34_10": ("80.12", None),
        "Rebuffi2021Fixing_70_16_cutmix_extra_L2": ("88.23", None),
        "Diffenderfer2021Winning_LRR_CARD_Deck": ("92.78", None),
        "Diffenderfer2021Winning_Binary_CARD_Deck": ("90.15", None),
    },
}
"""``corruptions_acc`` and ``corruptions_mce`` of RobustBench's ``model_info/<data set>/corruptions/<model>.json``;
Standard's from the table of its README.

The two CARD-Decks are given there as 92.78 and 90.15; the mean of their own 75 cells is 92.786 and 90.156.
"""


def cells(file: Path) -> dict[str, Cells]:
    """The tables of a file, by model: two lines of names, then 75 numbers a model, corruption by corruption."""
    with file.open(newline="") as lines:
        _, severities, *rows = csv.reader(lines)
    assert severities[1:] == ["1", "2", "3", "4", "5"] * 15, "expected five severities of fifteen corruptions"
    with file.open(newline="") as lines:
        kinds = next(csv.reader(lines))[1::5]
    order = np.argsort(kinds)
    return {row[0]: np.array(row[1:], dtype=np.float64).reshape(15, 5)[order] for row in rows}


class Scripted:
    """A model whose n-th answers to the same images are right on a given share of them, to the image."""

    task, batch_size, dtype, device = "binary", 100_000, "float64", "cpu"

    def __init__(self, accuracies: Cells, images: int) -> None:
        self.meter, self._rows, self._images = Meter(), 0, images
        counts = accuracies.ravel() * images
        assert np.allclose(counts, counts.round(), atol=1e-6), "expected accuracies of whole images"
        self._counts = counts.round().astype(np.int64)

    def predict(self, inputs: NDArray[np.generic]) -> NDArray[np.float64]:
        """Class 0 is right."""
        rows = self._rows + np.arange(len(inputs))
        self._rows += len(inputs)
        self.meter.forward += len(inputs)
        right = rows % self._images < self._counts[rows // self._images]
        return np.where(right[:, None], np.log([[0.9, 0.1]]), np.log([[0.1, 0.9]]))


def replayed(accuracies: Cells, images: int) -> tuple[float, Cells]:
    """The probe's estimate for a model with these accuracies, and the cells that it keeps."""
    inputs = np.random.default_rng(0).random((images, 1, 8, 8)).astype(np.float32)
    data: AuditData = checked("validation", "validation", inputs, np.zeros(images, np.int64), source="memory")
    (reading,) = PROBE.measure(Scripted(accuracies, images), data, 0, Budget(passes=1e6, seconds=3600))
    estimate = reading.measurement.estimate
    assert estimate is not None, reading.measurement.reason
    return estimate, np.asarray(reading.arrays["corruption/accuracy"].view())


def mean_corruption_error(accuracies: Cells, baseline: Cells) -> float:
    """Mean over corruptions of Σ_s (1 − a_cs) / Σ_s (1 − b_cs), ×100 in print as mCE.

    >>> float(mean_corruption_error(np.full((15, 5), 0.6), np.full((15, 5), 0.2)))
    0.5
    """
    return float(np.mean((1 - accuracies).sum(axis=1) / (1 - baseline).sum(axis=1)))


def printed(share: float) -> str:
    """As a percentage with two decimals."""
    return str((Decimal(repr(round(share * 100, 9)))).quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN))


def main() -> None:
    """Print every model of every file; where RobustBench's own number is known, whether it is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe-all", action="store_true", help="replay every model, not only those in print")
    asked = parser.parse_args()
    print(f"{'data':9} {'model':46} {'accuracy':>9} {'in print':>9} {'mCE':>6} {'in print':>9}  by")
    same = known = 0
    for name, images in IMAGES.items():
        tables = cells(asked.data / f"{name}.csv")
        for model, table in tables.items():
            theirs = PRINTED.get(name, {}).get(model, (None, None))
            through = theirs[0] is not None or asked.probe_all
            estimate, kept = replayed(table, images) if through else (float(table.mean()), table)
            error = printed(mean_corruption_error(kept, tables["AlexNet"])) if name == "imagenet" else None
            ours = (printed(estimate), error)
            pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None]
            known, same = known + len(pairs), same + sum(a == b for a, b in pairs)
            line = f"{name:9} {model:46} {ours[0]:>9} {theirs[0] or '':>9} {ours[1] or '':>6} {theirs[1] or '':>9}"
            differs = "  (in print otherwise)" if any(a != b for a, b in pairs) else ""
            print(f"{line}  {'probe' if through else 'mean'}{differs}", flush=True)
    print(f"\n{same} of {known} printed numbers recomputed to the last digit.")


if __name__ == "__main__":
    main()
