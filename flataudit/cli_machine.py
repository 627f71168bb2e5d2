"""The commands about this installation, and about examples: `probes`, `doctor`, `schema`, `plan`."""

import json
from typing import Annotated

import typer

from flataudit.errors import ConfigurationError
from flataudit.options import Config, Json, TrackingUri, answer, console

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (probes, doctor, schema, plan):
        app.command()(command)


def probes(as_json: Json = False) -> None:
    """What is installed: probes with their metrics, and every other plugin."""
    from flataudit import commands, terminal

    rows = commands.listing()
    if as_json:
        answer({"schema": "flataudit/probes/1", "plugins": rows}, True)
    else:
        terminal.show_listing(rows, console())


def doctor(config: Config = None, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """What works on this machine: registry, devices, isolation."""
    from flataudit import commands, terminal

    found = commands.checks(tracking_uri, commands.read_config(config) if config else None)
    if as_json:
        answer({"schema": "flataudit/doctor/1", "checks": [check.model_dump() for check in found]}, True)
    else:
        terminal.show_checks(found, console())
    raise typer.Exit(0 if all(check.ok for check in found) else 3)


def schema() -> None:
    """The JSON Schema of flataudit.yaml."""
    from flataudit.config import AuditConfig

    typer.echo(json.dumps(AuditConfig.model_json_schema(), indent=2))


def plan(
    margin: Annotated[float, typer.Option(min=1e-6, max=1, help="Difference that matters, in accuracy.")] = 0.01,
    discordance: Annotated[
        float, typer.Option(min=1e-6, max=1, help="Share of examples on which the two models' correctness differs.")
    ] = 0.06,
    accuracy: Annotated[float, typer.Option(min=0, max=1, help="Expected accuracy of one model.")] = 0.9,
    challengers: Annotated[int, typer.Option(min=1, help="Challengers compared at once.")] = 1,
    decision: Annotated[
        int | None, typer.Option(min=1, help="Which decision on one validation set it is: the level is its share of α.")
    ] = None,
    examples: Annotated[int | None, typer.Option(min=2, help="Also: what so many examples can show.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    power: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.8,
    as_json: Json = False,
) -> None:
    """How many validation examples a margin needs, and what a number of examples can show."""
    from flataudit import planning

    if discordance < margin**2:
        raise ConfigurationError(
            "a discordance of at least margin²", got=f"{discordance:g}", remedy="raise --discordance"
        )
    level = confidence if decision is None else 1 - planning.alpha_of_decision(decision, 1 - confidence)
    better, equal = {"confidence": level, "power": power}, {"confidence": confidence, "power": power}
    rows = {
        f"one accuracy within ± {margin:g}": planning.examples_for_accuracy(accuracy, margin, confidence),
        f"a paired difference of {margin:g} is detected": planning.examples_for_difference(
            margin, discordance, challengers=challengers, **better
        ),
        f"an equal challenger is shown not worse by {margin:g}": planning.examples_for_non_inferior_accuracy(
            margin, discordance, **equal
        ),
    }
    document: dict[str, object] = {"schema": "flataudit/plan/1", "examples": rows}
    text = "validation examples so that\n" + "\n".join(f"{n:>9,}  {what}" for what, n in rows.items())
    if examples is not None:
        shown = {
            "smallest difference that is detected": planning.detectable_difference(
                examples, discordance, challengers=challengers, **better
            ),
            "smallest margin within which an equal challenger is shown not worse": planning.detectable_margin(
                examples, discordance, **equal
            ),
        }
        document["shown_by"] = {"examples": examples} | shown
        lines = "\n".join(f"{value:>9.4f}  {what}" for what, value in shown.items())
        text += f"\nwith {examples:,} examples\n{lines}"
    answer(document, as_json, text)
