"""What the probes of shift, drift and label-free accuracy say of three natural shifts, beside the labelled truth.

Digits by other writers (``optdigits8x8.npz``: UCI's 30 writers, then 13 others), MNIST's digits to those
(``mnist8x8.npz``), and hourly bike rentals from the first half of a year to the second (``bikeshare.npz``, features
``X``, counts ``y``). Three small networks each, trained here from fixed seeds. Nothing is tuned on the shifted sets.

    OMP_NUM_THREADS=1 python benchmarks/natural_shifts.py --data FOLDER > benchmarks/results/natural_shifts.txt
"""

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flataudit.backends.torch_model import TorchModel
from flataudit.contracts import AuditData
from flataudit.data.examples import checked
from flataudit.evidence import AuditProtocol, Candidate, Evidence, Examined, Measurement
from flataudit.examination import measure_all
from flataudit.policy import Policy
from flataudit.probes.accuracy import Accuracy
from flataudit.probes.drift import Drift
from flataudit.probes.label_free import LabelFree
from flataudit.probes.shift import Shift
from flataudit.probes.unlabelled import Unlabelled
from flataudit.specs import Budget, Task
from flataudit.statistics.comparer import PairedComparer

Numbers = NDArray[np.generic]


@dataclass(frozen=True)
class Case:
    """One shift: sets ``(inputs, targets)`` to train on, to validate on, and from elsewhere with their groups."""

    name: str
    task: Task
    train: tuple[Numbers, Numbers]
    validation: tuple[Numbers, Numbers]
    shifted: tuple[Numbers, Numbers]
    groups: NDArray[np.str_]

    @property
    def metric(self) -> str:
        """What the candidates are compared in."""
        return "validation_r2" if self.task == "regression" else "validation_accuracy"


def writers(folder: Path) -> Case:
    """Trained and validated on 30 writers (a random fifth is left out), shifted: 13 others."""
    file = np.load(folder / "optdigits8x8.npz")
    train, validation = _split(_images(file["x_train"]), file["y_train"].astype(np.int64))
    return _digits("digits by other writers", train, validation, file)


def mnist(folder: Path) -> Case:
    """Trained and validated on MNIST at 8 × 8, shifted: UCI's digits by 13 writers."""
    file = np.load(folder / "mnist8x8.npz")
    train, validation = ((_images(file[f"x_{part}"]), file[f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
    return _digits("MNIST to UCI digits", train, validation, np.load(folder / "optdigits8x8.npz"))


def bikes(folder: Path) -> Case:
    """Trained and validated on January to June, shifted: July to December; groups are quarters."""
    file = np.load(folder / "bikeshare.npz")
    rows, counts = file["X"].astype(np.float32), file["y"].astype(np.float64)
    early = rows[:, 0] <= np.unique(rows[:, 0])[5]
    months = rows[~early, 0]
    quarter = np.where(months <= np.unique(months)[2], "July to September", "October to December")
    # Features in the training half's own units; the month and the day of the year would give the half away.
    kept = [k for k, name in enumerate(file["features"].tolist()) if name not in ("month", "day")]
    rows = rows[:, kept]
    rows = (rows - rows[early].mean(axis=0)) / rows[early].std(axis=0)
    train, validation = _split(rows[early], counts[early])
    return Case("bike rentals by season", "regression", train, validation, (rows[~early], counts[~early]), quarter)


def _images(pixels: Numbers) -> Numbers:
    return (pixels[:, None] / np.float32(16)).astype(np.float32)


def _digits(name: str, train: tuple[Numbers, Numbers], validation: tuple[Numbers, Numbers], uci: object) -> Case:
    file: Mapping[str, Numbers] = uci  # type: ignore[assignment]
    labels = file["y_test"].astype(np.int64)
    groups = np.array([f"digit {label}" for label in labels])
    return Case(name, "multiclass", train, validation, (_images(file["x_test"]), labels), groups)


def _split(inputs: Numbers, targets: Numbers) -> tuple[tuple[Numbers, Numbers], tuple[Numbers, Numbers]]:
    order = np.random.default_rng(0).permutation(len(inputs))
    first = len(order) // 5
    return (inputs[order[first:]], targets[order[first:]]), (inputs[order[:first]], targets[order[:first]])


def networks(case: Case) -> dict[str, nn.Module]:
    """Three candidates of one case, untrained."""
    # Modules draw their first weights from the global generator alone.
    torch.random.default_generator.set_state(torch.Generator().manual_seed(0).get_state())
    size, outputs = case.train[0][0].size, 1 if case.task == "regression" else 10
    wide = nn.Sequential(nn.Flatten(), nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, outputs))
    found: dict[str, nn.Module] = {"linear": nn.Sequential(nn.Flatten(), nn.Linear(size, outputs)), "wide": wide}
    if case.train[0].ndim == 2:
        layers = [nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)]
        return found | {"deep": nn.Sequential(nn.Flatten(), *layers)}
    convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()]
    return found | {"convolutional": nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32 * 9, outputs))}


