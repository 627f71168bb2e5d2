"""What `flataudit history`, `rollback` and `resume` do, once their arguments are read."""

from collections.abc import Sequence
from typing import Protocol, cast

from pydantic import JsonValue

from flataudit import plugins
from flataudit.actor import actor
from flataudit.contracts import Receipt
from flataudit.errors import NotFoundError, RegistryError
from flataudit.ledger import History, Resumed

__all__ = ["account", "account_document", "account_exit_code", "resume", "resume_exit_code", "rollback"]


class _Keeper(Protocol):
    """The abilities of a registry that keeps a ledger."""

    def account(self) -> History: ...

    def ledgers(self) -> Sequence[str]: ...

    def rollback(self, *, version: str | None, reason: str, actor: str) -> Receipt: ...

    def resume(self) -> Sequence[Resumed]: ...


def account(model: str, alias: str, *, tracking_uri: str | None = None) -> History:
    """The ledger of a model beside what its alias points to."""
    return _keeper(model, alias, tracking_uri).account()


def account_document(found: History) -> dict[str, JsonValue]:
    """The same as one JSON document."""
    endings = found.ledger.endings
    champion = found.ledger.champion(found.alias)
    return {
        "schema": "flataudit/history/1",
        "model": found.ledger.model,
        "alias": found.alias,
        "ledger_run": found.ledger_run,
        "entries": [
            entry.model_dump(mode="json") | {"ending": endings.get(entry.sequence)} for entry in found.ledger.entries
        ],
        "champion": champion.model_dump(mode="json") if champion else None,
        "found": found.found.model_dump(mode="json"),
        "drift": found.drift,
        "unfinished": [entry.sequence for entry in found.unfinished],
        "problems": list(found.ledger.problems()),
    }


def account_exit_code(found: History) -> int:
    """0 all is well, 1 the alias was moved by no gate or a promotion is unfinished, 3 the chain is broken."""
    if found.ledger.problems():
        return 3
    return 1 if found.drift or found.unfinished else 0


def rollback(model: str, alias: str, *, to: str | None, reason: str, tracking_uri: str | None = None) -> Receipt:
    """Restore a former champion as a new decision."""
    return _keeper(model, alias, tracking_uri).rollback(version=to, reason=reason, actor=actor())


def resume(model: str | None, *, tracking_uri: str | None = None) -> list[Resumed]:
    """Finish or close what was left open, of one model or of all that have a ledger."""
    if model:
        return list(_keeper(model, "champion", tracking_uri).resume())
    found: list[Resumed] = []
    broken: RegistryError | None = None
    for name in _keeper("unknown", "champion", tracking_uri).ledgers():
        try:
            found += _keeper(name, "champion", tracking_uri).resume()
        except NotFoundError:  # a model that was deleted leaves its ledger behind
            continue
        except RegistryError as error:  # the others are finished all the same
            broken = broken or error
    if broken is not None:
        raise broken
    return found


def resume_exit_code(found: Sequence[Resumed]) -> int:
    """0 nothing was open or all is done, 1 something was closed without moving its alias."""
    return 0 if all(one.ending == "done" for one in found) else 1


def _keeper(model: str, alias: str, tracking_uri: str | None) -> _Keeper:
    params: dict[str, JsonValue] = {"model": model, "champion_alias": alias}
    if tracking_uri:
        params["tracking_uri"] = tracking_uri
    return cast("_Keeper", plugins.make("registries", "mlflow", params))
