"""The whole main job in one go: train, log, register, gate, promote, report, and then the reveal.

The candidates differ by recipe only. The champion is the first recipe's model, named before anything is measured;
the digits of thirteen writers that no candidate and no decision has seen come last, and show what the choice
was worth.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flataudit import archive, commands, terminal
from flataudit.audit import AuditRecord
from flataudit.config import load_config
from flataudit.contracts import Progress

__all__ = ["run_demo"]

MODEL = "digits"
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ASYNC_LOGGING": "false", "GIT_PYTHON_REFRESH": "quiet"}
_MIGRATE = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments(max_results=1)"
_POLICY = """\
# Written by `flataudit demo`; `flataudit gate --config {file}` decides again.
model: {model}
champion: champion
challengers: {{newest: {newest}}}
data:
  train:      {{use: npz, path: train.npz}}
  validation: {{use: npz, path: validation.npz}}
probes:                            # without this key: all that is installed, at their own precision
  - accuracy
  - calibration
  - training_loss
  - hessian_trace
  - relative_flatness
  - {{use: spectrum, relative_error: 0.05, ends: [largest], max_steps: 12}}
  - {{use: sharpness, steps: 3}}
  - {{use: weight_noise, draws: 5}}
  - input_gradient
  - input_noise
  - corruption
  - {{use: landscape, steps: 3}}
  - {{use: invariance, examples: 32}}
policy:
  non_inferiority: {{metric: validation_accuracy, margin: 0.005, confidence: 0.95}}
  criteria:
    - {{metric: calibration_error_debiased, at_most: 0.10}}
    - {{metric: corruption_accuracy, no_worse_than: champion, margin: 0.02}}
registry: {{use: mlflow, tracking_uri: "{uri}"}}
report: {{directory: {audits}}}
"""


@dataclass(frozen=True)
class Row:
    """One candidate in the reveal; ranks count from 1, the best."""

    version: str
    recipe: str
    validation: float
    score: float | None
    unseen: float
    by_validation: int
    by_score: int | None


def run_demo(folder: Path, *, as_json: bool = False) -> int:
    """Make everything in ``folder``, which may hold an earlier demo; 0 when a champion was promoted or held."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    uri, log = f"sqlite:///{folder / 'mlflow.db'}", Console(stderr=True, highlight=False)
    with terminal.progress_reporter(log) as progress:
        unseen, versions = _candidates(folder, uri, progress)
        done = commands.perform(
            "gate", load_config(_policy(folder, uri, len(versions))), progress=progress, tracking_uri=uri
        )
    rows = _reveal(done.record, versions, unseen)
    if as_json:
        _, arrays = archive.read(done.folder)
        gate = json.loads(archive.render(done.record, arrays, "json")[1])
        document = {"schema": "flataudit/demo/1", "gate": gate, "reveal": [vars(row) for row in rows]}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        _show(done, rows, uri)
    return 3 if commands.exit_code(done.record) == 3 else 0


def _candidates(folder: Path, uri: str, progress: Progress) -> tuple[Mapping[str, float], Mapping[str, str]]:
    """Accuracy on the unseen writers by version, and recipe by version; MLflow's tables are made meanwhile."""

    def tell(what: str) -> Callable[[str, float], None]:
        return lambda recipe, share: progress(what, recipe, share)

    progress("training", "starting", 0.0)
    with _database(folder / "mlflow.db"):
        from flataudit.demo import training

        files = training.write_data(folder)
        trained = training.train_all(folder, progress=tell("training"))
        progress("training", "done", 1.0)
        progress("logging", "waiting for MLflow's tables", 0.0)
    versions = training.log_candidates(
        trained,
        folder,
        tracking_uri=uri,
        model=MODEL,
        artifact_root=(folder / "artifacts").as_uri(),
        progress=tell("logging"),
    )
    progress("logging", "done", 1.0)
    training.name_first_champion(uri, MODEL, versions[0])
    unseen = {v: training.accuracy(one.net, files["unseen_writers"]) for v, one in zip(versions, trained, strict=True)}
    return unseen, {v: one.recipe.name for v, one in zip(versions, trained, strict=True)}