def trained(case: Case, module: nn.Module, epochs: int) -> TorchModel:
    """By Adam at 0.003 with cosine decay, batches of 64; targets of a regression in their standard deviations."""
    inputs, targets = torch.tensor(case.train[0]), torch.tensor(case.train[1])
    regression = case.task == "regression"
    mean, deviation = (float(targets.mean()), float(targets.std())) if regression else (0.0, 1.0)
    targets = ((targets - mean) / deviation).float() if regression else targets
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(64):
            optimiser.zero_grad()
            answers = module(inputs[batch])
            loss = nn.functional.mse_loss(answers[:, 0], targets[batch]) if regression else None
            (nn.functional.cross_entropy(answers, targets[batch]) if loss is None else loss).backward()
            optimiser.step()
        schedule.step()
    if regression:
        last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(deviation)
            last.bias.mul_(deviation).add_(mean)
    return TorchModel(module.eval(), case.task)


def examined(label: str, model: TorchModel, data: Sequence[AuditData], probes: Mapping[str, object]) -> Examined:
    """What the probes measure on these sets, as an audit has it."""
    readings = measure_all(
        model,
        data,
        list(probes.items()),  # type: ignore[arg-type]
        seed=0,
        budget=Budget(passes=1e6, seconds=1e6),
        announce=lambda *_: None,
    )
    protocol = AuditProtocol(
        probes=tuple(probes), data={d.name: d.digest for d in data}, seed=0, dtype="float32", device="cpu", libraries={}
    )
    measurements = tuple(reading.measurement for reading in readings)
    candidate = Candidate(name=label, uri=label, run_id=label)
    evidence = Evidence(candidate=candidate, protocol=protocol, measurements=measurements)
    return Examined(evidence, {name: kept for reading in readings for name, kept in reading.arrays.items()})


def number(found: Measurement | None) -> str:
    """``0.912 (0.897 to 0.925)``, or why there is none."""
    if found is None or found.estimate is None:
        return "–" if found is None else f"– ({(found.reason or '')[:90]})"
    interval = f" ({found.interval[0]:.3f} to {found.interval[1]:.3f})" if found.interval else ""
    return f"{found.estimate:.3f}{interval}"


