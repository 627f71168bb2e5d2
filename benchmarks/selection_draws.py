"""One draw of the selection study: eight candidates trained, measured by flataudit, and judged on every shift.

What a draw found is kept in a folder under a digest of how it was made, so that a second run only decides again.
"""

import ast
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import selection_families
import selection_recipes
import selection_shifts
import torch
from numpy.typing import NDArray
from selection_families import SEEN, Family, Sets
from selection_recipes import RECIPES, trained
from torch import nn

from flataudit.backends.torch_model import TorchModel, evaluation_mode
from flataudit.contracts import AuditData, Reading
from flataudit.data.examples import checked
from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined
from flataudit.examination import libraries, make_probe, measure_all
from flataudit.specs import Budget, Spec
from flataudit.statistics.correctness import correctness

__all__ = ["CANDIDATES", "NOISES", "SEVERITIES", "Draw", "drawn"]

CANDIDATES = 8
SEVERITIES = (1, 3, 5)
NOISES = (0.05, 0.1, 0.2)
CURVED = 200
"""Training examples on which flatness is measured."""
DEFAULT = (Spec(use="accuracy"), Spec(use="corruption"), Spec(use="weight_noise"))
"""What the score is made of, at flataudit's own settings."""
FLATNESS = (
    Spec(use="hessian_trace", params={"relative_error": 0.05}),
    Spec(use="spectrum", params={"relative_error": 0.05, "ends": ["largest"], "max_steps": 12}),
    Spec(use="sharpness", params={"steps": 2}),
    Spec(use="relative_flatness"),
)
KEPT_FLATNESS = (
    "hessian_trace",
    "lambda_max",
    "sharpness_l2",
    "sharpness_adaptive",
    "sharpness_average",
    "relative_flatness",
)


@dataclass(frozen=True, eq=False)
class Draw:
    """Eight candidates, and how right each is on every shift."""

    family: str
    number: int
    recipes: tuple[str, ...]
    examined: tuple[Examined, ...]
    """By candidate, with labels ``v1`` to ``v8``: evidence and arrays of `DEFAULT` and `FLATNESS`."""
    natural: Mapping[str, bool]
    """By shift."""
    predictions: Mapping[str, NDArray[np.generic]]
    """By shift: ``(8, 400)`` on the target inputs."""
    seen: Mapping[str, NDArray[np.float64]]
    """By shift: ``(8, 400)`` correctness on the target inputs."""
    shifted: Mapping[str, NDArray[np.float64]]
    """By shift: ``(8,)`` accuracy (of a regression mean bounded skill) on the other examples."""
    cells: NDArray[np.float64]
    """``(8, kinds, 3)`` accuracy by corruption and severity (1, 3, 5)."""
    noisy: NDArray[np.float64]
    """``(8, 3)`` accuracy under weight noise of `NOISES`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the candidates, in order."""
        return tuple(one.evidence.candidate.label for one in self.examined)


def drawn(family: Family, number: int, data: Path | None, cache: Path | None) -> Draw:
    """The draw of that number; the same number gives the same draw."""
    file = cache / f"{family.name}-{number}-{_digest(data)}.npz" if cache else None
    if file is not None and file.is_file():
        return _read(family, number, file)
    made = _made(family, number, family.split(data, number))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(made, file)
    return made


def _made(family: Family, number: int, sets: Sets) -> Draw:
    source = np.random.default_rng([number, *family.name.encode()])
    names = [list(RECIPES)[i] for i in source.permutation(len(RECIPES))[:CANDIDATES]]
    inputs, targets = (torch.from_numpy(a) for a in sets.training)
    targets = targets.float() if targets.is_floating_point() else targets
    nets = []
    for index, name in enumerate(names):
        recipe = replace(RECIPES[name], epochs=family.patience * RECIPES[name].epochs)
        nets.append(trained(family.network, recipe, inputs, targets, seed=1000 * number + index))
    measured = [_examined(family, net, f"{i + 1}", sets, number) for i, net in enumerate(nets)]
    predictions, seen, shifted = {}, {}, {}
    for shift in sets.shifts:
        answers = [_answers(family, net, shift.inputs) for net in nets]
        right = np.stack([correctness(family.task, a, shift.targets) for a in answers])
        classes = [a if family.task == "regression" else a.argmax(axis=1).astype(np.int64) for a in answers]
        predictions[shift.name] = np.stack(classes)[:, :SEEN]
        seen[shift.name], shifted[shift.name] = right[:, :SEEN], right[:, SEEN:].mean(axis=1)
    cells = np.stack([np.asarray(one.arrays["corruption/accuracy"].view()) for one in measured])
    noisy = np.stack([_noisy(family, net, sets, number) for net in nets])
    natural = {shift.name: shift.natural for shift in sets.shifts}
    return Draw(family.name, number, tuple(names), tuple(measured), natural, predictions, seen, shifted, cells, noisy)


