"""The command line: reads arguments, says how it ended, exits with a code a pipeline can trust.

Standard output carries the result (with ``--json`` one JSON document), standard error everything else. Commands
import what they need when they run, so that ``--help`` answers at once.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flataudit.errors import ConfigurationError, FlatauditError

if TYPE_CHECKING:
    from flataudit.commands import Performed

__all__ = ["app", "main"]

_UsageError: Any = typer.BadParameter.__mro__[1]
"""The class of all of typer's complaints about arguments, which it does not export."""

app = typer.Typer(
    name="flataudit",
    help="Measure candidate models, decide by a policy, and write the decision to the registry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TrackingUri = Annotated[str | None, typer.Option(help="Registry; else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Config = Annotated[Path | None, typer.Option(help="Policy file; else flataudit.yaml.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")]
Engine = Annotated[str | None, typer.Option(help="Where probes run: process (isolated) or local (debugging).")]
Out = Annotated[Path | None, typer.Option(help="New folder for records and reports.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure anew what was measured before.")]
Trust = Annotated[bool | None, typer.Option("--trust", help="Loading may run the candidates' own code (pickles).")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from flataudit import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    dir: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("flataudit-demo"),
    as_json: Json = False,
) -> None:
    """The whole main job on real data: train, log, register, gate, promote, report."""
    from flataudit import plugins

    run_demo: Callable[..., int] = plugins.load("commands", "demo")
    raise typer.Exit(run_demo(dir, as_json=as_json))


@app.command()
def init(
    model: Annotated[str, typer.Option(help="Registered model.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("flataudit.yaml"),
    force: Annotated[bool, typer.Option(help="Overwrite the file.")] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Write a commented policy file from what the registry knows of a model."""
    from flataudit import commands

    if out.exists() and not force:
        raise ConfigurationError(f"no file at {out}", got="one", remedy="overwrite it with --force")
    out.write_text(commands.policy_file(model, tracking_uri), encoding="utf-8")
    _answer(
        {"schema": "flataudit/init/1", "path": str(out)},
        as_json,
        f"wrote {out}; check its data paths, then: flataudit gate",
    )


@app.command()
def score(
    run_id: Annotated[str, typer.Option(help="Run whose models are measured, checkpoints too.")],
    data: Annotated[Path | None, typer.Option(help="Validation data (.npz, .csv, .parquet).")] = None,
    config: Config = None,
    task: Annotated[str | None, typer.Option(help="multiclass, binary or regression.")] = None,
    outputs: Annotated[str | None, typer.Option(help="logits, probabilities or values.")] = None,
    tracking_uri: TrackingUri = None,
    seed: Seed = None,
    device: Device = None,
    engine: Engine = None,
    trust: Trust = None,
    fresh: Fresh = False,
    out: Out = None,
    dry_run: Annotated[bool, typer.Option(help="Write nothing to the registry.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure every model of a run and log metrics and report to it; decides nothing."""
    from flataudit import commands

    chosen = (
        commands.run_config(run_id, data, tracking_uri) if config is None else commands.for_run(config, run_id, data)
    )
    chosen = commands.with_options(
        chosen, seed=seed, device=device, engine=engine, trust=trust, task=task, outputs=outputs
    )
    _perform(
        "score", chosen, tracking_uri=tracking_uri, out=out, dry_run=dry_run, fresh=fresh, quiet=quiet, as_json=as_json
    )


@app.command()
def gate(
    config: Config = None,
    model: Annotated[str | None, typer.Option(help="Registered model, instead of the file's.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Decide, and write nothing to the registry.")] = False,
    tracking_uri: TrackingUri = None,
    seed: Seed = None,
    device: Device = None,
    engine: Engine = None,
    trust: Trust = None,
    fresh: Fresh = False,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure champion and challengers, decide by the policy, promote, exit with the verdict."""
    from flataudit import commands

    chosen = commands.with_options(
        commands.read_config(config), model=model, seed=seed, device=device, engine=engine, trust=trust
    )
    _perform(
        "gate", chosen, tracking_uri=tracking_uri, out=out, dry_run=dry_run, fresh=fresh, quiet=quiet, as_json=as_json
    )


@app.command()
def audit(
    config: Config = None,
    tracking_uri: TrackingUri = None,
    seed: Seed = None,
    device: Device = None,
    engine: Engine = None,
    trust: Trust = None,
    fresh: Fresh = False,
    out: Out = None,
    dry_run: Annotated[bool, typer.Option(help="Write nothing to the registry.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the champion on today's data against the policy's absolute limits (the scheduled job)."""
    from flataudit import commands

    chosen = commands.with_options(commands.read_config(config), seed=seed, device=device, engine=engine, trust=trust)
    _perform(
        "audit", chosen, tracking_uri=tracking_uri, out=out, dry_run=dry_run, fresh=fresh, quiet=quiet, as_json=as_json
    )


@app.command()
def compare(
    audits: Annotated[list[str], typer.Argument(help="Folders of audits or audit runs; AUDIT:v8 picks a candidate.")],
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Stored audits side by side, with intervals."""
    from flataudit import commands, terminal

    found = commands.evidences_of(audits, tracking_uri)
    if as_json:
        rows = [{"label": label, "evidence": evidence.model_dump(mode="json")} for label, evidence in found]
        _answer({"schema": "flataudit/compare/1", "candidates": rows}, True)
    else:
        terminal.show_comparison(found, _console())


@app.command()
def report(
    audit: Annotated[str, typer.Argument(help="Folder of an audit, or an audit run of the registry.")],
    format: Annotated[str, typer.Option(help="html, md, junit or json.")] = "md",
    out: Annotated[Path | None, typer.Option(help="File to write; else standard output.")] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Render a stored audit from its records alone."""
    from flataudit import archive, commands
    from flataudit.errors import ReportError

    record, arrays = commands.loaded_audit(audit, tracking_uri)
    _, text = archive.render(record, arrays, format)
    if out is None:
        typer.echo(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"to write {out}", got=error.strerror or str(error), remedy="choose another file") from error


@app.command()
def probes(as_json: Json = False) -> None:
    """What is installed: probes with their metrics, and every other plugin."""
    from flataudit import commands, terminal

    rows = commands.listing()
    if as_json:
        _answer({"schema": "flataudit/probes/1", "plugins": rows}, True)
    else:
        terminal.show_listing(rows, _console())


@app.command()
def doctor(config: Config = None, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """What works on this machine: registry, devices, isolation."""
    from flataudit import commands, terminal

    found = commands.checks(tracking_uri, commands.read_config(config) if config else None)
    if as_json:
        _answer({"schema": "flataudit/doctor/1", "checks": [check.model_dump() for check in found]}, True)
    else:
        terminal.show_checks(found, _console())
    raise typer.Exit(0 if all(check.ok for check in found) else 3)


@app.command()
def schema() -> None:
    """The JSON Schema of flataudit.yaml."""
    from flataudit.config import AuditConfig

    typer.echo(json.dumps(AuditConfig.model_json_schema(), indent=2))


@app.command()
def plan(
    margin: Annotated[float, typer.Option(min=1e-6, max=1, help="Difference that matters, in accuracy.")] = 0.01,
    discordance: Annotated[
        float, typer.Option(min=1e-6, max=1, help="Share of examples on which the two models' correctness differs.")
    ] = 0.06,
    accuracy: Annotated[float, typer.Option(min=0, max=1, help="Expected accuracy of one model.")] = 0.9,
    challengers: Annotated[int, typer.Option(min=1, help="Challengers compared at once.")] = 1,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    power: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.8,
    as_json: Json = False,
) -> None:
    """How many validation examples a margin needs."""
    from flataudit import planning

    if discordance < margin**2:
        raise ConfigurationError(
            "a discordance of at least margin²", got=f"{discordance:g}", remedy="raise --discordance"
        )
    settings = {"confidence": confidence, "power": power}
    rows = {
        f"one accuracy within ± {margin:g}": planning.examples_for_accuracy(accuracy, margin, confidence),
        f"a paired difference of {margin:g} is detected": planning.examples_for_difference(
            margin, discordance, challengers=challengers, **settings
        ),
        f"an equal challenger is shown not worse by {margin:g}": planning.examples_for_non_inferiority(
            margin, discordance, **settings
        ),
    }
    table = "\n".join(f"{n:>9,}  {what}" for what, n in rows.items())
    _answer({"schema": "flataudit/plan/1", "examples": rows}, as_json, f"validation examples so that\n{table}")


def main() -> None:
    """Run the command line; every refusal is one clear sentence and the right exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False) or 0
    except typer.Exit as ended:
        code = ended.exit_code
    except _UsageError as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted; the registry was not touched after this point", err=True)
        code = 130
    except FlatauditError as error:
        code = _refuse(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _terminated(number: int, frame: object) -> None:
    """End as an interruption does, so that workers and scratch folders are cleaned up."""
    raise KeyboardInterrupt


def _refuse(error: FlatauditError) -> int:
    if "--json" in sys.argv:
        told = {"kind": type(error).__name__, "expected": error.expected, "got": error.got, "remedy": error.remedy}
        _answer({"schema": "flataudit/error/1", "error": told, "exit_code": error.exit_code}, True)
    from flataudit.report.escaping import terminal_text

    typer.echo(f"error: {terminal_text(str(error))}", err=True)
    return error.exit_code


def _answer(document: dict[str, Any], as_json: bool, text: str = "") -> None:
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else text)


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _perform(kind: Any, config: Any, *, quiet: bool, as_json: bool, **options: Any) -> None:
    from flataudit import archive, commands, terminal

    with _progress(quiet) as progress:
        done: Performed = commands.perform(kind, config, progress=progress, **options)
    if as_json:
        _, arrays = archive.read(done.folder)
        typer.echo(archive.render(done.record, arrays, "json")[1])
    else:
        terminal.show_audit(done.record, _console())
        typer.echo(f"report: {done.folder / 'report.html'}", err=True)
    raise typer.Exit(commands.exit_code(done.record))


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    from flataudit import terminal

    if quiet:
        yield lambda label, what, share: None
        return
    with terminal.progress_reporter(_console(stderr=True)) as progress:
        yield progress