def report(case: Case, epochs: int) -> None:
    """All tables of one shift."""
    validation = checked("validation", "validation", *case.validation, source=case.name)
    shifted = checked("shifted", "shifted", *case.shifted, case.groups, source=case.name)
    hidden = checked("unlabelled", "unlabelled", case.shifted[0], source=case.name)
    models = {name: trained(case, module, epochs) for name, module in networks(case).items()}
    probes = {"accuracy": Accuracy(), "shift": Shift(), "drift": Drift()}
    probes |= {} if case.task == "regression" else {"unlabelled": Unlabelled(), "label_free": LabelFree()}
    sets = [validation, shifted] if case.task == "regression" else [validation, shifted, hidden]
    comparer, policy = PairedComparer(), Policy()
    whole = comparer.score([examined(name, model, sets, probes) for name, model in models.items()], policy)
    # The shifted set in validation's place: the same metrics, R² included, and the same paired comparison.
    there = [
        examined(name, model, [replace(shifted, name="validation", role="validation")], {"accuracy": Accuracy()})
        for name, model in models.items()
    ]
    n = f"{len(case.train[0])} to train, {len(validation)} to validate, {len(shifted)} shifted"
    print(f"\n## {case.name} ({n})\n")
    word = case.metric.removeprefix("validation_")
    columns = (f"{word}, validation", f"{word}, shifted", "fall in accuracy or skill", "worst group")
    print(f"{'candidate':<15} " + " ".join(f"{column:<28}" for column in columns).rstrip())
    for one, other in zip(whole, there, strict=True):
        evidence = one.evidence
        worst = evidence.get("shift_worst_group_accuracy/shifted")
        group = "" if worst is None else str(worst.details.get("group", ""))
        here, far = number(evidence.get(case.metric)), number(other.evidence.get(case.metric))
        fall = number(evidence.get("shift_gap/shifted"))
        print(f"{evidence.candidate.label:<15} {here:<28} {far:<28} {fall:<28} {number(worst)} {group}")
    differences(case, comparer, policy, whole, there)
    drift(whole[0])
    if case.task != "regression":
        guesses(whole)


def differences(
    case: Case, comparer: PairedComparer, policy: Policy, here: Sequence[Examined], there: Sequence[Examined]
) -> None:
    """Paired differences on the same examples, second minus first."""
    print("\nPaired differences, second minus first")
    found = [
        {(c.champion, c.challenger): c for c in comparer.compare(e, policy) if c.metric == case.metric}
        for e in (here, there)
    ]
    for pair in found[0]:
        told = []
        for name, table in zip(("validation", "shifted"), found, strict=True):
            low, high = table[pair].interval or (float("nan"),) * 2
            told.append(f"{name} {table[pair].difference:+.3f} ({low:+.3f} to {high:+.3f})")
        print(f"{pair[0] + ' → ' + pair[1]:<28} {'   '.join(told)}")


def drift(one: Examined) -> None:
    """Effect sizes of the inputs, the same for all candidates."""
    print("\nDrift of the inputs")
    for metric in Drift.metrics:
        found = one.evidence.get(f"{metric.name}/shifted")
        feature = "" if found is None else str(found.details.get("feature", ""))
        print(f"{metric.name:<18} {number(found):<28} {feature}".rstrip())


def guesses(whole: Sequence[Examined]) -> None:
    """What is guessed without labels, beside the truth."""
    print("\nAccuracy on the shifted set: the truth, and guesses that saw no label there")
    names = (
        "estimated_accuracy_atc",
        "estimated_accuracy_doc",
        "estimated_accuracy_nuclear",
        "estimated_accuracy_line",
    )
    names += ("average_confidence", "agreement")
    print(
        f"{'candidate':<15} {'truth':>6} "
        + " ".join(f"{name.removeprefix('estimated_accuracy_'):>19}" for name in names)
    )
    for one in whole:
        cells = []
        for name in names:
            found = one.evidence.get(f"{name}/unlabelled")
            cells.append("–" if found is None or found.estimate is None else f"{found.estimate:.3f}")
        truth = one.evidence["shift_accuracy/shifted"].estimate
        print(f"{one.evidence.candidate.label:<15} {truth:>6.3f} " + " ".join(f"{cell:>19}" for cell in cells))
    reasons = {
        f"{m.metric.partition('/')[0]}: {m.reason}"
        for one in whole
        for m in one.evidence.measurements
        if m.estimate is None and m.metric.endswith("/unlabelled")
    }
    for reason in sorted(reasons):
        print(reason)


def main() -> None:
    """All three shifts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three .npz files")
    parser.add_argument("--epochs", type=int, default=30)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"python {platform.python_version()} · torch {version('torch')} · numpy {version('numpy')}, one thread")
    for case in (writers, mnist, bikes):
        report(case(chosen.data), chosen.epochs)


if __name__ == "__main__":
    main()
