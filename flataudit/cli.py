"""The command line: reads arguments, says how it ended, exits with a code a pipeline can trust.

Standard output carries the result (with ``--json`` one JSON document), standard error everything else. Commands
import what they need when they run, so that ``--help`` answers at once.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flataudit import cli_attestation, cli_corruptions, cli_ledger, cli_machine, cli_records
from flataudit.errors import ConfigurationError, FlatauditError
from flataudit.options import Config, Device, Engine, Fresh, Json, Out, Quiet, Seed, TrackingUri, Trust, answer, console

if TYPE_CHECKING:
    from flataudit.commands import Performed

__all__ = ["app", "main"]

_INTERRUPTED = 130
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
    answer(
        {"schema": "flataudit/init/1", "path": str(out)},
        as_json,
        f"wrote {out}; check its data paths, then: flataudit gate",
    )


@app.command()
def score(
    run_id: Annotated[str | None, typer.Option(help="Run whose models are measured, checkpoints too.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Experiment whose runs' last models are measured.")] = None,
    filter: Annotated[str | None, typer.Option(help="Which runs of it, as in MLflow's search box.")] = None,
    order_by: Annotated[str | None, typer.Option(help="Best first: metrics.accuracy DESC; else newest first.")] = None,
    top: Annotated[int | None, typer.Option(min=1, max=200, help="The most runs of it (10).")] = None,
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
    """Measure every model of a run, or of a sweep, and log metrics and report to the runs; decides nothing."""
    from flataudit import commands

    who = commands.scored(run_id, experiment, filter=filter, order_by=order_by, top=top)
    chosen = commands.run_config(who, data, tracking_uri) if config is None else commands.for_run(config, who, data)
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


for _more in (cli_records, cli_ledger, cli_attestation, cli_machine, cli_corruptions):
    _more.register(app)


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
        code = _INTERRUPTED
    except FlatauditError as error:
        code = _refuse(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    if code == _INTERRUPTED:
        told = "what was measured is not measured again; a promotion that had begun is finished by `flataudit resume`"
        typer.echo(f"interrupted: {told}", err=True)
    sys.exit(code)


def _terminated(number: int, frame: object) -> None:
    """End as an interruption does, so that workers and scratch folders are cleaned up."""
    raise KeyboardInterrupt


def _refuse(error: FlatauditError) -> int:
    if "--json" in sys.argv:
        told = {"kind": type(error).__name__, "expected": error.expected, "got": error.got, "remedy": error.remedy}
        answer({"schema": "flataudit/error/1", "error": told, "exit_code": error.exit_code}, True)
    from flataudit.report.escaping import terminal_text

    typer.echo(f"error: {terminal_text(str(error))}", err=True)
    return error.exit_code


def _perform(kind: Any, config: Any, *, quiet: bool, as_json: bool, **options: Any) -> None:
    from flataudit import archive, commands, terminal

    with _progress(quiet) as progress:
        done: Performed = commands.perform(kind, config, progress=progress, **options)
    if as_json:
        _, arrays = archive.read(done.folder)
        typer.echo(archive.render(done.record, arrays, "json")[1])
    else:
        terminal.show_audit(done.record, console())
        typer.echo(f"report: {done.folder / 'report.html'}", err=True)
    raise typer.Exit(commands.exit_code(done.record))


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    from flataudit import terminal

    if quiet:
        yield lambda label, what, share: None
        return
    with terminal.progress_reporter(console(stderr=True)) as progress:
        yield progress
