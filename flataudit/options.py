"""What the commands share: their options, and how they answer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Alias",
    "Config",
    "Device",
    "Engine",
    "Fresh",
    "Json",
    "Out",
    "Quiet",
    "Seed",
    "TrackingUri",
    "Trust",
    "answer",
    "console",
]

Alias = Annotated[str, typer.Option(help="Alias of the champion.")]
Config = Annotated[Path | None, typer.Option(help="Policy file; else flataudit.yaml.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")]
Engine = Annotated[str | None, typer.Option(help="Where probes run: process (isolated) or local (debugging).")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure anew what was measured before.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Out = Annotated[Path | None, typer.Option(help="New folder for records and reports.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")]
TrackingUri = Annotated[str | None, typer.Option(help="Registry; else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.")]
Trust = Annotated[bool | None, typer.Option("--trust", help="Loading may run the candidates' own code (pickles).")]


def answer(document: Mapping[str, Any], as_json: bool, text: str = "") -> None:
    """The document, or the same in words."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else text)


def console(stderr: bool = False) -> Any:
    """A terminal that marks nothing by itself."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)
