"""The commands on the ledger of decisions: `history`, `rollback`, `resume`; `flataudit.cli` registers them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flataudit.options import Alias, Json, TrackingUri

if TYPE_CHECKING:
    from rich.text import Text

    from flataudit.ledger import History, LedgerEntry, Resumed

__all__ = ["register"]

Model = Annotated[str, typer.Argument(help="Registered model.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (history, rollback, resume):
        app.command()(command)


def history(name: Model, alias: Alias = "champion", tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Every decision on a model, verified; says whether somebody moved the alias, and what is unfinished."""
    from flataudit import ledger_commands

    found = ledger_commands.account(name, alias, tracking_uri=tracking_uri)
    if as_json:
        typer.echo(json.dumps(ledger_commands.account_document(found), indent=1, ensure_ascii=False))
    else:
        _show_history(found)
    raise typer.Exit(ledger_commands.account_exit_code(found))


def rollback(
    name: Model,
    to: Annotated[str | None, typer.Option(help="Version that was champion once; else the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")] = "",
    alias: Alias = "champion",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Restore a former champion as a new decision; its bytes must be those that were champion."""
    from flataudit import ledger_commands
    from flataudit.report.escaping import terminal_text

    receipt = ledger_commands.rollback(name, alias, to=to, reason=reason, tracking_uri=tracking_uri)
    if as_json:
        told = {"schema": "flataudit/rollback/1", "model": name, "alias": alias} | receipt.model_dump(mode="json")
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    typer.echo(terminal_text(f"{alias!r} of {name} is version {receipt.promoted} again (entry {receipt.sequence})"))
    for note in receipt.notes:
        typer.echo(terminal_text(note), err=True)


def resume(
    name: Annotated[str | None, typer.Argument(help="Registered model; else all that have a ledger.")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Finish or close the promotions that a crash left open; does nothing where none is."""
    from flataudit import ledger_commands
    from flataudit.report.escaping import terminal_text

    found = ledger_commands.resume(name, tracking_uri=tracking_uri)
    if as_json:
        rows = [one.model_dump(mode="json") for one in found]
        typer.echo(json.dumps({"schema": "flataudit/resume/1", "resumed": rows}, indent=1, ensure_ascii=False))
    else:
        for one in found:
            typer.echo(terminal_text(_told(one)))
        if not found:
            typer.echo("nothing is open")
    raise typer.Exit(ledger_commands.resume_exit_code(found))


def _told(one: "Resumed") -> str:
    place = f"entry {one.sequence}" if one.sequence else "not entered"
    return f"{one.model} {one.alias}: {one.kind} of {one.target} ({place}) {one.ending}" + (
        f": {one.told}" if one.told else ""
    )


def _show_history(found: "History") -> None:
    from rich.console import Console
    from rich.table import Table

    console, ledger = Console(highlight=False), found.ledger
    table = Table(title=_text(f"Decisions on {ledger.model}"), title_justify="left")
    for name in ("no.", "when", "decision", "from", "to", "ended", "by", "why"):
        table.add_column(name, overflow="fold")
    for entry in ledger.entries:
        table.add_row(*(_text(cell) for cell in _cells(entry, ledger.endings.get(entry.sequence))))
    if ledger.entries:
        console.print(table)
    for line, style in _findings(found):
        console.print(_text(line, style), soft_wrap=True)


def _cells(entry: "LedgerEntry", ending: str | None) -> list[str]:
    moves = entry.target is not None and entry.kind != "conflict"
    ended = (ending or "unfinished") if entry.moves else ""
    return [
        str(entry.sequence),
        entry.created[:16].replace("T", " "),
        entry.kind,
        str(entry.expected or ""),
        str(entry.target) if moves else "",
        ended,
        entry.actor,
        entry.why,
    ]


def _findings(found: "History") -> list[tuple[str, str]]:
    """What a person should act on, worst first, each with a style."""
    lines = [(f"BROKEN  {problem}", "bold red") for problem in found.ledger.problems()]
    if found.drift:
        champion = found.ledger.champion(found.alias)
        told = f"the ledger says {champion}, the alias {found.alias!r} points to {found.found}; no gate moved it"
        lines.append((f"DRIFT  {told}", "bold red"))
    for entry in found.unfinished:
        remedy = "finish it with: flataudit resume"
        lines.append((f"UNFINISHED  entry {entry.sequence}, {entry.kind} of {entry.target}; {remedy}", "yellow"))
    if not found.ledger.entries:
        lines.append((f"no decision on {found.ledger.model} is in a ledger yet", ""))
    elif not lines:
        lines.append((f"the chain of {len(found.ledger.entries)} holds; {found.alias!r} is {found.found}", "green"))
    return lines


def _text(text: str, style: str = "") -> "Text":
    from rich.text import Text

    from flataudit.report.escaping import terminal_text

    return Text(terminal_text(text), style=style)
