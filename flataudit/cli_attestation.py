"""The commands on attestations: `keygen`, `sign` and `verify`; `flataudit.cli` registers them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flataudit.options import Json, TrackingUri, answer

if TYPE_CHECKING:
    from flataudit.attestation.verifying import Verification

__all__ = ["register"]

_STYLES = {"verified": "bold green", "unsigned": "bold yellow", "failed": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (keygen, sign, verify):
        app.command()(command)


def keygen(
    out: Annotated[Path, typer.Option(help="File of the private key; the public one is put beside it.")] = Path(
        "flataudit.key"
    ),
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Do not encrypt the private key.")] = False,
    as_json: Json = False,
) -> None:
    """Make the key pair that decisions are signed with; the passphrase is FLATAUDIT_KEY_PASSPHRASE, or asked for."""
    from flataudit import attestation_commands
    from flataudit.report.escaping import terminal_text

    secret = None if no_passphrase else attestation_commands.passphrase() or _asked()
    made = attestation_commands.keygen(out, secret)
    told = {"private": str(made.private), "public": str(made.public), "key_id": made.key_id}
    text = f"private key {made.private}, for the gate alone; public key {made.public}, for whoever verifies"
    answer({"schema": "flataudit/keygen/1", **told}, as_json, terminal_text(f"{text}; key id {made.key_id}"))


def sign(
    uri: Annotated[str, typer.Argument(help="models:/name/3, models:/name@alias, or a folder with a model's files.")],
    key: Annotated[
        Path | None, typer.Option(help="File of the private key; else FLATAUDIT_SIGNING_KEY(_FILE).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New file, or a folder for it; else approvals.")] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it ends.")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Approve with your key that these bytes may run their own code, where a policy trusts you as a signer."""
    from flataudit import attestation_commands
    from flataudit.report.escaping import terminal_text

    made = attestation_commands.sign(uri, key=key, out=out, expires_days=expires_days, tracking_uri=tracking_uri)
    subject, terms = made.approval.subject[0], made.approval.predicate
    told = {"file": str(made.file), "name": subject.name, "digest": made.approval.digest, "key_id": made.key_id}
    until = f"until {terms.expires}" if terms.expires else "without an end"
    text = f"{made.file}: {subject.name} may run its own code, {until}; bytes {made.approval.digest}, key {made.key_id}"
    answer({"schema": "flataudit/sign/1", **told, "expires": terms.expires}, as_json, terminal_text(text))


def verify(
    uri: Annotated[str, typer.Argument(help="models:/name@alias, models:/name/3, or a folder with a model's files.")],
    key: Annotated[Path | None, typer.Option(help="Public key that must have signed, or a folder of them.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file that must have judged.")] = None,
    offline: Annotated[Path | None, typer.Option(help="Folder with attestation.dsse.json; asks no registry.")] = None,
    min_sequence: Annotated[int, typer.Option(min=1, help="Lowest number of a decision that is accepted.")] = 1,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Accept what agrees, though nobody that you trust signed it.")
    ] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Hash a model's bytes anew and check who attested them, by which policy, and that nothing was changed since."""
    from flataudit import attestation_commands as commands

    asked = commands.Asked(uri, key, policy, offline, min_sequence, allow_unsigned, tracking_uri)
    found = commands.verify(asked)
    if as_json:
        typer.echo(json.dumps(commands.verification_document(found, uri), indent=1, ensure_ascii=True))
    else:
        _show(found, uri)
    raise typer.Exit(commands.verification_exit_code(found))


def _asked() -> str:
    from flataudit.errors import ConfigurationError

    try:
        given: str = typer.prompt("passphrase of the new key", hide_input=True, confirmation_prompt=True, err=True)
    except typer.Abort as error:
        remedy = "set FLATAUDIT_KEY_PASSPHRASE, or say --no-passphrase"
        raise ConfigurationError("a passphrase", got="none", remedy=remedy) from error
    return given


def _show(found: "Verification", uri: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from flataudit.report.escaping import terminal_text

    console = Console(highlight=False)
    head = Text.assemble((found.result.upper(), _STYLES[found.result]), "  ", terminal_text(uri))
    console.print(head, soft_wrap=True)
    for line in (f"{fault.field}: {fault.told}" for fault in found.faults):
        console.print(Text(terminal_text(line), style="red"), soft_wrap=True)
    for line in _facts(found):
        console.print(Text(terminal_text(line)), soft_wrap=True)


def _facts(found: "Verification") -> list[str]:
    """What is attested, in a line each."""
    lines = [f"bytes {found.digest}"]
    if found.statement is not None:
        told, terms = found.statement.predicate, found.statement.terms
        by = f", policy {told.policy.digest.named}" if told.policy.digest else ""
        lines.append(f"decision {terms.sequence} of {terms.model} {terms.alias}: {terms.kind}, audit {terms.audit}{by}")
        until = f", expires {terms.expires}" if terms.expires else ""
        lines.append(f"said by {terms.actor} at {told.time_verified}{until}")
    if found.signed_by:
        lines.append(f"signed by {', '.join(found.signed_by)}")
    elif found.result == "unsigned":
        lines.append(
            "nobody whom you trust vouches for it: anyone who can write to the registry could have written this"
        )
    if found.unchecked:
        lines.append(f"not here, and not compared: {', '.join(found.unchecked)}")
    return lines