def _examined(family: Family, net: nn.Module, version: str, sets: Sets, seed: int) -> Examined:
    """What `flataudit.measure` does, with the arrays that it leaves out and a gate's comparer needs."""
    inputs, targets = sets.training
    data = [
        checked("validation", "validation", *sets.validation, source="the draw"),
        checked("train", "train", inputs[:CURVED], targets[:CURVED], source="the draw"),
    ]
    readings = _readings(family, net, data, (*DEFAULT, *FLATNESS), seed)
    wanted = {spec.use for spec in DEFAULT}
    kept = [r for r in readings if r.measurement.probe in wanted or r.measurement.metric in KEPT_FLATNESS]
    protocol = AuditProtocol(
        probes=tuple(spec.model_dump_json() for spec in (*DEFAULT, *FLATNESS)),
        data={one.name: one.digest for one in data},
        seed=seed,
        dtype="float32",
        device="cpu",
        libraries=libraries(),
    )
    evidence = Evidence(
        candidate=Candidate(name=family.name, version=version, flavour="pytorch", uri="memory:"),
        protocol=protocol,
        measurements=tuple(reading.measurement for reading in kept),
    )
    return Examined(evidence, {name: array for reading in kept for name, array in reading.arrays.items()})


def _readings(
    family: Family, net: nn.Module, data: Sequence[AuditData], specs: Sequence[Spec], seed: int
) -> list[Reading]:
    probes = [(spec.use, make_probe(spec)) for spec in specs]
    with evaluation_mode(net), torch.enable_grad():
        model = TorchModel(net, family.task)
        return measure_all(model, data, probes, seed=seed, budget=Budget(passes=1e6), announce=lambda what, share: None)


def _noisy(family: Family, net: nn.Module, sets: Sets, seed: int) -> NDArray[np.float64]:
    data = [checked("validation", "validation", *sets.validation, source="the draw")]
    specs = [Spec(use="weight_noise", params={"sigma": sigma}) for sigma in NOISES]
    return np.array([r.measurement.estimate for r in _readings(family, net, data, specs, seed)])


def _answers(family: Family, net: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.generic]:
    """Log-probabilities, or values, as the probes get them."""
    return np.asarray(TorchModel(net, family.task).predict(inputs), dtype=np.float64)


def _digest(data: Path | None) -> str:
    """Of the code, the settings and the files that make a draw; comments and line breaks do not count."""
    modules = (selection_families, selection_recipes, selection_shifts)
    text = "".join(ast.dump(ast.parse(inspect.getsource(module))) for module in modules)
    text += json.dumps([s.model_dump(mode="json") for s in (*DEFAULT, *FLATNESS)])
    text += json.dumps([CANDIDATES, CURVED, NOISES, *[asdict(r) for r in RECIPES.values()]])
    text += json.dumps(sorted(file.name for file in data.glob("*.npz")) if data else [])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _write(draw: Draw, file: Path) -> None:
    arrays = {
        f"array/{i}/{name}": np.asarray(array.view())
        for i, one in enumerate(draw.examined)
        for name, array in one.arrays.items()
    }
    for kind in ("predictions", "seen", "shifted"):
        arrays |= {f"{kind}/{name}": array for name, array in getattr(draw, kind).items()}
    told = {
        "recipes": draw.recipes,
        "natural": draw.natural,
        "evidence": [one.evidence.model_dump(mode="json") for one in draw.examined],
    }
    with file.open("wb") as out:
        np.savez_compressed(out, told=np.array(json.dumps(told)), cells=draw.cells, noisy=draw.noisy, **arrays)


def _read(family: Family, number: int, file: Path) -> Draw:
    with np.load(file, allow_pickle=False) as found:
        told = json.loads(str(found["told"]))
        kept = {name: found[name] for name in found.files}

    def under(prefix: str) -> dict[str, NDArray[np.generic]]:
        return {name.removeprefix(prefix): array for name, array in kept.items() if name.startswith(prefix)}

    examined = tuple(
        Examined(Evidence.model_validate(one), {k: Array.pack(v) for k, v in under(f"array/{i}/").items()})
        for i, one in enumerate(told["evidence"])
    )
    return Draw(
        family.name,
        number,
        tuple(told["recipes"]),
        examined,
        told["natural"],
        under("predictions/"),
        under("seen/"),
        under("shifted/"),
        kept["cells"],
        kept["noisy"],
    )