@contextmanager
def _database(path: Path) -> Iterator[None]:
    """Have MLflow make its tables (about 13 seconds) beside the body; an interruption leaves no half-made file."""
    if path.exists():
        yield
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    maker = subprocess.Popen(
        [sys.executable, "-c", _MIGRATE, f"sqlite:///{partial}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=path.parent,
        start_new_session=True,
    )
    try:
        yield
        _, told = maker.communicate()
        if maker.returncode:
            raise RuntimeError(f"MLflow could not make its tables: {told.decode(errors='replace')[-500:]}")
        partial.rename(path)
    finally:
        maker.kill()
        maker.wait()
        for left in path.parent.glob(f"{partial.name}*"):
            left.unlink()


def _policy(folder: Path, uri: str, newest: int) -> Path:
    file = folder / "flataudit.yaml"
    audits = json.dumps(str(folder / "audits"))
    file.write_text(
        _POLICY.format(file=file.name, model=MODEL, newest=newest, uri=uri, audits=audits), encoding="utf-8"
    )
    return file


def _reveal(record: AuditRecord, recipes: Mapping[str, str], unseen: Mapping[str, float]) -> list[Row]:
    """All candidates of this demo, best on the unseen writers first."""
    numbers = {}
    for evidence in record.evidences:
        version = evidence.candidate.version or ""
        if version in unseen:
            found = [evidence.get(name) for name in ("validation_accuracy", "score")]
            numbers[version] = [m.estimate if m else None for m in found]
    validation = {version: numbers[version][0] or 0.0 for version in numbers}
    scores = {version: score for version, (_, score) in numbers.items() if score is not None}
    rows = [
        Row(
            version=version,
            recipe=recipes[version],
            validation=validation[version],
            score=scores.get(version),
            unseen=unseen[version],
            by_validation=_rank(version, validation),
            by_score=_rank(version, scores) if version in scores else None,
        )
        for version in numbers
    ]
    return sorted(rows, key=lambda row: -row.unseen)


def _rank(version: str, values: Mapping[str, float]) -> int:
    return 1 + sum(value > values[version] for value in values.values())


def _show(done: commands.Performed, rows: Sequence[Row], uri: str) -> None:
    console, record = Console(highlight=False), done.record
    terminal.show_audit(record, console)
    table = Table(title="The reveal: digits of 13 writers that nobody had seen", title_justify="left", box=None)
    for name in ("version", "recipe", "unseen writers", "validation (rank)", "flataudit score (rank)"):
        table.add_column(name, justify="left" if name in ("version", "recipe") else "right")
    kept = record.decision.promoted or record.decision.champion if record.decision else None
    for row in rows:
        score = "none" if row.score is None else f"{row.score:.4f} ({row.by_score})"
        mark = " <- champion now" if f"v{row.version}" == kept else ""
        table.add_row(
            f"v{row.version}",
            row.recipe + mark,
            f"{row.unseen:.4f}",
            f"{row.validation:.4f} ({row.by_validation})",
            score,
        )
    console.print(table)
    console.print(_verdict(rows, kept))
    run_id = record.evidences[0].candidate.run_id
    tools = "" if shutil.which("flataudit") else f"{Path(sys.executable).parent}/"
    console.print("\nTry next:", style="bold")
    for command in (
        f"{tools}mlflow ui --backend-store-uri {uri}",
        f"xdg-open {done.folder / 'report.html'}",
        f"{tools}flataudit score --run-id {run_id} --tracking-uri {uri}",
    ):
        console.print(f"  {command}", soft_wrap=True, markup=False)


def _verdict(rows: Sequence[Row], kept: str | None) -> str:
    """What the unseen writers say of the two ways to choose, whichever was better."""
    chosen = next((row for row in rows if f"v{row.version}" == kept), None)
    naive = min(rows, key=lambda row: (row.by_validation, int(row.version)))
    if chosen is None:
        return "The champion is a model of an earlier demo in this folder; it was kept."
    difference = 100 * (chosen.unseen - naive.unseen)
    said = (
        "the same model" if chosen is naive else f"{difference:+.2f} points against validation's pick, {naive.recipe}"
    )
    best = 100 * (rows[0].unseen - chosen.unseen)
    return (
        f"On the unseen writers flataudit's pick, {chosen.recipe}, is {said}; "
        f"the best candidate is {best:.2f} points above it."
    )
