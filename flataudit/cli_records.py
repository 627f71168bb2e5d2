"""The commands that read what was recorded: `compare`, `report`, `explain`; `flataudit.cli` registers them."""

from pathlib import Path
from typing import Annotated

import typer

from flataudit.options import Json, TrackingUri, answer, console

__all__ = ["register"]

Audit = Annotated[str, typer.Argument(help="Folder of an audit, or an audit run of the registry.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (compare, report, explain):
        app.command()(command)


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
        answer({"schema": "flataudit/compare/1", "candidates": rows}, True)
    else:
        terminal.show_comparison(found, console())


def report(
    audit: Audit,
    format: Annotated[str, typer.Option(help="html, md, junit, sarif or json.")] = "md",
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


def explain(
    audit: Audit,
    candidate: Annotated[str | None, typer.Option(help="One candidate only, as v8.")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Why an audit decided as it did: a paragraph a candidate, and every criterion with its numbers."""
    from flataudit import commands, terminal

    record, _ = commands.loaded_audit(audit, tracking_uri)
    found = commands.explained(record, candidate)
    if as_json:
        rows = [one.model_dump(mode="json") for one in found]
        answer({"schema": "flataudit/explain/1", "audit": record.id, "explanations": rows}, True)
    else:
        terminal.show_explanations(found, console())
