"""The commands on corruptions of inputs: `corruptions list` and `show`; `flataudit.cli` registers them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flataudit.options import Json

if TYPE_CHECKING:
    from flataudit.contracts import DataSource

__all__ = ["register"]

DataKind = Annotated[str | None, typer.Option(help="image, table, series or text.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_kinds)
    group.command("show")(show)
    app.add_typer(
        group, name="corruptions", help="Graded, seeded corruptions of inputs: what there is, and what it does."
    )


def list_kinds(data_kind: DataKind = None, as_json: Json = False) -> None:
    """Every corruption with its five strengths; * marks what the probe uses by default."""
    rows = _gallery("corruptions-list")(data_kind)
    if as_json:
        typer.echo(json.dumps({"schema": "flataudit/corruptions/1", "corruptions": rows}, indent=1, ensure_ascii=False))
        return
    for row in rows:
        amounts = ", ".join(f"{amount:g}" for amount in row["amounts"])
        mark = "*" if row["default"] else " "
        typer.echo(f"{row['data_kind']:6} {mark}{row['kind']:13} {amounts:32} {row['summary']}")


def show(
    kind: Annotated[str, typer.Argument(help="Name of a corruption.")],
    data_kind: DataKind = None,
    data: Annotated[Path | None, typer.Option(help="Inputs (.npz: array x), instead of made-up ones.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Strengths of equal effect on these inputs.")] = False,
    out: Annotated[Path | None, typer.Option(help="PNG to write (images).")] = None,
    as_json: Json = False,
) -> None:
    """One corruption at all severities: strengths, effect in standard deviations, a sample or a picture."""
    from flataudit.errors import ConfigurationError
    from flataudit.report.escaping import terminal_text

    inputs = None if data is None else _inputs(data)
    shown = _gallery("corruptions-show")(kind, data_kind, inputs=inputs, seed=seed, calibrate=calibrate)
    if out is not None:
        if shown.picture is None:
            raise ConfigurationError("images for a picture", got=f"a {shown.data_kind}", remedy="leave out --out")
        out.write_bytes(shown.picture)
    if as_json:
        told = {name: getattr(shown, name) for name in ("data_kind", "kind", "summary", "amounts", "effects", "told")}
        document = {"schema": "flataudit/corruption/1"} | told | {"picture": None if out is None else str(out)}
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return
    typer.echo(f"{shown.kind} ({shown.data_kind}): {shown.summary}")
    typer.echo(", ".join(f"{name}: {value}" for name, value in shown.told.items()))
    typer.echo(_row("severity", range(1, 6)))
    typer.echo(_row("strength", shown.amounts))
    typer.echo(_row("effect", shown.effects))
    typer.echo(f"wrote {out}" if out is not None else "\n".join(map(terminal_text, shown.printed.split("\n"))))


def _row(name: str, values: Sequence[float]) -> str:
    return f"{name:9}" + "".join(f"{value:>9.3g}" for value in values)


def _gallery(name: str) -> Callable[..., Any]:
    """By entry point: the command line imports no numerical library."""
    from flataudit import plugins

    return plugins.load("commands", name)


def _inputs(path: Path) -> Any:
    from flataudit import plugins

    source: DataSource = plugins.make("data", "npz", {"path": str(path)})  # type: ignore[assignment]
    return source.load(path.stem, "unlabelled").inputs
